"""Relevance that lies on values which are zero crosses what comes before them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from alike import same_relevance
from networks import DOUBLE, linear
from relprop.rules import Flat


def test_relevance_on_zeros_of_a_difference() -> None:
    layer = linear(2, 2)
    x = torch.tensor([[-1.0, -2.0]], **DOUBLE)
    e = relprop.explain(lambda x: layer(x.relu() - x.flip(1).relu()), x, rules=Flat(), target=0)
    assert e.ledger.gap.max() < 1e-12
    torch.testing.assert_close(e.relevance.sum(1), e.score)


def test_channels_that_are_shuffled_as_views() -> None:
    layer, head = linear(6, 8), linear(8, 3)

    def by_views(x: Tensor) -> Tensor:
        h = torch.cat([layer(x).relu(), layer(x).relu()], 1)[:, :8]
        return head(h.view(-1, 2, 4).transpose(1, 2).contiguous().view(-1, 8))

    def by_index(x: Tensor) -> Tensor:
        return head(layer(x).relu()[:, torch.arange(8).reshape(2, 4).T.flatten()])

    same_relevance(by_views, by_index, torch.randn(3, 6, **DOUBLE), Flat())


def test_relevance_on_zeros_behind_an_accepted_operation() -> None:
    layer = linear(6, 3)

    def model(x: Tensor) -> Tensor:
        return layer(x.relu() + torch.linalg.svdvals(x.relu()[..., None]))

    e = relprop.explain(model, torch.rand(2, 6, **DOUBLE) + 0.1, rules=Flat(), accept="_linalg_svd")
    assert e.ledger.gap.max() < 1e-10


def test_relevance_on_zeros_crosses_a_minimum_with_constants() -> None:
    bound, x = torch.tensor([0.0, 0.0, -1.0]).double(), torch.tensor([[-1.0, 2.0, 0.5]]).double()
    eye, last = torch.eye(3).double(), torch.ones(2, 3).double()
    explanation = relprop.explain(
        lambda x: F.linear(torch.minimum(F.linear(x, eye), bound), last), x, target=0, rules=Flat()
    )
    assert float(explanation.ledger.gap.max()) < 1e-10


def test_relevance_on_zeros_follows_an_inplace_rearrangement() -> None:
    layer, x = nn.Linear(4, 3).double().eval(), torch.randn(2, 4, dtype=torch.float64)
    e, expected = (
        relprop.explain(lambda x, f=f: layer(f(x * 1)), x, target=1, rules=Flat())
        for f in (lambda x: x.unsqueeze_(1).flatten(1), lambda x: x)
    )
    torch.testing.assert_close(e.relevance, expected.relevance)
    assert e.ledger.gap.max() < 1e-12
