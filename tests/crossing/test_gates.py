"""Products of two relevant factors: of a signal and its gate, and of two signals."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from alike import assert_same
from networks import DOUBLE, close
from relprop.rules import Epsilon, Flat, Gamma, SignalTakesAll, Uniform, ZPlus
from small_transformers import drawn
from spellings import ACTIVATIONS

N, D = 2, 6


class Gated(nn.Module):
    """A signal that is weighed by a gate of the same shape, or of one for each channel."""

    def __init__(self, gate: Callable[[Tensor], Tensor], combine: Any = torch.mul, *, size: int = 1) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.signal, self.squeeze = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 1)
        self.excite, self.head = nn.Conv2d(2, 3, 1), nn.Linear(3 * size**2, 3)
        self.gate, self.combine = gate, combine
        self.double().eval()

    def weights(self, h: Tensor) -> Tensor:
        return self.gate(self.excite(self.squeeze(h.mean((2, 3), keepdim=True)).relu()))

    def forward(self, x: Tensor) -> Tensor:
        h = self.signal(x).relu()
        return self.head(self.combine(h, self.weights(h)).flatten(1))


# Not those of a hyperbolic tangent, which counts as a signal unless it is broadcast.
GATES = [("sigmoid", way) for way in (0, 1, 2, 3, 6, 7)] + [("hardsigmoid", way) for way in range(6)]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(("gate", "number"), GATES)
@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(), Flat()])
def test_a_gate_gets_nothing(rule: Any, gate: str, number: int, size: int) -> None:
    """As if it were a constant, in every spelling, also where it has the signal's shape."""
    model = Gated(ACTIVATIONS[gate][number], size=size)
    x = torch.randn(2, 2, size, size, **DOUBLE)
    weights = model.weights(model.signal(x).relu()).detach()
    e = relprop.explain(model, x, target=1, rules=rule)
    assert_same(
        e,
        relprop.explain(
            lambda x: model.head((model.signal(x).relu() * weights).flatten(1)), x, target=1, rules=rule
        ),
    )
    (product,) = [a for a in e.rules if a.operation == "mul"]
    assert product.rule == SignalTakesAll()


WAYS_TO_WEIGH = {
    "mul": torch.mul,
    "gate first": lambda h, g: g * h,
    "method": lambda h, g: h.mul(g),
    "in place": lambda h, g: h.mul_(g),
    "expanded": lambda h, g: h * g.expand_as(h),
    "in the gate's place": lambda h, g: g.clone().expand_as(h).clone().mul_(h),
    "expanded by view": lambda h, g: h.flatten(2) * g.flatten(1).unsqueeze(-1),
    "addcmul": lambda h, g: torch.addcmul(torch.zeros_like(h), h, g),
    "scaled": lambda h, g: (h * (2 * g)) / 2,
}


@pytest.mark.parametrize("way", WAYS_TO_WEIGH)
@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(), Flat()])
def test_a_gate_is_one_however_the_product_is_written(rule: Any, way: str) -> None:
    x = torch.randn(2, 2, 3, 3, **DOUBLE)
    found = relprop.explain(Gated(nn.Sigmoid(), WAYS_TO_WEIGH[way], size=3), x, target=1, rules=rule)
    assert_same(found, relprop.explain(Gated(nn.Sigmoid(), size=3), x, target=1, rules=rule))


def halves(model: Gated, x: Tensor) -> Tensor:
    """Relevance where each factor gets half, for LRP-0 and a sigmoid: its secant."""
    h = model.signal(x).relu()
    z = model.excite(model.squeeze(h.mean((2, 3), keepdim=True)).relu())
    gate = torch.sigmoid(z)
    secant = ((gate - 0.5) / z).detach() * z
    product = (h * gate.detach() + h.detach() * secant) / 2
    (gradient,) = torch.autograd.grad(model.head(product.flatten(1))[:, 1].sum(), x)
    return gradient * x


PRODUCTS = [torch.mul, torch.Tensor.mul, "*", lambda site: site.kind == "product", Gated]


