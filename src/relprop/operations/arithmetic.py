"""Sums and differences; products and quotients with constants. `products` has products of activations."""

from collections.abc import Mapping
from dataclasses import replace
from math import pi
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from relprop.calls.call import Call
from relprop.calls.nested import map_tensors
from relprop.calls.site import Kind
from relprop.crossing.chains import attach_to_root, chained
from relprop.crossing.exact import Exact, spread
from relprop.crossing.folding import affine, fold
from relprop.crossing.parts import of_value, with_own_value
from relprop.crossing.ruled import linear_origin
from relprop.crossing.samples import step_beside
from relprop.engine.interception import Entry
from relprop.engine.known import Origin, Tag, all_nonnegative, behind_all, merge_tags, role_of
from relprop.engine.roles import Role
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen, is_relevant, value_of
from relprop.linear.numerics import times
from relprop.linear.operation import Incoming
from relprop.operations.pointwise import copied, reciprocal
from relprop.operations.products import product, quotient
from relprop.rules.other import SumRule


def add(run: Run, call: Call, a: Any, b: Any, alpha: Any) -> Any:
    """Sum a + alpha·b. A relevant term gets what it contributed. A constant absorbs its part or is a bias."""
    return _sum(run, call, a, b, (1.0, alpha))


def sub(run: Run, call: Call, a: Any, b: Any, alpha: Any) -> Any:
    """Difference a - alpha·b."""
    return _sum(run, call, a, b, (1.0, -alpha))


def rsub(run: Run, call: Call, a: Any, b: Any, alpha: Any) -> Any:
    """Difference b - alpha·a, as written in `1 - x`."""
    return _sum(run, call, a, b, (-alpha, 1.0))


def mul(run: Run, call: Call, a: Any, b: Any) -> Any:
    """Product with a constant, or of two activations."""
    if is_relevant(a) and is_relevant(b):
        return product(run, call, a, b)
    return _scaled(run, call, *((a, b) if is_relevant(a) else (b, a)))


def div(run: Run, call: Call, a: Any, b: Any, rounding: str | None = None) -> Any:
    """Quotient by a constant, or by an activation, which usually counts as a constant."""
    if rounding is not None:
        return step(run, call)
    if is_relevant(b):
        return quotient(run, call, a, b) if is_relevant(a) else reciprocal(run, call, b)
    return _scaled(run, call, a, b, invert=True)


def neg(run: Run, call: Call, x: Seen) -> Any:
    """-x."""
    return _scaled(run, call, x, -1.0)


def cutting(reason: str) -> Entry:
    """Return the entry for an operation whose results are constants, for this reason."""

    def entry(run: Run, call: Call, *_args: Any) -> Any:
        run.cut(call.name, reason)
        return map_tensors(lambda t: run.seen(t, None), run.value(call))

    return entry


step = cutting("is constant between its steps")  # so its gradient is zero, as of sign and round
drawn = cutting("draws random numbers")


def rest(run: Run, call: Call, x: Any, divisor: Any = None) -> Any:
    """frac(x), and x modulo a constant: x minus a multiple of the divisor, which is a constant."""
    if not is_relevant(x) or is_relevant(divisor):
        run.gap(call.name, "the divisor depends on the input")
        return Exact(slot="pass")(run, call)
    value = run.value(call)
    multiple = run.seen(value_of(x).detach() - value, None)
    return of_value(run, value, run.perform(torch.sub, x, multiple))


def copied_sign(run: Run, call: Call, x: Any, sign: Any) -> Any:
    """torch.copysign: |x| times a sign, which is a constant."""
    if not is_relevant(x):
        return step(run, call)
    one = torch.ones((), dtype=x.dtype, device=x.device)
    signs = run.seen(torch.copysign(one, value_of(sign)), None)
    return with_own_value(run, call, run.perform(torch.mul, run.perform(torch.abs, x), signs))


