"""Attention of which whole rows are hidden."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop
from small_transformers import drawn

N, T, D = 2, 5, 6


class Pooled(nn.Module):
    """Attention written out, some of whose rows are hidden as a whole; all outputs count the same."""

    def __init__(self, hide: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.hide = hide
        self.q, self.k, self.v, self.head = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.zeros(T, T, dtype=torch.bool)
        hidden[:2] = True
        scores = self.hide(self.q(x) @ self.k(x).transpose(1, 2) / D**0.5, hidden)
        return self.head((scores.softmax(-1) @ self.v(x)).mean(1))


LOWEST = torch.finfo(torch.float32).min


@pytest.mark.parametrize("added", [False, True], ids=["masked_fill", "add"])
@pytest.mark.parametrize(
    ("low", "rules"),
    [(-1e4, "cp-lrp"), *((low, rules) for low in (-1e9, LOWEST) for rules in ("attnlrp", "cp-lrp"))],
)
def test_rows_that_are_hidden_as_a_whole(low: float, added: bool, rules: str) -> None:
    def hide(scores: Tensor, hidden: Tensor) -> Tensor:
        if added:
            return scores + torch.zeros(T, T).masked_fill(hidden, low)
        return scores.masked_fill(hidden, low)

    model, x = drawn(Pooled(hide), torch.float32), torch.randn(N, T, D)
    e = relprop.explain(model, x, target=1, rules=rules)
    assert e.relevance.isfinite().all()
    assert e.ledger.gap.max() < 1e-4
    assert all(amount.isfinite().all() for amount in e.ledger.absorbed.values())


def test_rows_whose_softmax_is_replaced() -> None:
    """Their softmax is NaN, and replaced."""
    seen = torch.ones(4, 4).tril().bool()
    seen[0] = False

    def model(x: Tensor) -> Tensor:
        scores = (x @ x.mT).masked_fill(~seen, -torch.inf)
        return (scores.softmax(-1).masked_fill(~seen, 0) @ x).sum(1)

    e = relprop.explain(model, torch.randn(2, 4, 3), target=0, rules="attnlrp")
    assert e.relevance.isfinite().all()
    assert e.ledger.gap.max() < 1e-5
