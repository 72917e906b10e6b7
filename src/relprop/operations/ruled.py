"""A linear operation gets the backward of its rule; what is done to its operand or output becomes part of it.

Re-rooting: an operation leaves an `Origin` with its result, so that a later one can attach to its operand.
A bias added by hand, a batch norm or a scale after a linear operation are folded into it, zeros padded around
its input are its own padding, and a batch norm before it is folded into it too. The values are those of the
model; nothing runs twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from relprop import weights
from relprop.attach import attach, attach_with_slot
from relprop.calls import Call
from relprop.intercept import Interception
from relprop.keeping import Kept
from relprop.linear_maps import Contraction, LinearMap, Scaling
from relprop.linear_operations import Incoming, LinearOperation, Rule, divide
from relprop.provenance import Applied, Origin, Tag, Watch, empty_slot, merge_tags


@dataclass(frozen=True, kw_only=True)
class LinearOrigin(Origin):
    """A linear operation and the rule for it, for what is done to its output to be folded into it.

    Attributes:
        weight: with what is folded into it.
        own_weight: as the model holds it.
        input_watches: of an operand that was passed by.
        factor: a positive number that the output has been multiplied by since.
    """

    weight: Tensor
    kept_weight: Kept
    kept_bias: Kept | None
    map: LinearMap
    rule: Rule
    path: str
    operation: str
    own_weight: Tensor
    input_watches: tuple[Watch, ...] = ()
    factor: float = 1.0

    @property
    def bias(self) -> Tensor | None:
        """The bias, (out,) or of the output's shape."""
        return None if self.kept_bias is None else self.kept_bias.value


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


@dataclass(frozen=True, kw_only=True)
class ZeroPadding(Origin):
    """Zeros put around an operand, for a convolution to take as its own padding: zeros are no inputs."""

    pads: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Affine(Origin):
    """scale·x + shift with one number of each a channel, for a linear operation behind it to take in.

    A batch norm, or the normalisation of pixels within a model, in one call or several.
    """

    scale: Tensor
    shift: Tensor


