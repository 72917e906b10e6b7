"""The rules by which relevance crosses a linear operation, each at most four products with the weight.

Letters as in the literature: input x, weight w, bias b, output z = x·w + b, z0 = z - b; relevance R, and the
coefficient c = R/x that autograd carries. (u)+ = max(0, u), (u)- = min(0, u); L_w the bias-free map with
weight w, T_w its transpose. P = Σ_i (x_i w_ij)+ and N = Σ_i (x_i w_ij)- are the positive and the negative
contributions to an output; for inputs of any sign P = (z0 + A)/2 and N = (z0 - A)/2 with A = L_|w|(|x|).
Where x is known to be non-negative, P = L_w+(x).

A rule is a frozen dataclass, so that it prints, compares and is stored as itself. It returns a coefficient,
or, where it puts relevance on inputs that may be zero, the relevance itself.
"""

from dataclasses import dataclass, field
from math import isfinite
from typing import Literal, get_args

import torch
from torch import Tensor

from relprop import weights
from relprop.errors import RuleError
from relprop.linear_operations import (
    OPTION,
    Incoming,
    LinearOperation,
    PrintedRule,
    Propagated,
    divide,
    leftover,
    smallest,
    tolerance,
)

Bias = Literal["absorb", "ignore", "distribute"]
"""What becomes of the bias b_j's share:

kept and reported, none given, or given in equal parts to the inputs.
"""


@dataclass(frozen=True, repr=False)
class Epsilon(PrintedRule):
    """R_i = Σ_j x_i w_ij / (z_j + ε sgn z_j) · R_j. Bach et al. 2015, eq. 58; LRP-0 for ε = 0. Two products.

    Raises:
        RuleError: ε is negative or not finite, or the bias mode is unknown.
    """

    epsilon: float = 1e-6
    bias: Bias = field(default="absorb", metadata=OPTION)

    def __post_init__(self) -> None:
        _require_nonnegative(self, "epsilon", self.epsilon)
        _require_bias_mode(self)

    @property
    def puts_relevance(self) -> bool:
        return self.bias == "distribute"

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        z = op.z0 if self.bias == "ignore" else op.z
        if self.epsilon == 0 and z is op.z and incoming.direct is None and incoming.c is not None:
            s, absorbed = incoming.c, {}
        else:
            R, stabiliser = incoming.relevance, torch.copysign(z.new_tensor(self.epsilon), z)
            den = z + stabiliser
            s = divide(R, den)
            absorbed = {"epsilon": s * stabiliser, "no contribution": leftover(R, s, den)}
        c = op.transpose(s, op.weight)
        return _with_bias(op, self.bias, s, op.b, Propagated(c, absorbed=absorbed))


