"""One call of a linear operation as a rule sees it, what arrives at its output, and what the rule returns."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from relprop.linear import weights
from relprop.linear.maps import LinearMap
from relprop.linear.numerics import smallest, tolerance
from relprop.linear.weights import Made

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
        return self.map.spread(s, self.weight.detach(), self.x.shape)

    def magnitude(self) -> Tensor:
        """A = L_|w|(|x|)."""
        return self.map.apply(self.x if self.nonnegative else self.x.abs(), weights.absolute(self.weight))

    def positive_part(self) -> tuple[Tensor, Tensor | float]:
        """P, the sum of positive contributions, and the size of its rounding errors.

        For non-negative inputs P is a sum of what is not negative, exact to the last digits; for others a
        difference, (z0 + A)/2, unless the contributions are few.
        """
        if self.nonnegative or self.few:
            return self._of_one_sign(weights.positive, weights.negative)
        A = self.magnitude()
        return (self.z0 + A) / 2, self._noise(A)

    def parts(self) -> tuple[Tensor, Tensor | float, Tensor, Tensor | float]:
        """P and N, positive and negative contributions, each with the size of rounding errors.

        N = z0 - P is a difference for all inputs, unless the contributions are few.
        """
        P, noise = self.positive_part()
        if self.few:
            return P, noise, *self._of_one_sign(weights.negative, weights.positive)
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

    def _of_one_sign(self, with_positive: Modify, with_negative: Modify) -> tuple[Tensor, Tensor | float]:
        """Sum of the contributions of one sign, and the size of its rounding errors."""
        total = self._sum_of(with_positive, with_negative)
        if self.map.exact_zeros:
            return total, smallest(self.z.dtype)
        largest = total.abs().flatten(1).amax(1)
        return total, self._noise(largest.reshape(-1, *[1] * (total.dim() - 1)))

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
        return self.constant(
            "fan in", lambda: self.map.fan_in(self.weight.detach(), self.x.shape).to(self.z), None
        )

    def constant(self, purpose: str, make: Callable[[], Made], key: Hashable) -> Made:
        """What depends on weight and input shape only, a tensor or several, from the cache."""
        key = (key, self.map, self.x.shape[int(self.map.alike) :])
        return weights.modified(self.weight, purpose, lambda _: make(), key)


@dataclass
class Incoming:
    """Relevance that arrives at an output z: a coefficient, relevance put on z directly, or both.

    R = c·z + direct.
    """

    c: Tensor | None
    direct: Tensor | None
    z: Tensor | None

    @property
    def relevance(self) -> Tensor:
        """R."""
        assert self.z is not None
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