def start(
    run: Interception,
    call: Call,
    kind: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    map_: LinearMap,
    input_watches: tuple[Watch, ...] = (),
) -> Any:
    """Let the composite choose a rule for a linear operation, and give its output the rule's backward.

    The `input_watches` are of a value between x and the operation, which was passed by.
    """
    operands = [t for t in (x, weight, bias) if t is not None and run.relevant(t)]
    site = run.site(call, kind, run.tag(x).depth)
    rule, acceptable = None, True
    if len(operands) > 1 or not run.relevant(x):
        problem = (
            "the weight depends on the input, or stands first; only input times constant weight is covered"
        )
    elif kind == "dense" and not map_.fits(weight):
        problem = f"a weight of shape {tuple(weight.shape)} is not covered, only a matrix"
    elif x.dim() < 2 or (kind == "convolution" and x.dim() != weight.dim()):
        problem = f"an input of shape {tuple(x.shape)} has no dimension for samples; add one in front"
    else:
        rule, acceptable = run.choose(site), False
        problem = "no entry of the composite matches; end it with ('*', Epsilon()) or the like"
    if rule is None:
        run.gap(call.name, problem, acceptable)
        return plain(run, call, operands)
    run.applied.append(Applied(site.path, call.name, rule))
    weight = own_weight = call.parameter(weight)
    if run.parameters is not None:
        run.parameters.meet(own_weight)
    value, before = call.value(), run.tag(x).origin
    if isinstance(before, Affine) and before.intact and map_.channels(weight, x.shape) == len(before.scale):
        bias = _with_shift(map_, weight, bias, before.shift, x)
        weight = _modified(weight, "scaled input", before.scale, lambda w, k: map_.scale_inputs(w, k))
        x, input_watches = before.x, (*input_watches, *before.watches)
    origin = LinearOrigin(
        x=x,
        version=x._version,
        weight=weight,
        kept_weight=run.keep(weight),
        kept_bias=None if bias is None else run.keep(bias),
        map=map_,
        rule=rule,
        path=site.path,
        operation=call.name,
        own_weight=own_weight,
        input_watches=input_watches,
    )
    return attach_rule(run, origin, value)


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
    if isinstance(origin.map, (Contraction, Scaling)):
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
        weight = _modified(weight, "scaled output", scale, lambda w, k: map_.scale_outputs(w, k))
        if bias is not None:
            bias = map_.align_bias(bias) * map_.align_bias(scale)
    if shift is not None:
        bias = shift.clone() if bias is None else map_.align_bias(bias) + map_.align_bias(shift)
    run.remark = f"part of {origin.operation} in {origin.path or '(root)'}"
    folded = replace(
        origin,
        weight=weight,
        kept_weight=run.keep(weight),
        kept_bias=None if bias is None else run.keep(bias),
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
    full = constant.detach().expand(shape)
    values = full.new_zeros(len(outputs)).index_put_((where.reshape(-1),), full.reshape(-1))
    return values if torch.equal(values[where], full) else None


def attach_rule(run: Interception, origin: LinearOrigin, value: Tensor, *, counts: int = 1) -> Tensor:
    """Give a linear operation's value the backward of its rule.

    Args:
        run: the run.
        origin: the operation.
        value: its output.
        counts: how many linear operations it adds to those that lie before the output.
    """
    x, rule = origin.x, origin.rule
    tag, slot = run.tag(x), run.slot(x)
    # The closure must not hold `origin`, whose x holds the graph.
    map_, weight, kept_w, kept_b = origin.map, origin.weight, origin.kept_weight, origin.kept_bias
    path, operation, own_weight = origin.path, origin.operation, origin.own_weight
    watches, input_watches = origin.watches, origin.input_watches
    scaled = weight is not own_weight
    with_slot = run.slots == "all" or (slot is not None and not counts)
    # Relevance itself may come to outputs that a ReLU sets to zero, and some rules look at all outputs.
    clippable = not with_slot and not getattr(rule, "looks_everywhere", True)
    kept_x, kept_z = run.keep(x), run.keep(value, clippable=clippable)

    def backward(c: Tensor | None, direct: Tensor | None = None) -> tuple[Tensor | None, ...]:
        w = kept_w.or_value(weight)
        # All of it in the weight's type: under autocast inputs and outputs have other ones.
        x, z = kept_x.value.to(w.dtype), kept_z.value.to(w.dtype)
        c = None if c is None else c.to(w.dtype)
        direct = None if direct is None else direct.to(w.dtype)
        b = None if kept_b is None else kept_b.value.to(w.dtype)
        # Outputs that a ReLU set to zero are missed where another way brings relevance to them, and rounded
        # outputs would turn differences with them into contributions.
        lacking = kept_z.clipped and c is not None and bool(((z == 0) & (c != 0)).any())
        try:
            with torch.autocast(x.device.type, enabled=False):
                exact = z
                if kept_z.value.dtype != w.dtype or lacking:
                    exact = map_.apply(x, w.detach())
                    exact = exact if b is None else exact + map_.align_bias(b)
                z = exact if lacking else z
                for watch in watches:
                    c, direct = watch(c, direct, z)
                op = LinearOperation(map_, x, exact, w, b, tag.nonnegative, scaled)
                incoming = Incoming(c, direct, z)
                if run.parameters is not None and run.parameters.wants(own_weight):
                    propagated = run.parameters.through(op, rule, incoming, own_weight)
                else:
                    propagated = rule(op, incoming)
        except Exception as error:
            error.add_note(f"The rule was for {operation} in module {path or '(root)'!r}.")
            raise
        for sink, amount in propagated.absorbed.items():
            run.ledger.add(sink, amount, path, operation)
        for watch in input_watches:
            propagated.coefficient, propagated.direct = watch(propagated.coefficient, propagated.direct, x)
        if slot is not None:
            return propagated.coefficient, propagated.direct
        if propagated.direct is None:
            return (propagated.coefficient,)
        # Without a slot, relevance on zeros has no place to go.
        run.ledger.add("zero input", propagated.direct * (x == 0), path, operation)
        on_x = divide(propagated.direct, x)
        return (on_x if propagated.coefficient is None else propagated.coefficient + on_x,)

    roots = [x] if slot is None else [x, slot]
    depth = tag.depth + counts
    if with_slot:
        output, out_slot = attach([value, empty_slot(value)], roots, backward)
        run.set_tag(output, Tag(depth, slot=out_slot, origin=origin))
    else:
        (output,) = attach([value], roots, backward)
        run.set_tag(output, Tag(depth, origin=origin))
    return output


def plain(run: Interception, call: Call, operands: Sequence[Tensor]) -> Any:
    """Go on with the plain gradient, behind a gap."""
    result = run.native(call)
    run.set_tag(result, merge_tags([run.tag(t) for t in operands]))
    return result


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


@dataclass(frozen=True, eq=False)
class _SameValues:
    """A key that is equal to another one with the same values."""

    tensor: Tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameValues) and torch.equal(self.tensor, other.tensor)

    def __hash__(self) -> int:
        return hash(self.tensor.shape)


def _modified(weight: Tensor, purpose: str, factor: Tensor, make: Any) -> Tensor:
    """Return a weight with a factor folded in, from the cache where both are still the same."""
    return weights.modified(weight, purpose, lambda w: make(w, factor), _SameValues(factor))


def _with_shift(map_: LinearMap, weight: Tensor, bias: Tensor | None, shift: Tensor, x: Tensor) -> Tensor:
    """The bias that stands for a shift of the input; beside padded zeros it differs by position."""
    constant = map_.align_input(shift, x.shape)
    through = map_.apply(constant.to(weight.dtype), weight.detach())
    return through if bias is None else through + map_.align_bias(bias.detach())


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
