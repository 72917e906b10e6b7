"""Biases, scales and batch norms are folded into a linear operation, whatever is between, however written."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from alike import near, relevance, same_relevance
from networks import DOUBLE, random_norm
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZPlus

generator = torch.Generator().manual_seed(7)


CONV, AFTER = nn.Conv2d(3, 4, 3).double(), nn.Linear(4, 3).double()
NORM = random_norm(nn.BatchNorm2d(4), generator)
SCALE = (NORM.weight / (NORM.running_var + NORM.eps).sqrt()).detach()
SHIFT = (NORM.bias - NORM.running_mean * SCALE).detach()
TOKENS, TOKEN_NORM, LAST = (
    nn.Linear(6, 8).double(),
    random_norm(nn.BatchNorm1d(8), generator),
    nn.Linear(8, 3).double(),
)
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


COPIES = [torch.clone, lambda t: t.contiguous(memory_format=torch.channels_last), lambda t: +t]


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(), Flat()])
def test_a_batch_norm_is_part_of_the_convolution_beyond_a_copy(rule: Any, copy: Any) -> None:
    before, after = random_norm(nn.BatchNorm2d(2)), random_norm(nn.BatchNorm2d(3))
    layer, head, x = nn.Conv2d(2, 3, 3).double(), nn.Linear(3, 2).double(), torch.randn(2, 2, 5, 5, **DOUBLE)

    def model(copy: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: head(after(copy(layer(copy(before(x))))).relu().mean((2, 3)))

    near(relevance(model(copy), x, rule), relevance(model(lambda t: t), x, rule))


MASKS = {
    "bool": lambda z: z > 0,
    "number": lambda z: (z > 0).to(z.dtype),
    "detached": lambda z: z.detach().sign().clamp(min=0),
}


@pytest.mark.parametrize("mask", ["bool", "number", "detached"])
@pytest.mark.parametrize("rule", [Epsilon(0.1), AlphaBeta(2, 1)])
def test_a_mask_made_of_the_data_is_no_part_of_the_layer_for_one_sample(rule: Any, mask: str) -> None:
    """As for three samples: there relu(z) written z·(z > 0) cuts off a batch norm from the layer before."""
    layer, norm, head = nn.Linear(4, 5).double(), random_norm(nn.BatchNorm1d(5)), nn.Linear(5, 2).double()
    x = torch.randn(3, 4, **DOUBLE)

    def model(x: Tensor) -> Tensor:
        z = layer(x)
        return head(norm(z * MASKS[mask](z)).tanh())

    near(relevance(model, x[:1], rule), relevance(model, x, rule)[:1])


def test_a_term_of_each_sample_counts_alike_for_one_sample_and_several() -> None:
    layer, head, x = nn.Linear(4, 5).double(), nn.Linear(5, 2).double(), torch.randn(3, 4, **DOUBLE)
    table, labels = nn.Embedding(7, 5).double(), torch.tensor([2, 0, 5])

    def model(x: Tensor, labels: Tensor) -> Tensor:
        return head((layer(x) + table(labels)).relu())

    one = relprop.explain(model, x[:1], labels[:1], target=0, rules=Gamma(0.25)).relevance
    several = relprop.explain(model, x, labels, target=0, rules=Gamma(0.25)).relevance
    near(one, several[:1])


NEGATIVE: list[Callable[[Tensor], Tensor]] = [torch.neg, lambda z: -z, lambda z: 0 - z]


@pytest.mark.parametrize("negative", NEGATIVE)
@pytest.mark.parametrize("rule", [ZPlus(), AlphaBeta(2, 1)])
def test_the_negative_of_a_layer_is_one_however_it_is_written(rule: Any, negative: Any) -> None:
    layer, head, x = nn.Linear(4, 5).double(), nn.Linear(5, 2).double(), torch.randn(3, 4, **DOUBLE)
    expected = relevance(lambda x: head((layer(x) * -1.0).relu()), x, rule)
    near(relevance(lambda x: head(negative(layer(x)).relu()), x, rule), expected)


@pytest.mark.parametrize(
    "spelling",
    [
        lambda x, w, b: F.dropout(x @ w, training=False) + b,
        lambda x, w, b: (x @ w).contiguous() + b,
        lambda x, w, b: torch.add(b, x @ w),
        lambda x, w, b: (x @ w).add_(b),
    ],
)
@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(bias="absorb")])
def test_a_bias_is_a_bias_however_it_is_added(spelling: Any, rule: Any) -> None:
    w, b = torch.randn(6, 3, **DOUBLE), torch.randn(3, **DOUBLE)
    same_relevance(
        lambda x: spelling(x, w, b), lambda x: F.linear(x, w.T, b), torch.randn(2, 6, **DOUBLE), rule
    )


def by_slices(z: Tensor, s: Tensor, b: Tensor) -> Tensor:
    z[:] *= s
    z[:] += b
    return z


def by_views(z: Tensor, s: Tensor, b: Tensor) -> Tensor:
    z[...].mul_(s)
    z.view(-1, len(s)).add_(b)
    return z.relu_()


def by_names(z: Tensor, s: Tensor, b: Tensor) -> Tensor:
    view = z.narrow(1, 0, len(s))
    z *= s
    view += b
    return z


@pytest.mark.parametrize("spelling", [by_slices, by_views, by_names])
@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(bias="absorb"), Flat()])
def test_scale_and_bias_are_folded_by_whichever_view_they_are_written(spelling: Any, rule: Any) -> None:
    w, (s, b), head = torch.randn(6, 3, **DOUBLE), torch.randn(2, 3, **DOUBLE), torch.randn(3, 2, **DOUBLE)
    same_relevance(
        lambda x: spelling(x @ w, s, b).relu() @ head,
        lambda x: F.linear(x, (w * s).T, b).relu() @ head,
        torch.randn(2, 6, **DOUBLE),
        rule,
    )


@pytest.mark.parametrize("rule", [Gamma(0.25), ZPlus(bias="absorb"), AlphaBeta(2, 1, bias="absorb")])
def test_weight_and_bias_overwritten_before_another_bias_is_added(rule: Any) -> None:
    W, b, c = torch.randn(6, 3, **DOUBLE), torch.randn(3, **DOUBLE), torch.randn(3, **DOUBLE)
    weight, bias = torch.zeros(6, 3, **DOUBLE), torch.zeros(3, **DOUBLE)

    def streaming(x: Tensor) -> Tensor:
        weight.copy_(W)
        bias.copy_(b)
        z = torch.addmm(bias, x, weight)
        weight.zero_()
        bias.zero_()
        return z + c

    same_relevance(streaming, lambda x: torch.addmm(b + c, x, W), torch.randn(2, 6, **DOUBLE), rule)


def test_a_dropout_in_place_between_a_product_and_its_bias() -> None:
    w, b = torch.randn(6, 3, **DOUBLE), torch.randn(3, **DOUBLE)
    same_relevance(
        lambda x: F.dropout(x @ w, training=False, inplace=True) + b,
        lambda x: F.linear(x, w.T, b),
        torch.randn(2, 6, **DOUBLE),
        ZPlus(bias="distribute"),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cast_between_a_layer_and_a_scale(dtype: torch.dtype) -> None:
    """The scale has the precision of the cast, so it is no part of the layer."""
    layer, scale = nn.Linear(6, 3).double().eval(), torch.tensor([0.5, 2.0, -1.0])
    x = torch.randn(2, 6, **DOUBLE)
    for shift in (0, scale):
        e = relprop.explain(lambda x, shift=shift: layer(x).to(dtype) * scale + shift, x, target=1)
        assert e.ledger.gap.max() < (1e-6 if dtype == torch.float32 else 2e-2)
