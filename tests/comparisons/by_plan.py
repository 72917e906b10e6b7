"""Compares what an explainer gives by a plan with what it gives in Python."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from by_graph import assert_same
from networks import DOUBLE
from relprop import Explainer
from relprop.runs import planned


def rows(samples: int = 2, seed: int = 0, width: int = 4) -> Tensor:
    return torch.randn(samples, width, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def layers(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), *(between or [nn.ReLU()]), nn.Linear(6, 3)).double().eval()


class Model(nn.Module):
    """Two layers, and what a test puts between them."""

    def __init__(self, between: Callable[["Model", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.between = between
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(self.between(self, self.first(x)))
        return scores


class Counted(Explainer):
    """An explainer that counts explanations in Python."""

    in_python = 0

    def _compute(self, *args: Any) -> Any:
        self.in_python += 1
        return super()._compute(*args)

    @property
    def kinds(self) -> list[planned._Kind]:
        """The kinds of inputs that it has had."""
        assert self._plans is not None
        return list(self._plans._kinds.values())

    @property
    def refused(self) -> str:
        """Why it has no plan for inputs of the one kind that it has had."""
        (kind,) = self.kinds
        return kind.refused


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second explanation of a kind make a plan."""
    monkeypatch.setattr(planned, "AFTER", 1)


def with_plan(model: Callable[..., Any], *inputs: Any, rules: Any = "epsilon", **options: Any) -> Counted:
    """Return an explainer with a plan that has given the same as an explanation in Python."""
    explainer = Counted(model, rules=rules)
    for _ in range(3):
        explainer(*inputs, **options)
    (kind,) = explainer.kinds
    assert (kind.refused, kind.is_proven) == ("", True)
    return explainer


def assert_by_plan(explainer: Counted, *inputs: Any, **options: Any) -> relprop.Explanation:
    """Check that an explainer gives by its plan what it gives in Python, and return it."""
    before = explainer.in_python
    found = explainer(*inputs, **options)
    assert explainer.in_python == before
    assert_same(found, in_python(explainer, *inputs, **options))
    return found


def in_python(explainer: Explainer, *inputs: Any, **options: Any) -> relprop.Explanation:
    """Explain without a plan."""
    plans, explainer._plans = explainer._plans, None
    try:
        return explainer(*inputs, **options)
    finally:
        explainer._plans = plans
