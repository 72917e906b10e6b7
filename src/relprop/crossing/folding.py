"""Folding: scales and shifts of a linear operation's output become part of the operation.

Biases, batch norms and factors are folded, even if the output was rearranged in between. `affine` records
scales and shifts of any tensor by channel, for a linear operation that follows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from relprop.crossing.affine import Affine
from relprop.crossing.exact import Function
from relprop.crossing.parts import unchanged
from relprop.crossing.ruled import Foldable, LinearOrigin, attach_rule, linear_origin, modified
from relprop.engine.known import Normalised, Origin, Tag, behind_all
from relprop.engine.run import Run
from relprop.engine.seen import Seen


class _Output(NamedTuple):
    """The output of a linear operation.

    Attributes:
        origin: the operation.
        z: the output, as autograd sees it.
        since: a number by which it has been multiplied since, in another arrangement.
    """

    origin: LinearOrigin
    z: Tensor
    since: float = 1.0


@dataclass(eq=False, kw_only=True, slots=True)
class Moved(Foldable):
    """Outputs of linear operations that have been rearranged or joined since, with all their elements.

    Attributes:
        outputs: the outputs.
        move: what has been done with them, such as a transpose or `cat`.
    """

    outputs: tuple[_Output, ...]
    move: "_Moves"


@dataclass(frozen=True, eq=False, slots=True)
class _Moves:
    """Moves, one after the other.

    Calling it takes any number of moves without recursion, because a model may rearrange a tensor a thousand
    times.

    Attributes:
        last: the last move.
        parts: what it moves: the results of earlier moves or, where None, one output.
    """

    last: "Function | _Moves"
    parts: tuple["_Moves | None", ...]

    def __call__(self, outputs: Sequence[Tensor]) -> Any:
        rest, results = iter(outputs), list[Any]()
        todo: list[tuple[_Moves | None, bool]] = [(self, False)]
        while todo:
            moves, has_parts = todo.pop()
            if moves is None:
                results.append(next(rest))
            elif has_parts:
                first = len(results) - len(moves.parts)
                results[first:] = [moves.last(results[first:])]
            else:
                todo.append((moves, True))
                todo += [(part, False) for part in reversed(moves.parts)]
        return results[0]

    def written(self) -> tuple[Any, ...] | None:
        """Return a key of moves that are written alike, or None if a move takes a constant tensor."""
        key, todo = list[Any](), list["_Moves | None"]([self])
        while todo:
            moves = todo.pop()
            last = () if moves is None else moves.last.written()
            if last is None:
                return None
            key.append(last)
            todo += () if moves is None else reversed(moves.parts)
        return tuple(key)


def fold(
    run: Run,
    origin: Foldable,
    value: Callable[[], Tensor],
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Seen | None:
    """Fold scale·z + shift, where z is the output of linear operations, into the operations.

    Args:
        run: the run.
        origin: the linear operations.
        value: computes scale·z + shift as the model does.
        scale: a constant, or None.
        shift: a constant, or None.

    Returns None if the map does not fold, or if a constant differs between positions or samples.
    """
    if isinstance(origin, Moved):
        return _fold_moved(run, origin, value, scale, shift)
    assert isinstance(origin, LinearOrigin)
    if not origin.map.folds:
        return None
    if origin.factor != 1:
        scale = origin.weight.new_tensor(origin.factor) if scale is None else scale * origin.factor
    per_output = []
    for constant in (scale, shift):
        values = None if constant is None else _per_output(origin, constant)
        if constant is not None and values is None:
            return None
        per_output.append(values)
    scale, shift = per_output
    computed = value()
    if computed.dim() != origin.recorded.dim():
        return None  # a constant with more dimensions has added a dimension to the result
    weight, bias, map_ = origin.kept_weight.own, origin.bias, origin.map
    if scale is not None:
        weight = modified(weight, "scaled output", scale, map_.scale_outputs)
        if bias is not None:
            bias = map_.align_bias(bias) * map_.align_bias(scale)
    if shift is not None:
        bias = shift.clone() if bias is None else map_.align_bias(bias) + map_.align_bias(shift)
    run.part_of = origin.operation, origin.path
    folded = replace(
        origin,
        weight=weight,
        kept_weight=run.keep_constant(weight),
        kept_bias=None if bias is None else run.keep_constant(bias.detach()),
        factor=1.0,
    )
    return attach_rule(run, folded, computed)


def moved(parts: Sequence[Seen], move: Function | _Moves) -> Moved | None:
    """Return outputs of linear operations as `move` rearranges or joins them.

    Returns None if a part is something else, or if two parts are one.
    """
    outputs: list[_Output] = []
    earlier: list[_Moves | None] = []
    for part in parts:
        origin = linear_origin(part)
        if isinstance(origin, Moved):
            outputs += [output._replace(since=output.since * origin.factor) for output in origin.outputs]
            earlier.append(origin.move)
        elif isinstance(origin, LinearOrigin):
            outputs.append(_Output(origin, part.recorded))
            earlier.append(None)
        else:
            return None
    if len({id(output.z) for output in outputs}) < len(outputs):  # repeated, as by `expand`
        return None
    if not isinstance(move, _Moves) or any([part is not None for part in earlier]):
        move = _Moves(move, tuple(earlier))
    first = outputs[0].origin
    return Moved(recorded=first.recorded, tag=first.tag, outputs=tuple(outputs), move=move)


def _fold_moved(
    run: Run, origin: Moved, value: Callable[[], Tensor], scale: Tensor | None, shift: Tensor | None
) -> Seen | None:
    """Fold scale and shift of rearranged outputs, if each is one number for each output."""
    if not all([o.map.folds and z.dim() == o.recorded.dim() for o, z, _ in origin.outputs]):
        return None
    written = origin.move.written()
    arranged = None if written is None else (written, *[(type(o.map), z.shape) for o, z, _ in origin.outputs])
    constants = [constant for constant in (scale, shift) if constant is not None]
    # Layer by layer the same constants come, as the cosines of rotary positions do.
    if arranged is not None and any([run.constants.is_refused(each, arranged) for each in constants]):
        return None
    counts = [linear.map.outputs(linear.weight) for linear, _, _ in origin.outputs]
    numbers = torch.split(torch.arange(sum(counts), device=origin.recorded.device), counts)
    where = origin.move(
        [
            linear.map.align_bias(own).expand(z.shape)
            for (linear, z, _), own in zip(origin.outputs, numbers, strict=True)
        ]
    )
    if where.is_floating_point():  # they were cast, and a constant has another precision
        return None
    per_output: list[Sequence[Tensor | None]] = []
    for constant in (scale, shift):
        values = None if constant is None else _by_output(constant, where, sum(counts))
        if constant is not None and values is None:
            if arranged is not None:
                run.constants.refuse(constant, arranged)
            return None
        per_output.append([None] * len(counts) if values is None else torch.split(values, counts))
    folded = [
        _folded_output(run, output, origin.factor, *own)
        for output, *own in zip(origin.outputs, *per_output, strict=True)
    ]
    slots = [t.tag.slot for t in folded if t.tag.slot is not None]
    assert len(slots) in (0, len(folded)), "whether a run has slots does not depend on the operation"
    known = Tag(behind_all([t.tag for t in folded]), all(t.tag.nonnegative for t in folded))
    place = _Place(
        origin.move([t.recorded for t in folded]),
        replace(known, slot=origin.move(slots) if slots else None),
    )
    # With the model's own value, which may differ in the last digit.
    return run.cross(value(), [place], unchanged, replace(known, origin=moved(folded, origin.move)))


def _folded_output(
    run: Run, output: _Output, factor: float, scale: Tensor | None, shift: Tensor | None
) -> Seen:
    """Fold scale and shift, each one number for each output, into one of several linear operations."""
    linear, z, since = output
    since = since * factor
    aligned = [None if values is None else linear.map.align_bias(values) for values in (scale, shift)]
    value = z.detach() if since == 1 else z.detach() * since
    value = value if aligned[0] is None else value * aligned[0]
    value = value if aligned[1] is None else value + aligned[1]
    scaled = replace(linear, factor=linear.factor * since, kept_z=None)
    folded = fold(run, scaled, lambda: value, scale=aligned[0], shift=aligned[1])
    assert folded is not None, "one number for each output folds"
    return folded


@dataclass(frozen=True)
class _Place:
    """An operand that is no tensor of the model."""

    recorded: Tensor
    tag: Tag


def _by_output(constant: Tensor, where: Tensor, outputs: int) -> Tensor | None:
    """Return a constant as one value for each output, (out,), or None; `where` has each element's output."""
    shape, dimensions = where.shape, constant.dim()
    if dimensions > where.dim() or any(
        n not in (1, of) for n, of in zip(constant.shape, shape[where.dim() - dimensions :], strict=True)
    ):
        return None
    if not bool(constant.isfinite().all()):
        return None
    constant = constant.detach().reshape((1,) * (len(shape) - constant.dim()) + tuple(constant.shape))
    # Compare first without expanding: most constants that are not one number for each output fail here.
    own = where[tuple(slice(None) if size > 1 else slice(1) for size in constant.shape)]
    values = _values_by_output(constant, own, outputs)
    # Along a dimension of stride 0 all elements belong to one output.
    sizes = zip(own.shape, where.shape, where.stride(), strict=True)
    if values is None or all([size == whole or step == 0 for size, whole, step in sizes]):
        return values
    return _values_by_output(constant.expand(shape), where, outputs)