@dataclass(frozen=True, repr=False)
class Gamma(PrintedRule):
    """Positive contributions to z_j > 0, and negative ones to z_j < 0, weigh 1+γ; the bias likewise.

    For x ≥ 0 and z_j > 0: R_i = Σ_j x_i (w_ij + γ w_ij^+) / Σ_i x_i (w_ij + γ w_ij^+) · R_j, Montavon et al.
    2019, ch. 10; for both signs of x and z: Andéol et al. 2021. The denominator, z + γ·P or z + γ·N, has the
    sign of z and at least its size, so there is no pole. Three products for non-negative inputs (a fourth
    where z < 0 has relevance), else four.

    Args:
        gamma: γ.
        bias: what becomes of the bias's share.
        favour: "sign of z", or "positive" for the form of 2019, w + γw⁺ whatever the sign of z. That one is
            only for non-negative inputs, takes three products, and has a pole among outputs z < 0.

    Raises:
        RuleError: γ is negative or not finite, the bias mode or the form is unknown, or (when relevance gets
            there) the form of 2019 meets inputs that may be negative.
    """

    gamma: float = 0.25
    bias: Bias = field(default="absorb", metadata=OPTION)
    favour: Literal["sign of z", "positive"] = field(default="sign of z", metadata=OPTION)

    def __post_init__(self) -> None:
        _require_nonnegative(self, "gamma", self.gamma)
        _require_bias_mode(self)
        if self.favour not in ("sign of z", "positive"):
            raise RuleError(f"{self}: favour must be 'sign of z' or 'positive'.")

    @property
    def puts_relevance(self) -> bool:
        return self.bias == "distribute"

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        z0, b, gamma, R = op.z0, op.b, self.gamma, incoming.relevance
        z = z0 if self.bias == "ignore" else op.z
        below = z < 0
        if self.favour == "positive":
            below = torch.zeros_like(below)
            if not op.nonnegative:
                raise RuleError(
                    f"{self}: this form is for inputs that cannot be negative, as behind a ReLU; "
                    "take favour='sign of z', or another rule here."
                )
        if op.nonnegative:
            gamma_P = op.forward(weights.favoured(op.weight, gamma)) - z0
            # A ReLU behind z keeps relevance from z < 0; then one product is saved.
            one_sided = not bool((below & (R != 0)).any())
            favoured = gamma_P if one_sided else torch.where(below, gamma * z0 - gamma_P, gamma_P)
        else:
            one_sided = False
            favoured = gamma / 2 * (z0 + torch.copysign(op.magnitude(), z))
        share = None
        if b is not None:
            share = b + gamma * torch.where(below, b.clamp(max=0), b.clamp(min=0))
        den = z0 + favoured if share is None or self.bias == "ignore" else z0 + favoured + share
        s = divide(R, den)
        if one_sided:
            c = op.transpose(s, weights.favoured(op.weight, gamma))
        elif op.nonnegative:
            # γ·T_w- = γ·T_w - γ·T_w+ where z < 0
            plus = op.transpose(torch.where(below, -s, s), weights.positive(op.weight))
            c = op.transpose(torch.where(below, (1 + gamma) * s, s), op.weight) + gamma * plus
        else:
            favour = op.transpose(torch.where(below, -s, s), weights.absolute(op.weight))
            c = (1 + gamma / 2) * op.transpose(s, op.weight) + gamma / 2 * op.x.sign() * favour
        return _with_bias(
            op, self.bias, s, share, Propagated(c, absorbed={"no contribution": leftover(R, s, den)})
        )


@dataclass(frozen=True, repr=False)
class AlphaBeta(PrintedRule):
    """R_i = Σ_j (α (x_i w_ij)+ / P_j - β (x_i w_ij)- / N_j) R_j with α - β = 1. Bach et al. 2015, eq. 60.

    Four products.
    Where an output has no positive (negative) contributions, the negative (positive) ones get all of its
    relevance.

    Raises:
        RuleError: α - β is not 1, β is negative, or the bias mode is unknown.
    """

    alpha: float = 2.0
    beta: float = 1.0
    bias: Bias = field(default="ignore", metadata=OPTION)

    def __post_init__(self) -> None:
        if not abs(self.alpha - self.beta - 1) < 1e-9:
            raise RuleError(
                f"{self}: alpha - beta is {self.alpha - self.beta:g} and must be 1, or relevance is not "
                f"conserved; for alpha={self.alpha:g} take beta={self.alpha - 1:g}."
            )
        _require_nonnegative(self, "beta", self.beta)
        _require_bias_mode(self)

    @property
    def puts_relevance(self) -> bool:
        return self.bias == "distribute"

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        z0, b, R = op.z0, op.b, incoming.relevance
        P, _ = op.positive_part()
        N = z0 - P
        if b is not None and self.bias != "ignore":
            P, N = P + b.clamp(min=0), N + b.clamp(max=0)
        threshold = tolerance(P.dtype) * (P - N) + smallest(P.dtype)
        has_P, has_N = P > threshold, -N > threshold
        both = has_P & has_N
        # Coefficients of the positive and of the negative contributions.
        p = (torch.where(both, self.alpha * R, R) / P).masked_fill_(~has_P, 0)
        n = (torch.where(both, -self.beta * R, R) / N).masked_fill_(~has_N, 0)
        if op.nonnegative:
            c = op.transpose(p, weights.positive(op.weight)) + op.transpose(n, weights.negative(op.weight))
        else:
            c = op.transpose((p + n) / 2, op.weight)
            c = c + op.x.sign() * op.transpose((p - n) / 2, weights.absolute(op.weight))
        lost = R.masked_fill(has_P | has_N, 0)
        result = Propagated(c, absorbed={"no contribution": lost})
        if b is None or self.bias == "ignore":
            return result
        return _give_bias(op, self.bias, p * b.clamp(min=0) + n * b.clamp(max=0), result)


