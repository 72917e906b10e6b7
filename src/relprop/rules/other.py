"""Rules for products, sums of branches and max-pooling.

Without these rules, gates get nothing and other factors half each, the terms of a sum share by contribution,
and the largest value of a max-pooling gets all. An entry of a composite with one of these rules applies only
to operations of the rule's `kinds`. So `("*", BySize())` applies to all sums.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from relprop.calls.site import Kind
from relprop.errors import RuleError
from relprop.rules.rule import OPTION, PrintedRule

__all__ = ["AveragePooling", "BySize", "EqualShares", "Proportional", "SignalTakesAll", "Uniform"]


class NonlinearRule(PrintedRule):
    """Base of the rules for products, sums and max-pooling."""

    kinds: ClassVar[frozenset[str]]
    """The kinds of operations to which the rule applies: see `relprop.places.Kind`."""

    @property
    def puts_relevance(self) -> bool:
        """Whether the rule may put relevance on elements that are zero."""
        return False

    def _require_truth_value(self, name: str) -> None:
        if not isinstance(getattr(self, name), bool):
            raise RuleError(f"{self}: {name} must be True or False.")


@dataclass(frozen=True, repr=False)
class Uniform(NonlinearRule):
    """R_a = R_b = R/2 for a product a·b. Achtibat et al. 2024, prop. 3.2."""

    kinds: ClassVar[frozenset[str]] = frozenset({Kind.PRODUCT})


@dataclass(frozen=True, repr=False)
class SignalTakesAll(NonlinearRule):
    """R_signal = R, R_gate = 0 for a product signal·gate. Arras et al. 2017; CP-LRP, Ali et al. 2022.

    The gate is the factor that is a weight: a sigmoid, a softmax, or another bounded function that is not 0
    at 0. If both factors are signals, or both weights, each gets half.

    Args:
        activations: whether the result of an activation function, such as SiLU, is the gate of a signal that
            is none, as in gated feed-forward layers and linear attention.

    Raises:
        RuleError: `activations` is neither true nor false.
    """

    activations: bool = field(default=False, metadata=OPTION)

    kinds: ClassVar[frozenset[str]] = frozenset({Kind.PRODUCT})

    def __post_init__(self) -> None:
        self._require_truth_value("activations")


@dataclass(frozen=True, repr=False)
class Proportional(NonlinearRule):
    """R_a = a/(a + b) · R for a product a·b of elements. Ding et al. 2017, weight ratios.

    So a gate has a share of its own, by its value, and roles do not matter. The share is large and of both
    signs where a and b nearly cancel. It is half where they cancel. Matrix products, `einsum`, `prod` and
    attention share as without this rule, and denominators get nothing.

    Args:
        absolute: whether the share is |a|/(|a| + |b|), which is never above one.

    Raises:
        RuleError: `absolute` is neither true nor false.
    """

    absolute: bool = field(default=False, metadata=OPTION)

    kinds: ClassVar[frozenset[str]] = frozenset({Kind.PRODUCT})

    def __post_init__(self) -> None:
        self._require_truth_value("absolute")

    def parts(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return the parts of the relevance of a·b that a and b get. The two parts sum to one."""
        return _in_proportion(a.abs(), b.abs()) if self.absolute else _in_proportion(a, b)


class SumRule(NonlinearRule):
    """Base of rules for the sum of two branches of one shape, as in residual networks."""

    kinds: ClassVar[frozenset[str]] = frozenset({Kind.SUM})

    def parts(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return the parts of the relevance of a + b that a and b get. The two parts sum to one."""
        raise NotImplementedError


@dataclass(frozen=True, repr=False)
class BySize(SumRule):
    """R_a = |a|/(|a| + |b|) · R for a sum a + b. Otsuki et al. 2024, ratio-based splitting.

    The share without this rule, a/(a + b), is large and of both signs if the terms nearly cancel.
    """

    def parts(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return _in_proportion(a.abs(), b.abs())


@dataclass(frozen=True, repr=False)
class EqualShares(SumRule):
    """R_a = R_b = R/2 for a sum a + b. Otsuki et al. 2024, symmetric splitting."""

    @property
    def puts_relevance(self) -> bool:
        return True

    def parts(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        half = torch.full_like(a, 0.5)
        return half, half


@dataclass(frozen=True, repr=False)
class AveragePooling(NonlinearRule):
    """R_i = x_i / Σ_i x_i · R over the window of a max-pooling, as for an average pooling.

    Montavon et al. 2019, ch. 10.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({Kind.MAX_POOL})


def _in_proportion(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a/(a + b) and b/(a + b), and half each where a + b is zero."""
    total = a + b
    part = torch.where(total == 0, 0.5, a / total.masked_fill(total == 0, 1))
    return part, 1 - part
