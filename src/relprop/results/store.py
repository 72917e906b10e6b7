"""Explanations in files: safetensors for the tensors, JSON in their header for everything else.

Nothing in such a file is executed. Its header has one entry, "explanation", a JSON object: "format", the
version of all this; "relprop", the version that wrote it; "about", in words what is explained; and "fields".
There a number, text or null stands for itself; what else there is, is an object with one key that says what
it is: {"tensor": name}, {"list": [...]}, {"mapping": [[key, value], ...]}, {"Ledger": {field: value, ...}},
and {"text": "..."} for what can only be printed, such as functions. Rules are texts.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

import relprop.targets as targets
from relprop.calls.site import Applied
from relprop.errors import FileError, InputError
from relprop.files import VERSION, write_whole
from relprop.results.ledger import Ledger

FORMAT = 1

Made = TypeVar("Made")


def _records() -> dict[str, Any]:
    """What is stored field by field: classes of data, of which making one runs nothing but its own checks."""
    known: list[Any] = [Applied, Ledger, *(vars(targets)[name] for name in targets.__all__)]
    return {
        record.__name__: record
        for record in known
        if isinstance(record, type) and dataclasses.is_dataclass(record)
    }


_RECORDS = _records()

_STORED = (
    *(torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16, torch.float32, torch.float64),
    torch.complex64,
)
"""What safetensors can hold."""

_AGAIN = "Save the explanation again, with explanation.save."


def save_record(path: Path | str, fields: Mapping[str, Any], about: Mapping[str, str]) -> None:
    """Write an explanation's fields to a safetensors file, whole or not at all. A file at `path` is replaced.

    Tensors are stored bit by bit. Rules are stored as they print, and so is what is no tensor, number, text
    or collection of these, such as a target that is a function. The inputs and the model are not stored.

    Args:
        path: where to; its folder is made if it is missing.
        fields: what to store.
        about: what the file tells of it in words.

    Raises:
        FileError: the file cannot be written.
        InputError: a tensor of a kind that safetensors cannot hold.
    """
    tensors: dict[str, Tensor] = {}
    book = {
        "format": FORMAT,
        "relprop": VERSION,
        "about": about,
        "fields": {name: _encoded(value, name, tensors) for name, value in fields.items()},
    }
    wrong = [f"{name} ({t.dtype}, {t.layout})" for name, t in tensors.items() if not _can_be_stored(t)]
    if wrong:
        raise InputError(
            f"explanation.save({str(path)!r}): safetensors files hold no tensors such as "
            f"{', '.join(wrong)}. Convert or leave them out, as with "
            "dataclasses.replace(explanation, output=None)."
        )
    # A single entry: safetensors writes several in an order that changes from run to run.
    header = {"explanation": json.dumps(book, ensure_ascii=False, allow_nan=False)}
    # Copies: tensors that share memory, or repeat it, are none that safetensors stores.
    copies = {
        name: tensor.as_subclass(Tensor).cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    write_whole(Path(path), safetensors.torch.save(copies, header))


def load_record(path: Path | str, make: Callable[..., Made]) -> Made:
    """Read fields that `save_record` wrote, and make of them what was saved. Nothing in the file is executed.

    Args:
        path: of the file.
        make: what takes the fields by keyword; a ValueError of it says that they are none.

    Raises:
        FileError: the file is missing, damaged, or no explanation, or a later version wrote it.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}. Check the name and the folder.") from error
    try:
        tensors = safetensors.torch.load(content)
        # Now known to be whole: 8 bytes of length, and the header.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise FileError(
            f"{path} is truncated, damaged or not a safetensors file: {error}. {_AGAIN}"
        ) from error
    stored = header.get("__metadata__", {}).get("explanation")
    if stored is None:
        raise FileError(
            f"{path} is a safetensors file, but holds no explanation. Weights of models are read by "
            "relprop.load(name, weights=...)."
        )
    try:
        book = json.loads(stored)
        if book["format"] > FORMAT:
            raise FileError(
                f"{path} was written by relprop {book.get('relprop')}, in format {book['format']}; this "
                f"version reads formats up to {FORMAT}. Install a newer relprop."
            )
        fields = {name: _decoded(value, tensors) for name, value in book["fields"].items()}
        return make(**fields)
    except FileError:
        raise
    # Whatever a header that was made by hand can contain, it is the file's fault.
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise FileError(f"{path} holds a damaged explanation ({error!r}). {_AGAIN}") from error


def _encoded(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Give what stands for a value in JSON, and put its tensors into `tensors`, under names from `name`."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Tensor):
        while name in tensors:  # as with the keys "a.b" and "a" with "b" in it
            name += "'"
        tensors[name] = value.detach()
        return {"tensor": name}
    if type(value).__name__ in _RECORDS and type(value) is _RECORDS[type(value).__name__]:
        record = {
            field.name: str(value.rule)
            if isinstance(value, Applied) and field.name == "rule"
            else _encoded(getattr(value, field.name), f"{name}.{field.name}", tensors)
            for field in dataclasses.fields(value)
        }
        return {type(value).__name__: record}
    if isinstance(value, Mapping):
        pairs = enumerate(value.items())
        return {
            "mapping": [
                [
                    _encoded(key, f"{name}.{number}.key", tensors),
                    _encoded(item, f"{name}.{key if isinstance(key, str) else number}", tensors),
                ]
                for number, (key, item) in pairs
            ]
        }
    if isinstance(value, (list, tuple)):
        items = [_encoded(item, f"{name}.{number}", tensors) for number, item in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    return {"text": text_of(value)}


def _can_be_stored(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.dtype in _STORED and not tensor.is_meta


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    kind: str
    content: Any
    ((kind, content),) = value.items()
    match kind:
        case "float":
            return float(content)
        case "text":
            return str(content)
        case "tensor":
            return tensors[content]
        case "mapping":
            return {_decoded(key, tensors): _decoded(item, tensors) for key, item in content}
        case "list":
            return [_decoded(item, tensors) for item in content]
        case "tuple":
            return tuple(_decoded(item, tensors) for item in content)
    return _RECORDS[kind](**{name: _decoded(item, tensors) for name, item in content.items()})


def text_of(value: Any) -> str:
    """What stands for a value that can only be printed."""
    # A function prints as an address in memory; its name says more.
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if isinstance(name, str) and callable(value) else repr(value)
