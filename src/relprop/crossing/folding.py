"""Folding: scales and shifts of a linear operation's output become part of the operation.

Biases, batch norms and factors are folded, even if the output was rearranged in between. `affine` records
scales and shifts of any tensor by channel, for a linear operation that follows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from relprop.crossing.parts import unchanged
from relprop.crossing.ruled import Affine, LinearOrigin, attach_rule, linear_origin, modified
from relprop.engine.known import Normalised, Origin, Tag
from relprop.engine.run import Run
from relprop.engine.seen import Seen


@dataclass(eq=False, kw_only=True, slots=True)
class Moved(LinearOrigin):
    """A linear operation of whose output all elements have been rearranged since, as by a transpose.

    Attributes:
        z: the output before it was rearranged.
        factor_of_z: the number by which z had been multiplied before.
        move: the rearrangement.
    """

    z: Tensor
    factor_of_z: float
    move: Callable[[Sequence[Tensor]], Any]


def fold(
    run: Run,
    origin: LinearOrigin,
    value: Callable[[], Tensor],
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Seen | None:
    """Fold scale·z + shift, where z is the output of a linear operation, into the operation.

    Args:
        run: the run.
        origin: the linear operation.
        value: computes scale·z + shift as the model does.
        scale: a constant, or None.
        shift: a constant, or None.

    Returns None if the map does not fold, or if a constant differs between positions or samples.
    """
    if not origin.map.folds:
        return None
    if isinstance(origin, Moved):
        return _fold_moved(run, origin, value, scale, shift)
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


def moved(origin: LinearOrigin, z: Tensor, move: Callable[[Sequence[Tensor]], Any]) -> Moved:
    """Return a linear operation with its output z rearranged by `move`, after earlier rearrangements."""
    known = {name: getattr(origin, name) for name in _OF_LINEAR}
    factor = origin.factor
    if isinstance(origin, Moved):
        z, factor, move = origin.z, origin.factor_of_z, _after(move, origin.move)
    return Moved(**known, z=z, factor_of_z=factor, move=move)


_OF_LINEAR = tuple(field.name for field in fields(LinearOrigin) if field.name != "kept_z")


def _after(second: Callable[..., Any], first: Callable[..., Any]) -> Callable[[Sequence[Tensor]], Any]:
    return lambda operands: second([first(operands)])


def _fold_moved(
    run: Run, origin: Moved, value: Callable[[], Tensor], scale: Tensor | None, shift: Tensor | None
) -> Seen | None:
    """Fold scale and shift of a rearranged output, if each is one number for each output."""
    map_, z = origin.map, origin.z
    outputs = torch.arange(map_.outputs(origin.weight), device=z.device)
    where = origin.move([map_.align_bias(outputs).expand(z.shape)])
    per_output: list[Tensor | None] = []
    for constant in (scale, shift):
        values = None if constant is None else _by_output(constant, where, outputs)
        if constant is not None and values is None:
            return None
        per_output.append(values)
    aligned = [None if values is None else map_.align_bias(values) for values in per_output]
    before = z.detach() * (origin.factor / origin.factor_of_z)
    before = before if aligned[0] is None else before * aligned[0]
    before = before if aligned[1] is None else before + aligned[1]
    linear = LinearOrigin(**{name: getattr(origin, name) for name in _OF_LINEAR})
    folded = fold(run, linear, lambda: before, scale=aligned[0], shift=aligned[1])
    if folded is None:
        return None
    tag = folded.tag
    slot = None if tag.slot is None else origin.move([tag.slot])
    before_move = linear_origin(folded)
    later = None if before_move is None else moved(before_move, folded.recorded, origin.move)
    place = _Place(origin.move([folded.recorded]), replace(tag, slot=slot))
    # With the model's own value, which may differ in the last digit.
    return run.cross(value(), [place], unchanged, Tag(tag.behind, tag.nonnegative, origin=later))


@dataclass(frozen=True)
class _Place:
    """An operand that is no tensor of the model."""

    recorded: Tensor
    tag: Tag


def _by_output(constant: Tensor, where: Tensor, outputs: Tensor) -> Tensor | None:
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
    if own.numel() < where.numel() and _values_by_output(constant, own, len(outputs)) is None:
        return None
    return _values_by_output(constant.expand(shape), where, len(outputs))


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