def _values_by_output(full: Tensor, where: Tensor, outputs: int) -> Tensor | None:
    values = full.new_zeros(outputs).index_put_((where.reshape(-1),), full.reshape(-1))
    return values if torch.equal(values[where], full) else None


def affine(x: Seen, *steps: tuple[Literal["scale", "shift"], Tensor | float]) -> Origin | None:
    """Record scales and shifts of x. If x has such a record already, continue it.

    Returns None if a constant is not one number for each channel, dimension 1. What has been normalised by
    its statistics stays so.
    """
    if isinstance(x.tag.origin, Normalised):
        return x.tag.origin
    if x.dim() < 2:
        return None
    channels = x.shape[1]
    for _, constant in steps:
        if isinstance(constant, Tensor) and not _per_channel(constant, x):
            return None
    tag = x.tag
    before = tag.origin
    if isinstance(before, Affine):
        return Affine(
            recorded=before.recorded,
            tag=before.tag,
            watches=before.watches,
            channels=channels,
            steps=(*before.steps, *steps),
        )
    return Affine(recorded=x.recorded, tag=tag, channels=channels, steps=steps)


def _per_channel(constant: Tensor, x: Tensor) -> bool:
    """Whether a constant has one number for each channel of x, or one for all."""
    shape, missing = constant.shape, x.dim() - constant.dim()
    if missing < 0:
        return False
    values = shape[1 - missing] if missing < 2 <= x.dim() else 1
    return constant.numel() == values and values in (1, x.shape[1])


def _per_output(origin: LinearOrigin, constant: Tensor) -> Tensor | None:
    """Return a constant as one value for each output of a linear operation, (out,); None if it is not one."""
    if constant.dim() == origin.recorded.dim() and len(constant) == len(origin.recorded) > 1:
        # A constant that repeats one value for each sample counts as that value.
        if not torch.equal(constant, constant[:1].expand(constant.shape)):
            return None
        constant = constant[:1]
    out = origin.map.outputs(origin.weight)
    flat = constant.reshape(-1).expand(out) if constant.numel() == 1 else constant.reshape(-1)
    if flat.shape != (out,) or not bool(flat.isfinite().all()):
        return None
    shape = origin.map.align_bias(flat).shape
    if constant.numel() > 1 and constant.shape[constant.dim() - len(shape) :] != shape:
        return None
    return flat.detach().clone()  # a cache compares with it later, when the model's tensor may have changed
