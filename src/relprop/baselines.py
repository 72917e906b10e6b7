"""Explanations without rules, of the plain gradient: what relevance propagation is compared with."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from relprop.calls import map_tensors
from relprop.errors import ModelError
from relprop.explanation import Explanation
from relprop.gaps import disconnected_message
from relprop.inputs import naming_inputs, put_stand_ins
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
    """Explain by the plain gradient; the ledger has what does not sum to the score as "not conserved".

    Raises:
        InputError: inputs or targets that cannot be explained.
        ModelError: the scores do not depend on the inputs.
    """
    leaves: list[Tensor] = []

    def stand_in(_name: str, x: Tensor) -> Tensor:
        leaves.append(x.detach().clone().requires_grad_())
        return leaves[-1].clone()  # which the model may overwrite

    with torch.inference_mode(mode=False), torch.enable_grad():
        shapes, stand_ins, others = put_stand_ins(stand_in, None, model, inputs, arguments)
        with naming_inputs(model, shapes):
            output = model(*stand_ins, **others)
        samples = leaves[0].shape[0]
        all_scores = [scores_of(goal, output, samples) for goal in goals]
        if not all(scores.requires_grad for scores in all_scores):
            raise ModelError(disconnected_message([]))
        gradients = [
            torch.autograd.grad(scores.sum(), leaves, retain_graph=True, allow_unused=True)
            for scores in all_scores
        ]
        if any(all(g is None for g in found) for found in gradients):
            raise ModelError(disconnected_message([]))
    explanations = []
    for goal, scores, found in zip(goals, all_scores, gradients, strict=True):
        relevance = [
            baseline.relevance(x.detach(), torch.zeros_like(x) if g is None else g)
            for x, g in zip(leaves, found, strict=True)
        ]
        ledger = Ledger(samples=samples)
        ledger.seed = ledger.per_sample(scores)
        ledger.inputs = torch.stack([ledger.per_sample(R) for R in relevance]).sum(0)
        ledger.absorbed["not conserved"] = ledger.seed - ledger.inputs
        explanations.append(
            Explanation(
                relevance=relevance[0] if len(relevance) == 1 else dict(zip(shapes, relevance, strict=True)),
                output=map_tensors(Tensor.detach, output),
                target=as_told(goal, output),
                score=scores.detach(),
                preset=name,
                rules=(),
                ledger=ledger,
                measure=measure_of(goal),
            )
        )
    return explanations
