"""The way of relevance through a network, as numbers to write and draw."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One operation on the way from the output to the input, or several that are listed together.

    Attributes:
        path: of the module that ran; "" is the model itself.
        operation: canonical name, such as "conv2d".
        absorbed: the amount of each sink there.
        remaining: the amount that remains on the way to the input.
        visible: whether a sink absorbed more than rounding errors.
        count: number of operations that are listed together.
    """

    path: str
    operation: str
    absorbed: Mapping[str, float]
    remaining: float
    visible: bool = True
    count: int = 1

    @property
    def total(self) -> float:
        """What all sinks took."""
        return sum(self.absorbed.values())


@dataclass(frozen=True)
class Way:
    """The way of relevance from the output to the input, and what was lost on it.

    Attributes:
        steps: in the order in which relevance reached them.
        seed: where relevance starts.
        inputs: what arrives.
        absorbed: per sink, what it took on the whole way.
        least: the amount up to which nothing is told.
        gap: how far the ledger is from balancing, relative to the largest amount.
        samples: which samples these are, in words.
        mixed: whether amounts of single samples mean nothing, because the model mixes its samples.
    """

    steps: tuple[Step, ...]
    seed: float
    inputs: float
    absorbed: Mapping[str, float]
    least: float
    gap: float
    samples: str
    mixed: bool

    @property
    def shown(self) -> list[Step]:
        """The steps that absorbed something."""
        return [step for step in self.steps if step.visible]

    @property
    def sinks(self) -> list[str]:
        """The sinks that absorbed something somewhere."""
        return [
            sink for sink in self.absorbed if any(self.tells(s.absorbed.get(sink, 0)) for s in self.shown)
        ]

    def tells(self, amount: float) -> bool:
        """Whether an amount is more than a rounding error."""
        return not abs(amount) <= self.least  # NaN is

    def written(self, amount: float) -> str:
        """Write an amount, with as many decimals as give the largest one six digits."""
        known = [abs(v) for v in (self.seed, self.inputs, *self.absorbed.values()) if math.isfinite(v)]
        largest = max(known, default=0.0)
        if not 1e-3 <= largest < 1e6:
            return f"{amount:.5g}"
        decimals = 5 - math.floor(math.log10(largest))
        if 0 < abs(amount) < 10.0 ** (1 - decimals):
            return f"{amount:.1e}"
        return f"{amount:.{decimals}f}"
