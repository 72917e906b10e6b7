"""One network in many spellings: modules, functions, in place, folded, written out. One relevance for all."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from alike import assert_same
from counting import Calls
from networks import DOUBLE
from relprop import PRESETS, Explanation
from relprop.rules import Absolute, Epsilon, Flat, Gamma, ZPlus
from spellings import ACTIVATIONS, Network, spellings

SPELLED = [(name, number) for name, ways in ACTIVATIONS.items() for number in range(1, len(ways))]

# Random networks give scores of both signs, and relevance of what is far outside of the bounds.
pytestmark = pytest.mark.filterwarnings(
    "ignore::relprop.errors.ScoreWarning", "ignore:.*outside of the bounds"
)


def preset(name: str) -> relprop.Composite:
    """A preset, with bounds."""
    return PRESETS[name].with_bounds(-4.0, 4.0)


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


# ---- chains ----


def test_each_call_of_a_chain_is_made_once_however_often_its_result_is_used() -> None:
    def calls_of(steps: int) -> int:
        def model(x: Tensor) -> Tensor:
            for _ in range(steps):
                x = x + 0.1 * (x - x**3)
            return x

        x = torch.rand(1, 3, **DOUBLE)
        with Calls() as calls:
            e = relprop.explain(model, x, target=1, rules=Epsilon())
        torch.testing.assert_close(e.relevance[0, 1], model(x)[0, 1])
        return calls.of["pow"]

    # For each cube on the way the calls before it are made again, and no call twice for it: a square of their
    # number, where it would be the 20th power of three.
    assert 10 < calls_of(10) < calls_of(20) < 4.5 * calls_of(10)


# ---- where chains end ----


@pytest.mark.parametrize(
    "widened",
    [
        lambda z: (z.unsqueeze(-1) * torch.linspace(-1, 1, 6, **DOUBLE)).tanh(),
        lambda z: (z.unsqueeze(-1) / torch.linspace(1, 2, 6, **DOUBLE)).tanh(),
        lambda z: (z + torch.ones(1, 1, 1, **DOUBLE)).sigmoid().squeeze(0),
        lambda z: (z.relu() + torch.ones(1, 1, 1, **DOUBLE)).sigmoid().squeeze(0),
    ],
)
def test_constants_that_widen_a_tensor_are_no_pointwise_function(widened: Any) -> None:
    layer, x = nn.Linear(4, 3).double(), torch.randn(2, 4, **DOUBLE)
    e = relprop.explain(lambda x: widened(layer(x)).flatten(1), x, target=1, rules=Epsilon(0.1))
    assert e.ledger.gap.max() < 1e-12


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(bias="absorb"), Flat()])
def test_a_bias_of_one_output_is_a_bias_before_an_activation(rule: Any) -> None:
    w, b, head = torch.randn(4, 1, **DOUBLE), torch.randn(1, **DOUBLE), nn.Linear(1, 2).double()
    x = torch.randn(2, 4, **DOUBLE)
    expected = relprop.explain(lambda x: head(F.linear(x, w.T, b).sigmoid()), x, target=1, rules=rule)
    assert_same(relprop.explain(lambda x: head((x @ w + b).sigmoid()), x, target=1, rules=rule), expected)


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(bias="absorb"), Flat()])
def test_a_scale_of_outputs_is_part_of_the_layer_before_an_activation(rule: Any) -> None:
    layer, scale, head = nn.Linear(4, 3).double(), torch.randn(3, **DOUBLE), nn.Linear(3, 2).double()
    weight, bias = (layer.weight * scale[:, None]).detach(), (layer.bias * scale).detach()
    x = torch.randn(2, 4, **DOUBLE)
    expected = relprop.explain(lambda x: head(F.linear(x, weight, bias).tanh()), x, target=1, rules=rule)
    assert_same(relprop.explain(lambda x: head((layer(x) * scale).tanh()), x, target=1, rules=rule), expected)


@pytest.mark.parametrize(
    "rest",
    [
        nn.Conv2d(3, 2, 1).double(),
        lambda z: z * -1.0,
        lambda z: F.batch_norm(z, *torch.ones(2, 3, **DOUBLE)),
        lambda z: z[:, :1] * torch.full((1, 1, 1), -1.0, **DOUBLE),
    ],
)
def test_a_batch_norm_by_a_rule_of_its_own_keeps_it_whatever_follows(rest: Any) -> None:
    norm, x = nn.BatchNorm2d(3).double().eval(), torch.randn(2, 3, 2, 2, **DOUBLE)
    with torch.no_grad():
        norm.bias.normal_()
    rules = [(nn.BatchNorm2d, Absolute()), ("*", Epsilon(0))]
    e = relprop.explain(lambda x: rest(norm(x)), x, target=lambda y: y.flatten(1).sum(1), rules=rules)
    s = relprop.explain(
        lambda x: rest(x), norm(x).detach(), target=lambda y: y.flatten(1).sum(1), rules=Epsilon(0)
    )
    z0, b = x * norm.running_var[0].add(norm.eps).rsqrt(), norm.bias[:, None, None]
    torch.testing.assert_close(e.relevance, z0.abs() / (z0.abs() + b.abs()) * s.relevance)
    assert e.ledger.gap.max() < 1e-12
