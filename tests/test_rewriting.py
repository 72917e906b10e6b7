"""One network in many spellings: modules, functions, in place, folded, written out. One relevance for all."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import PRESETS, Epsilon, Explanation, Flat, ZPlus
from spellings import ACTIVATIONS, Network, spellings

DOUBLE = {"dtype": torch.float64}

SPELLED = [(name, number) for name, ways in ACTIVATIONS.items() for number in range(1, len(ways))]

# Random networks give scores of both signs, and relevance of what is far outside of the bounds.
pytestmark = pytest.mark.filterwarnings("ignore::relprop.ScoreWarning", "ignore:.*outside of the bounds")


def preset(name: str) -> relprop.Composite:
    """A preset, with bounds."""
    return PRESETS[name].with_bounds(-4.0, 4.0)


def assert_same(found: Explanation, expected: Explanation) -> None:
    """The same output and relevance, and books that close."""
    torch.testing.assert_close(found.output, expected.output, rtol=1e-12, atol=1e-12)
    error = (found.relevance - expected.relevance).abs().max()
    assert error <= 1e-10 * expected.relevance.abs().max()
    assert found.ledger.gap.max() < 1e-9
    assert expected.ledger.gap.max() < 1e-9


@cache
def network(activation: str, gate: str) -> tuple[Network, Tensor]:
    """A network of modules, and inputs for it."""
    torch.manual_seed(4)
    return Network(spellings(activation, gate)["modules"]), torch.randn(2, 2, 8, 8, **DOUBLE)


@cache
def expected_of(activation: str, gate: str, name: str) -> Explanation:
    model, x = network(activation, gate)
    return relprop.explain(model, x, target=1, rules=preset(name))


@pytest.mark.parametrize("spelling", ["functional", "in place", "written out", "folded"])
@pytest.mark.parametrize(
    ("activation", "gate"),
    [("relu", "sigmoid"), ("relu6", "hardsigmoid"), ("hardswish", "hardsigmoid"), ("silu", "sigmoid")],
)
@pytest.mark.parametrize("name", PRESETS)
def test_a_network_is_the_same_in_every_spelling(
    name: str, activation: str, gate: str, spelling: str
) -> None:
    model, x = network(activation, gate)
    other = model.written(spellings(activation, gate)[spelling])
    found = relprop.explain(other, x, target=1, rules=preset(name))
    assert torch.equal(found.output, other(x))
    assert_same(found, expected_of(activation, gate, name))


# ---- activations ----


class Activated(nn.Module):
    """An activation behind a convolution, a batch norm and a dense layer."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.activation = activation
        self.first, self.second = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 2, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.third, self.last = nn.Linear(16, 5), nn.Linear(5, 3)
        with torch.no_grad():
            self.norm.running_mean.normal_()
            self.norm.weight.normal_()
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.first(x))
        x = self.activation(self.norm(self.second(x)))
        return self.last(self.activation(self.third(x.flatten(1))))


@cache
def activated(activation: str, name: str) -> Explanation:
    return relprop.explain(Activated(ACTIVATIONS[activation][0]), inputs(), target=1, rules=preset(name))


def inputs() -> Tensor:
    """Two pictures for `Activated`, with zeros in them."""
    x = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(6), **DOUBLE) * 2
    x[0, 1, 2:4] = 0
    return x


@pytest.mark.parametrize(("activation", "number"), SPELLED)
@pytest.mark.parametrize("name", PRESETS)
def test_an_activation_is_the_same_in_every_spelling(name: str, activation: str, number: int) -> None:
    model = Activated(ACTIVATIONS[activation][number])
    found = relprop.explain(model, inputs(), target=1, rules=preset(name))
    assert torch.equal(found.output, model(inputs()))
    assert_same(found, activated(activation, name))


@pytest.mark.parametrize(("activation", "number"), SPELLED)
@pytest.mark.parametrize("rule", [Flat(), ZPlus(bias="distribute")])
def test_relevance_on_zeros_crosses_every_spelling(rule: Any, activation: str, number: int) -> None:
    """Relevance that lands on a value passes the function; where that has to be divided, by proportion."""
    model = Activated(ACTIVATIONS[activation][number])
    e = relprop.explain(model, inputs(), target=1, rules=rule)
    assert e.ledger.gap.max() < 1e-9


@pytest.mark.parametrize(("activation", "number"), SPELLED)
def test_an_activation_passes_what_it_makes_of_the_input(activation: str, number: int) -> None:
    """Alone: R = f(x) - f(0), and f(0) is absorbed."""
    function = ACTIVATIONS[activation][number]
    x = torch.randn(3, 5, **DOUBLE) * 3
    e = relprop.explain(lambda x: function(x * 1.0), x, target=lambda y: y.sum(1), rules=Epsilon(0))
    zero = ACTIVATIONS[activation][0](torch.zeros(1, **DOUBLE))
    torch.testing.assert_close(e.relevance, ACTIVATIONS[activation][0](x) - zero, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(e.ledger.total - e.ledger.inputs, zero.expand(3) * 5, rtol=1e-10, atol=1e-12)
