"""Linear operations: each output gets the backward of the rule that the composite chooses.

Re-rooting: an operation stores an `Origin` in its result's tag, so that a later operation can attach to the
operand instead of the result. Zeros padded around the input of a convolution become its own padding. A batch
norm before a linear operation becomes part of it. `folding` does the same with scales and shifts of the
output. The values are those that the model computed, and no operation runs twice in the forward.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from relprop.calls.call import Call
from relprop.calls.nested import map_tensors
from relprop.calls.site import Kind
from relprop.crossing.affine import Affine
from relprop.crossing.arrangement import Arrangement
from relprop.crossing.exact import relevant_in
from relprop.crossing.samples import step_of_rows
from relprop.engine.keep import Kept, KeptConstant, comes_through_relus
from relprop.engine.known import Behind, Origin, Tag, Watch, empty_slot, is_gate, merge_tags
from relprop.engine.plain_weights import is_foreign
from relprop.engine.roles import Role
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen, is_relevant, value_of
from relprop.engine.surroundings import saves_by
from relprop.linear import weights
from relprop.linear.maps import LinearMap, SameValues
from relprop.linear.numerics import reaches_beside
from relprop.linear.operation import Incoming, LinearOperation
from relprop.linear.products import OfComplex, blocks_of
from relprop.rules.linear import Epsilon
from relprop.rules.own import applied
from relprop.rules.rule import Rule


@dataclass(eq=False, kw_only=True, slots=True)
class Foldable(Origin):
    """The output of linear operations, into which scales and shifts of it can be folded.

    Attributes:
        factor: a number by which the output has been multiplied since.
        kept_z: the output, kept for the backward. A ReLU that follows may clip it.
    """

    factor: float = 1.0
    kept_z: Kept | None = None

    def clip(self, y: Tensor) -> bool:
        """Keep y = max(0, z) instead of z, if that may be, and return whether it may."""
        return self.kept_z is not None and self.kept_z.clip(y)


@dataclass(eq=False, kw_only=True, slots=True)
class LinearOrigin(Foldable):
    """A linear operation and its rule.

    Attributes:
        weight: the weight, with everything that is folded into it.
        own_weight: the weight that the model holds.
        behind: what lies between the explained inputs and the output.
        input_watches: callbacks of operands that the operation bypasses.
        unkept_x: stands for the operand in the backward, which needs its values only to compute z again.
        again: computes the operand again; None if it is kept for the backward.
    """

    weight: Tensor
    kept_weight: KeptConstant
    kept_bias: KeptConstant | None
    map: LinearMap
    rule: Rule
    path: str
    operation: str
    own_weight: Tensor
    behind: Behind
    input_watches: tuple[Watch, ...] = ()
    unkept_x: Kept | None = None
    again: Callable[[], Kept] | None = None

    def clip(self, y: Tensor) -> bool:
        """Keep y = max(0, z) instead of z, and the operand, of which z is computed where y is not enough."""
        clipped = Foldable.clip(self, y)
        if clipped and self.unkept_x is not None:
            self.unkept_x.hold(self.recorded)
            self.unkept_x = None
        return clipped

    @property
    def bias(self) -> Tensor | None:
        """The bias, (out,) or of the output's shape."""
        return None if self.kept_bias is None else self.kept_bias.own


