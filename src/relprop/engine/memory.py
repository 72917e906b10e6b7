"""Storage that several tensors of a model share, as a tensor and its views do."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from relprop.engine.known import (
    AmongZeros,
    Behind,
    Island,
    Origin,
    Place,
    Tag,
    ZeroPadding,
    behind_all,
    role_of,
)
from relprop.engine.roles import Role, of_joined


class Part(Protocol):
    """A wrapper tensor that is part of a memory, as `relprop.engine.seen.Seen` is."""

    offset: int

    def size(self) -> torch.Size:
        """Return the tensor's shape."""

    def stride(self) -> tuple[int, ...]:
        """Return the tensor's strides."""


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
        slot: the base's slot, which slots are written to as values are to the base, or None (see
            `relprop.engine.known.Tag`).
        replaced: values with their offsets and slots that are copied into the base before the next write.
        is_read: whether something may keep the present value.
        before: what was known about the base when nothing was written yet; None if it was a constant.
        behind: what lies between the explained inputs and the written values.
        role: the role that the base and all written values have together, as if they were joined.
        islands: the values that were written, as long as each was written into zeros.
        last: the place of the last write, and what is known about the value; None if that is a constant.
    """

    __slots__ = (
        *("base", "before", "behind", "is_read", "islands", "last", "lost", "positions", "replaced"),
        *("role", "slot", "version", "writes"),
    )

    def __init__(self, base: Tensor, before: Tag | None = None) -> None:
        self.base = base
        self.before = before
        self.positions: Tensor | None = None
        self.lost: Mapping[str, str] = {}
        self.writes: list[_Box | None] = []
        self.version = 0  # how often it was written to
        self.slot: Tensor | None = None
        self.replaced: list[tuple[int, Tensor, Tensor | None]] = []
        self.is_read = True
        self.behind = Behind() if before is None else before.behind
        self.role = Role.CONSTANT
        self.islands: tuple[Island, ...] = ()
        self.last: tuple[Place, Tag] | None = None

    def known(self, seen: Part) -> Tag:
        """Return what is still known of a tensor after a write through another one."""
        if self.last is not None and self.last[0] == _place_of(seen):
            return replace(self.last[1])
        slot = None if self.slot is None else self.slot.as_strided(seen.size(), seen.stride(), seen.offset)
        positive = bool(self.islands) and all([island.tag.nonnegative for island in self.islands])
        known = Tag(self.behind, positive, slot, role=self.role)
        if self.islands:
            known.origin = self._padded(seen) or self._among_zeros(seen, known)
        return known

    def learn(self, written: Tag | None) -> None:
        """Take into account what is known about a value that is written; None for a constant."""
        known = [tag for tag in (self.before, written) if tag is not None]
        self.before = None  # from here on it is part of what all have together
        self.behind = behind_all([Tag(self.behind), *known])
        self.role = of_joined([self.role, *map(role_of, known)])

    def note_island(self, seen: Part, value: Tensor, tag: Tag | None) -> None:
        """Record a value that is about to be written, if it is written into zeros."""
        first, place, known = not self.base.requires_grad, _place_of(seen), self.islands
        self.islands = ()
        if tag is None or not (first or known) or (first and bool(self.base.any())):
            return
        own = self.box(place)
        if len(known) < _MANY and not any(_overlap(own, self.box(island.place)) for island in known):
            self.islands = (*known, Island(place, value, tag))

    def _padded(self, whole: Part) -> ZeroPadding | None:
        """Return a tensor as the only value that was written, with zeros around it."""
        island, *others = self.islands
        if others or whole.stride() != island.place.strides:
            return None
        rest, pads = island.place.offset - whole.offset, list[int]()
        for size, stride, inner in zip(whole.size(), whole.stride(), island.place.shape, strict=True):
            first, rest = divmod(rest, stride) if size > 1 else (0, rest)
            pads = [first, size - inner - first, *pads]
        if rest or min(pads, default=0) < 0:
            return None  # it is another part of the memory
        while pads and pads[-2:] == [0, 0]:  # as for F.pad, the first dimensions are left out
            del pads[-2:]
        return ZeroPadding(recorded=island.recorded, tag=island.tag, pads=tuple(pads))

    def _among_zeros(self, whole: Part, known: Tag) -> Origin:
        """Return a tensor as values that were written to it, with zeros between them."""
        return AmongZeros(
            recorded=self.part(whole),
            tag=replace(known),
            islands=self.islands,
            place=_place_of(whole),
            memory=Place(0, self.base.size(), self.base.stride()),
        )

    def part(self, seen: Part) -> Tensor:
        """Return the present value of one of the tensors, a view of the base."""
        return self.base.as_strided(seen.size(), seen.stride(), self.base.storage_offset() + seen.offset)

    def write(self, seen: Part, value: Tensor, slot: Tensor | None, tag: Tag | None) -> Tensor:
        """Write a value and its slot over one of the tensors, and return its new value, a view of the base.

        Without a slot for the value, the base has none from then on.
        """
        self.last = None if tag is None else (_place_of(seen), tag)
        if self.slot is not None and (self.is_read or self.slot.stride() != self.base.stride()):
            self.slot = laid_out(self.slot, self.base.stride())
        if self.is_read:
            self.base, self.is_read = copy_of(self.base), False
        for offset, by, its_slot in self.replaced:
            at = self.base.storage_offset() + offset
            self.base.as_strided(by.size(), by.stride(), at).copy_(by)
            self._write_slot(by.size(), by.stride(), offset, its_slot)
        self.replaced = []
        part = self.part(seen)
        part.copy_(value)
        self._write_slot(seen.size(), seen.stride(), seen.offset, slot)
        self.writes.append(self.box(_place_of(seen)))
        self.version += 1
        return part

    def _write_slot(
        self, size: torch.Size, stride: tuple[int, ...], offset: int, slot: Tensor | None
    ) -> None:
        if self.slot is None or slot is None:
            self.slot = None
        else:
            self.slot.as_strided(size, stride, offset).copy_(slot)

    def box(self, place: Place) -> "_Box | None":
        """Return the part of the base that a tensor is, as a range for each stride of the base.

        None if the tensor is no such box.
        """
        strides = sorted({s for s in self.base.stride() if s}, reverse=True)
        sizes = {s: n for s, n in zip(place.strides, place.shape, strict=True) if n > 1}
        if not sizes.keys() <= {*strides}:
            return None
        box, rest = {}, place.offset
        for stride in strides:
            first, rest = divmod(rest, stride)
            box[stride] = (first, first + sizes.get(stride, 1))
        return box

    def changed(self, seen: Part, since: int) -> bool:
        """Whether a tensor was written to since version `since`, through itself or another tensor."""
        own = self.box(_place_of(seen))
        return any(_overlap(own, written) for written in self.writes[since:])


_MANY = 100
"""From this number of values on, it is no longer recorded what is zero between them."""

_Box = dict[int, tuple[int, int]]
"""For each stride the first place, and the place after the last."""


def _overlap(one: _Box | None, other: _Box | None) -> bool:
    if one is None or other is None:
        return True
    return all(low < other[s][1] and other[s][0] < high for s, (low, high) in one.items())


def _place_of(part: Part) -> Place:
    return Place(part.offset, part.size(), part.stride())


def copy_of(base: Tensor) -> Tensor:
    """Return a copy with the strides of the original; an original that is expanded is copied by `clone`."""
    copy = base.clone()
    same = copy.stride() == base.stride() or 0 in base.stride()
    return copy if same else laid_out(base, base.stride())


def laid_out(value: Tensor, strides: Sequence[int]) -> Tensor:
    """Return a copy of a value with these strides."""
    return torch.empty_strided(value.size(), strides, dtype=value.dtype, device=value.device).copy_(value)
