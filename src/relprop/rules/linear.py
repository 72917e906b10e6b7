"""The rules by which relevance crosses a linear operation. Each takes at most four products with the weight.

Letters as in the literature: input x, weight w, bias b, output z = x·w + b, z0 = z - b; relevance R, and the
coefficient c = R/x that autograd carries. (u)+ = max(0, u), (u)- = min(0, u); L_w is the map with weight w
and without bias, T_w its transpose. P = Σ_i (x_i w_ij)+ and N = Σ_i (x_i w_ij)- are the positive and the
negative contributions to an output. For inputs of any sign P = (z0 + A)/2 and N = (z0 - A)/2 with
A = L_|w|(|x|). If x is known to be non-negative, P = L_w+(x).

A rule is a frozen dataclass, so that it can be printed, compared and stored. It returns a coefficient or, if
it may put relevance on inputs that are zero, the relevance itself. The argument `bias` of a rule says what
happens to the bias's share of the relevance. "absorb": the bias absorbs it, and the ledger has the amount.
"ignore": the bias has no share. "distribute": the inputs that are connected to the output get equal parts.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from relprop.calls.traced import is_traced
from relprop.errors import RuleError
from relprop.linear import weights
from relprop.linear.numerics import (
    divide,
    keep_above,
    kept_above,
    leftover,
    negated_below,
    next_to_nothing,
    quotient,
    resolved,
    scaled_below,
    smallest,
    summed,
    times_share,
    wide,
)
from relprop.linear.operation import Incoming, LinearOperation, Propagated
from relprop.rules.own import is_own
from relprop.rules.rule import OPTION, tells_names
from relprop.rules.sharing import Bias, SharingRule, is_number, shared_with

__all__ = ["Absolute", "AlphaBeta", "Epsilon", "Gamma", "ZPlus"]

_FIRST = 4096
"""So many elements often show what all elements would."""


def _any_below(R: Tensor, z: Tensor) -> bool:
    """Whether there is relevance where z is negative, also if it is unknown because calls are traced."""
    if is_traced():
        return True
    looks = [(R, z)]
    if R.numel() > 2 * _FIRST and R.is_contiguous() and z.is_contiguous():
        looks.insert(0, (R.flatten()[:_FIRST], z.flatten()[:_FIRST]))
    return any(bool(torch.linalg.vector_norm(kept_above(R, -z), 1)) for R, z in looks)


def _where_negative(x: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return `one` where x is negative, and `other` elsewhere. Both are overwritten."""
    least = next_to_nothing(x.dtype)
    # Each side as it is: a difference of the two would lose the smaller one to rounding.
    return keep_above(other, x, -least).add_(keep_above(one, -x, least))