def angle_units(factor: float) -> Entry:
    """Return the entry for a conversion between degrees and radians: a product with a number."""

    def entry(run: Run, call: Call, x: Seen) -> Any:
        return with_own_value(run, call, run.perform(torch.mul, x, factor))

    return entry


def _sum(run: Run, call: Call, a: Any, b: Any, factors: tuple[Any, Any]) -> Any:
    """Sum of two terms, each with its factor."""
    if _is_term(run, a, b) or _is_term(run, b, a):
        a, b = (_as_term(run, call, t, other) for t, other in ((a, b), (b, a)))
        call = Call(call.signature, [a, b, *call.args[2:]])
    if not is_relevant(a):
        return _with_constant(run, call, b, factors[1], a, factors[0])
    if not is_relevant(b):
        return _with_constant(run, call, a, factors[0], b, factors[1])
    chain = None
    if a.tag.pointwise is not None or b.tag.pointwise is not None or a.recorded is b.recorded:
        chain = chained(run, call, [a, b])
    # Branches have the same shape. A mean that is subtracted is broadcast, so it is no branch.
    if chain is None and a.shape == b.shape:
        rule = run.choose(run.site(call, Kind.SUM, behind_all([a.tag, b.tag])))
        if rule is not None:
            return _shared_sum(run, call, rule, (a, b), factors)
    total = b.tag.total
    centred = factors == (1, -1) and total is not None and not total.grouped and total.of() is a.recorded
    # Relevance that is put on an element stays there, also where the mean of all is subtracted.
    result: Seen = Exact(keeps_sign=min(factors) >= 0, slot="pass" if centred else "share")(run, call)
    result.tag.pointwise = chain
    return result


def _is_term(run: Run, t: Any, other: Any) -> bool:
    """Whether a constant that a linear operation made of constants stands beside a tensor of its shape."""
    return run.of_parameters.is_output(t) and is_relevant(other) and t.shape == other.shape


def _as_term(run: Run, call: Call, t: Any, other: Any) -> Any:
    """Return such a constant as a term that absorbs what it gets, and anything else unchanged."""
    if not _is_term(run, t, other):
        return t
    return run.source(t, call.name, other.dtype, step_beside(run, other, t), Role.SIGNAL)


def _shared_sum(
    run: Run, call: Call, rule: SumRule, terms: tuple[Seen, Seen], factors: tuple[Any, Any]
) -> Seen:
    """Sum of two branches, by a rule of the composite."""
    run.apply(call, rule)
    path, name, slots = run.modules.path, call.name, [run.slot(t) for t in terms]
    value = run.value(call)
    kept = [run.keep(t.recorded) for t in terms]
    has_slot = [slot is not None for slot in slots]

    def back(incoming: Incoming) -> list[Outgoing]:
        R, x = incoming.relevance, [k.value for k in kept]
        summed = [(t * factor).expand(R.shape) for t, factor in zip(x, factors, strict=True)]
        amounts = [(R * part).sum_to_size(t.shape) for part, t in zip(rule.parts(*summed), x, strict=True)]
        return [
            (None, amount) if has else (run.as_coefficient(amount, t, path, name), None)
            for t, amount, has in zip(x, amounts, has_slot, strict=True)
        ]

    tags = [t.tag for t in terms]
    nonnegative = all(tag.nonnegative for tag in tags) and min(factors) >= 0
    known = replace(merge_tags(tags, nonnegative=nonnegative), step=tags[0].step)
    return run.cross(value, terms, back, known, kept=run.keep(value))


