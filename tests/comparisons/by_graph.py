"""Compares what a compiled explainer gives with the explainer itself."""

from typing import Any

import torch

import relprop
from relprop import Explainer


def graphs_of(compiled: Explainer) -> int:
    """Return how many graphs a compiled explainer has."""
    assert compiled._graphs is not None
    return sum(len(kind.graphs) for kind in compiled._graphs._kinds.values())


def assert_same(found: relprop.Explanation, expected: relprop.Explanation) -> None:
    torch.testing.assert_close(dict(found.inputs), dict(expected.inputs), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.score, expected.score)
    torch.testing.assert_close(found.ledger.absorbed, expected.ledger.absorbed, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.output, expected.output)
    assert list(map(str, found.rules)) == list(map(str, expected.rules))
    assert (found.preset, found.measure) == (expected.preset, expected.measure)
    assert str(found.target) == str(expected.target)


def assert_by_graph(
    explainer: Explainer, compiled: Explainer, *inputs: Any, graphs: int | None = None, **options: Any
) -> None:
    """Check that a compiled explainer gives the same, by the graphs that it has."""
    before = graphs_of(compiled)
    assert_same(compiled(*inputs, **options), explainer(*inputs, **options))
    assert graphs_of(compiled) == (before if graphs is None else graphs)
