"""Rules write to the results of maps, which may be what the map was given, or one number for many."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close
from relprop.linear.maps import LinearMap
from relprop.linear.operation import Incoming, LinearOperation
from relprop.rules import AlphaBeta, Gamma, ZPlus

RULES: list[Any] = [Gamma(0.25), Gamma(0.25, bias="distribute"), ZPlus("absorb"), AlphaBeta(2, 1, "absorb")]


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_sum_over_a_dimension_of_the_input(rule: Any, nonnegative: bool) -> None:
    """Its transpose gives several elements of the input one number, which lies in memory once."""
    weight, head = torch.randn(4, 6, **DOUBLE), nn.Linear(4, 3).double()
    x = torch.randn(2, 5, 6, **DOUBLE)
    x = x.abs() if nonnegative else x
    found = relprop.explain(
        lambda x: head(torch.einsum("bti,oi->bo", x, weight)), x, target=1, rules=[("*", rule)]
    )
    assert found.ledger.gap.max() < 1e-10


@dataclass(frozen=True)
class Same(LinearMap):
    """A product with each element that returns what it is given where it has nothing to do."""

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return x if torch.equal(weight, torch.ones_like(weight)) else x * weight

    def transpose(self, s: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        return self.apply(s, weight)

    def contributions(self, weight: Tensor) -> int:
        return 100


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("rule", [RULES[0], *RULES[2:]], ids=str)
def test_a_map_that_returns_what_it_is_given(rule: Any, nonnegative: bool) -> None:
    x, c, b = torch.randn(2, 3, **DOUBLE), torch.randn(2, 3, **DOUBLE), torch.randn(3, **DOUBLE)
    x = x.abs() if nonnegative else x
    z, weight = x + b, torch.ones(3, **DOUBLE)
    before = x.clone(), z.clone()
    op = LinearOperation(Same(), x, z, weight, b, nonnegative)
    result = rule(op, Incoming(c, None, z))
    assert torch.equal(op.x, before[0])
    assert torch.equal(op.z, before[1])
    onward = (x * result.coefficient).sum()
    absorbed = sum(float(amount.sum()) for amount in result.absorbed.values())
    close(onward + absorbed, (c * z).sum())


@pytest.mark.parametrize(("rule", "positive"), [(ZPlus(), 1.0), (AlphaBeta(2, 1), 2.0)], ids=str)
def test_small_shares_beside_large_ones_are_not_lost_to_rounding(rule: Any, positive: float) -> None:
    """Both inputs have one coefficient for each sign, and these may differ by many orders."""
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1e-9], [-1.0, 0.5]]))
    e = relprop.explain(layer.eval(), torch.tensor([[-1.0, 1.0]]), target=lambda y: y.sum(1), rules=rule)
    expected = relprop.explain(
        layer.double(), torch.tensor([[-1.0, 1.0]]).double(), target=lambda y: y.sum(1), rules=rule
    )
    torch.testing.assert_close(e.relevance, expected.relevance.float())
    assert e.relevance[0, 0] == pytest.approx(positive)


def test_gamma_in_half_precision_sees_relevance_below_zero() -> None:
    x = torch.tensor([[1.0, 2.0]])
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3e-5, -2e-5], [1e-5, 1e-5]]))
    found = [
        relprop.explain(layer.to(dtype), x.relu().to(dtype), target=0, rules=Gamma(0.25)).relevance.double()
        for dtype in (torch.float64, torch.float16)
    ]
    torch.testing.assert_close(found[1], found[0], rtol=0.1, atol=1e-6)
