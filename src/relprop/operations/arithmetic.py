"""Sums and differences, and products and quotients with constants."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from relprop.attach import attach_with_slot
from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.linear_operations import times
from relprop.operations.exact import Exact
from relprop.operations.linear import LinearOrigin, add_bias
from relprop.provenance import merge_tags


def add(run: Interception, call: Call) -> Any:
    """Sum a + alpha·b. A relevant term keeps its own relevance; a constant absorbs its part, or is a bias."""
    a, b, alpha = _terms(call)
    if run.relevant(a) and run.relevant(b):
        return Exact(keeps_sign=alpha >= 0)(run, call)
    if run.relevant(a):
        return _with_constant(run, call, a, 1.0, b, alpha)
    return _with_constant(run, call, b, alpha, a, 1.0)


def sub(run: Interception, call: Call) -> Any:
    """Difference a - alpha·b."""
    a, b, alpha = _terms(call)
    if run.relevant(a) and run.relevant(b):
        return Exact()(run, call)
    if run.relevant(a):
        return _with_constant(run, call, a, 1.0, b, -alpha)
    return _with_constant(run, call, b, -alpha, a, 1.0)


def rsub(run: Interception, call: Call) -> Any:
    """Difference b - alpha·a, as written in `1 - x`."""
    a, b, alpha = _terms(call)
    if run.relevant(a) and run.relevant(b):
        return Exact()(run, call)
    if run.relevant(a):
        return _with_constant(run, call, a, -alpha, b, 1.0)
    return _with_constant(run, call, b, 1.0, a, -alpha)


def mul(run: Interception, call: Call) -> Any:
    """Product with a constant."""
    a, b = _factors(call)
    if run.relevant(a) and run.relevant(b):
        run.gap("mul", "both factors depend on the input; their product is not covered yet")
    return _scaled(run, call, b if run.relevant(a) else a)


def div(run: Interception, call: Call) -> Any:
    """Quotient by a constant."""
    a, b = _factors(call)
    if run.relevant(b):
        run.gap("div", "the denominator depends on the input; that is not covered yet")
    elif call.kwargs.get("rounding_mode") is not None:
        run.gap("div", "rounding is not covered")
    return _scaled(run, call, b if run.relevant(a) else a)


def _scaled(run: Interception, call: Call, constant: Any) -> Any:
    keeps_sign = isinstance(constant, (int, float)) and constant >= 0
    return Exact(keeps_sign=keeps_sign, slot="pass")(run, call)


def _with_constant(
    run: Interception, call: Call, x: Tensor, factor: float, constant: Any, constant_factor: float
) -> Any:
    """Value factor·x + constant_factor·constant."""
    constant = torch.as_tensor(constant, dtype=x.dtype, device=x.device).detach() * constant_factor
    tag = run.tag(x)
    if factor == 1 and isinstance(tag.origin, LinearOrigin) and tag.origin.intact:
        output = add_bias(run, call, tag.origin, constant)
        if output is not None:
            return output
    path, name, shape, slot = run.modules.path, call.name, x.shape, run.slot(x)
    value, kept = call.value(), run.keep(constant)

    def backward(c: Tensor | None, direct: Tensor | None) -> tuple[Tensor | None, ...]:
        to_x = None
        if c is not None:
            run.ledger.add("constant", times(c, kept.value), path, name)
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
    "neg": Exact(slot="pass"),
}