def _scaled(run: Run, call: Call, x: Seen, factor: Any, *, invert: bool = False) -> Any:
    """x·factor, or x/factor if `invert`. After a linear operation, a factor for each output is folded."""
    if x.is_complex() or isinstance(factor, complex) or (isinstance(factor, Tensor) and factor.is_complex()):
        return Exact(slot="none")(run, call)
    if not invert and _is_term(run, factor, x) and _weighs(x):
        other = _as_term(run, call, factor, x)
        return product(run, Call(call.signature, [other if a is factor else a for a in call.args]), x, other)
    # A constant made of a single sample's values may look like one number for each output, but is no weight.
    data = type(factor) is Seen
    if data and not invert and factor.above is x.recorded:  # x·(x > 0)
        return with_own_value(run, call, run.perform(torch.relu, x))
    call, factor = _unexpanded(call, x, factor)
    linear, constant = linear_origin(x), _constant(factor, x)
    chain = chained(run, call, [x]) if _broadcasts_to(constant, x) else None
    if chain is not None:
        chain.function.scales = True
    # A single number is folded only if another constant follows. Otherwise, an output that is used both with
    # and without the number, as in relu(z) - 0.1·relu(-z), would be split into two operations.
    number = None if data else _number(constant)
    later: Origin | None = None
    if not data:
        scale = 1 / constant if invert and number != 0 else constant
        if linear is not None and number is None:
            output = fold(run, linear, lambda: run.value(call), scale=scale)
            if output is not None:
                # A factor for each output is part of the linear operation, not of a pointwise function.
                output.tag.pointwise = None if constant.dim() else chain
                return output
        if linear is not None and number:
            whole = linear.factor / number if invert else linear.factor * number
            later = replace(linear, factor=whole, kept_z=None)
        elif not (number == 0 and (invert or linear is not None)):
            later = affine(x, ("scale", scale))
    result: Seen = Exact(keeps_sign=isinstance(factor, (int, float)) and factor >= 0, slot="pass")(run, call)
    tag = result.tag
    tag.pointwise, tag.origin = chain, later
    tag.role = x.tag.role if chain is not None else role_of(x.tag)
    tag.total = None if tag.total is None else replace(tag.total, dim=None)
    return result


def _weighs(x: Seen) -> bool:
    """Whether a tensor is a weight beside a signal."""
    role = role_of(x.tag)
    return role.is_weight and role is not Role.STATISTIC


def _constant(value: Any, x: Tensor) -> Any:
    """Return a constant as a number, or as a tensor of x's type and device."""
    if isinstance(value, Tensor):
        constant = value_of(value)
        if constant.dtype != x.dtype or constant.device != x.device:
            return constant.detach().to(x.device, x.dtype)
        return constant.detach() if constant.requires_grad else constant
    return float(value)


def _unexpanded(call: Call, x: Seen, constant: Any) -> tuple[Call, Any]:
    """Return a call and its constant without what repeats in a constant of x's shape.

    So `x + b.expand_as(x)` is `x + b`, and `torch.ones_like(x) - x` is `1 - x`.
    """
    if not isinstance(constant, Tensor) or type(constant) is Seen or constant.shape != x.shape:
        return call, constant
    if not constant.dim() or not constant.numel() or isinstance(constant, FakeTensor):
        return call, constant
    small = constant
    for dim, step in enumerate(constant.stride()):
        small = small.narrow(dim, 0, 1) if step == 0 else small
    # A parameter may have one number everywhere by chance.
    if small.numel() == constant.numel() and not constant.requires_grad:
        first = constant.flatten()[0]
        small = first if bool((constant == first).all()) else constant
    return Call(call.signature, [small if a is constant else a for a in call.args]), small


def _number(constant: Any) -> float | None:
    """Return a constant that is a single number without dimensions as a number, and None for others."""
    if isinstance(constant, float):
        return constant
    return float(constant) if constant.dim() == 0 else None


def _broadcasts_to(constant: Any, x: Tensor) -> bool:
    """Whether a constant broadcasts to x's shape. torch.broadcast_shapes may take longer than the product."""
    if isinstance(constant, float):
        return True
    own, shape = constant.shape, x.shape
    if len(own) > len(shape):
        return False
    return all([n in (1, of) for n, of in zip(own, shape[len(shape) - len(own) :], strict=True)])