def start(
    run: Run,
    call: Call,
    kind: Kind,
    x: Any,
    weight: Any,
    bias: Any,
    map_: LinearMap,
    *,
    root: Origin | None = None,
) -> Any:
    """Let the composite choose a rule for a linear operation, and attach the rule's backward to its output.

    If the operation is not covered or no rule is found, this is a gap, and the plain gradient is used.

    Args:
        run: the run.
        call: the operation.
        kind: the kind by which the composite chooses.
        x: the operand.
        weight: the weight.
        bias: the bias, or None.
        map_: how the weight is applied.
        root: the origin to attach to instead of x, such as the operand of a padding.
    """
    problem, acceptable, rule, site = "", True, None, None
    weight, bias = _as_plain(run, call, weight), _as_plain(run, call, bias)
    if is_foreign(weight) or is_foreign(bias):
        kind_of = type(weight if is_foreign(weight) else bias).__name__
        problem = (
            f"a weight is a {kind_of}, a class of tensors without dequantize() and full_tensor(), so its "
            f"values are not known; give the class a method dequantize() that returns a plain tensor, or "
            "explain a copy of the model with plain weights"
        )
    elif not is_relevant(x) or is_relevant(weight) or is_relevant(bias):
        problem = (
            "the weight depends on the input, or stands first; only input times constant weight is covered"
        )
    elif kind == Kind.DENSE and not map_.fits(weight):
        problem = f"a weight of shape {tuple(weight.shape)} is not covered, only a matrix"
    elif x.dim() < 2 or (kind == Kind.CONVOLUTION and x.dim() != weight.dim()):
        problem = f"an input of shape {tuple(x.shape)} has no dimension for samples; add one in front"
    else:
        site = run.site(call, kind, x.tag.behind)
        rule, acceptable, problem = run.choose(site), False, run.unmatched
    if rule is None or site is None:
        run.gap(call.name, problem, acceptable)
        return plain(run, call)
    run.apply(call, rule)
    weight, bias = value_or_own(run, weight), value_or_own(run, bias)
    if run.parameters is not None and not weight.is_complex():
        run.parameters.meet(weight)
    by_gradient = bias is None and root is None and _is_gradient(run, call, rule, x, weight)
    value: Tensor = run.native(call) if by_gradient else run.value(call)
    if weight.is_complex():
        x, root = run.perform(torch.view_as_real, x), None
        weight = weights.modified(weight, "blocks", blocks_of)
        value = torch.view_as_real(value)
        if bias is not None:
            bias = torch.view_as_real(map_.align_bias(bias.detach()).resolve_conj()).expand(value.shape)
        map_ = OfComplex(map_)
    operand, own_weight, input_watches = root or x, weight, () if root is None else root.watches
    before = operand.tag.origin
    if isinstance(before, Affine) and map_.channels(weight, operand.recorded.shape) == before.channels:
        scale, shift = before.resolved()
        bias = _with_shift(map_, weight, bias, shift, operand.recorded)
        weight = modified(weight, "scaled input", scale.detach().clone(), map_.scale_inputs)
        operand, input_watches = before, (*input_watches, *before.watches)
    origin = LinearOrigin(
        recorded=operand.recorded,
        tag=_without_origins(operand.tag),
        weight=weight,
        kept_weight=run.keep_constant(weight),
        kept_bias=None if bias is None else run.keep_constant(bias),
        map=map_,
        rule=rule,
        path=site.path,
        operation=site.operation,
        own_weight=own_weight,
        behind=x.tag.behind.after(1, plain=kind == Kind.DENSE),
        input_watches=input_watches,
        again=x.tag.again if operand is x and run.block is None and _is_wide(kind, weight, x) else None,
    )
    if by_gradient:
        return run.seen(value, _known_of(origin, value))
    if isinstance(map_, OfComplex):
        return run.perform(torch.view_as_complex, attach_rule(run, origin, value))
    if kind == Kind.CONVOLUTION and run.slots == "none" and run.block is None:
        # A batch norm that follows takes the operation over, and then nobody needs this.
        known = _known_of(origin, value)
        return Seen.later(value, known, run, lambda: attach_rule(run, origin, value).recorded)
    return attach_rule(run, origin, value)


def _is_wide(kind: Kind, weight: Tensor, x: Any) -> bool:
    """Whether a layer's products take so long that to compute its operand again is nothing beside them."""
    return kind == Kind.DENSE and x.numel() > 0 and weight.numel() >= _WIDE * x.shape[-1]


_WIDE = 64
"""So many outputs has a dense layer whose operand is computed again, if it is an activation or a norm."""


