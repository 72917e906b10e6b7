"""Writing into views of constants: what is written is relevant, the rest of the constant absorbs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import relprop
from relprop.rules import Epsilon

W = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def joined(x: Tensor) -> Tensor:
    """What all of them do: ones, and x beside them."""
    return torch.cat([x @ W, torch.ones(2, 4, 3, dtype=x.dtype)], -1)


def by_copy(x: Tensor) -> Tensor:
    k = torch.ones(2, 4, 8, dtype=x.dtype)
    k[..., :5].copy_(x @ W)
    return k


def by_a_kept_view(x: Tensor) -> Tensor:
    k = x.new_ones(2, 4, 8)
    view = k[..., :5]
    view.copy_(x @ W)
    return k


def by_adding(x: Tensor) -> Tensor:
    k = x.new_ones(2, 4, 8)
    k[..., :5] = 0
    k[..., :5].add_(x @ W)
    return k


def through_a_transpose(x: Tensor) -> Tensor:
    k = x.new_ones(2, 8, 4)
    k.transpose(1, 2)[..., :5].copy_(x @ W)
    return k.transpose(1, 2)


def in_two_parts(x: Tensor) -> Tensor:
    k, h = x.new_ones(2, 4, 8), x @ W
    k[..., :2].copy_(h[..., :2])
    k[..., 2:5].copy_(h[..., 2:])
    return k


@pytest.mark.parametrize(
    "rule", [Epsilon(0), Epsilon(0.1), relprop.rules.ZPlus(), relprop.rules.Flat()], ids=str
)
@pytest.mark.parametrize("write", [by_copy, by_a_kept_view, by_adding, through_a_transpose, in_two_parts])
def test_they_are_as_what_is_joined(write: Callable[[Tensor], Tensor], rule: Epsilon) -> None:
    x, head = torch.randn(2, 4, 6, dtype=torch.float64), torch.randn(8, 3, dtype=torch.float64)
    e, expected = (
        relprop.explain(lambda x, f=f: (f(x).relu() @ head).sum(1), x, target=1, rules=rule)
        for f in (write, joined)
    )
    assert torch.equal(e.output, (write(x).relu() @ head).sum(1))
    # Of a transposed tensor torch sums products in another order.
    torch.testing.assert_close(e.output, expected.output, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(e.relevance, expected.relevance, rtol=1e-10, atol=1e-12)
    assert e.ledger.gap.max() < 1e-12
    torch.testing.assert_close(
        e.ledger.absorbed["constant"], expected.ledger.absorbed["constant"], rtol=1e-10, atol=1e-12
    )
