"""Zeros around values: a convolution that follows takes them as its own padding. They are no inputs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.crossing.affine import Affine
from relprop.engine.known import AmongZeros, Island, Origin, Place, Tag, Watch, ZeroPadding, behind_all
from relprop.engine.run import Run
from relprop.engine.seen import Seen
from relprop.linear.maps import Convolution, ConvolutionAmongZeros, SameValues


def with_padding(run: Run, origin: Origin | None, map_: Convolution) -> tuple[Origin | None, Convolution]:
    """Return what a convolution attaches to instead of its operand, or None, and the map with the padding.

    Args:
        run: the run.
        origin: the operation that made the operand, if a later one can attach to that one's operand.
        map_: the convolution, not transposed.
    """
    if isinstance(origin, AmongZeros):
        return _among_zeros(run, origin, map_)
    if not isinstance(origin, ZeroPadding) or len(origin.pads) > 2 * len(map_.kernel):
        return None, map_
    watches = tuple(_of_padded(watch, origin.pads) for watch in origin.watches)
    return replace(origin, watches=watches), replace(map_, pads=origin.pads)


def _of_padded(watch: Watch, pads: tuple[int, ...]) -> Watch:
    """Return the callback of a padded value, for relevance that arrives at the value without padding."""
    crop = [-pad for pad in pads]

    def watches(c: Tensor | None, direct: Tensor | None, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        padded = [None if t is None else F.pad(t, pads) for t in (c, direct)]
        c, direct = watch(padded[0], padded[1], F.pad(x, pads))
        return None if c is None else F.pad(c, crop), None if direct is None else F.pad(direct, crop)

    return watches


def _among_zeros(run: Run, x: AmongZeros, map_: Convolution) -> tuple[Origin | None, Convolution]:
    """Return what `with_padding` returns, for values among zeros."""
    affine = _one_affine(x)
    if affine is None and run.slots == "none":
        return None, map_  # no rule puts relevance on zeros
    inside = x.inside()
    if bool(inside.all()) or not torch.equal(inside, inside[:, :1].expand_as(inside)):
        return None, map_  # as for F.pad, padding has all channels
    root = None if affine is None else replace(x, tag=replace(x.tag, origin=affine))
    return root, ConvolutionAmongZeros(**vars(map_), inside=SameValues(inside))


def _one_affine(x: AmongZeros) -> Affine | None:
    """Return one record of the scales and shifts of all values, if all have the same."""
    first = x.islands[0].tag.origin
    origins = [island.tag.origin for island in x.islands]
    alike = [o for o in origins if isinstance(o, Affine) and not o.watches]
    if (
        len(alike) < len(origins)
        or not isinstance(first, Affine)
        or any(not o.same_steps(first) for o in alike)
    ):
        return None
    tags, slots = [o.tag for o in alike], [o.tag.slot for o in alike if o.tag.slot is not None]
    tag = Tag(behind_all(tags), all([tag.nonnegative for tag in tags]))
    if len(slots) == len(alike):
        tag.slot = x.written(slots)
    return replace(first, recorded=x.written([o.recorded for o in alike]), tag=tag)


def added_in_front(result: Seen, x: Seen) -> Origin | None:
    """Return padded zeros with a new first dimension of size one, or None if there are no such zeros."""
    origin = x.tag.origin
    if not isinstance(origin, ZeroPadding) or origin.watches or result.shape != (1, *x.shape):
        return None
    return replace(origin, recorded=origin.recorded[None], tag=_with_first_dimension(origin.tag))


def moved_with_zeros(result: Seen, x: Seen, move: Callable[[Sequence[Tensor]], Tensor]) -> Origin | None:
    """Return padded zeros that a call moved, if they are still around all other values, or None.

    Args:
        result: the result of the call.
        x: what it moved, all of it.
        move: the call.
    """
    origin, slot = x.tag.origin, result.tag.slot
    if not isinstance(origin, ZeroPadding) or slot is None or min(origin.pads, default=0) < 0:
        return None  # without a slot, no rule puts relevance on zeros
    inside = F.pad(torch.ones(origin.recorded.shape, dtype=torch.bool, device=x.device), origin.pads)
    place = _box(move([inside]))
    if place is None:
        return None
    pads = [n for side, size in zip(place, result.shape, strict=True) for n in (size - side.stop, side.start)]
    while pads and pads[:2] == [0, 0]:  # as for F.pad, the first dimensions are left out
        del pads[:2]
    tag = replace(result.tag, slot=slot[place], step=None, origin=None)
    return ZeroPadding(recorded=result.recorded[place], tag=tag, pads=tuple(reversed(pads)))


def _box(inside: Tensor) -> tuple[slice, ...] | None:
    """Return the part of a tensor that a mask marks, if it has the same range of every dimension, or None."""
    box = []
    for dim in range(inside.dim()):
        others = [other for other in range(inside.dim()) if other != dim]
        marked = (inside.any(others) if others else inside).nonzero().flatten().tolist()
        if not marked:
            return None
        box.append(slice(marked[0], marked[-1] + 1))
    return tuple(box) if int(inside.sum()) == prod(side.stop - side.start for side in box) else None


def joined_in_front(result: Seen, parts: Sequence[Seen]) -> Origin | None:
    """Return zeros between values that were padded and then joined in the first dimension, or None.

    Args:
        result: the parts, concatenated in their first dimension, or stacked in a new first one.
        parts: the parts.
    """
    if not any([isinstance(part.tag.origin, ZeroPadding) for part in parts]):
        return None
    islands, offset = [], 0
    strides = torch.empty(result.shape, device="meta").stride()
    for part in parts:
        island = _island(part, offset, strides)
        if island is None:
            return None
        islands.append(island)
        offset += part.numel()
    whole = Place(0, result.shape, strides)
    return AmongZeros(
        recorded=result.recorded, tag=replace(result.tag), islands=tuple(islands), place=whole, memory=whole
    )


def _island(part: Seen, offset: int, strides: tuple[int, ...]) -> Island | None:
    """Return what lies in a part that begins here, without the zeros around it; None if that is watched."""
    origin = part.tag.origin
    value, tag = part.recorded, part.tag
    if isinstance(origin, ZeroPadding):
        if origin.watches or min(origin.pads, default=0) < 0:
            return None
        value, tag = origin.recorded, origin.tag
        for i, before in enumerate(origin.pads[::2]):  # F.pad counts dimensions from the last
            offset += before * strides[-1 - i]
    if value.dim() < len(strides):
        value, tag = value[None], _with_first_dimension(tag)
    return Island(Place(offset, value.shape, strides), value, tag)


def _with_first_dimension(tag: Tag) -> Tag:
    """Return what is still known of a tensor with a new first dimension."""
    return Tag(tag.behind, tag.nonnegative, None if tag.slot is None else tag.slot[None], role=tag.role)
