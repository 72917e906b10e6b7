"""What a rule gets and returns: a linear operation, the relevance of its output, that of its input."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from relprop.linear import weights
from relprop.linear.maps import LinearMap
from relprop.linear.numerics import keep_above, smallest, tolerance
from relprop.linear.weights import Made

FEW = 25
"""Up to this number, contributions to an output are few. A 5 × 5 kernel on one channel has as many."""

Modify = Callable[[Tensor], Tensor]


@dataclass
class LinearOperation:
    """One call of a linear operation, as a rule gets it.

    Attributes:
        map: the kind of operation.
        x: input (samples, ...), detached.
        z: output (samples, ...), bias included, detached.
        weight: the weight, not detached, because the cache finds modified weights by this tensor.
        bias: (out,), or of a shape that can be added to the output, or None; detached.
        nonnegative: whether the input is known to be non-negative.
        scaled: whether a factor, such as a batch norm's, is folded into the weight. Then z has other rounding
            errors than the product with the weight.
        rectified: whether z is max(0, z), because no relevance arrives at negative outputs.
    """

    map: LinearMap
    x: Tensor
    z: Tensor
    weight: Tensor
    bias: Tensor | None
    nonnegative: bool
    scaled: bool = False
    rectified: bool = False

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
        if self.scaled:  # without contributions, z differs from the bias by rounding
            z0 = keep_above(z0, z0.abs().sub_(tolerance(z0.dtype) * self.b.abs()))
        return z0

    def forward(self, weight: Tensor) -> Tensor:
        """L_weight(x), which may be overwritten."""
        return self._applied(self.x, weight)

    def _applied(self, x: Tensor, weight: Tensor) -> Tensor:
        return _its_own(self.map.apply(x, weight.detach()), x)

    def transpose(self, s: Tensor, weight: Tensor) -> Tensor:
        """T_weight(s), which may be overwritten."""
        return _its_own(self.map.transpose(s, self.sent_by(weight), self.x.shape), s)

    def sent_by(self, weight: Tensor) -> Tensor:
        """Return the weight by which relevance is sent back, for subclasses that record it."""
        return weight.detach()

    def transpose_both(self, s: Tensor, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """T_one(s) and T_other(s)."""
        return self.map.transpose_both(s, one.detach(), other.detach(), self.x.shape)

    def spread(self, s: Tensor) -> Tensor:
        """T_1(s), with all weights one."""
        return self.map.spread(s, self.weight.detach(), self.x.shape)

    def magnitude(self, factor: float = 1.0) -> Tensor:
        """A = L_|w|(|x|) times a factor. It may be overwritten."""
        size = self.x if self.nonnegative else self.x.abs()
        return self._applied(size, weights.absolute(self.weight, factor))

    def positive_part(self) -> Tensor:
        """Return P, the sum of positive contributions, and 0 where it is no larger than its rounding errors.

        For non-negative inputs P is a sum of non-negative terms, precise to the last digits. For other inputs
        P is the difference (z0 + A)/2, unless the contributions are few.
        """
        return _beyond(*self._positive_part())

    def parts(self) -> tuple[Tensor, Tensor]:
        """Return P and -N, the sizes of the sums of positive and of negative contributions.

        They are 0 where they are no larger than their rounding errors. N is the difference z0 - P, unless the
        contributions are few.
        """
        if not (self.nonnegative or self.few):
            half, z0, of_halves = self._halves()
            return _beyond(half.add(z0, alpha=0.5), of_halves), _beyond(half.sub_(z0, alpha=0.5), of_halves)
        P, noise = self._positive_part()
        if self.few:
            minus_N, noise_N = self._of_one_sign(weights.negative, weights.positive)
            return _beyond(P, noise), _beyond(minus_N.neg_(), noise_N)
        # P is precise, and N a difference. Its rounding errors have the size of P, N and the bias.
        minus_N = P - self.z if self.b is None else (P - self.z).add_(self.b)
        share = tolerance(self.z.dtype)
        beyond = torch.sub(minus_N, P, alpha=share / (1 - share)).sub_(self._noise_of_bias())
        return _beyond(P, noise), keep_above(minus_N, beyond)

    def _positive_part(self) -> tuple[Tensor, Tensor | float]:
        """P, and the size of its rounding errors."""
        if self.nonnegative or self.few:
            return self._of_one_sign(weights.positive, weights.negative)
        half, z0, noise = self._halves()
        return half.add_(z0, alpha=0.5), noise

    def _halves(self) -> tuple[Tensor, Tensor, Tensor]:
        """A/2, which may be overwritten, z0, and the size of the rounding errors of A/2 ± z0/2."""
        half = self.magnitude(0.5)
        return half, self.z0, self._noise(half, 2.0)

    @property
    def few(self) -> bool:
        """Whether outputs have few contributions, as in depthwise convolutions.

        If so, the sum of one sign is tiny at some outputs, and a difference would lose it to rounding. So
        contributions of each sign are summed separately, which costs little if they are few.
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
        """Sum of the contributions of one sign, those of positive inputs and those of negative inputs."""
        if self.nonnegative:
            return self.forward(with_positive(self.weight))
        up = self.map.apply(self.x.clamp(min=0), with_positive(self.weight))
        return up + self.map.apply(self.x.clamp(max=0), with_negative(self.weight))

    def _noise(self, magnitude: Tensor, factor: float = 1.0) -> Tensor:
        """Size of rounding errors of a difference of sums of the size factor·magnitude.

        The bias counts too, because z0 = z - b is such a difference.
        """
        of_bias, share = self._noise_of_bias(), factor * tolerance(self.z.dtype)
        if isinstance(of_bias, float):
            return (magnitude * share).add_(of_bias)
        return of_bias.add(magnitude, alpha=share)

    def _noise_of_bias(self) -> Tensor | float:
        least = smallest(self.z.dtype)
        return least if self.b is None else tolerance(self.z.dtype) * self.b.abs() + least

    def fan_in(self) -> Tensor:
        """The number of inputs of each output; broadcasts against the output."""
        return self.constant(
            "fan in", lambda: self.map.fan_in(self.weight.detach(), self.x.shape).to(self.z), None
        )

    def constant(self, purpose: str, make: Callable[[], Made], key: Hashable) -> Made:
        """Return `make()`, which depends on weight, map and input shape, from the cache.

        Args:
            purpose: what `make` computes; one result is kept for each purpose.
            make: computes a tensor, or several.
            key: what else the result depends on.
        """
        key = (key, self.map, self.x.shape[int(self.map.alike) :])
        return weights.modified(self.weight, purpose, lambda _: make(), key)


