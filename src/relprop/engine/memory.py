"""Storage that several tensors of a model share, as a tensor and its views do."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from relprop.engine.known import Behind, Tag, ZeroPadding, behind_all, role_of
from relprop.engine.roles import Role, of_joined


class Part(Protocol):
    """A wrapper tensor that is part of a memory, as `relprop.engine.seen.Seen` is."""

    offset: int

    def size(self) -> torch.Size:
        """Return the tensor's shape."""

    def stride(self) -> tuple[int, ...]:
        """Return the tensor's strides."""


class _Island(NamedTuple):
    """A value in the midst of zeros: its place, what autograd sees of it, and what is known about it."""

    offset: int
    size: torch.Size
    stride: tuple[int, ...]
    value: Tensor
    tag: Tag


class Memory:
    """The storage that a wrapper tensor, the base, shares with its views.

    An in-place write to one of these tensors goes to a copy of the base, so that no value that autograd or a
    rule keeps is ever overwritten. Writes between which nothing is read share one copy.

    Attributes:
        base: the present value of the base, as autograd sees it.
        positions: the positions of token ids in a base of integers (see `relprop.inputs.tokens`), or None.
        lost: as the attribute of the wrapper tensor, for all that share the storage.
        writes: the part of the base that each write changed, in order.
        version: number of writes.
        replaced: values with their offsets that are copied into the base before the next write.
        is_read: whether something may keep the present value.
        before: what was known about the base when nothing was written yet; None if it was a constant.
        behind: what lies between the explained inputs and the written values.
        role: the role that the base and all written values have together, as if they were joined.
        island: the first value that was written, if the base was all zero.
    """

    __slots__ = (
        *("base", "before", "behind", "is_read", "island", "lost", "positions", "replaced"),
        *("role", "version", "writes"),
    )

    def __init__(self, base: Tensor, before: Tag | None = None) -> None:
        self.base = base
        self.before = before
        self.positions: Tensor | None = None
        self.lost: Mapping[str, str] = {}
        self.writes: list[_Box | None] = []
        self.version = 0  # how often it was written to
        self.replaced: list[tuple[int, Tensor]] = []
        self.is_read = True
        self.behind = Behind() if before is None else before.behind
        self.role = Role.CONSTANT
        self.island: _Island | None = None

    def known(self, seen: Part) -> Tag:
        """Return what is still known of a tensor after a write through another one."""
        return Tag(self.behind, origin=self._padded(seen), role=self.role)

    def learn(self, written: Tag | None) -> None:
        """Take into account what is known about a value that is written; None for a constant."""
        known = [tag for tag in (self.before, written) if tag is not None]
        self.before = None  # from here on it is part of what all have together
        self.behind = behind_all([Tag(self.behind), *known])
        self.role = of_joined([self.role, *map(role_of, known)])

    def note_island(self, seen: Part, value: Tensor, tag: Tag) -> None:
        """Record the first value that is written, if it is written into zeros."""
        if not self.version and not bool(self.base.any()):
            self.island = _Island(seen.offset, seen.size(), seen.stride(), value, tag)

    def _padded(self, whole: Part) -> ZeroPadding | None:
        """Return a tensor as the only value that was written, with zeros around it."""
        island = self.island
        if island is None or self.version > 1 or whole.stride() != island.stride:
            return None
        rest, pads = island.offset - whole.offset, list[int]()
        for size, stride, inner in zip(whole.size(), whole.stride(), island.size, strict=True):
            first, rest = divmod(rest, stride) if size > 1 else (0, rest)
            pads = [first, size - inner - first, *pads]
        if rest or min(pads, default=0) < 0:
            return None  # it is another part of the memory
        while pads and pads[-2:] == [0, 0]:  # as for F.pad, the first dimensions are left out
            del pads[-2:]
        return ZeroPadding(recorded=island.value, tag=island.tag, pads=tuple(pads))

    def part(self, seen: Part) -> Tensor:
        """Return the present value of one of the tensors, a view of the base."""
        return self.base.as_strided(seen.size(), seen.stride(), self.base.storage_offset() + seen.offset)

    def write(self, seen: Part, value: Tensor) -> Tensor:
        """Write a value over one of the tensors, and return its new value, a view of the base."""
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
        """Return the part of the base that a tensor is, as a range for each stride of the base.

        None if the tensor is no such box.
        """
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
        """Whether a tensor was written to since version `since`, through itself or another tensor."""
        own = self.box(seen)
        return any(_overlap(own, written) for written in self.writes[since:])


_Box = dict[int, tuple[int, int]]
"""For each stride the first place, and the place after the last."""


def _overlap(one: _Box | None, other: _Box | None) -> bool:
    if one is None or other is None:
        return True
    return all(low < other[s][1] and other[s][0] < high for s, (low, high) in one.items())


def copy_of(base: Tensor) -> Tensor:
    """Return a copy with the strides of the original; an original that is expanded is copied by `clone`."""
    copy = base.clone()
    same = copy.stride() == base.stride() or 0 in base.stride()
    return copy if same else laid_out(base, base.stride())


def laid_out(value: Tensor, strides: Sequence[int]) -> Tensor:
    """Return a copy of a value with these strides."""
    return torch.empty_strided(value.size(), strides, dtype=value.dtype, device=value.device).copy_(value)