@tells_names
@dataclass(frozen=True, repr=False)
class Epsilon(SharingRule):
    """R_i = Σ_j x_i w_ij / (z_j + ε sgn z_j) · R_j. Bach et al. 2015, eq. 58; LRP-0 for ε = 0. Two products.

    In half precision an ε below the resolution of the dtype is raised to it, with a warning.

    Args:
        epsilon: ε, 0 or larger.
        bias: what happens to the bias's share.
        of: the unit of ε: "one", or "rms", the root mean square of each sample's z (Montavon et al. 2019).
        gates: whether the outputs, and what is computed from them alone, are gates, which get nothing beside
            a signal: as the step sizes, inputs and outputs of a selective state space (Jafari et al. 2024).
            Numbers, such as (1, 2), say which of the parts into which the model splits the outputs. Parts
            without elements do not count.

    Raises:
        RuleError: ε is negative or not finite, `bias` or `of` is unknown, or `gates` is neither true, false,
            nor numbers of parts.
    """

    epsilon: float = 1e-6
    bias: Bias = field(default="absorb", metadata=OPTION)
    of: Literal["one", "rms"] = field(default="one", metadata=OPTION)
    gates: bool | tuple[int, ...] = field(default=False, metadata=OPTION)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_nonnegative("epsilon")
        if self.of not in ("one", "rms"):
            raise RuleError(f"{self}: of must be 'one' or 'rms'.")
        if isinstance(self.gates, list):  # as a file has it
            object.__setattr__(self, "gates", tuple(self.gates))
        numbers = isinstance(self.gates, tuple) and all([type(i) is int and i >= 0 for i in self.gates])
        if not (isinstance(self.gates, bool) or numbers):
            raise RuleError(
                f"{self}: gates must be True, False, or numbers of the parts into which the model splits the "
                "outputs, such as (1, 2)."
            )

    @property
    def looks_everywhere(self) -> bool:
        return self.of == "rms" or is_own(self)

    @property
    def needs_values(self) -> bool:
        return self.epsilon > 0 or self.bias == "ignore" or is_own(self)

    @property
    def needs_input(self) -> bool:
        return is_own(self)

    def _stabiliser(self, z: Tensor) -> Tensor:
        """ε·sgn(z), with sgn(0) = 1."""
        epsilon = z.new_full((), resolved(self.epsilon, z.dtype))
        if self.of == "rms":
            epsilon = epsilon * z.square().mean(tuple(range(1, z.dim())), keepdim=True).sqrt()
        return torch.copysign(epsilon, z)

    def _bounds(self, z: Tensor) -> bool:
        """Whether no denominator is smaller than ε, and so none is nearly zero."""
        return self.of == "one" and self.epsilon > smallest(z.dtype)

    def _stabilised(self, R: Tensor, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return R / (z + ε sgn z), and what it leaves out. R is overwritten."""
        stabiliser, absorbed = self._stabiliser(z), dict[str, Tensor]()
        den = z + stabiliser
        if self._bounds(z):
            s = quotient(R, den)
        else:
            s = divide(R, den)
            absorbed["no contribution"] = leftover(R, s, den)
        if wide(z.dtype) is not z.dtype:  # of a small ε rounding leaves less, or more
            stabiliser = den.sub_(z)
        absorbed["epsilon"] = summed(stabiliser.mul_(s))
        return s, absorbed

    def _stabilised_of(self, c: Tensor, z: Tensor, *, rectified: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Return c·z / (z + ε sgn z) = c·|z| / (|z| + ε), and what it leaves out, in fewer passes.

        The share |z| / (|z| + ε) comes first: it is at most 1, whatever c is.

        Args:
            c: the coefficient of z.
            z: the output.
            rectified: whether no element of z is below 0.
        """
        size = z if rectified else z.abs()
        s = times_share(c, size, size + self.epsilon)
        del size
        return s, {"epsilon": summed(s if rectified else negated_below(s, z)) * self.epsilon}

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        z, c = op.z0 if self.bias == "ignore" else op.z, incoming.c
        absorbed: dict[str, Tensor] = {}
        if c is None or incoming.direct is not None or z is not op.z:
            s, absorbed = self._stabilised(incoming.relevance, z)
        elif self.epsilon == 0:
            s = c
        elif self._bounds(z) and wide(z.dtype) is z.dtype and incoming.z is z:
            s, absorbed = self._stabilised_of(c, z, rectified=op.rectified)
        else:
            s, absorbed = self._stabilised(incoming.relevance, z)
        result = Propagated(op.transpose(s, op.weight), absorbed=absorbed)
        return self.account_for_bias(op, s, op.b, result)


@tells_names
@dataclass(frozen=True, repr=False)
class Gamma(SharingRule):
    """R_i = Σ_j (x_i w_ij + γ (x_i w_ij)±) / (z_j + γ (P_j or N_j)) · R_j. Andéol et al. 2021.

    For z_j > 0 positive contributions weigh 1+γ, for z_j < 0 negative ones, and the bias likewise. For x ≥ 0
    and z_j > 0 this is R_i = Σ_j x_i (w_ij + γ w_ij^+) / Σ_i x_i (w_ij + γ w_ij^+) · R_j, Montavon et al.
    2019, ch. 10. The denominator has the sign of z and at least its size, so there is no pole. Three products
    for non-negative inputs (four if outputs z < 0 have relevance), else four.

    Args:
        gamma: γ, 0 or larger.
        bias: what happens to the bias's share.
        favour: "sign of z", or "positive" for the form of 2019, w + γw⁺ whatever the sign of z. The form of
            2019 is for non-negative inputs only, takes three products, and has a pole among outputs z < 0.

    Raises:
        RuleError: γ is negative or not finite, or `bias` or `favour` is unknown. In the backward: the form of
            2019 is used on inputs that may be negative.
    """

    gamma: float = 0.25
    bias: Bias = field(default="absorb", metadata=OPTION)
    favour: Literal["sign of z", "positive"] = field(default="sign of z", metadata=OPTION)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_nonnegative("gamma")
        if self.favour not in ("sign of z", "positive"):
            raise RuleError(f"{self}: favour must be 'sign of z' or 'positive'.")

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        if self.favour == "positive" and not op.nonnegative:
            raise RuleError(
                f"{self}: this form is for inputs that cannot be negative, as behind a ReLU; "
                "take favour='sign of z', or another rule here."
            )
        R, z = incoming.relevance, op.z0 if self.bias == "ignore" else op.z
        # A ReLU behind z keeps relevance from z < 0; then one product is saved.
        if self.favour == "positive" or (op.nonnegative and (op.rectified or not _any_below(R, z))):
            return self._positive(op, R)
        return self._by_sign(op, R, z, incoming.direct is not None)

    def _positive(self, op: LinearOperation, R: Tensor) -> Propagated:
        """Favour the positive contributions of non-negative inputs, by the weight w + γw⁺."""
        w, b = weights.favoured(op.weight, self.gamma), op.b
        share = None if b is None else b + self.gamma * b.clamp(min=0)
        return self.share_out(op, R, op.forward(w), share, lambda s: op.transpose(s, w))

    def _by_sign(self, op: LinearOperation, R: Tensor, z: Tensor, has_direct: bool) -> Propagated:
        """Favour the contributions of the sign of z.

        With σ = sgn z and k = γ/(2+γ) an input gets (1 + γ/2)·x·(w + kσ|w|) of (1 + γ/2)·(z0 + kσA), and the
        bias (1 + γ/2)·(b + kσ|b|). The factor 1 + γ/2 is left out: only shares matter.
        """
        k, b = self.gamma / (2 + self.gamma), None if self.bias == "ignore" else op.b
        of_bias = None if b is None else k * b.abs()
        # Whether there may be relevance where there are no contributions; in half precision nothing is tiny.
        may_be_zero = has_direct or z is not op.z or z.dtype == torch.float16
        # The denominator has at least the size of z. With a little more than kA it is never zero.
        more = 0.0 if may_be_zero else smallest(z.dtype)
        den = op.magnitude(k).add_(more if of_bias is None else of_bias + more).copysign_(z).add_(z)
        absorbed = {}
        if may_be_zero:
            s = divide(R, den)
            absorbed["no contribution"] = leftover(R, s, den)
        else:
            s = R.div_(den)
            if op.nonnegative:  # a sink of `_positive`, and the ledger has the same ones for any signs of z
                absorbed["no contribution"] = s.new_zeros(len(s))
        by_sign = negated_below(s, den)
        del R, den
        c, of_size = op.transpose(s, op.weight), op.transpose(by_sign, weights.absolute(op.weight, k))
        c = c.add_(of_size) if op.nonnegative else c.addcmul_(op.x.sign(), of_size)
        result = Propagated(c, absorbed=absorbed)
        if b is None or of_bias is None:
            return result
        if self.bias == "distribute":
            return self.give_bias(op, s * b + by_sign * of_bias, result)
        return self.give_bias(op, shared_with(s, b) + shared_with(by_sign, of_bias), result)


@tells_names
@dataclass(frozen=True, repr=False)
class AlphaBeta(SharingRule):
    """R_i = Σ_j (α (x_i w_ij)+ / P_j - β (x_i w_ij)- / N_j) R_j with α - β = 1. Bach et al. 2015, eq. 60.

    Four products. If an output has no positive (negative) contributions, the negative (positive) ones get all
    of its relevance.

    Args:
        alpha: α, the share of positive contributions.
        beta: β, the share of negative contributions, 0 or larger.
        bias: what happens to the bias's share.

    Raises:
        RuleError: α - β is not 1, β is negative, or `bias` is unknown.
    """

    alpha: float = 2.0
    beta: float = 1.0
    bias: Bias = field(default="ignore", metadata=OPTION)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.alpha) and is_number(self.beta)):
            raise RuleError(f"{self}: alpha and beta must be finite numbers.")
        if not abs(self.alpha - self.beta - 1) < 1e-9:
            raise RuleError(
                f"{self}: alpha - beta is {self.alpha - self.beta:g} and must be 1, or relevance is not "
                f"conserved; for alpha={self.alpha:g} take beta={self.alpha - 1:g}."
            )
        self.require_nonnegative("beta")

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        b, R = op.b, incoming.relevance
        P, minus_N = op.parts()
        if b is not None and self.bias != "ignore":
            P, minus_N = P.add_(b.clamp(min=0)), minus_N.sub_(b.clamp(max=0))
        # Coefficients of the positive and of the negative contributions: R/P and R/N where there is one kind
        # only, else αR/P and -βR/N. Of outputs that a ReLU set to zero, and so are without relevance, P and N
        # may be anything.
        p, n = divide(R, P), divide(R, minus_N)
        p = scaled_below(p, minus_N, 1 / self.alpha).mul_(self.alpha)
        if self.beta >= 1:
            n = scaled_below(n, P, -1 / self.beta)
            n = n if self.beta == 1 else n.mul_(self.beta)
        else:  # by whose inverse a number could overflow
            n = kept_above(n, P).mul_(self.alpha).sub_(n)
        absorbed = {"no contribution": summed(R) - summed(keep_above(R, P.add_(minus_N)))}
        del R, P, minus_N
        if op.nonnegative or op.few:
            c = op.transpose(p, weights.positive(op.weight))
            c.add_(op.transpose(n, weights.negative(op.weight)))
            if not op.nonnegative:
                down = op.transpose(p, weights.negative(op.weight))
                c = _where_negative(op.x, down + op.transpose(n, weights.positive(op.weight)), c)
        else:
            c = op.transpose(p + n, op.weight).mul_(0.5)
            # By |w|/2, which `op.parts` has made already.
            c = c.addcmul_(op.x.sign(), op.transpose(p - n, weights.absolute(op.weight, 0.5)))
        result = Propagated(c, absorbed=absorbed)
        if b is None or self.bias == "ignore":
            return result
        return self.give_bias(op, p * b.clamp(min=0) + n * b.clamp(max=0), result)


