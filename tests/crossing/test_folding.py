"""A linear operation is one, whatever its output is rearranged to before its bias or batch norm comes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZPlus

generator = torch.Generator().manual_seed(7)


def randomised(norm: Any) -> Any:
    with torch.no_grad():
        for tensor in (norm.running_mean, norm.weight, norm.bias):
            tensor.normal_(generator=generator)
        norm.running_var.uniform_(0.3, 2, generator=generator)
    return norm.double().eval()


CONV, AFTER = nn.Conv2d(3, 4, 3).double(), nn.Linear(4, 3).double()
NORM = randomised(nn.BatchNorm2d(4))
SCALE = (NORM.weight / (NORM.running_var + NORM.eps).sqrt()).detach()
SHIFT = (NORM.bias - NORM.running_mean * SCALE).detach()
TOKENS, TOKEN_NORM, LAST = nn.Linear(6, 8).double(), randomised(nn.BatchNorm1d(8)), nn.Linear(8, 3).double()
WEIGHT, BIAS = TOKENS.weight.detach(), TOKENS.bias.detach()


def channels_last(x: Tensor) -> Tensor:
    z = CONV(x).permute(0, 2, 3, 1) * SCALE + SHIFT
    return z.permute(0, 3, 1, 2)


def by_formula(x: Tensor) -> Tensor:
    z = CONV(x).flatten(2).transpose(1, 2).contiguous() - NORM.running_mean
    z = z / (NORM.running_var + NORM.eps).sqrt() * NORM.weight + NORM.bias
    return z.transpose(1, 2).unflatten(2, (4, 4))


def there_and_back(x: Tensor) -> Tensor:
    return NORM((0.5 * CONV(x) * 2).permute(0, 2, 3, 1).permute(0, 3, 1, 2))


SPELLINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "channels last": (channels_last, lambda x: NORM(CONV(x))),
    "by its formula, in another order": (by_formula, lambda x: NORM(CONV(x))),
    "there and back": (there_and_back, lambda x: NORM(CONV(x))),
    "tokens joined to one batch": (
        lambda x: TOKEN_NORM(TOKENS(x).flatten(0, 1)).view(4, 5, 8),
        lambda x: TOKEN_NORM(TOKENS(x.flatten(0, 1))).view(4, 5, 8),
    ),
    "tokens transposed": (
        lambda x: TOKEN_NORM(TOKENS(x).transpose(1, 2)).transpose(1, 2),
        lambda x: TOKEN_NORM(TOKENS(x.flatten(0, 1))).view(4, 5, 8),
    ),
    "bias of an einsum": (lambda x: torch.einsum("bti,oi->bto", x, WEIGHT) + BIAS, TOKENS),
    "bias of an einsum, weight transposed": (
        lambda x: torch.einsum("bti,io->bto", x, WEIGHT.T) + BIAS,
        TOKENS,
    ),
    "bias behind a transpose": (
        lambda x: ((x @ WEIGHT.T).transpose(1, 2) + BIAS[:, None]).transpose(1, 2),
        TOKENS,
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize(
    "rules",
    [Gamma(0.25), Epsilon(0.1), AlphaBeta(2, 1), Flat(), WSquare(), ZPlus("distribute"), "epsilon-plus-flat"],
)
def test_relevance_does_not_depend_on_the_order_of_elements(name: str, rules: Any) -> None:
    one, other = SPELLINGS[name]
    of_images = one in (channels_last, by_formula, there_and_back)
    x = torch.rand(2, 3, 6, 6).double() if of_images else torch.rand(4, 5, 6).double()

    def explained(before: Callable[[Tensor], Tensor]) -> relprop.Explanation:
        def model(x: Tensor) -> Tensor:
            y = F.relu(before(x))
            return AFTER(y.mean((2, 3))) if of_images else LAST(y).mean(1)

        return relprop.explain(model, x, target=0, rules=rules)

    found, expected = explained(one), explained(other)
    torch.testing.assert_close(found.output, expected.output)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-10, atol=1e-10)
    assert len(found.rules) == len(expected.rules)
    assert float(found.ledger.gap.max()) < 1e-10


def test_constants_that_differ_between_positions_are_no_part_of_it() -> None:
    x, shift = torch.rand(4, 5, 6).double(), torch.randn(5, 8).double()

    def model(x: Tensor) -> Tensor:
        return ((x @ WEIGHT.T).transpose(1, 2) + shift.T).relu().mean(2)

    explanation = relprop.explain(model, x, target=0, rules=ZPlus())
    assert float(explanation.ledger.absorbed["constant"].abs().max()) > 0
    assert float(explanation.ledger.gap.max()) < 1e-10


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


def test_relevance_on_zeros_crosses_a_minimum_with_constants() -> None:
    bound, x = torch.tensor([0.0, 0.0, -1.0]).double(), torch.tensor([[-1.0, 2.0, 0.5]]).double()
    eye, last = torch.eye(3).double(), torch.ones(2, 3).double()
    explanation = relprop.explain(
        lambda x: F.linear(torch.minimum(F.linear(x, eye), bound), last), x, target=0, rules=Flat()
    )
    assert float(explanation.ledger.gap.max()) < 1e-10


@pytest.mark.parametrize("rule", [relprop.BySize(), relprop.EqualShares()])
def test_a_mean_that_is_subtracted_is_no_branch(rule: Any) -> None:
    norm, conv, x = nn.LayerNorm(4).double(), nn.Conv2d(3, 4, 3).double(), torch.rand(2, 3, 6, 6).double()

    def written(y: Tensor) -> Tensor:
        y = y.permute(0, 2, 3, 1)
        centred = y - y.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()

    def relevance(normalise: Callable[[Tensor], Tensor]) -> Any:
        rules = [("*", rule), ("*", Epsilon(0.1))]
        return relprop.explain(lambda x: normalise(conv(x)).mean((1, 2)), x, target=0, rules=rules).relevance

    torch.testing.assert_close(
        relevance(written),
        relevance(lambda y: F.layer_norm(y.permute(0, 2, 3, 1), (4,))),
        rtol=1e-8,
        atol=1e-10,
    )


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
