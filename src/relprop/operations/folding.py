"""What is done to the output of a linear operation becomes part of it: biases, batch norms, scales.

Whatever the output was rearranged to in between. Beside it: what is done to any tensor by channel, for a
linear operation that follows to take in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from relprop.attach import attach_with_slot
from relprop.calls import Call
from relprop.intercept import Interception
from relprop.operations.ruled import Affine, LinearOrigin, attach_rule, modified


@dataclass(frozen=True, kw_only=True)
class Moved(LinearOrigin):
    """A linear operation whose output's elements have been rearranged since, all of them, as by a transpose.

    Attributes:
        z: the output.
        z_version: of its memory when it was rearranged.
        move: what was done to it.
    """

    z: Tensor
    z_version: int
    move: Callable[[Sequence[Tensor]], Any]

    @property
    def intact(self) -> bool:
        return super().intact and self.z._version == self.z_version


def fold(
    run: Interception,
    call: Call,
    origin: LinearOrigin,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor | None:
    """Let scale·z + shift of a linear operation's output z be part of the operation.

    Returns None where the constants are no part of it: where they differ between positions or samples.
    """
    if not origin.map.folds:
        return None
    if isinstance(origin, Moved):
        return _fold_moved(run, call, origin, scale, shift)
    if origin.factor != 1:
        scale = origin.weight.new_tensor(origin.factor) if scale is None else scale * origin.factor
    per_output = []
    for constant in (scale, shift):
        values = None if constant is None else _per_output(origin, constant)
        if constant is not None and values is None:
            return None
        per_output.append(values)
    scale, shift = per_output
    value = call.value()
    if value.dim() != origin.x.dim():
        return None  # a constant of more dimensions adds one to the result
    weight, bias, map_ = origin.kept_weight.or_value(origin.weight), origin.bias, origin.map
    if scale is not None:
        weight = modified(weight, "scaled output", scale, lambda w, k: map_.scale_outputs(w, k))
        if bias is not None:
            bias = map_.align_bias(bias) * map_.align_bias(scale)
    if shift is not None:
        bias = shift.clone() if bias is None else map_.align_bias(bias) + map_.align_bias(shift)
    run.remark = f"part of {origin.operation} in {origin.path or '(root)'}"
    folded = replace(
        origin,
        weight=weight,
        kept_weight=run.keep_constant(weight),
        kept_bias=None if bias is None else run.keep_constant(bias),
        factor=1.0,
    )
    return attach_rule(run, folded, value)


def moved(origin: LinearOrigin, z: Tensor, move: Callable[[Sequence[Tensor]], Any]) -> Moved:
    """A linear operation with its output z rearranged, after what has been done to it before."""
    known = {field.name: getattr(origin, field.name) for field in fields(LinearOrigin)}
    if isinstance(origin, Moved):
        z, move = origin.z, _after(move, origin.move)
    return Moved(**known, z=z, z_version=z._version, move=move)


def _after(second: Callable[..., Any], first: Callable[..., Any]) -> Callable[[Sequence[Tensor]], Any]:
    return lambda operands: second([first(operands)])


def _fold_moved(
    run: Interception, call: Call, origin: Moved, scale: Tensor | None, shift: Tensor | None
) -> Tensor | None:
    """Fold what is done to rearranged outputs, if it is one number for each output."""
    map_, z = origin.map, origin.z
    outputs = torch.arange(map_.outputs(origin.weight), device=z.device)
    where = origin.move([map_.align_bias(outputs).expand(z.shape)])
    per_output: list[Tensor | None] = []
    for constant in (scale, shift):
        values = None if constant is None else _by_output(constant, where, outputs)
        if constant is not None and values is None:
            return None
        per_output.append(values)
    value = z.detach() * origin.factor
    value = value if per_output[0] is None else value * map_.align_bias(per_output[0])
    value = value if per_output[1] is None else value + map_.align_bias(per_output[1])
    linear = LinearOrigin(**{field.name: getattr(origin, field.name) for field in fields(LinearOrigin)})
    aligned = [None if values is None else map_.align_bias(values) for values in per_output]
    in_place = Call(call.name, lambda: value, (), {}, False)
    folded = fold(run, in_place, linear, scale=aligned[0], shift=aligned[1])
    if folded is None:
        return None
    tag = run.tag(folded)
    slot = None if tag.slot is None else origin.move([tag.slot])
    # The model's own value, which may differ in the last digit.
    output, slot = attach_with_slot(call.value(), origin.move([folded]), slot, lambda *arriving: arriving)
    later = tag.origin
    if isinstance(later, LinearOrigin):
        later = moved(later, folded, origin.move)
    run.set_tag(output, replace(tag, slot=slot, origin=later))
    return output


def _by_output(constant: Tensor, where: Tensor, outputs: Tensor) -> Tensor | None:
    """A constant as one value for each output, (out,); `where` says to which output an element belongs."""
    shape = torch.broadcast_shapes(constant.shape, where.shape)  # type: ignore[no-untyped-call]
    if shape != where.shape or not bool(constant.isfinite().all()):
        return None
    constant = constant.detach().reshape((1,) * (len(shape) - constant.dim()) + tuple(constant.shape))
    # First where it has values of its own: most constants that are not one for each output fail there.
    own = where[tuple(slice(None) if size > 1 else slice(1) for size in constant.shape)]
    if own.numel() < where.numel() and _values_by_output(constant, own, len(outputs)) is None:
        return None
    return _values_by_output(constant.expand(shape), where, len(outputs))


def _values_by_output(full: Tensor, where: Tensor, outputs: int) -> Tensor | None:
    values = full.new_zeros(outputs).index_put_((where.reshape(-1),), full.reshape(-1))
    return values if torch.equal(values[where], full) else None


def affine(
    run: Interception, x: Tensor, *, scale: Tensor | None = None, shift: Tensor | None = None
) -> Affine | None:
    """What scale·x + shift is of x, or of what x itself is an affine function of.

    Returns None where the constants are not one number a channel, dimension 1.
    """
    if x.dim() < 2:
        return None
    before = run.tag(x).origin
    if not (isinstance(before, Affine) and before.intact):
        one = torch.ones(x.shape[1], dtype=x.dtype, device=x.device)
        before = Affine(x=x, version=x._version, scale=one, shift=torch.zeros_like(one))
    for constant, is_scale in ((scale, True), (shift, False)):
        values = None if constant is None else _per_channel(constant, x)
        if constant is not None and values is None:
            return None
        if values is not None and is_scale:
            before = replace(before, scale=before.scale * values, shift=before.shift * values)
        elif values is not None:
            before = replace(before, shift=before.shift + values)
    return before


def _per_channel(constant: Tensor, x: Tensor) -> Tensor | None:
    """A constant as one number for each channel of x, (C,); None if it is nothing of the kind."""
    aligned = (1,) * (x.dim() - constant.dim()) + tuple(constant.shape)
    others = aligned[:1] + aligned[2:]
    if constant.dim() > x.dim() or set(others) - {1} or aligned[1] not in (1, x.shape[1]):
        return None
    return constant.detach().reshape(-1).expand(x.shape[1])


def _per_output(origin: LinearOrigin, constant: Tensor) -> Tensor | None:
    """A constant as one value per output of a linear operation, (out,); None if it is nothing of the kind."""
    out = origin.map.outputs(origin.weight)
    flat = constant.reshape(-1).expand(out) if constant.numel() == 1 else constant.reshape(-1)
    if flat.shape != (out,) or not bool(flat.isfinite().all()):
        return None
    shape = origin.map.align_bias(flat).shape
    if constant.numel() > 1 and constant.shape[constant.dim() - len(shape) :] != shape:
        return None
    return flat.detach().clone()  # a cache compares with it later, when the model's own may have changed
