"""Pointwise functions: relevance crosses them by the slope of a secant or by the plain gradient."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import log, pi, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.calls.call import Call
from relprop.crossing.chains import (
    attach_secant,
    attach_to_root,
    chained,
    is_finite_at_zero,
    same_values,
    value_at_zero,
)
from relprop.crossing.exact import Exact
from relprop.crossing.parts import of_value, with_own_value
from relprop.crossing.ruled import linear_origin
from relprop.engine.gaps import reason_of
from relprop.engine.interception import Entry
from relprop.engine.known import (
    Origin,
    Pointwise,
    Softmaxed,
    Tag,
    Total,
    all_nonnegative,
    gates_of,
    role_of,
)
from relprop.engine.roles import Role
from relprop.engine.run import Run
from relprop.engine.seen import Seen, is_relevant, number_of, value_of


@dataclass(frozen=True)
class Secant:
    """A function f that relevance crosses by the slope from (0, f(0)) to (x, f(x)); the tangent saturates.

    c_in = c · (f(x) - f(0))/x, and c · f'(0) where x is nearly zero. f(0) absorbs its part, as a bias does.

    Attributes:
        slope: f'(0).
        nonnegative: whether f is non-negative everywhere.
        keeps_sign: whether f(x) is non-negative for x ≥ 0.
        quotient: from the call to x ↦ f(x)/x, for functions with f(0) = 0 for which f(x)/x is simple.
    """

    slope: float
    nonnegative: bool = False
    keeps_sign: bool = True
    quotient: Callable[[Call], Callable[[Tensor], Tensor]] | None = None

    def __call__(self, run: Run, call: Call, x: Seen, *_options: Any) -> Any:
        tag = x.tag
        nonnegative = self.nonnegative or (self.keeps_sign and tag.nonnegative)
        chain = chained(run, call, [x])
        assert chain is not None, "it has one operand, and so one root"
        if tag.pointwise is not None:
            if is_finite_at_zero(chain):
                return attach_to_root(run, call, chain, nonnegative=nonnegative)
            return self(run, call, run.seen(x.recorded, replace(tag, pointwise=None, role=role_of(tag))))
        known = Tag(tag.behind, nonnegative, pointwise=chain, step=tag.step)
        quotient = None if self.quotient is None else self.quotient(call)
        function, slope, dtype, device = chain.function, self.slope, x.dtype, x.device

        def at_zero() -> tuple[float, float]:
            return value_at_zero(function, dtype, device), slope

        return attach_secant(run, call, x, function, at_zero, known, quotient)


@dataclass(frozen=True)
class Homogeneous:
    """A pointwise function with f(ax) = a·f(x) for a > 0: exact under the plain gradient, part of chains.

    Attributes:
        nonnegative: whether f is non-negative everywhere.
        keeps_sign: whether f(x) is non-negative for x ≥ 0.
    """

    nonnegative: bool = False
    keeps_sign: bool = True

    def __call__(self, run: Run, call: Call, x: Any, *_options: Any) -> Any:
        chain = chained(run, call, [x]) if is_relevant(x) and not x.is_complex() else None
        result = Exact(keeps_sign=self.keeps_sign, nonnegative=self.nonnegative, slot="pass")(run, call)
        if chain is None or type(result) is not Seen:
            return result
        result.tag.pointwise, result.tag.role = chain, x.tag.role
        return result


def exponential(run: Run, call: Call, x: Seen) -> Any:
    """exp(x), which divided by its sum is a softmax."""
    result = _exponential(run, call, x)
    result.tag.exponent = Origin(recorded=x.recorded, tag=x.tag)
    return result


def relu(run: Run, call: Call, x: Seen) -> Any:
    """ReLU. After a linear operation, max(0, z), which autograd keeps anyway, is kept instead of z."""
    result = _nonnegative(run, call, x)
    origin = linear_origin(x)
    if origin is not None and origin.clip(result.recorded):
        run.any_clipped = True
    return result


def copied(run: Run, call: Call, x: Seen, *_options: Any) -> Any:
    """An operation that returns the values unchanged, such as clone. Their tag still holds."""
    inner = x.recorded
    if not inner.is_contiguous():
        as_told = call.argument("memory_format") in (None, torch.preserve_format)
        # A copy has no gaps in its memory.
        if not as_told or torch.empty_like(inner, device="meta").stride() != inner.stride():
            return run.seen(run.native(call), replace(x.tag, pointwise=same_values(x)))
    return run.seen(inner, x.tag)


def dropout(run: Run, call: Call, x: Seen, p: float, train: bool) -> Any:
    """Dropout, which does nothing in evaluation."""
    if train and p > 0:
        run.gap(call.name, f"p={p:g} drops values at random; call model.eval(), or pass training=False")
        return Exact(keeps_sign=True, slot="none")(run, call)
    return x


def native_dropout(run: Run, call: Call, x: Seen, p: float, train: bool | None) -> Any:
    """The kernel of dropout, which also returns the mask of elements that were not dropped."""
    kept = torch.ones(x.shape, dtype=torch.bool, device=x.device)
    value = dropout(run, call, x, p, bool(train))
    return copied(run, call, x) if value is x else value, run.seen(kept, None)


def clamp(run: Run, call: Call, x: Any, low: Any = None, high: Any = None) -> Any:
    """Clamp between two bounds, either of which may be missing. ReLU6 is such a clamp."""
    many = any(isinstance(bound, Tensor) and bound.numel() > 1 for bound in (low, high))
    low, high = (_number(bound) for bound in (low, high))
    if any(isinstance(bound, Tensor) for bound in (low, high)):
        return _between_tensors(run, call, x, low, high)
    if many:  # each of them the same number everywhere
        return with_own_value(run, call, run.perform(torch.clamp, x, low, high))
    low, high = -torch.inf if low is None else low, torch.inf if high is None else high
    return relu(run, call, x) if (low, high) == (0, torch.inf) else _between(low, high)(run, call, x)


def _number(bound: Any) -> Any:
    """Return a bound that is one constant number everywhere as a number."""
    if not isinstance(bound, Tensor) or is_relevant(bound) or not bound.numel():
        return bound
    value = value_of(bound).detach()
    if value.numel() > 1 and type(bound) is Seen:  # by chance, for one sample
        return bound
    first = value.flatten()[0]
    return float(first) if value.numel() == 1 or bool((value == first).all()) else bound


def _between_tensors(run: Run, call: Call, x: Any, low: Any, high: Any) -> Any:
    """Clamp between bounds that differ between elements: pointwise if they are constants.

    A bound that depends on the input is a term of a maximum or a minimum.
    """
    constant = is_relevant(x) and not is_relevant(low) and not is_relevant(high)
    if constant and run.value(call).shape == x.shape:
        chain = chained(run, call, [x])
        assert chain is not None, "it has one operand, and so one root"
        above = isinstance(low, Tensor) and all_nonnegative(value_of(low))
        return attach_to_root(run, call, chain, nonnegative=above)
    for bound, extreme in ((low, torch.maximum), (high, torch.minimum)):
        if bound is not None:
            like = x if isinstance(x, Tensor) else bound
            bound = bound if isinstance(bound, Tensor) else torch.as_tensor(bound).to(like)
            x = run.perform(extreme, x, bound)
    return with_own_value(run, call, x)


def clamp_max(run: Run, call: Call, x: Any, high: Any) -> Any:
    """torch.clamp_max."""
    return clamp(run, call, x, None, high)


def _between(low: float, high: float) -> Secant:
    return Secant(slope=1.0 if low < 0 < high else 0.0, nonnegative=low >= 0, keeps_sign=high >= 0)


def threshold(run: Run, call: Call, x: Seen, limit: float, value: float) -> Any:
    """F.threshold: x where x > limit, else a value."""
    if value == 0:
        return Homogeneous()(run, call, x)
    chosen = run.perform(torch.where, run.perform(torch.gt, x, limit), x, value)
    return with_own_value(run, call, chosen)


def elu(run: Run, call: Call, x: Seen, alpha: float = 1.0, scale: float = 1.0, rate: float = 1.0) -> Any:
    """ELU and SELU. The derivative at zero is that from the left, as in torch."""
    return Secant(slope=float(alpha * scale * rate))(run, call, x)


def power(run: Run, call: Call, x: Any, exponent: Any) -> Any:
    """A power with constant exponents, or of a constant. Negative exponents make a `reciprocal`."""
    if not is_relevant(x) or is_relevant(exponent):
        return _of_constants(run, call, x, exponent)
    if isinstance(exponent, Tensor) and exponent.numel() != 1:
        all_negative = bool((value_of(exponent) < 0).all())
        return reciprocal(run, call, x) if all_negative else _of_constants(run, call, x, exponent)
    exponent = number_of(exponent)
    if exponent < 0:
        return reciprocal(run, call, x)
    # Between 0 and 1 the slope at zero is infinite, but the relevance of x = 0 is 0 whatever the slope.
    slope = 1.0 if exponent == 1 else 0.0
    return Secant(slope=slope, nonnegative=exponent % 2 == 0)(run, call, x)


def _of_constants(run: Run, call: Call, x: Any, exponent: Any) -> Any:
    """A power of a constant, or with several constant exponents: a function of each element."""
    relevant = [t for t in (x, exponent) if is_relevant(t)]
    value = run.value(call)
    if len(relevant) == 1 and relevant[0].shape != value.shape:
        both = [
            run.perform(torch.broadcast_to, t, value.shape) if t is relevant[0] else t for t in (x, exponent)
        ]
        return with_own_value(run, call, run.perform(torch.pow, *both))
    alike = all([t.shape == value.shape for t in relevant])
    chain = chained(run, call, relevant) if alike else None
    if chain is not None and is_finite_at_zero(chain, look=True):
        known = is_relevant(x)
        nonnegative = x.tag.nonnegative if known else all_nonnegative(torch.as_tensor(value_of(x)))
        if relevant[0] is exponent:  # which is an exponential, under whatever name
            chain.names |= {"exp"}
        return attach_to_root(run, call, chain, nonnegative=nonnegative)
    why = "base and exponent both depend on the input" if chain is None else "it is not finite at 0"
    run.gap("pow", f"{why}; covered are a constant base, and constant exponents that are not negative")
    return Exact(slot="pass")(run, call)


def reciprocal(run: Run, call: Call, x: Seen, *_options: Any) -> Any:
    """1/x and 1/√x: a scale of other values, computed from their statistics. It absorbs its relevance.

    If it ends a chain that has an exponential, as in 1/(1 + exp(-x)), it is a pointwise function.
    """
    chain = chained(run, call, [x])
    if chain is not None and "exp" in chain.names and is_finite_at_zero(chain):
        return attach_to_root(run, call, chain)
    return _statistic(run, call, x, chain)


def _statistic(run: Run, call: Call, x: Seen, chain: Pointwise | None) -> Any:
    """A value that only scales others. It absorbs its relevance."""
    tag = x.tag
    known = Tag(tag.behind, role=Role.STATISTIC, pointwise=chain, step=tag.step, gates=gates_of(tag))
    return run.sink("statistic", run.value(call), call.name, known)


def not_at_zero(run: Run, call: Call, *args: Any) -> Any:
    """A function that is not finite at 0, such as log, at the end of a chain that is finite there.

    Examples are log(x² + ε), log(clamp(x, min=ε)) and logit(sigmoid(x)). Of a statistic it is a statistic.
    """
    (x,) = (a for a in args if type(a) is Seen)
    scores = x.tag.origin
    if call.operation == "log" and isinstance(scores, Softmaxed) and not scores.watches:
        logits = run.seen(scores.recorded, scores.tag)
        return with_own_value(run, call, run.perform(torch.log_softmax, logits, scores.dim))
    total = x.tag.total
    if call.operation == "log" and total is not None and total.scores is not None and _is_sum(x, total):
        terms = run.seen(total.scores.recorded, total.scores.tag)
        keep = x.dim() == terms.dim()
        return with_own_value(run, call, run.perform(torch.logsumexp, terms, total.dim, keepdim=keep))
    chain = chained(run, call, [x])
    if chain is not None and is_finite_at_zero(chain):
        return attach_to_root(run, call, chain)
    if role_of(x.tag) is Role.STATISTIC:
        return _statistic(run, call, x, chain)
    run.gap(
        call.name,
        f"{call.name}(0) is not finite; covered are chains that are finite where x is zero, such as "
        "log(1 + exp(x)), log(x.abs() + 1e-6) or log(x.clamp(min=1e-6))",
    )
    return Exact(slot="pass")(run, call)


def _is_sum(x: Seen, total: Total) -> bool:
    """Whether x is a sum over one dimension itself, and nothing that was made of it."""
    return total.dim is not None and total.own is not None and total.own() is x.recorded


def times_logarithm(logarithm: Callable[[Tensor], Tensor]) -> Entry:
    """Return the entry for x·log(y), which is 0 where x is 0, as its parts."""

    def entry(run: Run, call: Call, x: Any, y: Any) -> Any:
        made = run.perform(logarithm, y) if isinstance(y, Tensor) else logarithm(torch.tensor(float(y)))
        if not is_relevant(made):
            made = value_of(made).nan_to_num(0, 0, 0)  # where x is 0
        return with_own_value(run, call, run.perform(torch.mul, x, made))

    return entry


def fake_quantised(run: Run, call: Call, x: Seen, *_options: Any) -> Any:
    """Fake quantisation: a clamp to the range, and what rounding adds, which is a constant."""
    value = run.value(call)  # an observer within it sets the scale
    rounded, *rest = value if isinstance(value, tuple) else (value,)
    switch = call.argument("fake_quant_on", call.argument("fake_quant_enabled"))
    clamped: Any = x
    if switch is None or bool(value_of(switch)):
        clamped = run.perform(torch.clamp, x, *(_bound(call, x, f"quant_{end}") for end in ("min", "max")))
    added = run.seen(rounded - value_of(clamped).detach(), None)
    result = of_value(run, rounded, run.perform(torch.add, clamped, added))
    return (result, *(run.seen(t, None) for t in rest)) if rest else result


def quantised(run: Run, call: Call, *_args: Any) -> Any:
    """A tensor of integers with a scale, as convert() makes them. It has no gradient."""
    run.refuse(call.name, reason_of(call.name))
    return run.seen(run.value(call), None)


def _bound(call: Call, x: Tensor, end: str) -> Any:
    """The number that an end of the quantised range stands for, or one for each channel."""
    scale, zero = (value_of(call.argument(name)) for name in ("scale", "zero_point"))
    bound = (call.argument(end) - zero) * scale
    if not isinstance(bound, Tensor) or bound.numel() == 1:
        return float(bound)
    axis = call.argument("axis", call.argument("ch_axis"))
    return bound.detach().to(x.dtype).reshape(-1, *[1] * (x.dim() - 1 - axis % x.dim()))


def log_sigmoid(run: Run, _call: Call, x: Seen) -> Any:
    """The kernel of F.logsigmoid, which also returns a buffer for its own gradient."""
    return run.perform(F.logsigmoid, x), run.seen(x.recorded.detach().new_empty(0), None)


def _gelu_over_x(call: Call) -> Callable[[Tensor], Tensor]:
    """GELU(x)/x: the normal distribution function, or its approximation by tanh."""
    if call.argument("approximate") == "none":
        return lambda x: (x / sqrt(2)).erf_().add_(1).div_(2)
    return lambda x: torch.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)).add_(1).div_(2)


_QUANTISED = ("tensor", "tensor_dynamic", "channel")
_passing = Homogeneous()
_nonnegative = Homogeneous(nonnegative=True)
_exponential = Secant(slope=1.0, nonnegative=True)

TABLE: Mapping[str, Entry] = {
    # homogeneous, or nothing in evaluation
    "relu": relu,
    "abs": _nonnegative,
    **dict.fromkeys(("leaky_relu", "_prelu_kernel", "rrelu_with_noise", "nan_to_num"), _passing),
    "threshold": threshold,
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), dropout),
    "native_dropout": native_dropout,
    "clone": copied,
    **dict.fromkeys(
        (
            *(f"fake_quantize_per_{kind}_affine_cachemask" for kind in ("tensor", "channel")),
            *(f"_fake_quantize_learnable_per_{kind}_affine" for kind in ("tensor", "channel")),
            "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
            "_fused_moving_avg_obs_fq_helper",
        ),
        fake_quantised,
    ),
    **dict.fromkeys((f"quantize_per_{kind}" for kind in _QUANTISED), quantised),
    # saturating
    **dict.fromkeys(("hardtanh", "clamp", "clamp_min"), clamp),
    "clamp_max": clamp_max,
    "hardshrink": Secant(slope=0.0),
    "softshrink": Secant(slope=0.0),
    # smooth; the number is the derivative at zero
    "gelu": Secant(slope=0.5, quotient=_gelu_over_x),
    "silu": Secant(slope=0.5, quotient=lambda _: torch.sigmoid),
    "mish": Secant(slope=0.6),
    "hardswish": Secant(slope=0.5),
    "elu": elu,
    "celu": Secant(slope=1.0),
    "selu": Secant(slope=1.7580993408473766),
    "tanh": Secant(slope=1.0),
    "sigmoid": Secant(slope=0.25, nonnegative=True),
    "hardsigmoid": Secant(slope=1 / 6, nonnegative=True),
    "softplus": Secant(slope=0.5, nonnegative=True),
    "log_sigmoid": Secant(slope=0.5, keeps_sign=False),
    "log_sigmoid_forward": log_sigmoid,
    "exp": exponential,
    "expm1": Secant(slope=1.0),
    "log1p": Secant(slope=1.0),
    **dict.fromkeys(("log", "log2", "log10", "logit", "acosh"), not_at_zero),
    **dict.fromkeys(("lgamma", "mvlgamma", "digamma", "polygamma", "special_ndtri"), not_at_zero),
    "xlogy": times_logarithm(torch.log),
    "special_xlog1py": times_logarithm(torch.log1p),
    "exp2": Secant(slope=log(2), nonnegative=True),
    "sin": Secant(slope=1.0, keeps_sign=False),
    "cos": Secant(slope=0.0, keeps_sign=False),
    "tan": Secant(slope=1.0, keeps_sign=False),
    "asin": Secant(slope=1.0),
    "acos": Secant(slope=-1.0, nonnegative=True),
    "atan": Secant(slope=1.0),
    "sinh": Secant(slope=1.0),
    "cosh": Secant(slope=0.0, nonnegative=True),
    "asinh": Secant(slope=1.0),
    "atanh": Secant(slope=1.0),
    "sinc": Secant(slope=0.0, keeps_sign=False),
    "erfinv": Secant(slope=sqrt(pi) / 2),
    "erf": Secant(slope=2 / sqrt(pi)),
    "erfc": Secant(slope=-2 / sqrt(pi), nonnegative=True),
    "special_erfcx": Secant(slope=-2 / sqrt(pi), nonnegative=True),
    "special_log_ndtr": Secant(slope=sqrt(2 / pi), keeps_sign=False),
    "special_entr": Secant(slope=0.0, keeps_sign=False),
    **dict.fromkeys(("i0", "special_i0e"), Secant(slope=0.0, nonnegative=True)),
    **dict.fromkeys(("special_i1", "special_i1e"), Secant(slope=0.5)),
    # powers
    "pow": power,
    "sqrt": Secant(slope=0.0, nonnegative=True),
    "rsqrt": reciprocal,
    "reciprocal": reciprocal,
}
