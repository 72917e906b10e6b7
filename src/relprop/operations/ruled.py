"""A linear operation gets the backward of its rule, and takes in what was done to its operand.

Re-rooting: an operation leaves an `Origin` with its result, so that a later one can attach to its operand.
Zeros padded around the input of a linear operation are its own padding, a batch norm before it is part of it;
what is done to its output is folded into it by `folding`. The values are those of the model; nothing runs
twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.attach import attach
from relprop.calls import Call
from relprop.intercept import Interception
from relprop.keeping import Kept
from relprop.linear import weights
from relprop.linear.maps import LinearMap
from relprop.linear.numerics import divide
from relprop.linear.operation import Incoming, LinearOperation
from relprop.provenance import Applied, Origin, Tag, Watch, empty_slot, merge_tags
from relprop.rules.rule import Rule


@dataclass(frozen=True, kw_only=True)
class LinearOrigin(Origin):
    """A linear operation and the rule for it, for what is done to its output to be folded into it.

    Attributes:
        weight: with what is folded into it.
        own_weight: as the model holds it.
        input_watches: of an operand that was passed by.
        factor: a number that the output has been multiplied by since.
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
    elif x.is_complex() or weight.is_complex():
        problem = (
            "complex numbers get no rule; accept the plain gradient, which is LRP-0 where there is no bias"
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
    weight = own_weight = call.own(weight)
    if run.parameters is not None:
        run.parameters.meet(own_weight)
    value, before = call.value(), run.tag(x).origin
    if isinstance(before, Affine) and before.intact and map_.channels(weight, x.shape) == len(before.scale):
        bias = _with_shift(map_, weight, bias, before.shift, x)
        weight = modified(weight, "scaled input", before.scale, lambda w, k: map_.scale_inputs(w, k))
        x, input_watches = before.x, (*input_watches, *before.watches)
    origin = LinearOrigin(
        x=x,
        version=x._version,
        weight=weight,
        kept_weight=run.keep_constant(weight),
        kept_bias=None if bias is None else run.keep_constant(bias),
        map=map_,
        rule=rule,
        path=site.path,
        operation=call.name,
        own_weight=own_weight,
        input_watches=input_watches,
    )
    return attach_rule(run, origin, value)


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
    # The closure must hold neither `origin` nor `tag`, which hold tensors with their graphs.
    nonnegative = tag.nonnegative
    map_, weight, kept_w, kept_b = origin.map, origin.weight, origin.kept_weight, origin.kept_bias
    path, operation, own_weight = origin.path, origin.operation, origin.own_weight
    watches, input_watches = origin.watches, origin.input_watches
    scaled = weight is not own_weight
    with_slot = run.slots == "all" or (slot is not None and not counts)
    # Relevance itself may come to outputs that a ReLU sets to zero, and some rules look at all outputs.
    clippable = not with_slot and not getattr(rule, "looks_everywhere", True)
    wanted = run.parameters is not None and run.parameters.wants(own_weight)
    needs_values = bool(
        getattr(rule, "needs_values", True)
        or with_slot
        or slot is not None
        or watches
        or input_watches
        or wanted
    )
    # Shapes alone take no memory.
    kept_x = run.keep(x) if needs_values else Kept(empty_slot(x))
    kept_z = run.keep(value, clippable=clippable) if needs_values else Kept(empty_slot(value))

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
                if needs_values and (kept_z.value.dtype != w.dtype or lacking):
                    exact = map_.apply(x, w.detach())
                    exact = exact if b is None else exact + map_.align_bias(b)
                z = exact if lacking else z
                for watch in watches:
                    c, direct = watch(c, direct, z)
                op = LinearOperation(map_, x, exact, w, b, nonnegative, scaled)
                incoming = Incoming(c, direct, z)
                if wanted and run.parameters is not None:
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


@dataclass(frozen=True, eq=False)
class _SameValues:
    """A key that is equal to another one with the same values."""

    tensor: Tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameValues) and torch.equal(self.tensor, other.tensor)

    def __hash__(self) -> int:
        return hash(self.tensor.shape)


def modified(weight: Tensor, purpose: str, factor: Tensor, make: Any) -> Tensor:
    """Return a weight with a factor folded in, from the cache where both are still the same."""
    return weights.modified(weight, purpose, lambda w: make(w, factor), _SameValues(factor))


def _with_shift(map_: LinearMap, weight: Tensor, bias: Tensor | None, shift: Tensor, x: Tensor) -> Tensor:
    """The bias that stands for a shift of the input; beside padded zeros it differs by position."""
    constant = map_.align_input(shift, x.shape)
    through = map_.apply(constant.to(weight.dtype), weight.detach())
    return through if bias is None else through + map_.align_bias(bias.detach())
