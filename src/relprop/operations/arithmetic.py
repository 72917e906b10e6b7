"""Sums and differences, and products and quotients with constants. Products of activations: `products`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from relprop.attach import attach_with_slot, attach_with_slots
from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.linear.numerics import divide, times
from relprop.linear.operation import Incoming
from relprop.operations.chains import attach_to_root, chained, value_before
from relprop.operations.exact import Exact
from relprop.operations.folding import affine, fold
from relprop.operations.pointwise import reciprocal
from relprop.operations.products import product, quotient
from relprop.operations.ruled import Affine, LinearOrigin
from relprop.provenance import Applied, Origin, merge_tags
from relprop.rules.other import SumRule

SUM = "sum"
"""Kind of sums of two branches, for composites."""


def add(run: Interception, call: Call) -> Any:
    """Sum a + alpha·b. A relevant term keeps its own relevance; a constant absorbs its part, or is a bias."""
    a, b, alpha = _terms(call)
    if run.relevant(a) and run.relevant(b):
        return _sum(run, call, a, b, keeps_sign=alpha >= 0)
    if run.relevant(a):
        return _with_constant(run, call, a, 1.0, b, alpha)
    return _with_constant(run, call, b, alpha, a, 1.0)


def sub(run: Interception, call: Call) -> Any:
    """Difference a - alpha·b."""
    a, b, alpha = _terms(call)
    if run.relevant(a) and run.relevant(b):
        return _sum(run, call, a, b)
    if run.relevant(a):
        return _with_constant(run, call, a, 1.0, b, -alpha)
    return _with_constant(run, call, b, -alpha, a, 1.0)


def rsub(run: Interception, call: Call) -> Any:
    """Difference b - alpha·a, as written in `1 - x`."""
    a, b, alpha = _terms(call)
    if run.relevant(a) and run.relevant(b):
        return _sum(run, call, a, b)
    if run.relevant(a):
        return _with_constant(run, call, a, -alpha, b, 1.0)
    return _with_constant(run, call, b, 1.0, a, -alpha)


def mul(run: Interception, call: Call) -> Any:
    """Product with a constant, or of activations."""
    a, b = _factors(call)
    if run.relevant(a) and run.relevant(b):
        return product(run, call, a, b)
    return _scaled(run, call, *((a, b) if run.relevant(a) else (b, a)))


def div(run: Interception, call: Call) -> Any:
    """Quotient by a constant, or by an activation, which counts as one."""
    a, b = _factors(call)
    if call.kwargs.get("rounding_mode") is not None:
        run.gap("div", "rounding is not covered")
        return Exact(slot="pass")(run, call)
    if run.relevant(b):
        return quotient(run, call, a, b) if run.relevant(a) else reciprocal(run, call)
    return _scaled(run, call, a, b, invert=True)


def neg(run: Interception, call: Call) -> Any:
    """-x."""
    return _scaled(run, call, call.target, -1.0)


def _sum(run: Interception, call: Call, a: Tensor, b: Tensor, keeps_sign: bool = False) -> Any:
    chain = None
    if run.tag(a).pointwise is not None or run.tag(b).pointwise is not None:
        chain = chained(run, call, [a, b], begin=True)
    # Branches have one shape; a mean that is subtracted, and so broadcast, is none.
    if chain is None and a.shape == b.shape:
        rule = run.choose(run.site(call, SUM, max(run.tag(a).depth, run.tag(b).depth)))
        if rule is not None:
            return _shared_sum(run, call, rule)
    result = Exact(keeps_sign=keeps_sign)(run, call)
    if chain is not None:
        run.set_tag(result, replace(run.tag(result), pointwise=chain))
    return result


def _shared_sum(run: Interception, call: Call, rule: SumRule) -> Tensor:
    """The sum of two branches by a rule of the composite."""
    a, b, alpha = _terms(call)
    terms = (a, b)
    factors = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[call.name]
    run.applied.append(Applied(run.modules.path, call.name, rule))
    path, name, slots = run.modules.path, call.name, [run.slot(t) for t in terms]
    value = call.value()
    kept, kept_z = [run.keep(t) for t in terms], run.keep(value)

    def backward(c: Tensor | None, direct: Tensor | None = None) -> tuple[Tensor | None, ...]:
        R, x = Incoming(c, direct, kept_z.value).relevance, [k.value for k in kept]
        summed = [(t * factor).expand(R.shape) for t, factor in zip(x, factors, strict=True)]
        amounts = [(R * part).sum_to_size(t.shape) for part, t in zip(rule.parts(*summed), x, strict=True)]
        to_terms: list[Tensor | None] = []
        to_slots: list[Tensor | None] = []
        for t, amount, slot in zip(x, amounts, slots, strict=True):
            if slot is None:
                run.ledger.add("zero input", amount * (t == 0), path, name)
            to_terms.append(divide(amount, t) if slot is None else None)
            to_slots += [] if slot is None else [amount]
        return (*to_terms, *to_slots)

    output, slot = attach_with_slots(value, terms, slots, backward)
    tags = [run.tag(t) for t in terms]
    nonnegative = all(tag.nonnegative for tag in tags) and min(factors) >= 0
    run.set_tag(output, merge_tags(tags, nonnegative=nonnegative, slot=slot))
    return output


def _scaled(run: Interception, call: Call, x: Tensor, factor: Any, *, invert: bool = False) -> Any:
    """x·factor or, inverted, x/factor. Behind a linear operation, a factor for each output is part of it."""
    if x.is_complex() or isinstance(factor, complex) or (isinstance(factor, Tensor) and factor.is_complex()):
        return Exact(slot="none")(run, call)
    origin, gate = run.tag(x).origin, run.tag(x).gate
    keeps_sign = isinstance(factor, (int, float)) and factor >= 0
    scale = torch.as_tensor(factor, dtype=x.dtype, device=x.device).detach()
    chain = chained(run, call, [x]) if _broadcasts_to(scale, x) else None
    linear = origin if isinstance(origin, LinearOrigin) and origin.intact else None
    # With one sample, what is made of its values has the shape of one number an output.
    data = run.constants.is_data(factor)
    # A single number is folded only if something else comes after it: by itself it would take a linear
    # operation's output apart where it is used with and without, as in relu(z) - 0.1·relu(-z).
    number = float(scale) if scale.dim() == 0 and not data else None
    if linear is not None and number is None and not data:
        output = fold(run, call, linear, scale=1 / scale if invert else scale)
        if output is not None:
            # A factor for each output is part of the linear operation, and of no pointwise function.
            run.set_tag(output, replace(run.tag(output), pointwise=None if scale.dim() else chain))
            return output
    later: Origin | None = None
    if linear is not None and number:
        later = replace(linear, factor=linear.factor / number if invert else linear.factor * number)
    elif linear is None and not data:
        later = affine(run, _root(run, call, x), scale=1 / scale if invert else scale)
    result = Exact(keeps_sign=keeps_sign, slot="pass")(run, call)
    run.set_tag(result, replace(run.tag(result), pointwise=chain, gate=gate, origin=later))
    return result


def _broadcasts_to(constant: Tensor, x: Tensor) -> bool:
    """Whether the result has the shape of x. torch.broadcast_shapes takes longer than the product may."""
    pairs = zip(reversed(constant.shape), reversed(x.shape), strict=False)
    return constant.dim() <= x.dim() and all(one in (1, other) for one, other in pairs)


def _root(run: Interception, call: Call, x: Tensor) -> Tensor:
    """What an affine function of x is attached to: x, or what it was before it is overwritten.

    That takes a copy, which is worth it for the normalisation of an input only.
    """
    tag = run.tag(x)
    begins = tag.depth == 0 and not isinstance(tag.origin, Affine)
    return value_before(run, x) if begins and call.inplace and x is call.target else x


def _with_constant(
    run: Interception, call: Call, x: Tensor, factor: float, constant: Any, constant_factor: float
) -> Any:
    """Value factor·x + constant_factor·constant."""
    data, sink = run.constants.is_data(constant), run.sink_of(call.own(constant))
    constant = torch.as_tensor(constant, dtype=x.dtype, device=x.device).detach() * constant_factor
    tag = run.tag(x)
    origin = tag.origin if isinstance(tag.origin, LinearOrigin) and tag.origin.intact else None
    # What has a dimension is a bias of outputs rather than part of a pointwise function.
    single = constant.dim() == 0 or (constant.numel() == 1 and constant.dim() <= x.dim() and origin is None)
    chain = chained(run, call, [x], begin=True) if single else None
    if factor == 1 and origin is not None and not data:
        output = fold(run, call, origin, shift=constant)
        if output is not None:
            run.set_tag(output, replace(run.tag(output), pointwise=chain))
            return output
    if chain is not None and tag.pointwise is not None:
        return attach_to_root(run, call, chain)
    later = None
    if origin is None and not data:
        later = affine(run, _root(run, call, x), scale=constant.new_tensor(factor), shift=constant)
    output = _shifted(run, call, x, factor, constant, sink)
    run.set_tag(output, replace(run.tag(output), pointwise=chain, origin=later))
    return output


def _shifted(run: Interception, call: Call, x: Tensor, factor: float, constant: Tensor, sink: str) -> Tensor:
    """factor·x + constant: the constant absorbs its part, in a sink of the ledger."""
    tag = run.tag(x)
    path, name, shape, slot = run.modules.path, call.name, x.shape, run.slot(x)
    value, kept = call.value(), run.keep_constant(constant)

    def backward(c: Tensor | None, direct: Tensor | None) -> tuple[Tensor | None, ...]:
        to_x = None
        if c is not None:
            run.ledger.add(sink, times(c, kept.value), path, name)
            to_x = (c if factor == 1 else c * factor).sum_to_size(shape)
        # Relevance itself stays on the element that was shifted, as on a pixel that is normalised.
        on_x = None if direct is None else direct.sum_to_size(shape)
        return to_x, on_x

    nonnegative = tag.nonnegative and factor >= 0 and bool((constant >= 0).all())
    output, out_slot = attach_with_slot(value, x, slot, backward)
    run.set_tag(output, merge_tags([tag], nonnegative=nonnegative, slot=out_slot))
    return output


def _terms(call: Call) -> tuple[Any, Any, float]:
    def arguments(input: Any, other: Any, alpha: float = 1.0) -> Any:
        return input, other, alpha

    rest = {key: value for key, value in call.kwargs.items() if key != "out"}
    terms: tuple[Any, Any, float] = arguments(*call.args, **rest)
    return terms


def _factors(call: Call) -> tuple[Any, Any]:
    values = [*call.args, *(call.kwargs[key] for key in ("input", "other") if key in call.kwargs)]
    return values[0], values[1]


TABLE: Mapping[str, Entry] = {
    "add": add,
    "sub": sub,
    "rsub": rsub,
    "mul": mul,
    "div": div,
    "rdiv": reciprocal,
    "neg": neg,
}
