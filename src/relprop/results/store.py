"""Explanations in files: safetensors for the tensors, JSON in their header for everything else.

Nothing in such a file is executed. Its header has one entry, "explanation", a JSON object: "format", the
version of all this; "relprop", the version that wrote it; "kind", the class of the result; "about", what is
explained, in words; and "fields". There a number, text or null stands for itself. Anything else is an object
with one key that says what it is: {"tensor": name}, {"list": [...]}, {"mapping": [[key, value], ...]},
{"Ledger": {field: value, ...}}, and {"text": "..."} for what can only be printed, such as functions. Rules
are texts.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

import relprop.targets as targets
from relprop.calls.site import Applied
from relprop.errors import FileError, InputError
from relprop.files import VERSION, path_of, write_whole
from relprop.results.inner import NOT_STORED, InnerRelevance
from relprop.results.ledger import Ledger

FORMAT = 2

Made = TypeVar("Made")


Records = Mapping[str, type[Any]]
"""What is stored field by field: classes of data, of which making one runs nothing but its own checks."""


def _records() -> dict[str, type[Any]]:
    known: list[Any] = [Applied, InnerRelevance, Ledger, *(vars(targets)[name] for name in targets.__all__)]
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

_DAMAGE = (
    *(KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError),
    *(NotImplementedError, RuntimeError),
)
"""What reading a header that was made by hand can raise."""

_AGAIN = "Save the explanation again, with explanation.save."


def save_record(path: Path | str, result: Any, about: Mapping[str, str], parts: Iterable[type] = ()) -> None:
    """Write a result's fields to a safetensors file, whole or not at all. A file at `path` is replaced.

    Tensors are stored bit by bit. Rules are stored as they print, and so is what is no tensor, number, text
    or collection of these, such as a target that is a function. The inputs and the model are not stored.

    Args:
        path: where to; its folder is made if it is missing.
        result: what to store, a dataclass.
        about: what the file says of it in words.
        parts: further classes of data in it.

    Raises:
        FileError: the file cannot be written.
        InputError: a tensor of a kind that safetensors cannot hold.
    """
    writing = _Writing({part.__name__: part for part in parts} | _RECORDS)
    fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    book = {
        "format": FORMAT,
        "relprop": VERSION,
        "kind": type(result).__name__,
        "about": about,
        "fields": {name: writing.encoded(value, name) for name, value in fields.items()},
    }
    tensors = writing.tensors
    wrong = [f"{name} ({t.dtype}, {t.layout})" for name, t in tensors.items() if not _can_be_stored(t)]
    if wrong:
        raise InputError(
            f"explanation.save({str(path)!r}): safetensors files cannot hold tensors such as "
            f"{', '.join(wrong)}. Convert them or leave them out, as in "
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


def load_record(
    path: Path | str,
    kind: type[Made],
    check: Callable[[Made], None],
    parts: Iterable[type] = (),
) -> Made:
    """Read what `save_record` wrote. Nothing in the file is executed.

    Args:
        path: of the file.
        kind: the class of the result.
        check: raises a ValueError where fields are of other kinds than they should be.
        parts: further classes of data in it.

    Raises:
        FileError: the file is missing, damaged, or no such result, or another version wrote it.
    """
    path = path_of(path, "load")
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise FileError(f"cannot read {path}: {why}. Check the name and the folder.") from error
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
        if book["format"] != FORMAT:
            remedy = "Install a newer relprop." if book["format"] > FORMAT else "Explain and save again."
            raise FileError(
                f"{path} was written by relprop {book.get('relprop')}, in format {book['format']}; this "
                f"version reads format {FORMAT}. {remedy}"
            )
        if book["kind"] != kind.__name__:
            raise FileError(
                f"{path} holds a {book['kind']} and no {kind.__name__}: relprop.{book['kind']}.load reads it."
            )
        records = {part.__name__: part for part in parts} | _RECORDS
        made = kind(**{name: _decoded(value, tensors, records) for name, value in book["fields"].items()})
        check(made)
        repr(made)  # which looks at every field
        return made
    except FileError:
        raise
    # Whatever a header that was made by hand can contain, it is the file's fault.
    except _DAMAGE as error:
        raise FileError(f"{path} holds a damaged explanation ({error!r}). {_AGAIN}") from error


class _Writing:
    """What becomes of a result's values in a file.

    Attributes:
        tensors: the tensors, by the name that they have in the file.
    """

    def __init__(self, records: Records) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._records = records
        self._names: dict[int, str] = {}

    def encoded(self, value: Any, name: str) -> Any:
        """Give what stands for a value in JSON, and note its tensors, under names that begin with `name`."""
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"float": repr(value)}
        if isinstance(value, Tensor):
            return {"tensor": self._noted(value, name)}
        kind = type(value).__name__
        if self._records.get(kind) is type(value):
            stored = [f.name for f in dataclasses.fields(value) if f.metadata != NOT_STORED]
            return {kind: {field: self._field(value, field, name) for field in stored}}
        if isinstance(value, Mapping):
            return {
                "mapping": [
                    [
                        self.encoded(key, f"{name}.{number}.key"),
                        self.encoded(item, f"{name}.{key if isinstance(key, str) else number}"),
                    ]
                    for number, (key, item) in enumerate(value.items())
                ]
            }
        if isinstance(value, (list, tuple)):
            items = [self.encoded(item, f"{name}.{number}") for number, item in enumerate(value)]
            return {"list" if isinstance(value, list) else "tuple": items}
        return {"text": text_of(value)}

    def _field(self, record: Any, field: str, name: str) -> Any:
        value = getattr(record, field)
        if isinstance(record, Applied) and field == "rule":
            return str(value)
        return self.encoded(value, f"{name}.{field}")

    def _noted(self, tensor: Tensor, name: str) -> str:
        known = self._names.get(id(tensor))
        if known is not None:  # as the output that several explanations share
            return known
        while name in self.tensors:  # as with the keys "a.b" and "a" with "b" in it
            name += "'"
        self.tensors[name], self._names[id(tensor)] = tensor.detach(), name
        return name


def _can_be_stored(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.dtype in _STORED and not tensor.is_meta


def _decoded(value: Any, tensors: Mapping[str, Tensor], records: Records) -> Any:
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
            return {
                _decoded(key, tensors, records): _decoded(item, tensors, records) for key, item in content
            }
        case "list":
            return [_decoded(item, tensors, records) for item in content]
        case "tuple":
            return tuple(_decoded(item, tensors, records) for item in content)
    return records[kind](**{name: _decoded(item, tensors, records) for name, item in content.items()})


def text_of(value: Any) -> str:
    """What stands for a value that can only be printed."""
    # A function prints as an address in memory; its name says more.
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if isinstance(name, str) and callable(value) else repr(value)