@tells_names
@dataclass(frozen=True, repr=False)
class ZPlus(SharingRule):
    """R_i = Σ_j (x_i w_ij)+ / P_j · R_j. Montavon et al. 2017, eq. 16 (for x ≥ 0); α1β0 for any sign.

    Three products for non-negative inputs, else four. An output without positive contributions passes nothing
    on. The ledger has its relevance under "no contribution".

    Args:
        bias: what happens to the bias's share.

    Raises:
        RuleError: `bias` is unknown.
    """

    bias: Bias = field(default="ignore", metadata=OPTION)

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        P = op.positive_part()

        def send(s: Tensor) -> Tensor:
            c = op.transpose(s, weights.positive(op.weight))
            if op.nonnegative:
                return c
            return _where_negative(op.x, op.transpose(s, weights.negative(op.weight)), c)

        share = None if op.b is None else op.b.clamp(min=0)
        return self.share_out(op, incoming.relevance, P, share, send)


@tells_names
@dataclass(frozen=True, repr=False)
class Absolute(SharingRule):
    """R_i = Σ_j |x_i w_ij| / (A_j + |b_j|) · R_j: shares in proportion to the size of contributions.

    Three products.

    Args:
        bias: what happens to the bias's share.

    Raises:
        RuleError: `bias` is unknown.
    """

    bias: Bias = field(default="absorb", metadata=OPTION)

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        def send(s: Tensor) -> Tensor:
            c = op.transpose(s, weights.absolute(op.weight))
            return c if op.nonnegative else op.x.sign().mul_(c)

        share = None if op.b is None else op.b.abs()
        return self.share_out(op, incoming.relevance, op.magnitude(), share, send)
