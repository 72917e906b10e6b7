"""Pointwise functions: relevance passes through them, by the slope of a secant or by the plain gradient."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite, pi, sqrt
from typing import Any, Literal

import torch
from torch import Tensor

from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.operations.chains import attach_secant, attach_to_root, chained, gate_of, value_at_zero
from relprop.operations.exact import Exact, as_function
from relprop.provenance import ACTIVATION, STATISTIC, merge_tags


@dataclass(frozen=True)
class Secant:
    """A function f passes relevance on by the slope from (0, f(0)) to (x, f(x)); its tangent saturates.

    c_in = c · (f(x) - f(0))/x, and c · f'(0) where x is nearly zero. What f(0) carries is absorbed, as a
    bias is.

    Attributes:
        slope: f'(0).
        nonnegative: whether f is non-negative everywhere.
        keeps_sign: whether f(x) is non-negative for x ≥ 0.
        gate: whether the function's usual office is to weigh other values: "always"; "activation", as one;
            or "shifted", where it ends a chain that is not 0 at 0, as in clamp(x + 3, 0, 6)/6.
        quotient: from the call to x ↦ f(x)/x, for functions with f(0) = 0 of which it is a plain one.
    """

    slope: float
    nonnegative: bool = False
    keeps_sign: bool = True
    gate: Literal["never", "activation", "shifted", "always"] = "never"
    quotient: Callable[[Call], Callable[[Tensor], Tensor]] | None = None

    def __call__(self, run: Interception, call: Call) -> Any:
        x = call.target
        tag = run.tag(x)
        nonnegative = self.nonnegative or (self.keeps_sign and tag.nonnegative)
        at_zero = value_at_zero(call, x)
        chain = chained(run, call, [x], begin=at_zero != 0)
        function = as_function(run, call)
        if chain is not None and (tag.pointwise is not None or call.inplace):
            output = attach_to_root(run, call, chain, nonnegative=nonnegative, clamps=self.gate == "shifted")
        else:
            quotient = None if self.quotient is None else self.quotient(call)
            output, slot = attach_secant(
                run, call, x, lambda x: function([x]), at_zero, self.slope, quotient=quotient
            )
            merged = merge_tags([tag], nonnegative=nonnegative, slot=slot)
            run.set_tag(output, replace(merged, pointwise=chain, gate=gate_of(chain)))
        if self.gate in ("always", "activation"):
            gate = call.name if self.gate == "always" else ACTIVATION
            run.set_tag(output, replace(run.tag(output), gate=gate))
        return output


@dataclass(frozen=True)
class Homogeneous:
    """A pointwise function with f(ax) = a·f(x) for a > 0, exact under the plain gradient; part of chains.

    Attributes:
        nonnegative: whether f is non-negative everywhere.
        keeps_sign: whether f(x) is non-negative for x ≥ 0.
        copies: whether f(x) is x, of which what a later operation may attach to is known as well.
    """

    nonnegative: bool = False
    keeps_sign: bool = True
    copies: bool = False

    def __call__(self, run: Interception, call: Call) -> Any:
        x = call.target
        before, version = run.tag(x), x._version
        chain = chained(run, call, [x])
        result = Exact(keeps_sign=self.keeps_sign, nonnegative=self.nonnegative, slot="pass")(run, call)
        # What returns its operand itself, as dropout does in evaluation, tells nothing new of it.
        if result is not x or x._version != version:
            origin = before.origin if self.copies else None
            gate = before.gate or gate_of(chain)
            run.set_tag(result, replace(run.tag(result), pointwise=chain, gate=gate, origin=origin))
        return result


def clamp(run: Interception, call: Call) -> Any:
    """Clamp between two numbers, either of which may be missing."""

    def arguments(input: Tensor, min: Any = None, max: Any = None) -> Any:
        return min, max

    low, high = (
        float(bound)
        if isinstance(bound, Tensor) and bound.numel() == 1 and not run.relevant(bound)
        else bound
        for bound in arguments(*call.args, **call.kwargs)
    )
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        run.gap("clamp", "bounds that are tensors are not covered")
        return Exact(slot="pass")(run, call)
    return _between(-torch.inf if low is None else low, torch.inf if high is None else high)(run, call)


def clamp_min(run: Interception, call: Call) -> Any:
    """torch.clamp_min."""

    def arguments(input: Tensor, min: Any) -> Any:
        return input, min

    x, low = arguments(*call.args, **call.kwargs)
    return clamp(run, replace(call, name="clamp", args=(x, low), kwargs={}))


def clamp_max(run: Interception, call: Call) -> Any:
    """torch.clamp_max."""

    def arguments(input: Tensor, max: Any) -> Any:
        return input, max

    x, high = arguments(*call.args, **call.kwargs)
    if isinstance(high, Tensor) and high.numel() > 1:
        run.gap("clamp_max", "bounds that are tensors are not covered")
        return Exact(slot="pass")(run, call)
    return _between(-torch.inf, float(high))(run, replace(call, args=(x, high), kwargs={}))


def hardtanh(run: Interception, call: Call) -> Any:
    """F.hardtanh, and so ReLU6 the module: clamp under another signature."""

    def arguments(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
        return min_val, max_val

    return _between(*arguments(*call.args, **call.kwargs))(run, call)


def _between(low: float, high: float) -> Secant:
    return Secant(
        slope=1.0 if low < 0 < high else 0.0,
        nonnegative=low >= 0,
        keeps_sign=high >= 0,
        gate="activation"
        if (low, high) == (0, torch.inf)
        else "shifted"
        if isfinite(high - low)
        else "never",
    )


def threshold(run: Interception, call: Call) -> Any:
    """F.threshold: x where x > threshold, else a value."""

    def arguments(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Any:
        return value

    if arguments(*call.args, **call.kwargs) == 0:
        return Homogeneous()(run, call)
    run.gap("threshold", "a value other than 0 is not covered")
    return Exact(slot="pass")(run, call)


def power(run: Interception, call: Call) -> Any:
    """x to a constant power: 0, or 1 and more, or one between, whose slope at zero is infinite."""

    def arguments(input: Any, exponent: Any = None, other: Any = None) -> Any:
        return input, other if exponent is None else exponent

    x, exponent = arguments(*call.args, **call.kwargs)
    if (
        not run.relevant(x)
        or (isinstance(exponent, Tensor) and exponent.numel() > 1)
        or run.relevant(exponent)
    ):
        run.gap("pow", "only an exponent that is one constant number is covered")
        return Exact(slot="pass")(run, call)
    exponent = float(exponent)
    if exponent < 0:
        return reciprocal(run, call)
    slope = 1.0 if exponent == 1 else 0.0  # between 0 and 1: relevance of x = 0 is 0 whatever the slope
    return Secant(slope=slope, nonnegative=exponent % 2 == 0)(run, call)


def reciprocal(run: Interception, call: Call) -> Any:
    """1/x, 1/√x: scales of other values, made of their statistics. They get no relevance.

    Where it ends a chain with an exponential in it, as in 1/(1 + exp(-x)), it is a pointwise function.
    """
    x = call.target
    chain = chained(run, call, [x])
    if chain is not None and "exp" in chain.names:
        output = attach_to_root(run, call, chain)
        run.set_tag(output, replace(run.tag(output), gate="sigmoid"))
        return output
    tag = run.tag(x)
    output, slot = run.sink(STATISTIC, call.value(), call.name)
    run.set_tag(output, replace(merge_tags([tag], slot=slot), gate=STATISTIC, pointwise=chain))
    return output


def logarithm(run: Interception, call: Call) -> Any:
    """The end of a chain that is positive at 0, as log(1 + exp(x)) is."""
    x = call.target
    chain = chained(run, call, [x])
    if chain is None or "exp" not in chain.names:
        run.gap(call.name, "log(0) is infinite; only chains such as log(1 + exp(x)) are covered")
        return Exact(slot="pass")(run, call)
    return attach_to_root(run, call, chain)


def _gelu_over_x(call: Call) -> Callable[[Tensor], Tensor]:
    """GELU(x)/x: the normal distribution, or what approximates it."""

    def arguments(input: Tensor, approximate: str = "none") -> str:
        return approximate

    if arguments(*call.args, **call.kwargs) == "none":
        return lambda x: torch.erf(x / sqrt(2)).add_(1).div_(2)
    return lambda x: torch.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)).add_(1).div_(2)


_passing = Homogeneous()
_nonnegative = Homogeneous(nonnegative=True)

TABLE: Mapping[str, Entry] = {
    # homogeneous
    "relu": _nonnegative,
    "abs": _nonnegative,
    "absolute": _nonnegative,
    "leaky_relu": _passing,
    "prelu": _passing,
    "rrelu": _passing,
    "threshold": threshold,
    "nan_to_num": _passing,
    "dropout": _passing,
    "dropout1d": _passing,
    "dropout2d": _passing,
    "dropout3d": _passing,
    "alpha_dropout": _passing,
    "feature_alpha_dropout": _passing,
    "feature_dropout": _passing,
    # saturating
    "relu6": Secant(slope=0.0, nonnegative=True, gate="shifted"),
    "hardtanh": hardtanh,
    "clamp": clamp,
    "clamp_min": clamp_min,
    "clamp_max": clamp_max,
    "hardshrink": Secant(slope=0.0),
    "softshrink": Secant(slope=0.0),
    "tanhshrink": Secant(slope=0.0),
    # smooth; the number is the derivative at zero, from the left where the sides differ, as torch has it
    "gelu": Secant(slope=0.5, quotient=_gelu_over_x),
    "silu": Secant(slope=0.5, quotient=lambda _: torch.sigmoid),
    "mish": Secant(slope=0.6),
    "hardswish": Secant(slope=0.5),
    "elu": Secant(slope=1.0),
    "selu": Secant(slope=1.7580993408473766),
    "celu": Secant(slope=1.0),
    "tanh": Secant(slope=1.0),
    "softsign": Secant(slope=1.0),
    "sigmoid": Secant(slope=0.25, nonnegative=True, gate="always"),
    "hardsigmoid": Secant(slope=1 / 6, nonnegative=True, gate="always"),
    "softplus": Secant(slope=0.5, nonnegative=True),
    "log_sigmoid": Secant(slope=0.5, keeps_sign=False),
    "exp": Secant(slope=1.0, nonnegative=True),
    "expm1": Secant(slope=1.0),
    "log1p": Secant(slope=1.0),
    "log": logarithm,
    "sin": Secant(slope=1.0, keeps_sign=False),
    "cos": Secant(slope=0.0, keeps_sign=False),
    "atan": Secant(slope=1.0),
    "erf": Secant(slope=2 / sqrt(pi)),
    "erfc": Secant(slope=-2 / sqrt(pi), nonnegative=True),
    # powers
    "pow": power,
    "square": Secant(slope=0.0, nonnegative=True),
    "sqrt": Secant(slope=0.0, nonnegative=True),
    "rsqrt": reciprocal,
    "reciprocal": reciprocal,
}
