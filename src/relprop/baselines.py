"""Explanations without rules, of the plain gradient: what relevance propagation is compared with."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from relprop.calls import map_tensors
from relprop.errors import ModelError
from relprop.explanation import Explanation
from relprop.gaps import disconnected_message
from relprop.input_errors import naming_inputs, never_looked_up
from relprop.inputs import put_stand_ins
from relprop.leaves import Leaf, added
from relprop.ledger import Ledger
from relprop.names import canonical_name
from relprop.targets import Target, as_told, measure_of, scores_of
from relprop.tokens import TokenIds


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


class _Lookups(TorchFunctionMode):
    """Makes what embeddings look up for integer inputs, and floating-point inputs, leaves of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.leaves: list[Leaf] = []
        self.samples = 0
        self._ids = TokenIds()

    def stand_in(self, name: str, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Note an input, or a lookup, and return what the model gets in its place."""
        root = x.detach().clone().requires_grad_()
        self.leaves.append(Leaf(root, None, name, positions, tuple(self._ids.inputs)))
        self.samples = self.samples or len(x)
        return root.clone()  # which the model may overwrite

    def stand_in_for_ids(self, name: str, tensor: Tensor) -> Tensor:
        """Note an integer input."""
        ids = tensor.detach().clone()
        self.samples = self.samples or len(ids)
        self._ids.add(name, ids)
        return ids

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = canonical_name(function)[0], kwargs or {}
        result = self._ids.follow(name, function, args, kwargs)
        ids = self._ids.looked_up(name, args, kwargs)
        if ids is None or not isinstance(result, Tensor):
            return result
        return self.stand_in("", result, ids.positions.clone())


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
    lookups = _Lookups()
    with torch.inference_mode(mode=False), torch.enable_grad():
        shapes, stand_ins, others = put_stand_ins(
            lookups.stand_in, lookups.stand_in_for_ids, model, inputs, arguments
        )
        with naming_inputs(model, shapes, lambda: bool(lookups.leaves)), lookups:
            output = model(*stand_ins, **others)
        if not lookups.leaves:
            raise never_looked_up(shapes)
        leaves = [leaf.root for leaf in lookups.leaves]
        samples = lookups.samples
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
        parts = added(
            [
                leaf.of_inputs(baseline.relevance(x, torch.zeros_like(x) if g is None else g))[0]
                for leaf, x, g in zip(lookups.leaves, [x.detach() for x in leaves], found, strict=True)
            ]
        )
        relevance = {name: parts[name] for name in shapes if name in parts}
        ledger = Ledger(samples=samples)
        ledger.seed = ledger.per_sample(scores)
        ledger.inputs = torch.stack([ledger.per_sample(R) for R in relevance.values()]).sum(0)
        ledger.absorbed["not conserved"] = ledger.seed - ledger.inputs
        explanations.append(
            Explanation(
                relevance=next(iter(relevance.values())) if len(relevance) == 1 else relevance,
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
