"""Compares what an explainer gives by a plan with what it gives in Python."""

from collections.abc import Callable
from typing import Any

import pytest

import relprop
from by_graph import assert_same
from relprop import Explainer
from relprop.runs import planned


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