def _its_own(result: Tensor, given: Tensor) -> Tensor:
    """Return a result that may be overwritten.

    A map may return what it was given, as a rearrangement that has nothing to do, or one number for several
    elements, as the transpose of a sum.
    """
    return result.clone() if 0 in result.stride() or weights.same_storage(result, given) else result


def _beyond(total: Tensor, noise: Tensor | float) -> Tensor:
    """Return a sum, and 0 where it is no larger than its rounding errors. The sum may be overwritten."""
    if isinstance(noise, float):
        return keep_above(total, total, noise)
    return keep_above(total, total - noise)


@dataclass
class Incoming:
    """Relevance that arrives at an output z, R = c·z + direct.

    Attributes:
        c: coefficient, of z's shape, or None.
        direct: relevance put on z directly, of z's shape, or None.
        z: the output; None in the backward of an operation that does not need it.
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
    """Relevance of an operation's input, R = x·coefficient + direct, and the relevance that was absorbed.

    Attributes:
        coefficient: of x's shape, or None.
        direct: relevance put on x directly, of x's shape, or None.
        absorbed: amounts by the name of their sink in the ledger. Each has the output's shape, or is summed
            over all but the first dimension.
    """

    coefficient: Tensor | None = None
    direct: Tensor | None = None
    absorbed: dict[str, Tensor] = field(default_factory=dict)
