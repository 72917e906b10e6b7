"""Explanations without rules, of the plain gradient: what relevance propagation is compared with."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from relprop.engine.gaps import disconnected_message
from relprop.engine.run import Run
from relprop.errors import ModelError
from relprop.explanation import Explanation, alone
from relprop.forward import Forward, PlainGradient
from relprop.ledger import Ledger
from relprop.targets import Target, as_told, measure_of, scores_of


@dataclass(frozen=True)
class Baseline(ABC):
    """An explanation from an input and the score's plain gradient."""

    @abstractmethod
    def relevance(self, x: Tensor, gradient: Tensor) -> Tensor:
        """What each element of the input x counts."""


@dataclass(frozen=True)
class GradientTimesInput(Baseline):
    """R_i = x_i ∂y/∂x_i.

    Sums to the score for networks that are homogeneous, and to nothing in particular else.
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


def explain_by_gradient(
    baseline: Baseline,
    name: str,
    model: Callable[..., Any],
    inputs: tuple[Any, ...],
    arguments: dict[str, Any],
    goals: Sequence[Target],
) -> list[Explanation]:
    """Explain with a plain gradient: one forward, and a backward for each target.

    Raises:
        InputError: nothing of the inputs can be explained.
        ModelError: the scores do not depend on them.
    """
    forward = Forward(Run(lambda site: None), PlainGradient())
    explanations = []
    with forward.of(model, inputs, arguments):
        leaves, samples = forward.inputs.leaves, forward.run.ledger.samples
        for number, goal in enumerate(goals, 1):
            scores = scores_of(goal, forward.output, samples)
            found = forward.gradients(scores, retain=number < len(goals))
            parts = leaves.by_gradient(baseline.relevance, found)
            if parts is None:
                raise ModelError(disconnected_message([]))
            output, plain = forward.values((forward.output, scores))
            relevance = {name: parts[name] for name in forward.shapes if name in parts}
            ledger = Ledger(samples=samples)
            ledger.seed = ledger.per_sample(plain)
            ledger.inputs = torch.stack([ledger.per_sample(R) for R in relevance.values()]).sum(0)
            ledger.absorbed["not conserved"] = ledger.seed - ledger.inputs
            explanations.append(
                Explanation(
                    relevance=alone(relevance),
                    output=output,
                    target=as_told(goal, output),
                    score=plain,
                    preset=name,
                    rules=(),
                    ledger=ledger,
                    measure=measure_of(goal),
                )
            )
    return explanations
