"""Powers of constants, products that are scattered, and matrices that are inverted."""

from collections.abc import Callable
from math import log

import pytest
import torch
from torch import Tensor

import relprop
from alike import same_relevance
from networks import DOUBLE, linear
from relprop.rules import Epsilon

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), **DOUBLE)
RULES = ["epsilon", "epsilon-plus", "epsilon-gamma-flat", "attnlrp", "cp-lrp"]
BASES, ROW = torch.linspace(0.5, 3, 6, **DOUBLE), torch.tensor([0, 0, 1, 2, 1, 0])
PLACES = ROW.expand(3, 6)

pytestmark = pytest.mark.filterwarnings("ignore:index_reduce")


def compared(function: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]) -> None:
    first, last = linear(6, 6), linear(6, 3)
    for rules in RULES:
        same_relevance(
            lambda x: last(function(first(x))), lambda x: last(other(first(x))), X, rules, target=1
        )


def of_samples(constant: Tensor, h: Tensor) -> Tensor:
    """The constant as one that was computed from the samples, which is folded into no layer."""
    return constant + 0 * h.detach()


POWERS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "a number": (lambda h: 3**h, lambda h: (h * log(3)).exp()),
    "pow": (lambda h: torch.pow(3, h), lambda h: (h * log(3)).exp()),
    "float_power": (lambda h: torch.float_power(3, h), lambda h: (h * log(3)).exp()),
    "a tensor": (lambda h: torch.tensor(3, **DOUBLE) ** h, lambda h: (h * log(3)).exp()),
    "several": (lambda h: BASES**h, lambda h: (h * of_samples(BASES.log(), h)).exp()),
    "a column": (lambda h: BASES ** h[:, :1], lambda h: (h[:, :1] * of_samples(BASES.log(), h)).exp()),
    "a chain": (lambda h: h * 2 ** (-h), lambda h: h * (-h * log(2)).exp()),
    "a sigmoid": (lambda h: h.flip(1) * (1 / (1 + 2**-h)), lambda h: h.flip(1) * (h * log(2)).sigmoid()),
    "of itself": (lambda h: h.abs() ** h.abs(), lambda h: torch.exp(torch.xlogy(h.abs(), h.abs()))),
    "exponents": (
        lambda h: h ** torch.tensor([0, 1, 2, 3, 2, 1]),
        lambda h: torch.stack([h[:, 0] ** 0, h[:, 1], h[:, 2] ** 2, h[:, 3] ** 3, h[:, 4] ** 2, h[:, 5]], 1),
    ),
}


@pytest.mark.parametrize("name", [name for name in POWERS if name != "of itself"])
def test_powers(name: str) -> None:
    compared(*POWERS[name])


def test_a_power_by_the_secant_of_its_formula() -> None:
    """R_i = x_i (2^x_i - 1)/x_i · c, and what 2^0 = 1 contributes is absorbed."""
    e = relprop.explain(lambda x: 2**x, X, target=4, rules=Epsilon(0))
    torch.testing.assert_close(e.relevance[:, 4], 2 ** X[:, 4] - 1)
    torch.testing.assert_close(e.ledger.absorbed["pointwise"], torch.ones(3, **DOUBLE))


def by_hand(source: Tensor, into: Tensor | None = None) -> Tensor:
    """Products of the elements that have the same place, one place after the other."""
    found = []
    for place in range(3):
        product = source[:, ROW == place].prod(1)
        found.append(product if into is None else into[:, place] * product)
    return torch.stack(found, 1)


ONES = torch.ones(3, 3, **DOUBLE)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize(
    "way",
    [
        lambda h: ONES.scatter_reduce(1, PLACES, h, "prod"),
        lambda h: (7 * ONES).scatter_reduce(1, PLACES, h, "prod", include_self=False),
        lambda h: h[:, :3].scatter_reduce(1, PLACES, h, "prod", include_self=False),
        lambda h: ONES.index_reduce(1, ROW, h, "prod"),
        lambda h: ONES.clone().scatter_reduce_(1, PLACES, torch.cat([h, torch.zeros_like(h)], 1), "prod"),
    ],
)
def test_scattered_products_have_equal_parts(way: Callable[[Tensor], Tensor], rules: str) -> None:
    first, last = linear(6, 6), linear(3, 3)
    same_relevance(lambda x: last(way(first(x))), lambda x: last(by_hand(first(x))), X, rules, target=1)


