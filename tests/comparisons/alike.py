"""Models that compute the same have to have the same relevance."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import relprop
from relprop import Explanation
from relprop.rules import Gamma

GAMMA = Gamma(0.25)


def relevance(model: Callable[..., Any], x: Tensor, rules: Any, **options: Any) -> Tensor:
    """Relevance for class 1, where the books close."""
    e = relprop.explain(model, x, target=1, rules=rules, **options)
    assert float(e.ledger.gap.max()) < 1e-10
    return e.relevance


def near(found: Tensor, expected: Tensor) -> None:
    """Equal up to rounding errors, element by element."""
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def same_relevance(model: Any, other: Any, x: Tensor, rules: Any = GAMMA, **options: Any) -> Explanation:
    """Assert that two spellings of a model have the same relevance, and give the first's explanation."""
    found = relprop.explain(model, x, rules=rules, **options)
    expected = relprop.explain(other, x, rules=rules, **options)
    torch.testing.assert_close(found.output, expected.output)
    near(found.relevance, expected.relevance)
    assert found.ledger.gap.max() < 1e-10
    return found


def assert_same(found: Explanation, expected: Explanation) -> None:
    """The same output and relevance, and books that close."""
    torch.testing.assert_close(found.output, expected.output, rtol=1e-12, atol=1e-12)
    error = (found.relevance - expected.relevance).abs().max()
    assert error <= 1e-10 * expected.relevance.abs().max()
    assert found.ledger.gap.max() < 1e-9
    assert expected.ledger.gap.max() < 1e-9
