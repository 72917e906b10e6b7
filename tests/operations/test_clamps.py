"""Clamps, minima and maxima with a constant number."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relprop
from relprop.rules import Epsilon, Flat


@pytest.mark.parametrize("bound", [torch.zeros(1), torch.zeros(3), torch.full((2, 3), 0.5)])
@pytest.mark.parametrize("function", [torch.maximum, torch.minimum, torch.max])
def test_an_extreme_with_one_number_is_a_clamp(function: Any, bound: Tensor) -> None:
    bound, x = bound.double(), torch.tensor([[-1.0, 2.0, 0.5], [1.0, -0.2, 0.0]]).double()
    last = torch.randn(2, 3).double()
    limits = {"max" if function is torch.minimum else "min": float(bound.flatten()[0])}
    for rules in (Flat(), Epsilon(0)):
        one = relprop.explain(lambda x: F.linear(function(x, bound), last), x, target=0, rules=rules)
        other = relprop.explain(lambda x: F.linear(x.clamp(**limits), last), x, target=0, rules=rules)
        torch.testing.assert_close(one.relevance, other.relevance)
        assert float(one.ledger.gap.max()) < 1e-10


def test_clamps_at_one_constant_number() -> None:
    """As T5 has it in half precision."""

    def model(h: Tensor) -> Tensor:
        limit = torch.where(torch.isinf(h).any(), 1.0, 0.5)
        return torch.clamp(h, min=-limit, max=limit)

    x = torch.randn(2, 4)
    e = relprop.explain(model, x, target=1, rules="epsilon")
    expected = relprop.explain(lambda h: h.clamp(-0.5, 0.5), x, target=1, rules="epsilon")
    assert torch.equal(e.relevance, expected.relevance)
    assert e.relevance[:, 1].abs().min() > 0
