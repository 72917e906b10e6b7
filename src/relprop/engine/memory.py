"""Memory that several tensors of a model share, as a tensor and its views do."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Part(Protocol):
    """A tensor in a memory, where the model sees it (see `relprop.engine.seen.Seen`)."""

    offset: int

    def size(self) -> torch.Size:
        """Of the tensor."""

    def stride(self) -> tuple[int, ...]:
        """Of the tensor."""


class Memory:
    """What several seen tensors share: an earlier tensor that the others are views of.

    What is written to one of them is written to a copy of all, so that no value that something else keeps is
    ever overwritten; one copy does for writes between which nobody looks.

    Attributes:
        base: the present value of all, as autograd sees it.
        positions: of a base of integers (see `relprop.inputs.tokens`), or None.
        writes: where in the base it was written to, one after the other; `version` says how often.
        replaced: values that stand for parts of the base, and take their place before it is written to.
        is_read: whether somebody may have kept what is here.
        depth: how many linear operations lie before what is here.
    """

    __slots__ = ("base", "depth", "is_read", "positions", "replaced", "version", "writes")

    def __init__(self, base: Tensor) -> None:
        self.base = base
        self.positions: Tensor | None = None
        self.writes: list[_Box | None] = []
        self.version = 0  # how often it was written to
        self.replaced: list[tuple[int, Tensor]] = []
        self.is_read = True
        self.depth = 0

    def part(self, seen: Part) -> Tensor:
        """What one of the tensors is of the present value."""
        return self.base.as_strided(seen.size(), seen.stride(), self.base.storage_offset() + seen.offset)

    def write(self, seen: Part, value: Tensor) -> Tensor:
        """Write a value over one of the tensors, and return it as part of all."""
        if self.is_read:
            self.base, self.is_read = copy_of(self.base), False
        for offset, by in self.replaced:
            at = self.base.storage_offset() + offset
            self.base.as_strided(by.size(), by.stride(), at).copy_(by)
        self.replaced = []
        part = self.part(seen)
        part.copy_(value)
        self.writes.append(self.box(seen))
        self.version += 1
        return part

    def box(self, seen: Part) -> "_Box | None":
        """Which part of the base a tensor is, by the base's strides; None if it is no box of it."""
        strides = sorted((s for s in self.base.stride() if s), reverse=True)
        sizes = {s: n for s, n in zip(seen.stride(), seen.size(), strict=True) if n > 1}
        if not sizes.keys() <= set(strides):
            return None
        box, rest = {}, seen.offset
        for stride in strides:
            first, rest = divmod(rest, stride)
            box[stride] = (first, first + sizes.get(stride, 1))
        return box

    def changed(self, seen: Part, since: int) -> bool:
        """Whether a tensor was written to, by this name or another."""
        own = self.box(seen)
        return any(_overlap(own, written) for written in self.writes[since:])


_Box = dict[int, tuple[int, int]]
"""From strides to the first and the last place, exclusively."""


def _overlap(one: _Box | None, other: _Box | None) -> bool:
    if one is None or other is None:
        return True
    return all(low < other[s][1] and other[s][0] < high for s, (low, high) in one.items())


def copy_of(base: Tensor) -> Tensor:
    """A copy that lies in memory as the original does."""
    copy = base.clone()
    same = copy.stride() == base.stride() or 0 in base.stride()
    return copy if same else laid_out(base, base.stride())


def laid_out(value: Tensor, strides: Sequence[int]) -> Tensor:
    """A copy with these strides."""
    return torch.empty_strided(value.size(), strides, dtype=value.dtype, device=value.device).copy_(value)
