"""One call of a linear operation as a rule sees it, what arrives at its output, and what the rule returns."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from relprop import weights
from relprop.callers import warn
from relprop.linear_maps import LinearMap

FEW = 25
"""Contributions to an output that are few: those of a 5 × 5 kernel on one channel."""

Modify = Callable[[Tensor], Tensor]


@dataclass
class LinearOperation:
    """One call of a linear operation, as a rule sees it.

    Attributes:
        map: the kind of operation.
        x: input (samples, ...), detached.
        z: output (samples, ...), bias included, detached.
        weight: as the model holds it, so that modified weights are found in the cache.
        bias: (out,), or shaped as it is added to the output, or None; detached.
        nonnegative: whether the input is known to be non-negative.
        scaled: whether a batch norm or the like is part of it, so that z is rounded in another way.
    """

    map: LinearMap
    x: Tensor
    z: Tensor
    weight: Tensor
    bias: Tensor | None
    nonnegative: bool
    scaled: bool = False

    @property
    def b(self) -> Tensor | None:
        """The bias, shaped for broadcasting against the output."""
        return None if self.bias is None else self.map.align_bias(self.bias)

    @property
    def z0(self) -> Tensor:
        """The output without bias."""
        if self.b is None:
            return self.z
        z0 = self.z - self.b
        if self.scaled:  # then an output without contributions differs from the bias by rounding
            z0 = z0.masked_fill(z0.abs() <= tolerance(z0.dtype) * self.b.abs(), 0)
        return z0

    def forward(self, weight: Tensor) -> Tensor:
        """L_weight(x)."""
        return self.map.apply(self.x, weight.detach())

    def transpose(self, s: Tensor, weight: Tensor) -> Tensor:
        """T_weight(s)."""
        return self.map.transpose(s, weight.detach(), self.x.shape)

    def transpose_both(self, s: Tensor, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """T_one(s) and T_other(s)."""
        return self.map.transpose_both(s, one.detach(), other.detach(), self.x.shape)

    def spread(self, s: Tensor) -> Tensor:
        """T_1(s), with all weights one."""
        return self.map.spread(s, self.x.shape)

    def magnitude(self) -> Tensor:
        """A = L_|w|(|x|)."""
        return self.map.apply(self.x if self.nonnegative else self.x.abs(), weights.absolute(self.weight))

    def positive_part(self) -> tuple[Tensor, Tensor | float]:
        """P, the sum of positive contributions, and the size of its rounding errors.

        For non-negative inputs P is a sum of what is not negative, exact to the last digits; for others a
        difference, (z0 + A)/2, unless the contributions are few.
        """
        if self.nonnegative or self.few:
            return self._sum_of(weights.positive, weights.negative), smallest(self.z.dtype)
        A = self.magnitude()
        return (self.z0 + A) / 2, self._noise(A)

    def parts(self) -> tuple[Tensor, Tensor | float, Tensor, Tensor | float]:
        """P and N, positive and negative contributions, each with the size of rounding errors.

        N = z0 - P is a difference for all inputs, unless the contributions are few.
        """
        P, noise = self.positive_part()
        if self.few:
            return P, noise, self._sum_of(weights.negative, weights.positive), noise
        N = self.z0 - P
        return P, noise, N, self._noise(P - N)

    @property
    def few(self) -> bool:
        """Whether outputs have few contributions, as in depthwise convolutions.

        Sums of those of one sign are tiny then for some outputs, and differences would lose them to
        rounding. They are summed by themselves, which costs little where they are few.
        """
        depthwise = getattr(self.map, "groups", 1) == self.x.shape[1]
        return depthwise or self.map.contributions(self.weight) <= FEW

    def _sum_of(self, with_positive: Modify, with_negative: Modify) -> Tensor:
        """Sum of the contributions of one sign: from positive inputs, and from negative ones."""
        if self.nonnegative:
            return self.forward(with_positive(self.weight))
        up = self.map.apply(self.x.clamp(min=0), with_positive(self.weight))
        return up + self.map.apply(self.x.clamp(max=0), with_negative(self.weight))

    def _noise(self, magnitude: Tensor) -> Tensor:
        """Rounding errors of differences of sums of this size; z0 = z - b is one itself."""
        size = magnitude if self.b is None else magnitude + self.b.abs()
        return tolerance(self.z.dtype) * size + smallest(self.z.dtype)

    def fan_in(self) -> Tensor:
        """How many inputs each output is connected to."""
        return self.constant("fan in", lambda: self.map.fan_in(self.x.shape).to(self.z), None)

    def constant(self, purpose: str, make: Callable[[], Tensor], key: Hashable) -> Tensor:
        """A value that depends on weight and input shape only, from the cache."""
        key = (key, self.map, self.x.shape[int(self.map.alike) :])
        return weights.modified(self.weight, purpose, lambda _: make(), key)


@dataclass
class Incoming:
    """Relevance that arrives at an output z: a coefficient, relevance put on z directly, or both.

    R = c·z + direct.
    """

    c: Tensor | None
    direct: Tensor | None
    z: Tensor

    @property
    def relevance(self) -> Tensor:
        """R."""
        R = torch.zeros_like(self.z) if self.c is None else self.c * self.z
        return R if self.direct is None else R + self.direct


@dataclass
class Propagated:
    """Relevance of an operation's input, R = x·coefficient + direct, and per output what did not get there.

    `absorbed` has the amounts by the name of the sink; each of the output's shape, or summed over all but
    samples.
    """

    coefficient: Tensor | None = None
    direct: Tensor | None = None
    absorbed: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Rule(Protocol):
    """How relevance crosses a linear operation.

    Any callable of this form can be used, with `puts_relevance`. One that says in an attribute
    `looks_everywhere` that outputs without relevance do not matter to it (False) saves memory behind a ReLU;
    one that says in `needs_values` that it looks neither at x nor at z, while it gets a coefficient alone,
    (False) saves the memory of both.
    """

    @property
    def puts_relevance(self) -> bool:
        """Whether the rule puts relevance on inputs that may be zero, which no coefficient can express."""

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        """Return the relevance of the operation's input."""