def _with_constant(
    run: Run, call: Call, x: Seen, factor: float, constant: Any, constant_factor: float
) -> Any:
    """Value factor·x + constant_factor·constant."""
    if factor == 1 and type(constant) in (int, float) and constant == 0:  # as Python's sum() begins
        return copied(run, call, x)
    data, sink = type(constant) is Seen, run.sink_of(constant)
    call, constant = _unexpanded(call, x, constant)
    constant = _constant(constant, x)
    constant = constant if constant_factor == 1 else constant * constant_factor
    tag, linear = x.tag, linear_origin(x)
    # A constant with dimensions is a bias of outputs rather than part of a pointwise function.
    single = isinstance(constant, float) or (
        constant.dim() == 0 or (constant.numel() == 1 and constant.dim() <= x.dim() and linear is None)
    )
    chain = chained(run, call, [x]) if single else None
    zero = isinstance(constant, float) and constant == 0
    if linear is not None and not data and (factor == 1 or not zero):
        new = x.recorded.detach().new_tensor
        scale = None if factor == 1 else new(factor)
        shift = new(constant) if isinstance(constant, float) else constant
        output = fold(run, linear, lambda: run.value(call), scale=scale, shift=shift)
        if output is not None:
            output.tag.pointwise = chain
            return output
    later: Origin | None = None
    if not data:
        scaled: Any = () if factor == 1 else (("scale", float(factor)),)
        later = affine(x, *scaled, ("shift", constant))
    if chain is not None and tag.pointwise is not None:
        attached = attach_to_root(run, call, chain)
        attached.tag.origin = later if chain.names <= _ARITHMETIC else None
        return attached
    return _shifted(run, call, x, factor, constant, sink, pointwise=chain, origin=later)


def _shifted(run: Run, call: Call, x: Seen, factor: float, constant: Any, sink: str, **known: Any) -> Seen:
    """factor·x + constant. The constant absorbs its part, in the given sink of the ledger."""
    tag, shape = x.tag, x.shape
    path, name, number = run.modules.path, call.name, isinstance(constant, float)
    kept = None if number else run.keep_constant(constant)
    value = run.value(call)
    step = tag.step if value.shape == shape else step_beside(run, x, value)

    def back(incoming: Incoming) -> list[Outgoing]:
        c, direct, to_x = incoming.c, incoming.direct, None
        if c is not None:
            run.ledger.add(sink, times(c, constant if kept is None else kept.value), path, name, step)
            to_x = (c if factor == 1 else c * factor).sum_to_size(shape)
        # Direct relevance stays on the element that was shifted, as on a pixel that is normalised.
        return [(to_x, None if direct is None else direct.sum_to_size(shape))]

    above = constant >= 0 if number else all_nonnegative(constant)
    nonnegative = tag.nonnegative and factor >= 0 and above
    role = tag.role if known.get("pointwise") is not None else role_of(tag)
    total = None if tag.total is None else spread(run, call, replace(tag.total, dim=None))
    return run.cross(
        value, [x], back, Tag(tag.behind, nonnegative, role=role, step=step, total=total, **known)
    )


_ARITHMETIC = frozenset(("add", "sub", "rsub", "mul", "div", "neg"))
"""Operations of which a chain with numbers is a scale and a shift."""


TABLE: Mapping[str, Entry] = {
    "add": add,
    "sub": sub,
    "rsub": rsub,
    "mul": mul,
    "div": div,
    "neg": neg,
    **dict.fromkeys(("cauchy", "exponential", "geometric", "log_normal", "normal", "uniform"), drawn),
    "deg2rad": angle_units(pi / 180),
    "rad2deg": angle_units(180 / pi),
    **dict.fromkeys(("frac", "fmod", "remainder"), rest),
    "copysign": copied_sign,
    **dict.fromkeys(("sign", "sgn", "round", "floor", "ceil", "trunc"), step),
    **dict.fromkeys(("heaviside", "floor_divide", "bernoulli"), step),
}
