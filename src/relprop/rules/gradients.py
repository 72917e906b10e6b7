"""Explanations without rules, of the plain gradient: what relevance propagation is compared with."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor


@dataclass(frozen=True)
class Baseline(ABC):
    """An explanation from an input and the score's plain gradient."""

    @abstractmethod
    def relevance(self, x: Tensor, gradient: Tensor) -> Tensor:
        """What each element of the input x counts."""


@dataclass(frozen=True)
class GradientTimesInput(Baseline):
    """R_i = x_i ∂y/∂x_i.

    It sums to the score if the network is homogeneous of degree one. For other networks the sum has no
    meaning.
    """

    def relevance(self, x: Tensor, gradient: Tensor) -> Tensor:
        return x * gradient


@dataclass(frozen=True)
class SquaredGradient(Baseline):
    """R_i = (∂y/∂x_i)²: sensitivity. Sums to the squared norm of the gradient. Simonyan et al. 2014."""

    def relevance(self, x: Tensor, gradient: Tensor) -> Tensor:
        return gradient.square()


BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {"gradient-times-input": GradientTimesInput(), "squared-gradient": SquaredGradient()}
)
"""Baselines by name, for `explain(..., rules=...)`."""