def test_scattered_products_from_the_formula() -> None:
    """Of a product of n factors each gets R/n. A factor of a place that nothing comes to gets all."""
    R = torch.tensor([1.0, -2.0, 3.0, 0.5], **DOUBLE)

    def model(x: Tensor) -> Tensor:
        return x[:, :4].scatter_reduce(1, PLACES, x, "prod")

    e = relprop.explain(model, X, target=lambda y: (R * y).sum(1), rules=Epsilon(0))
    expected = torch.zeros_like(X)
    for place in range(4):
        members = (ROW == place).nonzero().flatten().tolist()
        arriving = R[place] * X[:, place] * X[:, members].prod(1)
        for i in [place, *members]:
            expected[:, i] += arriving / (1 + len(members))
    torch.testing.assert_close(e.relevance, expected)
    assert e.ledger.gap.max() < 1e-12


def test_places_of_constants_absorb_theirs() -> None:
    into = torch.full((3, 5), 2.0, **DOUBLE)
    e = relprop.explain(
        lambda x: into.scatter_reduce(1, PLACES, x, "prod"), X, target=lambda y: y.sum(1), rules=Epsilon(0)
    )
    torch.testing.assert_close(e.ledger.absorbed["constant"], torch.full((3,), 4.0, **DOUBLE))
    assert e.ledger.gap.max() < 1e-12
    own = relprop.explain(
        lambda x: x[:, :3].scatter_reduce(1, PLACES[:, 2:3], into, "prod", include_self=False),
        X,
        target=lambda y: y.sum(1),
        rules=Epsilon(0),
    )
    torch.testing.assert_close(own.relevance[:, :3], X[:, :3] * torch.tensor([1, 0, 1]))
    torch.testing.assert_close(own.ledger.absorbed["constant"], torch.full((3,), 2.0, **DOUBLE))


def matrix(h: Tensor) -> Tensor:
    return h[:, :, None] * h[:, None, :] + 2 * torch.eye(6, **DOUBLE)


@pytest.mark.parametrize(
    "way",
    [
        lambda h: (torch.linalg.inv(matrix(h)) @ h[..., None]).squeeze(-1),
        lambda h: (torch.inverse(matrix(h)) @ h[..., None]).squeeze(-1),
        lambda h: (matrix(h).inverse() @ h[..., None]).squeeze(-1),
        lambda h: torch.einsum("bij,bj->bi", torch.linalg.inv(matrix(h)), h),
        lambda h: (torch.linalg.matrix_power(matrix(h), -1) @ h[..., None]).squeeze(-1),
        lambda h: (torch.linalg.pinv(matrix(h)) @ h[..., None]).squeeze(-1),
        lambda h: torch.linalg.solve(matrix(h), h[..., None]).squeeze(-1),
    ],
)
def test_an_inverse_is_a_statistic(way: Callable[[Tensor], Tensor]) -> None:
    compared(way, lambda h: torch.linalg.solve(matrix(h), h[..., None]).squeeze(-1))
    same_relevance(
        way,
        lambda x: torch.linalg.solve(matrix(x).detach(), x[..., None]).squeeze(-1),
        X,
        Epsilon(0),
        target=1,
    )


@pytest.mark.parametrize(
    "way",
    [
        lambda x: torch.linalg.inv(matrix(x)).sum(2),
        lambda x: torch.linalg.solve(matrix(x), torch.ones(3, 6, 1, **DOUBLE)).squeeze(-1),
        lambda x: torch.linalg.solve_triangular(
            matrix(x).tril(), torch.ones(3, 6, 1, **DOUBLE), upper=False
        ).squeeze(-1),
    ],
)
def test_an_inverse_alone_absorbs_all_as_a_reciprocal_does(way: Callable[[Tensor], Tensor]) -> None:
    message = (
        "input 'x' gets no relevance at all, though the score depends on it. Relevance ends at a reciprocal "
        "such as 1/x, or at an inverse. The ledger has it under 'statistic'."
    )
    with pytest.warns(UserWarning, match=message.replace(".", r"\.")):
        e = relprop.explain(way, X, target=1, rules=Epsilon(0))
    torch.testing.assert_close(e.ledger.absorbed["statistic"], e.score.double())
    assert not e.relevance.any()