class PrintedRule:
    """Base of rules that are dataclasses: they print as they are written, without options left alone.

    Options are fields with the metadata `OPTION`.
    """

    def __repr__(self) -> str:
        shown = []
        for entry in fields(self):  # type: ignore[arg-type]
            value = getattr(self, entry.name)
            if entry.metadata == OPTION and value == entry.default:
                continue
            text = f"tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            shown.append(f"{entry.name}={text}")
        return f"{type(self).__name__}({', '.join(shown)})"


OPTION = {"option": True}
"""Metadata of a rule's field that is not printed at its usual value."""


def divide(R: Tensor, denominator: Tensor) -> Tensor:
    """R / denominator, and 0 where the denominator is 0 or so small that the quotient could overflow."""
    least = smallest(R.dtype)
    return (R / denominator).masked_fill_((denominator < least) & (denominator > -least), 0)


def times(c: Tensor, constant: Tensor | float) -> Tensor:
    """c · constant, and 0 where c is 0 even if the constant is infinite, as in a mask.

    Of complex numbers the real part of c̄ · constant, since c is a gradient by real and imaginary part.
    """
    if c.is_complex():
        return torch.where(c == 0, 0, (c.conj() * constant).real)
    return torch.where(c == 0, 0, c * constant)


def leftover(R: Tensor, s: Tensor, denominator: Tensor) -> Tensor:
    """R - s·denominator: what a quotient s = R/denominator did not take along, as `summed`."""
    return summed(torch.addcmul(R, s, denominator, value=-1))


def summed(amount: Tensor) -> Tensor:
    """Sums over all but the first dimension: a ledger needs no more, and the memory is free again."""
    wide = torch.float32 if amount.dtype in (torch.float16, torch.bfloat16) else amount.dtype
    return amount.flatten(1).sum(1, dtype=wide)


def tolerance(dtype: torch.dtype) -> float:
    """Relative size under which a difference of two sums of contributions counts as rounding noise."""
    return {torch.float64: 1e-13, torch.float32: 1e-6}.get(dtype, 2e-3)


def resolved(epsilon: float, dtype: torch.dtype) -> float:
    """ε, raised in half precision to what makes a difference to an output of one."""
    finest = torch.finfo(dtype).eps
    if finest < 1e-5 or epsilon == 0 or epsilon >= finest:
        return epsilon
    warn(
        f"ε = {epsilon:g} is below the resolution of {dtype}, where it would do nothing; ε = {finest:g} is "
        "taken instead."
    )
    return finest


def smallest(dtype: torch.dtype) -> float:
    """Size under which a denominator counts as zero, because quotients could overflow."""
    info = torch.finfo(dtype)
    # float16 ends at 65504: there even the quotient of a relevance of one has to be watched.
    return 1 / info.max if dtype == torch.float16 else info.smallest_normal / info.eps
