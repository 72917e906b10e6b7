"""Where tensors lie in memory, what lies there, and what a call writes to it."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from relprop.calls.nested import tensors_in
from relprop.engine.keep import memory_of


def place_of(tensor: Tensor) -> int:
    """Return a number that identifies the storage of a tensor."""
    return memory_of(tensor) if tensor.layout is torch.strided else id(tensor)


def lies_of(tensor: Tensor) -> tuple[Any, ...] | None:
    """Return shape, strides, type and device of a tensor; None if it is sparse."""
    if tensor.layout is not torch.strided:
        return None
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def copied(tensor: Tensor) -> Tensor:
    """Return a copy that lies in memory in the same way, and begins where its memory begins."""
    with torch.no_grad():
        one = tensor[tuple([slice(0, 1 if stride == 0 else None) for stride in tensor.stride()])]  # expanded
        copy = torch.empty_strided(one.shape, one.stride(), dtype=tensor.dtype, device=tensor.device)
        return copy.copy_(one).as_strided(tensor.shape, tensor.stride())


def whole_memory_of(tensor: Tensor) -> Tensor:
    """Return a tensor of all that lies in the memory of another one, without a copy."""
    whole = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return whole.set_(tensor.untyped_storage())


def written_by(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the tensors that a call overwrites."""
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from tensors_in(args[i] if i < len(args) else kwargs.get(argument.name))