def _without_origins(tag: Tag) -> Tag:
    """Return what an operation needs to know of its operand. The rest holds what the operand was made of."""
    role = Role.GATE if is_gate(tag) else tag.role
    return Tag(tag.behind, tag.nonnegative, tag.slot, role=role, step=tag.step)


def _is_gradient(run: Run, call: Call, rule: Rule, x: Seen, weight: Tensor) -> bool:
    """Whether the rule of an operation without a bias is its plain gradient, which autograd records."""
    return (
        type(rule) is Epsilon
        and rule.epsilon == 0
        and any([a is x for a in call.args])  # and not what an entry made of its arguments
        and run.slots == "none"
        and run.parameters is None
        and weight.dtype is x.dtype
        and not weight.is_complex()
        and not isinstance(x.tag.origin, Affine)
        and "::" not in call.operation  # an operation of another library may have any gradient
        and saves_by(run.keep_saved)  # or the weight might be overwritten
    )


def _as_plain(run: Run, call: Call, constant: Any) -> Any:
    """Return a weight of another class as a plain tensor, which the call gets too."""
    if not is_foreign(constant):
        return constant
    plain = run.weights.of(constant)
    if plain is None:
        return constant
    call.args[:] = [plain if a is constant else a for a in call.args]
    return plain


def value_or_own(run: Run, constant: Any) -> Any:
    """Return a constant as a plain tensor. For a plain constant this is the tensor that the model holds.

    So caches find it, even if autocast has cast it.
    """
    if constant is None or type(constant) is Seen:
        return value_of(constant)
    return run.of_parameters.before_cast(constant)


def attach_rule(run: Run, origin: LinearOrigin, value: Tensor, *, counts: bool = True) -> Seen:
    """Attach the backward of its rule to the output of a linear operation.

    Args:
        run: the run.
        origin: the operation.
        value: its output.
        counts: whether it is one of the linear operations that are counted.
    """
    tag, rule = origin.tag, origin.rule
    slot = run.slot(origin)
    # The closure must hold neither `origin` nor `tag`, which hold tensors with their graphs.
    nonnegative = tag.nonnegative
    map_, kept_w, kept_b = origin.map, origin.kept_weight, origin.kept_bias
    path, operation, own_weight = origin.path, origin.operation, origin.own_weight
    watches, input_watches = origin.watches, origin.input_watches
    scaled = origin.weight is not own_weight
    has_slot = slot is not None
    with_slot = run.slots == "all" or (has_slot and not counts)
    # Direct relevance may arrive at outputs that a ReLU sets to zero, and some rules look at all outputs.
    clippable = not with_slot and not getattr(rule, "looks_everywhere", True)
    wanted = run.parameters is not None and run.parameters.wants(own_weight)
    needs_values = bool(
        getattr(rule, "needs_values", True) or with_slot or has_slot or watches or input_watches or wanted
    )
    # z is computed again if its type is not the weight's.
    needs_input = needs_values and bool(
        getattr(rule, "needs_input", True)
        or rule.puts_relevance
        or with_slot
        or has_slot
        or input_watches
        or wanted
        or value.dtype != origin.weight.dtype
        or run.block is not None
    )
    # If values are not needed, only shapes are kept, which take no memory.
    if not needs_input:
        kept_x = Kept(empty_slot(origin.recorded))
    else:
        kept_x = run.keep(origin.recorded) if origin.again is None else Kept.dropped(origin.again)
    kept_z = run.keep(value, clippable=clippable) if needs_values else Kept(empty_slot(value))
    arranged = Arrangement.of(run, map_, origin.recorded, tag.step)

    def back(incoming: Incoming) -> list[Outgoing]:
        clipped = kept_z.clipped and not comes_through_relus()
        w = kept_w.own

        # Compute in the weight's type: under autocast, inputs and outputs have other types.
        def prepared(t: Tensor) -> Tensor:
            return arranged(t if t.dtype == w.dtype else t.to(w.dtype))

        x, z = prepared(kept_x.value), prepared(kept_z.value)
        c, direct = (None if t is None else prepared(t) for t in (incoming.c, incoming.direct))
        b = None if kept_b is None else kept_b.value.to(w.dtype)
        # z is computed again if relevance arrives at outputs that a ReLU set to zero, or if z does not have
        # the weight's type: in a difference, its rounding errors would count as contributions.
        lacking = clipped and c is not None and reaches_beside(c, z)
        try:
            exact = z
            if needs_values and (kept_z.value.dtype != w.dtype or lacking):
                exact = map_.apply(x, w.detach())
                exact = exact if b is None else exact + map_.align_bias(b)
            z = exact if lacking else z
            for watch in watches:
                c, direct = arranged.watched(watch, c, direct, z)
            rectified = kept_z.clipped and not lacking and exact is z
            op = LinearOperation(map_, x, exact, w, b, nonnegative, scaled, rectified)
            arriving = Incoming(c, direct, z)
            if wanted and run.parameters is not None:
                propagated = run.parameters.through(op, partial(applied, rule), arriving, own_weight)
            else:
                propagated = applied(rule, op, arriving)
        except Exception as error:
            error.add_note(f"The rule was for {operation} in module {path or '(root)'!r}.")
            raise
        for sink, amount in propagated.absorbed.items():
            run.ledger.add(sink, amount, path, operation)
        on_x, direct = propagated.coefficient, propagated.direct
        for watch in input_watches:
            on_x, direct = arranged.watched(watch, on_x, direct, x)
        if direct is not None and not has_slot:
            # Without a slot, direct relevance becomes a coefficient.
            as_coefficient = run.as_coefficient(direct, x, path, operation)
            on_x, direct = as_coefficient if on_x is None else on_x + as_coefficient, None
        return [(arranged.back(on_x), arranged.back(direct))]

    origin.kept_z, origin.unkept_x = kept_z, None if needs_input else kept_x
    return run.cross(value, [origin], back, _known_of(origin, value), slot=with_slot)


