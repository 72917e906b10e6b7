"""captum's LRP with its ε rule on networks it can take: modules only, no nn.Flatten, each module run once."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparing import relative_difference, require
from torch import Tensor, nn

import relprop
from zoo_networks import NETWORKS

require("captum", "0.9.0")

from captum.attr import LRP  # noqa: E402
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule  # noqa: E402
from captum.testing.helpers.basic_models import SimpleLRPModel  # noqa: E402

Agree = Callable[[Any, Tensor], None]

POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
LINEAR = (nn.Conv2d, nn.Linear)


class Plain(nn.Module):
    """Convolutions, pooling, a reshape that is no module, dense layers."""

    def __init__(self, pooling: nn.Module, inplace: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(inplace),
            nn.Conv2d(8, 8, 3),
            nn.ReLU(inplace),
            pooling,
            nn.Conv2d(8, 12, 3, padding=1, groups=2),
            nn.Conv2d(12, 12, 1),
            nn.ReLU(inplace),
            nn.AdaptiveAvgPool2d(3),
        )
        self.classifier = nn.Sequential(
            nn.Linear(108, 20), nn.Tanh(), nn.Dropout(), nn.Linear(20, 8), nn.ReLU(inplace), nn.Linear(8, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.features(x).flatten(1))
        return y


def by_captum(
    model: nn.Module, x: Tensor, classes: list[int], epsilon: float, *, of_pooling: float
) -> Tensor:
    """captum writes rules on modules, so it gets a copy."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, LINEAR + POOLINGS):
            module.rule = EpsilonRule(of_pooling if isinstance(module, POOLINGS) else epsilon)
    R: Tensor = LRP(model).attribute(x.clone().requires_grad_(), target=torch.tensor(classes))
    return R.detach()


# No ε at all would divide by the zeros of a pooled ReLU.
TINY = 1e-100

INPUTS = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
"""Of captum's own tests."""


@pytest.mark.parametrize("epsilon", [1e-9, 1e-6, 0.1])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("pooling", [nn.MaxPool2d(2), nn.AvgPool2d(2)], ids=lambda m: type(m).__name__)
def test_plain_network(pooling: nn.Module, inplace: bool, epsilon: float, assert_agree: Agree) -> None:
    model = Plain(pooling, inplace).double().eval()
    x = torch.randn(3, 3, 12, 12, dtype=torch.float64)
    classes = model(x).argmax(1).tolist()
    found = relprop.explain(model, x, target=classes, rules=relprop.rules.Epsilon(epsilon)).relevance
    assert_agree(found, by_captum(model, x, classes, epsilon, of_pooling=TINY))


def test_vgg16(assert_agree: Agree) -> None:
    model, x, classes = NETWORKS["vgg16"].make(torch.float64)
    assert isinstance(classes, list)
    found = relprop.explain(model, x, target=classes, rules=relprop.rules.Epsilon(1e-9)).relevance
    assert_agree(found, by_captum(model, x, classes, 1e-9, of_pooling=TINY))


def test_pooling_takes_no_epsilon() -> None:
    """captum gives pooling an ε of its own, 1e-9 unless it is set; in relprop it absorbs nothing."""
    model = Plain(nn.AvgPool2d(2)).double().eval()
    x = torch.randn(3, 3, 12, 12, dtype=torch.float64)
    classes = model(x).argmax(1).tolist()
    found = relprop.explain(model, x, target=classes, rules=relprop.rules.Epsilon(1e-9)).relevance
    assert isinstance(found, Tensor)
    differences = [
        relative_difference(found, by_captum(model, x, classes, 1e-9, of_pooling=epsilon))
        for epsilon in (1e-7, 1e-9)
    ]
    assert 1e-10 < differences[1] < 1e-7
    assert 80 < differences[0] / differences[1] < 120


class Residual(nn.Module):
    """x + relu(x·w), with an operator in between that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(2, 2, False), nn.ReLU(), nn.Linear(2, 1, False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(x + self.relu(self.first(x)))
        return y


def test_an_operator_between_modules(assert_agree: Agree) -> None:
    """captum hands each term of `x + y` all of the relevance, and says nothing; relprop shares it.

    Without biases ε = 0 is gradient times input, which adds up to the score.
    """
    model = Residual().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    score = model(x)
    (gradient,) = torch.autograd.grad(score.sum(), x)
    x = x.detach()
    assert_agree(relprop.explain(model, x, target=0, rules=relprop.rules.Epsilon(0)).relevance, x * gradient)
    assert by_captum(model, x, [0], 1e-9, of_pooling=TINY).sum() > 1.5 * score


class Twice(nn.Module):
    """Runs one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.relu, self.last = nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.relu(self.shared(self.relu(self.shared(x)))))
        return y


@pytest.mark.parametrize(
    ("model", "refusal"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Flatten(), nn.Linear(2, 1)), "Flatten.*has no rule defined"),
        (Twice(), "is being used more than once"),
    ],
)
def test_what_captum_refuses(model: nn.Module, refusal: str) -> None:
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    model = model.double().eval()
    assert (
        relprop.explain(model, x, target=torch.ones(1, 1).double(), rules="epsilon").ledger.gap.max() < 1e-12
    )
    with pytest.raises((TypeError, RuntimeError), match=refusal):
        by_captum(model, x, [0], 1e-9, of_pooling=TINY)


@pytest.mark.parametrize(
    ("weight", "rule", "theirs"),
    [
        (2, relprop.rules.Epsilon(1e-9), lambda: EpsilonRule(1e-9)),
        (-2, relprop.rules.Gamma(1), lambda: GammaRule(1)),
        (-2, relprop.rules.AlphaBeta(1, 0), Alpha1_Beta0_Rule),
    ],
)
def test_hand_numbers(weight: float, rule: Any, theirs: Callable[[], Any], assert_agree: Agree) -> None:
    """The model and rules of captum's own tests, from captum; test_hand_numbers.py has the numbers."""
    model = SimpleLRPModel(inplace=False).double().eval()
    with torch.no_grad():
        model.linear.weight[0, 0] = weight
    found = relprop.explain(model, INPUTS, target=0, rules=rule).relevance
    model.linear.rule, model.linear2.rule = theirs(), theirs()
    # captum's γ and αβ rules have their ε, 1e-9, also where relprop divides.
    model.linear.rule.STABILITY_FACTOR = model.linear2.rule.STABILITY_FACTOR = (
        1e-9 if isinstance(rule, relprop.rules.Epsilon) else TINY
    )
    assert_agree(found, LRP(model).attribute(INPUTS.clone().requires_grad_()).detach())