@dataclass(frozen=True, repr=False)
class ZPlus(PrintedRule):
    """R_i = Σ_j (x_i w_ij)+ / P_j · R_j. Montavon et al. 2017, eq. 16 (for x ≥ 0); α1β0 for any sign.

    Three products for non-negative inputs, else four. What an output without positive contributions gets,
    through its bias, is lost and reported.

    Raises:
        RuleError: the bias mode is unknown.
    """

    bias: Bias = field(default="ignore", metadata=OPTION)

    def __post_init__(self) -> None:
        _require_bias_mode(self)

    @property
    def puts_relevance(self) -> bool:
        return self.bias == "distribute"

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        R = incoming.relevance
        P, scale = op.positive_part()
        share = None if op.b is None else op.b.clamp(min=0)
        # Only a difference, (z0 + A)/2, has rounding errors that look like small contributions.
        if not op.nonnegative:
            P = P.masked_fill(P <= tolerance(P.dtype) * scale, 0)
        den = P if share is None or self.bias == "ignore" else P + share
        s = divide(R, den)
        c = op.transpose(s, weights.positive(op.weight))
        if not op.nonnegative:
            c = torch.where(op.x < 0, op.transpose(s, weights.negative(op.weight)), c)
        return _with_bias(
            op, self.bias, s, share, Propagated(c, absorbed={"no contribution": leftover(R, s, den)})
        )


@dataclass(frozen=True, repr=False)
class Absolute(PrintedRule):
    """R_i = Σ_j |x_i w_ij| / (A_j + |b_j|) · R_j: shares in proportion to the size of contributions.

    Three products.

    Raises:
        RuleError: the bias mode is unknown.
    """

    bias: Bias = field(default="absorb", metadata=OPTION)

    def __post_init__(self) -> None:
        _require_bias_mode(self)

    @property
    def puts_relevance(self) -> bool:
        return self.bias == "distribute"

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        R, A = incoming.relevance, op.magnitude()
        share = None if op.b is None else op.b.abs()
        den = A if share is None or self.bias == "ignore" else A + share
        s = divide(R, den)
        c = op.transpose(s, weights.absolute(op.weight))
        c = c if op.nonnegative else op.x.sign() * c
        return _with_bias(
            op, self.bias, s, share, Propagated(c, absorbed={"no contribution": leftover(R, s, den)})
        )


def _with_bias(
    op: LinearOperation, mode: Bias, s: Tensor, share: Tensor | None, result: Propagated
) -> Propagated:
    """Account for a bias that stands with `share` in the denominator of s."""
    if share is None or mode == "ignore":
        return result
    if mode == "absorb" and 1 < share.dim() < s.dim():
        # One bias a channel: summing s over space first saves a pass over the output.
        return _give_bias(op, mode, s.flatten(2).sum(2) * share.flatten(), result)
    return _give_bias(op, mode, s * share, result)


def _give_bias(op: LinearOperation, mode: Bias, amount: Tensor, result: Propagated) -> Propagated:
    """Report what the bias got, or give it in equal parts to the connected inputs."""
    if mode == "distribute":
        n = op.fan_in()
        each = divide(amount, n)
        result.direct = op.map.spread(each, op.x.shape)
        amount = amount - each * n  # of outputs that are connected to no input
    result.absorbed["bias"] = amount
    return result


def _require_nonnegative(rule: Epsilon | Gamma | AlphaBeta, name: str, value: float) -> None:
    if not (isfinite(value) and value >= 0):
        raise RuleError(f"{rule}: {name} must be a finite number, 0 or larger.")


def _require_bias_mode(rule: Epsilon | Gamma | AlphaBeta | ZPlus | Absolute) -> None:
    if rule.bias not in get_args(Bias):
        raise RuleError(f"{rule}: bias must be one of {', '.join(map(repr, get_args(Bias)))}.")
