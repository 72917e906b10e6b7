"""The price of an explanation in operations of linear algebra, relative to a forward and input gradient."""

from typing import Any

import pytest
import torch
from torch import nn

import relprop
from counting import flops
from relprop.rules import Absolute, AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus


def network() -> nn.Module:
    """Convolutions and dense layers, the first ones small beside the rest."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, groups=4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 50),
        nn.ReLU(),
        nn.Linear(50, 10),
    ).eval()


def relative_price(rules: Any, x: torch.Tensor, **options: Any) -> float:
    model = network()

    def gradient() -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(model(leaf).amax(1).sum(), leaf)

    def explanation() -> None:
        relprop.explain(model, x, rules=rules, **options)

    explanation()  # what depends on the weights alone is cached by now
    return flops(explanation) / flops(gradient)


NONNEGATIVE, SIGNED = torch.rand(2, 3, 24, 24), torch.randn(2, 3, 24, 24)


@pytest.mark.parametrize(
    "rule",
    [
        Epsilon(0),
        Epsilon(1e-6),
        Epsilon(0.1, bias="ignore"),
        Epsilon(0.1, bias="distribute"),
        WSquare(),
        Flat(),
    ],
)
def test_the_price_of_a_gradient(rule: Any) -> None:
    assert relative_price(rule, SIGNED) <= 1.02


@pytest.mark.parametrize(
    "rule", [ZPlus(), Gamma(0.25), Gamma(0.25, favour="positive"), Absolute(), ZBox(-5.0, 5.0)]
)
def test_one_and_a_half_gradients(rule: Any) -> None:
    assert relative_price(rule, NONNEGATIVE) <= 1.52


@pytest.mark.parametrize(
    "rule",
    [
        AlphaBeta(2, 1),
        AlphaBeta(1, 0),
        AlphaBeta(2, 1, bias="distribute"),
        Gamma(0.25),
        Gamma(0.25, bias="distribute"),
        ZPlus(),
        Absolute(),
    ],
)
def test_two_gradients_at_most_for_inputs_of_any_sign(rule: Any) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Tanh(), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(8 * 64, 4)
    ).eval()
    x = torch.randn(2, 3, 12, 12)
    leaf = x.clone().requires_grad_()
    plain = flops(lambda: torch.autograd.grad(model(leaf).amax(1).sum(), leaf))
    relprop.explain(model, x, rules=rule)
    assert flops(lambda: relprop.explain(model, x, rules=rule)) / plain <= 2.02


@pytest.mark.parametrize("name", relprop.PRESETS)
def test_presets_cost_two_gradients_at_most(name: str) -> None:
    assert relative_price(name, SIGNED, bounds=(-5.0, 5.0)) <= 2.02


def test_contrastive_targets_cost_a_fourth_product_only_where_relevance_meets_negative_outputs() -> None:
    price = relative_price(Gamma(0.25), NONNEGATIVE, target=relprop.targets.Contrastive(3))
    assert price <= 1.53  # the last layer is small
    form_of_2019 = Gamma(0.25, favour="positive")
    assert relative_price(form_of_2019, NONNEGATIVE, target=relprop.targets.Contrastive(3)) <= 1.52