def _known_of(origin: LinearOrigin, value: Tensor) -> Tag:
    """What is known of the output of a linear operation."""
    tag = origin.tag
    # Attention weights that are mixed over heads are weights; hidden layers of sigmoids are signals.
    role = Role.MIXED if tag.role is Role.SOFTMAX else Role.SIGNAL
    gates: bool | tuple[int, ...] = getattr(origin.rule, "gates", False)
    if gates is True or is_gate(tag):
        role = Role.GATE
    parts = gates if isinstance(gates, tuple) else ()
    step = step_of_rows(tag.step, origin.recorded.shape[-1], value.shape[-1])
    return Tag(origin.behind, origin=origin, role=role, step=step, gates=parts)


def plain(run: Run, call: Call) -> Any:
    """Run a call with its plain gradient, after a gap was recorded."""
    tag = merge_tags([t.tag for t in relevant_in(call.args)])
    return map_tensors(lambda t: run.seen(t, tag if t.requires_grad else None), run.native(call))


def modified(
    weight: Tensor, purpose: str, factor: Tensor, make: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return a weight with a factor folded in, from the cache if both are unchanged."""
    return weights.modified(weight, purpose, lambda w: make(w, factor), SameValues(factor))


def _with_shift(map_: LinearMap, weight: Tensor, bias: Tensor | None, shift: Tensor, x: Tensor) -> Tensor:
    """Return the bias that replaces a shift of the input. With padded zeros it differs between positions."""
    constant = map_.align_input(shift, x.shape)
    through = map_.apply(constant.to(weight.dtype), weight.detach())
    return through if bias is None else through + map_.align_bias(bias.detach())


def linear_origin(value: Any) -> Foldable | None:
    """Return the linear operations whose output a value is, or None."""
    if type(value) is not Seen or not value.relevant:
        return None
    origin = value.tag.origin
    return origin if isinstance(origin, Foldable) else None
