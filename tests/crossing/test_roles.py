"""The role of a factor is decided by the function that made it, and not by how it is written."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close
from relprop.engine.roles import PROBES, Role, of_function
from relprop.rules import AlphaBeta, Epsilon, Gamma

RULES = ["epsilon", "cp-lrp", "attnlrp", Gamma(0.25), AlphaBeta(2, 1)]
Function = Callable[[Tensor], Tensor]


def layer(seed: int, out: int = 5) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(5, out).double()


ONE, OTHER, HEAD, X = layer(0), layer(1), layer(2, 3), torch.randn(3, 5, **DOUBLE)


def relevance(function: Function, rules: Any) -> Tensor:
    e = relprop.explain(function, X, target=1, rules=rules)
    assert e.ledger.gap.max() < 1e-12
    return e.relevance


FACTORS: Mapping[str, tuple[Function, ...]] = {
    "relu": (
        F.relu,
        nn.ReLU(inplace=True),
        lambda h: h.clamp(min=0),
        lambda h: torch.where(h > 0, h, 0.0),
        lambda h: torch.where(h <= 0, torch.zeros_like(h), h),
        lambda h: h.masked_fill(h < 0, 0.0),
        lambda h: h * (h > 0),
        lambda h: torch.maximum(h, torch.zeros((), **DOUBLE)),
        lambda h: (h + h.abs()) / 2,
        lambda h: F.threshold(h, 0, 0),
    ),
    "relu6": (
        F.relu6,
        nn.ReLU6(),
        lambda h: h.clamp(0, 6),
        lambda h: F.hardtanh(h, 0, 6),
        lambda h: torch.where(h > 0, h, 0.0).clamp_max(6),
        lambda h: torch.minimum(torch.maximum(h, torch.zeros_like(h)), torch.full_like(h, 6)),
    ),
    "sigmoid": (
        torch.sigmoid,
        nn.Sigmoid(),
        lambda h: 1 / (1 + torch.exp(-h)),
        lambda h: 0.5 * (1 + torch.tanh(h / 2)),
        lambda h: 1 - torch.sigmoid(-h),
        lambda h: F.logsigmoid(h).exp(),
        lambda h: h.exp() / (1 + h.exp()),
    ),
    "hardsigmoid": (
        F.hardsigmoid,
        lambda h: F.relu6(h + 3) / 6,
        lambda h: (h / 6 + 0.5).clamp(0, 1),
    ),
    "silu": (F.silu, lambda h: h * h.sigmoid(), nn.SiLU(inplace=True), lambda h: h / (1 + (-h).exp())),
    "tanh": (torch.tanh, lambda h: 2 * torch.sigmoid(2 * h) - 1),
    "softmax": (
        lambda h: h.softmax(1),
        lambda h: h.exp() / h.exp().sum(1, keepdim=True),
        lambda h: (lambda e: e / e.sum(1, keepdim=True))((h - h.amax(1, keepdim=True)).exp()),
        lambda h: (lambda e: e / e.sum(1)[:, None])(h.exp()),
        lambda h: h.softmax(1).clamp(min=0),
        lambda h: F.softmin(-h, 1),
        lambda h: (lambda e: e * e.sum(1, keepdim=True).reciprocal())(h.exp()),
        lambda h: (lambda e: e.sum(1, keepdim=True).pow(-1) * e)(h.exp()),
        lambda h: (lambda e: e * (1 / e.sum(1))[:, None])(h.exp()),
        lambda h: (lambda e: e / (2 * e.sum(1) / 2)[:, None])(h.exp()),
    ),
}


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_has_one_role_in_every_spelling_and_order(name: str, rules: Any) -> None:
    first, *others = FACTORS[name]
    expected = relevance(lambda x: HEAD(first(ONE(x)) * OTHER(x)), rules)
    for factor in (first, *others):
        close(relevance(lambda x, f=factor: HEAD(f(ONE(x)) * OTHER(x)), rules), expected)
        close(relevance(lambda x, f=factor: HEAD(OTHER(x) * f(ONE(x))), rules), expected)


def towers(x: Tensor) -> tuple[Tensor, Tensor]:
    items = OTHER(x)
    return ONE(x), torch.stack([items, 2 * items.tanh(), -items], 1)


DOT_PRODUCTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "broadcast": lambda u, v: (u[:, None] * v).sum(-1),
    "in the other order": lambda u, v: (v * u.unsqueeze(1)).sum(-1),
    "expanded": lambda u, v: (u[:, None].expand_as(v) * v).sum(-1),
    "repeated": lambda u, v: (u[:, None].repeat(1, 3, 1) * v).sum(-1),
    "einsum": lambda u, v: torch.einsum("bd,bkd->bk", u, v),
    "bmm": lambda u, v: torch.bmm(v, u[:, :, None])[..., 0],
    "matmul": lambda u, v: (v @ u.unsqueeze(-1)).squeeze(-1),
}


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_two_towers_get_half_each_in_every_spelling(rules: Any) -> None:
    found = {name: relevance(lambda x, dot=dot: dot(*towers(x)), rules) for name, dot in DOT_PRODUCTS.items()}
    for each in found.values():
        close(each, found["broadcast"])


OF_THREE: Mapping[str, tuple[Function, str]] = {
    "a sigmoid": (torch.sigmoid, "signals"),
    "a softmax": (lambda h: h.softmax(1), "signals"),
    "a statistic": (lambda h: (h.square().mean(1, keepdim=True) + 1e-3).rsqrt().expand_as(h), "signals"),
    "an activation": (F.silu, "signals in cp-lrp"),
    "a third signal": (torch.tanh, "all"),
}


@pytest.mark.parametrize("rules", ["epsilon", "cp-lrp", "attnlrp"])
@pytest.mark.parametrize("name", OF_THREE)
def test_of_three_factors_the_signals_share_alike(name: str, rules: str) -> None:
    factor, sharing = OF_THREE[name]
    by_einsum = relevance(
        lambda x: HEAD(torch.einsum("ni,ni,ni->ni", factor(ONE(x)), OTHER(x), x.flip(1))), rules
    )
    alone = sharing == "signals" or (rules == "cp-lrp" and sharing == "signals in cp-lrp")
    if alone and (rules != "attnlrp" or name == "a statistic"):
        expected = relevance(lambda x: HEAD(factor(ONE(x)).detach() * (OTHER(x) * x.flip(1))), rules)
    else:  # each factor's gradient, of three alike
        parts = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
        expected = sum(
            (
                relevance(lambda x, of=of: HEAD(_held(of, factor(ONE(x)), OTHER(x), x.flip(1))), rules)
                for of in parts
            ),
            torch.zeros(()),
        )
        expected = expected / 3
    close(by_einsum, expected)


def _held(which: tuple[int, ...], *factors: Tensor) -> Tensor:
    """The product of the factors, all but one of them constants."""
    a, b, c = (t if keep else t.detach() for keep, t in zip(which, factors, strict=True))
    return a * b * c


def test_two_inputs_share_what_their_product_got() -> None:
    u, v = torch.randn(2, 3, 5, **DOUBLE)
    e = relprop.explain(lambda u, v: HEAD(F.relu(ONE(u)) * OTHER(v)), u, v, target=1, rules=Epsilon(0))
    product = F.relu(ONE(u)) * OTHER(v)
    R = (product * HEAD.weight[1] / 2).detach()
    for x, linear, name in ((u, ONE, "u"), (v, OTHER, "v")):
        z = linear(x).detach()
        close(e.inputs[name], x * ((R / z) @ linear.weight.detach()))


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_a_statistic_gets_nothing_in_either_order(rules: Any) -> None:
    def normalised(first: bool) -> Function:
        def function(x: Tensor) -> Tensor:
            h = F.relu(ONE(x))
            stat = (h.square().mean(1, keepdim=True) + 1e-3).rsqrt()
            return HEAD((stat * h if first else h * stat) * OTHER(x))

        return function

    close(relevance(normalised(True), rules), relevance(normalised(False), rules))


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("over", [lambda s: s.pow(-0.5), lambda s: 1 / s.sqrt(), lambda s: (s + 1).pow(-2)])
def test_a_tensor_over_another_power_of_its_sum_is_no_weight(over: Function, rules: Any) -> None:
    """As the edges of a graph, which are divided by the roots of their sums."""

    def weighed(x: Tensor, held: Function) -> Tensor:
        h = F.relu(ONE(x))
        return HEAD(h * held(over(h.sum(1)[:, None])) * OTHER(x))

    expected = relevance(lambda x: weighed(x, Tensor.detach), rules)
    close(relevance(lambda x: weighed(x, lambda stat: stat), rules), expected)


MIXING = torch.rand(5, 5, **DOUBLE)


@pytest.mark.parametrize(
    "still",
    [
        lambda w: w,
        lambda w: w.clamp(0, 1),
        lambda w: w * torch.ones(5, **DOUBLE),
        lambda w: torch.cat([w[:, :2], w[:, 2:]], 1),
        lambda w: w.index_fill(1, torch.tensor([0]), 0.0),
        lambda w: torch.stack([w, w]).mean(0),
        lambda w: w / w.sum(1, keepdim=True),
        lambda w: w @ MIXING,
        lambda w: w * w,
        lambda w: 1 - w,
        lambda w: w.float().double(),
    ],
)
def test_what_is_made_of_weights_is_a_weight(still: Function) -> None:
    e = relprop.explain(
        lambda x: HEAD(still(ONE(x).softmax(1)) * OTHER(x)), X, target=1, rules=[("*", Epsilon(0))]
    )
    weights = still(ONE(X).softmax(1)).detach()
    constant = relprop.explain(lambda x: HEAD(weights * OTHER(x)), X, target=1, rules=Epsilon(0))
    torch.testing.assert_close(e.relevance, constant.relevance, rtol=1e-6, atol=1e-9)


def test_a_hidden_layer_of_sigmoids_is_a_signal() -> None:
    inner = layer(4)
    halves = relevance(lambda x: HEAD(inner(ONE(x).sigmoid()) * OTHER(x)), [("*", Epsilon(0))])
    e = relprop.explain(
        lambda a, b: HEAD(inner(ONE(a).sigmoid()) * OTHER(b)), X, X, target=1, rules=Epsilon(0)
    )
    close(halves, e.inputs["a"] + e.inputs["b"])
    assert e.inputs["a"].abs().min() > 0


JUDGED: Mapping[str, tuple[Function, Role]] = {
    "sigmoid": (torch.sigmoid, Role.WEIGHT),
    "cos": (torch.cos, Role.WEIGHT),
    "exp": (torch.exp, Role.WEIGHT),
    "exp of a shifted score": (lambda x: 3 * torch.exp(x - 2), Role.WEIGHT),
    "2 to the power": (torch.exp2, Role.WEIGHT),
    "a thousand sigmoids": (lambda x: 1000 * torch.sigmoid(x), Role.WEIGHT),
    "clamped away from zero": (lambda x: x.clamp(1, 60), Role.WEIGHT),
    "a bell": (lambda x: torch.exp(-x * x), Role.WEIGHT),
    "the identity": (lambda x: x, Role.SIGNAL),
    "a shifted identity": (lambda x: x + 20, Role.SIGNAL),
    "tanh": (torch.tanh, Role.SIGNAL),
    "a square": (torch.square, Role.SIGNAL),
    "a cube": (lambda x: x**3, Role.SIGNAL),
    "sine": (torch.sin, Role.SIGNAL),
    "abs": (torch.abs, Role.SIGNAL),
    "softshrink": (F.softshrink, Role.SIGNAL),
    "relu": (F.relu, Role.ACTIVATION),
    "leaky relu": (lambda x: F.leaky_relu(x, 0.2), Role.ACTIVATION),
    "elu plus 1": (lambda x: F.elu(x) + 1, Role.ACTIVATION),
    "softplus": (F.softplus, Role.ACTIVATION),
    "gelu": (F.gelu, Role.ACTIVATION),
    "mish": (F.mish, Role.ACTIVATION),
    "squared relu": (lambda x: F.relu(x) ** 2, Role.ACTIVATION),
    "hinge": (lambda x: F.relu(1 - x), Role.ACTIVATION),
    "steep exponential": (lambda x: torch.exp(100 * x), Role.WEIGHT),
    "falling exponential": (lambda x: 2 * torch.exp(-x), Role.WEIGHT),
    "reciprocal": (torch.reciprocal, Role.STATISTIC),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", JUDGED)
def test_functions_are_judged_by_their_values(name: str, dtype: torch.dtype) -> None:
    function, role = JUDGED[name]
    assert of_function(function(torch.tensor(PROBES, dtype=dtype)).tolist()) is role
