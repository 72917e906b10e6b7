"""What rules keep for the backward, in memory that torch counts: no more than they use."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from alike import near
from bit_by_bit import same
from counting import peak
from relprop.engine.keep import Kept
from relprop.rules import Epsilon, Gamma, ZPlus


def deep(*between: nn.Module) -> nn.Sequential:
    """Return layers with something between them, of which autograd keeps the operand and not the result."""
    layers = [layer for _ in range(8) for layer in (nn.Linear(256, 256), *between)]
    return nn.Sequential(*layers, nn.Linear(256, 2)).requires_grad_(False)


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    return found


BETWEEN = {
    "gelu": (nn.GELU(),),
    "two functions": (nn.Tanh(), nn.ReLU6()),
    "norm": (nn.LayerNorm(256),),
    "norm, moved": (nn.LayerNorm(256), nn.Unflatten(0, (2, -1)), nn.Flatten(0, 1)),
}


@pytest.mark.parametrize(
    ("between", "way"),
    [
        *[(name, "in Python") for name in BETWEEN],
        # Of two functions a graph has both values, and computes none again.
        *[(name, "as a graph") for name in BETWEEN if name != "two functions"],
    ],
)
@pytest.mark.parametrize(("rule", "most"), [(Epsilon(0.1), 1.3), (Gamma(0.25), 1.6), (ZPlus(), 1.6)])
def test_what_rules_keep(rule: object, most: float, between: str, way: str) -> None:
    model, x = deep(*BETWEEN[between]), torch.randn(2048, 256)
    explainer = relprop.Explainer(model, rules=rule, plan=False)
    if way == "as a graph":
        explainer = explainer.compile(x, target=1)
    for each in (lambda: explainer(x, target=1), lambda: gradient(model, x)):
        each()  # what is computed once
    assert 0.9 < peak(lambda: explainer(x, target=1)) / peak(lambda: gradient(model, x)) < most


@pytest.mark.parametrize("between", BETWEEN)
def test_what_is_computed_again_is_what_it_was(between: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = deep(*BETWEEN[between]), torch.randn(4, 256)
    counts = {"dropped": 0}
    found = relprop.explain(model, x, target=1, rules=Gamma(0.25))

    def kept(again: Callable[[], Kept]) -> Kept:
        counts["dropped"] += 1
        return again()

    monkeypatch.setattr(Kept, "dropped", kept)
    same(found, relprop.explain(model, x, target=1, rules=Gamma(0.25)))
    assert counts["dropped"] == 7  # the last layer has few outputs, and its operand takes little


def with_zeros(h: Tensor) -> Tensor:
    h[:, :2] = 0.0
    return h


def with_zeros_joined(h: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(h[:, :2]), h[:, 2:]], 1)


@pytest.mark.parametrize("function", [F.gelu, torch.tanh, lambda h: F.layer_norm(h, (5,))])
def test_what_is_overwritten_is_not_computed_again(function: Any) -> None:
    first, last = (
        nn.Linear(6, 5).double(),
        nn.Linear(5, 80).double(),
    )  # wide enough to compute its operand again
    x = torch.randn(3, 6, dtype=torch.float64)
    for rule in (Gamma(0.25), ZPlus()):
        one, other = (
            relprop.explain(lambda x, way=way: last(way(function(first(x)))), x, target=1, rules=rule)
            for way in (with_zeros, with_zeros_joined)
        )
        near(one.relevance, other.relevance)


@pytest.mark.parametrize("rule", [Epsilon(0.1, bias="distribute"), Epsilon(0.1, "distribute", "rms")])
def test_epsilon_has_the_inputs_where_relevance_on_them_becomes_a_coefficient(
    rule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = nn.Linear(6, 5).double(), nn.Linear(5, 3).double()
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def coefficient() -> Tensor:
        with relprop.propagating(rule):
            (found,) = torch.autograd.grad(last(torch.relu(first(x)))[:, 1].sum(), x)
        return found

    found = coefficient()
    monkeypatch.setattr(Epsilon, "needs_input", property(lambda _: True))
    near(found, coefficient())


# ---- rules that are the plain gradient ----


@pytest.mark.parametrize("rules", [Epsilon(0.0), "attnlrp", "cp-lrp"])
def test_bilinear_layers_get_what_their_products_get(rules: Any) -> None:
    layer, x = nn.Bilinear(6, 6, 3, bias=False).double(), torch.randn(4, 6, dtype=torch.float64)
    found = relprop.explain(lambda x: layer(x, x.flip(1)), x, target=1, rules=rules)
    written = relprop.explain(
        lambda x: torch.einsum("ni,oij,nj->no", x, layer.weight, x.flip(1)), x, target=1, rules=rules
    )
    assert float(found.ledger.gap.max()) < 1e-12
    near(found.relevance, written.relevance)


def test_a_weight_is_what_it_was_whatever_the_model_does_with_what_autograd_saves() -> None:
    weight, x = torch.randn(5, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        own = weight.clone()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            h = F.linear(x, own)
        own.mul_(2.0)
        return h

    found = relprop.explain(model, x, target=1, rules=Epsilon(0.0))
    near(found.relevance, x * weight[1])


OPTIONS = [{"parameters": ["2.weight"]}, {"record": ["2"]}, {"checkpoint": ["2"]}, {}]


@pytest.mark.parametrize("options", OPTIONS)
def test_epsilon_has_the_inputs_where_something_else_needs_them(options: dict[str, list[str]]) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    found = relprop.explain(model, x, target=1, rules=Epsilon(0.1), **options)  # type: ignore[arg-type]
    expected = relprop.explain(model, x, target=1, rules=Gamma(0.0))  # which keeps them
    assert float(found.ledger.gap.max()) < 1e-12
    stabilised = relprop.explain(model, x, target=1, rules=Epsilon(1e-12), **options)  # type: ignore[arg-type]
    torch.testing.assert_close(stabilised.relevance, expected.relevance, rtol=1e-8, atol=1e-10)
