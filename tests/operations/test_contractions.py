"""Contractions by einsum, and systems of equations."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close
from relprop.rules import Flat, Gamma, ZPlus

N, D = 2, 6


def test_an_einsum_that_sums_nothing_is_a_product() -> None:
    conv, x, scale = nn.Conv2d(3, 4, 3).double(), torch.rand(2, 3, 6, 6).double(), torch.randn(4).double()

    def gated(y: Tensor, multiply: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return multiply(y, y.mean((2, 3)).sigmoid()).mean((2, 3))

    for one, other in (
        (
            lambda y: torch.einsum("bchw,c->bchw", y, scale).relu().mean((2, 3)),
            lambda y: (y * scale[:, None, None]).relu().mean((2, 3)),
        ),
        (
            lambda y: gated(y, lambda y, g: torch.einsum("bchw,bc->bchw", y, g)),
            lambda y: gated(y, lambda y, g: y * g[:, :, None, None]),
        ),
        (
            lambda y: gated(y, lambda y, g: torch.einsum("bc,bchw->bhwc", g, y).permute(0, 3, 1, 2)),
            lambda y: gated(y, lambda y, g: y * g[:, :, None, None]),
        ),
    ):
        for rules in (ZPlus(), Gamma(0.3), Flat()):
            found = relprop.explain(lambda x, f=one: f(conv(x)), x, target=1, rules=rules)
            expected = relprop.explain(lambda x, f=other: f(conv(x)), x, target=1, rules=rules)
            torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("equation", ["bi,ij,jk->bk", "...i,ij,jk->...k", "ij,...i,jk->...k"])
def test_einsum_with_two_constants_is_two_layers(equation: str) -> None:
    one, other = torch.randn(D, 7, **DOUBLE), torch.randn(7, 3, **DOUBLE)
    x = torch.rand(N, D, **DOUBLE)

    def model(x: Tensor) -> Tensor:
        operands = (one, x, other) if equation.startswith("ij") else (x, one, other)
        return torch.einsum(equation, *operands)

    e = relprop.explain(model, x, target=1, rules=Gamma(0.25))
    assert [a.rule for a in e.rules] == [Gamma(0.25)] * 2
    close(e.relevance, relprop.explain(lambda x: (x @ one) @ other, x, target=1, rules=Gamma(0.25)).relevance)
    whole = relprop.explain(lambda x: x @ (one @ other), x, target=1, rules=Gamma(0.25)).relevance
    assert (e.relevance - whole).abs().max() > 1e-3
    assert e.ledger.gap.max() < 1e-12


def test_a_triangular_system_weighs_its_right_side() -> None:
    x, w = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        A = (x @ w).tril(-1) + torch.eye(4, dtype=x.dtype)
        return torch.linalg.solve_triangular(A, x, upper=False, unitriangular=True).sum(1)

    def weighed(leaf: Tensor) -> Tensor:
        A = (x @ w).tril(-1) + torch.eye(4, dtype=x.dtype)
        return torch.linalg.solve_triangular(A, leaf, upper=False, unitriangular=True).sum(1)

    e = relprop.explain(model, x, target=1, rules="cp-lrp")
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(weighed(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(e.relevance, x * gradient)
    assert e.ledger.gap.max() < 1e-12
