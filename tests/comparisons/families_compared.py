"""How families of transformers are explained, and how their relevance is compared."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from transformer_families import Arguments, Family

CLOSES_TO = {torch.float32: 1e-4, torch.float64: 1e-9}


def other_ways(families: Mapping[str, Family]) -> list[tuple[str, str]]:
    """Each family that is an earlier one computed in another way, and the name of that one."""

    def first_way(name: str) -> str:
        this = families[name]
        return next(
            other for other, f in families.items() if (f.model, f.settings) == (this.model, this.settings)
        )

    return [(name, first) for name in families if (first := first_way(name)) != name]


def explained(
    model: nn.Module, arguments: Arguments, **options: Any
) -> tuple[relprop.Explanation, dict[str, Tensor]]:
    """Explain, and give the relevance of each explained argument by name, also where there is but one."""
    explanation = relprop.explain(model, **arguments, **options)
    return explanation, dict(explanation.inputs)


def assert_same(relevance: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float) -> None:
    """Compare relevance, relative to the largest."""
    largest = max(float(value.abs().max()) for value in expected.values())
    assert list(relevance) == list(expected)
    for name, value in relevance.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=tolerance * largest)


def assert_alike(found: relprop.Explanation, expected: relprop.Explanation, tolerance: float = 1e-10) -> None:
    """Compare relevance, relative to the largest, scores, and what the ledger has in all."""
    assert_same(dict(found.inputs), dict(expected.inputs), tolerance)
    torch.testing.assert_close(found.score, expected.score, rtol=tolerance, atol=1e-12)
    torch.testing.assert_close(found.ledger.total, expected.ledger.total, rtol=10 * tolerance, atol=1e-9)


def other_values(arguments: Arguments) -> dict[str, Any]:
    """Other values of arguments: other numbers, or the ids of other samples."""

    def other(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or "mask" in name:
            return value
        if value.is_floating_point():
            return value * 0.9
        return value.roll(1, 0) if "ids" in name and "position" not in name else value

    return {name: other(name, value) for name, value in arguments.items()}
