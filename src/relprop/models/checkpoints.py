"""Reading files of weights of the usual kinds. Only tensors are read, and nothing in a file is executed."""

import difflib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relprop.errors import FileError
from relprop.zoo import fit, read_weights

# Keys of the weights in the checkpoint of a training program. The first key that is present is used.
_NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")

# Prefixes that wrappers put before every name, such as DataParallel, torch.compile and Lightning.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")

_COUNTER = "num_batches_tracked"


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Copy the weights in a file into a model. If one does not fit, none is copied.

    If the names have prefixes of wrappers that the model does not have, these are removed. Floating-point
    weights get the model's dtype.

    Args:
        model: the model. It is changed.
        path: a safetensors file, or a file that `torch.save` wrote: a state dict, or a checkpoint with one as
            "state_dict", "model_state_dict", "model", "net" or "weights".

    Raises:
        FileError: the file is missing or damaged, would run code on loading, or does not fit the model.
    """
    own = model.state_dict()
    state = _without_prefixes(read_checkpoint(path), own)
    # Old checkpoints do not have this count. Only training uses it.
    state = {name: own[name] for name in own if name.endswith(_COUNTER)} | state
    fit(model, {name: _as(value, own.get(name)) for name, value in state.items()}, str(path))


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors in a file of weights (see `load_checkpoint`), by their names in the file.

    Raises:
        FileError: the file is missing or damaged, would run code on loading, or has no weights.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        near = _near(path)
        raise FileError(f"cannot read the weights in {path}: {error.strerror}.{near}") from error
    # A zip archive, or a pickle of protocol 2 to 5. A safetensors file begins with the length of its header.
    if start == b"PK" or (start[:1] == b"\x80" and start[1:] in b"\2\3\4\5"):
        return _readable(_tensors(_read_torch(path, start == b"PK"), path), path)
    return _readable(read_weights(path), path)


def _readable(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file if there are any, each with its values one beside the other.

    Raises:
        FileError: there are none, or one has no such values.
    """
    if not state:
        raise FileError(
            f"{path} has no tensors. Store the weights with torch.save(model.state_dict(), 'weights.pt')."
        )
    for name, value in state.items():
        dense = value.layout == torch.strided and not value.is_nested
        if value.is_meta or not dense:
            kind = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
            kind = "without values, on the device meta" if value.is_meta else kind
            raise FileError(
                f"the weights in {path} cannot be used: {name} is {kind}. Store dense tensors with their "
                "values: {name: t.to_dense() for name, t in model.state_dict().items()}."
            )
    return state


def _read_torch(path: Path, zipped: bool) -> Any:
    damaged = f"{path} is truncated or damaged. Replace it by a whole copy."
    if zipped and not zipfile.is_zipfile(path):
        raise FileError(damaged)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+) (?:was not an allowed global|whose module)", str(error))
        what = f"would run code, {wanted[1]}" if wanted else "might run code, or it is damaged"
        raise FileError(
            f"{path} is not read: loading it {what}. relprop reads tensors only. Get the weights as "
            "safetensors. Or, if you trust the source of the file, load it in your own program and store the "
            "weights alone: torch.save(model.state_dict(), 'weights.pt')."
        ) from error
    # Unpacking a damaged archive can raise any exception.
    except Exception as error:
        if _is_program(path):
            raise FileError(
                f"{path} is not read: it is a TorchScript program and not a file of weights. Store the "
                "weights of the original model: torch.save(model.state_dict(), 'weights.pt')."
            ) from error
        raise FileError(damaged) from error


def _is_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of the state dict in the content of a checkpoint, by name."""
    found = content
    if isinstance(content, Mapping):
        for key in _NESTED:
            if isinstance(content.get(key), Mapping):
                found = content[key]
                break
    if isinstance(found, Mapping):
        tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    inside = f"only {', '.join(map(repr, list(content)[:6]))}" if isinstance(content, Mapping) else "no dict"
    raise FileError(
        f"{path} has no state dict, neither at its top nor under {', '.join(map(repr, _NESTED))}. It "
        f"contains {inside}. "
        "Store the weights with torch.save(model.state_dict(), 'weights.pt')."
    )


def _without_prefixes(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    while state.keys() != own.keys():
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None)
        # A prefix may be the name of a module in the model.
        if prefix is None or any(name.startswith(prefix) for name in own):
            break
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _as(value: Tensor, own: Tensor | None) -> Tensor:
    both_floating = own is not None and own.is_floating_point() and value.is_floating_point()
    return value.to(own.dtype) if own is not None and both_floating else value


def _near(path: Path) -> str:
    try:
        names = [file.name for file in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=3)
    return f" Near it are: {', '.join(near)}." if near else ""
