"""Products with a constant where one operand broadcasts: as with what it stands for written out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import relprop
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZPlus

N, HEADS, T, D, K = 2, 3, 4, 5, 6


def weights(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


PRODUCTS: dict[str, tuple[tuple[int, ...], Callable[[Tensor, Tensor], Tensor]]] = {
    "one matrix a head for all samples": ((1, HEADS, D, K), lambda x, w: x @ w),
    "one matrix for all": ((1, 1, D, K), torch.matmul),
    "without the samples' dimension": ((HEADS, D, K), torch.matmul),
    "weights first": ((1, HEADS, K, T), lambda x, w: w @ x),
    "einsum": ((1, HEADS, D, K), lambda x, w: torch.einsum("nhtd,nhdk->nhtk", x, w)),
    "einsum of dots": ((1, D, K), lambda x, w: torch.einsum("...td,...dk->...tk", x, w)),
}


@pytest.mark.parametrize(
    "rule", [Epsilon(0.1), Gamma(0.25), ZPlus(), AlphaBeta(2, 1), WSquare(), Flat()], ids=str
)
@pytest.mark.parametrize("name", PRODUCTS)
def test_weights_that_broadcast_are_as_weights_that_are_repeated(
    name: str, rule: relprop.rules.Epsilon
) -> None:
    shape, product = PRODUCTS[name]
    w, x = weights(*shape), torch.randn(N, HEADS, T, D, dtype=torch.float64)
    repeated = w.expand(N, HEADS, *w.shape[-2:]).clone()

    def model(w: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: product(x, w)

    e, expected = (
        relprop.explain(model(v), x, target=lambda z: z[:, :, 1].sum((1, 2)), rules=rule)
        for v in (w, repeated)
    )
    assert torch.equal(e.output, product(x, w))
    torch.testing.assert_close(e.relevance, expected.relevance, rtol=1e-10, atol=1e-12)
    assert e.ledger.gap.max() < 1e-12
    assert [str(a.rule) for a in e.rules] == [str(rule)]


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus()], ids=str)
def test_an_input_that_broadcasts_counts_wherever_it_is_used(rule: relprop.rules.Epsilon) -> None:
    w, x = weights(1, HEADS, D, K), torch.randn(N, 1, T, D, dtype=torch.float64)
    e, expected = (
        relprop.explain(f, x, target=lambda z: z.sum((1, 2, 3)), rules=rule)
        for f in (lambda x: x @ w, lambda x: x.expand(-1, HEADS, -1, -1) @ w.expand(N, -1, -1, -1).clone())
    )
    torch.testing.assert_close(e.relevance, expected.relevance, rtol=1e-10, atol=1e-12)
    assert e.ledger.gap.max() < 1e-12