@pytest.mark.parametrize("where", PRODUCTS)
@pytest.mark.parametrize("way", ["mul", "gate first", "in place", "expanded"])
def test_halves_for_both_by_a_composite(way: str, where: Any) -> None:
    model = Gated(nn.Sigmoid(), WAYS_TO_WEIGH[way], size=3)
    x = torch.randn(2, 2, 3, 3, **DOUBLE)
    e = relprop.explain(model, x, target=1, rules=[(where, Uniform()), ("*", Epsilon(0))])
    torch.testing.assert_close(e.relevance, halves(model, x.clone().requires_grad_()))
    assert [str(a).split(": ", 1)[1] for a in e.rules if a.operation == "mul"] == ["mul: Uniform()"]
    assert e.ledger.gap.max() < 1e-12


def test_halves_for_two_signals_and_all_for_one_of_them() -> None:
    one, other, head = (nn.Linear(4, 4).double() for _ in range(3))
    x = torch.randn(2, 4, **DOUBLE)

    def model(x: Tensor) -> Tensor:
        return head(one(x) * other(x).tanh())

    leaf = x.clone().requires_grad_()
    a, z = one(leaf), other(leaf)
    b = (z.tanh() / z).detach() * z
    (gradient,) = torch.autograd.grad(head((a * b.detach() + a.detach() * b) / 2)[:, 1].sum(), leaf)
    for rules in (Epsilon(0), [("*", SignalTakesAll()), ("*", Epsilon(0))]):
        e = relprop.explain(model, x, target=1, rules=rules)
        torch.testing.assert_close(e.relevance, gradient * x)
        assert e.ledger.gap.max() < 1e-12


def test_a_factor_whose_relevance_is_shared_crosses_with_slots() -> None:
    one, other, head = (nn.Linear(4, 4).double() for _ in range(3))
    x = torch.randn(2, 4, **DOUBLE)
    e = relprop.explain(lambda x: head(one(x).relu() * other(x).relu()), x, target=1, rules=Flat())
    assert e.ledger.gap.max() < 1e-12


ROOT = 0.7978845608028654


GATES_SPELLED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "FastGELU": (
        lambda x: 0.5 * x * (1.0 + torch.tanh(x * ROOT * (1.0 + 0.044715 * x * x))),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "gelu_new": (
        lambda x: 0.5 * x * (1.0 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x, 3.0)))),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "GELU by erf": (lambda x: x * 0.5 * (1.0 + torch.erf(x / 2**0.5)), F.gelu),
    "quick_gelu": (lambda x: x * torch.sigmoid(1.702 * x), lambda x: F.silu(1.702 * x) / 1.702),
    "x sigmoid": (lambda x: x * x.sigmoid(), F.silu),
    "x times 1 over 1 + exp": (lambda x: x * (1 + torch.exp(-x)).reciprocal(), F.silu),
    "clamp": (lambda x: x.clamp(min=0), F.relu),
    "clamp_min": (lambda x: torch.clamp_min(x, 0), F.relu),
    "relu": (lambda x: x.relu(), F.relu),
}


class FeedForward(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor], *, turned: bool = False) -> None:
        super().__init__()
        self.act, self.turned = act, turned
        self.gate, self.up, self.down = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.act(self.gate(x)), self.up(x)
        return self.down(up * gate if self.turned else gate * up)


@pytest.mark.parametrize("turned", [False, True], ids=["gate first", "gate last"])
@pytest.mark.parametrize("name", GATES_SPELLED)
def test_a_gate_is_one_by_any_spelling(name: str, turned: bool) -> None:
    spelling, function = GATES_SPELLED[name]
    x = torch.randn(4, D, **DOUBLE)
    found = []
    for act in (spelling, function):
        torch.manual_seed(5)
        e = relprop.explain(drawn(FeedForward(act, turned=turned)), x, target=0, rules="cp-lrp")
        products = [a for a in e.rules if isinstance(a.rule, SignalTakesAll)]
        assert [a.operation for a in products] == ["mul"]
        assert e.ledger.gap.max() < 1e-12
        found.append(e.relevance)
    close(*found)
    # All of it came by the signal: with the gates fixed, the network is linear.
    torch.manual_seed(5)
    model = drawn(FeedForward(function))
    gate = function(model.gate(x)).detach()
    fixed = relprop.explain(lambda x: model.down(gate * model.up(x)), x, target=0, rules="cp-lrp")
    close(found[0], fixed.relevance)
