"""Arguments of calls by name."""

from typing import Any

import pytest
import torch
from torch import nn

import relprop
from relprop.rules import Epsilon


def test_where_takes_its_arguments_by_name() -> None:
    layer, x = nn.Linear(3, 4).double().eval(), torch.rand(2, 3).double()

    def relevance(choose: Any) -> Any:
        return relprop.explain(lambda x: choose(layer(x)), x, target=0, rules=Epsilon(0)).relevance

    expected = relevance(lambda z: torch.where(z > 0, z, 0.1 * z))
    for spelling in (
        lambda z: torch.where(condition=z > 0, input=z, other=0.1 * z),
        lambda z: z.where(condition=z > 0, other=0.1 * z),
        lambda z: z.where(z > 0, 0.1 * z),
    ):
        torch.testing.assert_close(relevance(spelling), expected)


@pytest.mark.parametrize("name", ["input"])
def test_an_inplace_call_with_keywords(name: str) -> None:
    x = torch.randn(2, 4, dtype=torch.float64)
    e = relprop.explain(lambda x: torch.relu_(**{name: x * 1.0}), x, target=1, rules=Epsilon(0))
    torch.testing.assert_close(e.score, x[:, 1].relu())
