"""Weights that are computed of parameters, and paddings of every kind, are weights and paddings too."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import relprop
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma

DERIVED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


def network(layer: nn.Module) -> nn.Sequential:
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(layer, *head).double().eval()


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), AlphaBeta(2, 1), Flat()])
@pytest.mark.parametrize("name", DERIVED)
def test_a_parametrized_weight_is_what_it_is_when_it_is_written_down(name: str, rule: object) -> None:
    model, x = network(DERIVED[name](nn.Conv2d(3, 4, 3))), torch.rand(2, 3, 8, 8).double()
    written = nn.Conv2d(3, 4, 3).double()
    with torch.no_grad():
        written.weight.copy_(model[0].weight)
        written.bias.copy_(model[0].bias)
    plain = nn.Sequential(written, *model[1:]).eval()
    found = relprop.explain(model, x, target=1, rules=rule)
    torch.testing.assert_close(found.relevance, relprop.explain(plain, x, target=1, rules=rule).relevance)
    assert float(found.ledger.gap.max()) < 1e-10


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("rule", [Epsilon(0.1), AlphaBeta(2, 1), Flat()])
def test_every_padding_mode_keeps_the_books_closed(mode: str, rule: object) -> None:
    model = network(nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode))
    found = relprop.explain(model, torch.rand(2, 3, 8, 8).double(), target=1, rules=rule)
    assert float(found.ledger.gap.max()) < 1e-10
    assert [str(applied.operation) for applied in found.rules] == ["conv2d", "linear"]
