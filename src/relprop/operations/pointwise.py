"""Pointwise functions: relevance passes through them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.attach import attach
from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.operations.exact import Exact
from relprop.provenance import merge_tags


@dataclass(frozen=True)
class Secant:
    """A function f passes relevance on by the slope from (0, f(0)) to (x, f(x)); its tangent saturates.

    c_in = c · (f(x) - f(0))/x, and c · f'(0) where x is nearly zero. What f(0) carries is absorbed, as a
    bias is.

    Attributes:
        slope: f'(0).
        nonnegative: whether f is non-negative everywhere.
        keeps_sign: whether f(x) is non-negative for x ≥ 0.
    """

    slope: float
    nonnegative: bool = False
    keeps_sign: bool = True

    def __call__(self, run: Interception, call: Call) -> Any:
        name, path, slope = call.name, run.modules.path, self.slope
        x = call.args[0] if call.args else call.kwargs["input"]
        tag = run.tag(x)
        value = call.value()
        at_zero = _at_zero(call, x)
        kept_x, kept_y = run.keep(x), run.keep(value)

        def backward(c: Tensor) -> tuple[Tensor]:
            x, y = kept_x.value, kept_y.value
            if at_zero:
                y = y - at_zero
                run.ledger.add("pointwise", c * at_zero, path, name)
            # Where f(0) is not 0, the difference cancels long before the quotient does.
            tiny = x.abs() < torch.finfo(x.dtype).eps ** (0.5 if at_zero else 2)
            return (c * torch.where(tiny, slope, y / x.masked_fill(tiny, 1)),)

        (output,) = attach([value], [x], backward)
        nonnegative = self.nonnegative or (self.keeps_sign and tag.nonnegative)
        run.set_tag(output, merge_tags([tag], nonnegative=nonnegative, slot=run.slot(x)))
        return output


def clamp(run: Interception, call: Call) -> Any:
    """Clamp between two numbers, either of which may be missing."""

    def arguments(input: Tensor, min: Any = None, max: Any = None) -> Any:
        return min, max

    low, high = arguments(*call.args, **call.kwargs)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        run.gap("clamp", "bounds that are tensors are not covered")
        return Exact(slot="pass")(run, call)
    return _between(-torch.inf if low is None else low, torch.inf if high is None else high)(run, call)


def hardtanh(run: Interception, call: Call) -> Any:
    """F.hardtanh, and so ReLU6 the module: clamp under another signature."""

    def arguments(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
        return min_val, max_val

    return _between(*arguments(*call.args, **call.kwargs))(run, call)


def _between(low: float, high: float) -> Secant:
    return Secant(slope=1.0 if low < 0 < high else 0.0, nonnegative=low >= 0, keeps_sign=high >= 0)


def threshold(run: Interception, call: Call) -> Any:
    """F.threshold: x where x > threshold, else a value."""

    def arguments(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Any:
        return value

    if arguments(*call.args, **call.kwargs) == 0:
        return Exact(keeps_sign=True, slot="pass")(run, call)
    run.gap("threshold", "a value other than 0 is not covered")
    return Exact(slot="pass")(run, call)


def _at_zero(call: Call, x: Tensor) -> float:
    zero = torch.zeros(1, dtype=x.dtype, device=x.device)
    rest = {key: value for key, value in call.kwargs.items() if key not in ("input", "inplace")}
    with torch.no_grad():
        return float(call.function(zero, *call.args[1:], **rest))


_passing = Exact(keeps_sign=True, slot="pass")

TABLE: Mapping[str, Entry] = {
    # homogeneous
    "relu": Exact(nonnegative=True, slot="pass"),
    "abs": Exact(nonnegative=True, slot="pass"),
    "absolute": Exact(nonnegative=True, slot="pass"),
    "leaky_relu": _passing,
    "prelu": _passing,
    "rrelu": _passing,
    "threshold": threshold,
    "dropout": _passing,
    "dropout1d": _passing,
    "dropout2d": _passing,
    "dropout3d": _passing,
    "feature_dropout": _passing,
    # saturating
    "relu6": Secant(slope=0.0, nonnegative=True),
    "hardtanh": hardtanh,
    "clamp": clamp,
    # smooth; the number is the derivative at zero, from the left where the sides differ, as torch has it
    "gelu": Secant(slope=0.5),
    "silu": Secant(slope=0.5),
    "mish": Secant(slope=0.6),
    "hardswish": Secant(slope=0.5),
    "elu": Secant(slope=1.0),
    "selu": Secant(slope=1.7580993408473766),
    "celu": Secant(slope=1.0),
    "tanh": Secant(slope=1.0),
    "softsign": Secant(slope=1.0),
    "sigmoid": Secant(slope=0.25, nonnegative=True),
    "hardsigmoid": Secant(slope=1 / 6, nonnegative=True),
    "softplus": Secant(slope=0.5, nonnegative=True),
}
