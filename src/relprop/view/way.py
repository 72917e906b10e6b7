"""The way of relevance through a network, as numbers for tables and plots."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

ROUNDING = 1e-6
"""Amounts of no more than this part of the largest one count as rounding errors."""


@dataclass(frozen=True)
class Step:
    """One operation on the way from the output to the input, or several that are listed together.

    Attributes:
        path: path of the module that ran; "" is the model itself.
        operation: name of the operation, such as "conv2d".
        absorbed: the amount that each sink absorbed there.
        remaining: the amount that goes on towards the input.
        visible: whether a sink absorbed more than `Way.least` of some sample.
        count: the number of operations that are listed together.
    """

    path: str
    operation: str
    absorbed: Mapping[str, float]
    remaining: float
    visible: bool = True
    count: int = 1

    @property
    def total(self) -> float:
        """The amount that all sinks absorbed."""
        return sum(self.absorbed.values())


@dataclass(frozen=True)
class Way:
    """The way of relevance from the output to the input, and what was lost on it.

    Attributes:
        steps: the steps, in the order in which relevance reached them.
        seed: the amount from which relevance starts.
        inputs: the amount that arrives at the inputs.
        absorbed: the amount that each sink absorbed on the whole way.
        least: absorbed amounts up to this one are not listed.
        gap: how far the ledger is from balancing, relative to the largest amount.
        samples: the samples, in words.
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
        """The steps that absorbed more than `least`."""
        return [step for step in self.steps if step.visible]

    @property
    def sinks(self) -> list[str]:
        """The sinks that absorbed more than `least` in one of these steps."""
        return [
            sink for sink in self.absorbed if any(self.tells(s.absorbed.get(sink, 0)) for s in self.shown)
        ]

    def tells(self, amount: float) -> bool:
        """Whether an amount is larger than `least`, or NaN."""
        return not abs(amount) <= self.least  # true for NaN

    def written(self, amount: float) -> str:
        """Return an amount as text, with as many decimals as give the largest amount six digits."""
        known = [abs(v) for v in (self.seed, self.inputs, *self.absorbed.values()) if math.isfinite(v)]
        largest = max(known, default=0.0)
        if not 1e-3 <= largest < 1e6:
            return f"{amount:.5g}"
        decimals = 5 - math.floor(math.log10(largest))
        if 0 < abs(amount) < 10.0 ** (1 - decimals):
            return f"{amount:.1e}"
        return f"{amount:.{decimals}f}"
