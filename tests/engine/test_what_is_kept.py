"""What rules keep for the backward, in memory that torch counts: no more than they use."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from alike import near
from counting import peak
from relprop.rules import Epsilon, Gamma, ZPlus

DEEP = nn.Sequential(
    *[layer for _ in range(8) for layer in (nn.Linear(256, 256), nn.GELU())], nn.Linear(256, 2)
)
"""Behind GELU autograd keeps the outputs of the layers, and not their inputs."""


def gradient(x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(DEEP(x)[:, 1].sum(), x)
    return found


@pytest.mark.parametrize(
    ("rule", "least", "most"), [(Epsilon(0.1), 0.9, 1.3), (Gamma(0.25), 1.6, 2.2), (ZPlus(), 1.6, 2.2)]
)
def test_epsilon_keeps_no_more_than_the_gradient_and_rules_that_look_at_inputs_keep_them(
    rule: object, least: float, most: float
) -> None:
    x = torch.randn(2048, 256)
    DEEP.requires_grad_(False)
    explainer = relprop.Explainer(DEEP, rules=rule)
    for each in (lambda: explainer(x, target=1), lambda: gradient(x)):
        each()  # what is computed once
    assert least < peak(lambda: explainer(x, target=1)) / peak(lambda: gradient(x)) < most


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
