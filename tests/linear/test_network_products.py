"""The price of explaining VGG-16 and ResNet-50 in operations of linear algebra, relative to a gradient."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from counting import flops
from relprop.rules import AlphaBeta, Epsilon, Gamma, ZPlus
from torchvision_shim import import_torchvision


@cache
def network(name: str) -> nn.Module:
    """Without the dense layers' 120 million weights, which cost memory and hardly an operation."""
    model = getattr(import_torchvision().models, name)(weights=None, num_classes=10)
    if name == "vgg16":
        model.classifier = nn.Linear(512 * 49, 10)
    return model.eval()


@cache
def plain(name: str) -> int:
    model, x = network(name), image()

    def gradient() -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(model(leaf).amax(1).sum(), leaf)

    return flops(gradient)


def image() -> Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("rules", "most"),
    [
        (Epsilon(1e-6), 1.02),
        (Gamma(0.25), 1.52),
        (ZPlus(), 1.52),
        (AlphaBeta(2, 1), 2.02),
        ("epsilon-plus", 1.52),
        ("epsilon-plus-flat", 1.52),
        ("epsilon-gamma-box", 1.52),
        ("epsilon-gamma-flat", 1.52),
        ("excitation", 1.52),
        ("vgg-2019", 1.52),
    ],
)
@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_products_are_counted_on_real_networks(name: str, rules: Any, most: float) -> None:
    model, x = network(name), image()

    def explanation() -> None:
        relprop.explain(model, x, rules=rules, bounds=(-5, 5))

    explanation()  # what depends on the weights alone is cached by now
    if name == "resnet50" and "amma" in str(rules):
        most = 1.67  # a third of its convolutions end in a sum, not in a ReLU: relevance comes to z < 0 there
    assert flops(explanation) / plain(name) <= most
