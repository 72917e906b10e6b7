"""Plain gradients over the same interface."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close, network
from relprop.errors import InputError, ModelError, RuleError
from relprop.rules.gradients import GradientTimesInput, SquaredGradient

NAMES = ["gradient-times-input", "squared-gradient"]


def by_autograd(name: str, model: Any, *inputs: Tensor, score: Any) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    gradients = torch.autograd.grad(score(model(*(x * 1 for x in leaves))).sum(), leaves)
    return [(x * g).detach() if name == NAMES[0] else g**2 for x, g in zip(leaves, gradients, strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_they_are_what_autograd_says_also_where_the_model_works_in_place(name: str) -> None:
    model, x = network(), torch.randn(2, 2, 6, 6, **DOUBLE)
    before = x.clone()
    for target, score in (
        (3, lambda y: y[:, 3]),
        ([0, 2], lambda y: y[[0, 1], [0, 2]]),
        (None, lambda y: y.amax(1)),
        (lambda y: y[:, 1].square(), lambda y: y[:, 1].square()),
        (relprop.targets.Contrastive(1), lambda y: y[:, 1] - y[:, [0, 2, 3, 4]].mean(1)),
    ):
        e = relprop.explain(model, x, target=target, rules=name)
        close(e.relevance, by_autograd(name, model, x, score=score)[0])
        close(e.score, score(model(x)).detach())
        assert (e.preset, e.rules) == (name, ())
    assert torch.equal(x, before)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_ledger_says_what_does_not_sum_to_the_score(name: str) -> None:
    model, x = network(), torch.randn(2, 2, 6, 6, **DOUBLE)
    e = relprop.explain(model, x, target=3, rules=name)
    close(e.ledger.seed, model(x)[:, 3].detach())
    close(e.ledger.inputs, e.relevance.flatten(1).sum(1))
    assert list(e.ledger.absorbed) == ["not conserved"]
    close(e.ledger.absorbed["not conserved"], e.ledger.seed - e.ledger.inputs)
    assert e.ledger.gap.max() < 1e-12
    homogeneous = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False)).eval()
    e = relprop.explain(homogeneous.double(), torch.randn(2, 4, **DOUBLE), rules=NAMES[0])
    assert e.ledger.absorbed["not conserved"].abs().max() < 1e-15


@pytest.mark.parametrize("name", NAMES)
def test_several_inputs(name: str) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, a: Tensor, times: int, b: Tensor, unused: Tensor) -> Tensor:
            a.mul_(times)
            return self.linear(a * b).tanh()

    model = Two().double().eval()
    a, b, unused = (torch.randn(2, 4, **DOUBLE) for _ in range(3))
    e = relprop.explain(model, a, 3, unused=unused, b=b, target=1, rules=name)
    expected = by_autograd(name, lambda a, b: model(a, 3, b, unused), a, b, score=lambda y: y[:, 1])
    assert list(e.inputs) == ["a", "unused", "b"]
    close(e.inputs["a"], expected[0])
    close(e.inputs["b"], expected[1])
    assert not e.inputs["unused"].any()


def test_several_targets_share_one_forward() -> None:
    calls = []

    def model(x: Tensor) -> Tensor:
        calls.append(1)
        return x.exp()

    x = torch.randn(2, 4, **DOUBLE)
    first, second = relprop.explain_each(model, x, targets=[0, 3], rules=NAMES[0])
    assert len(calls) == 1
    close(first.relevance[:, 0], (x * x.exp())[:, 0])
    close(second.relevance[:, 3], (x * x.exp())[:, 3])
    assert not first.relevance[:, 1:].any()


def test_what_rules_cannot_cross_a_gradient_can() -> None:
    x = torch.randn(2, 4, **DOUBLE)
    e = relprop.explain(lambda x: x.cumprod(1), x, target=2, rules=NAMES[0])
    close(e.relevance, by_autograd(NAMES[0], lambda x: x.cumprod(1), x, score=lambda y: y[:, 2])[0])


def test_no_gradient_is_needed_around_it() -> None:
    model, x = nn.Linear(4, 3).double().eval(), torch.randn(2, 4, **DOUBLE)
    expected = x * model.weight[1].detach()
    with torch.no_grad():
        close(relprop.explain(model, x, target=1, rules=NAMES[0]).relevance, expected)
    with torch.inference_mode():
        R = relprop.explain(model, x, target=1, rules=NAMES[0]).relevance
        close(R, expected)
    model.requires_grad_(False)
    close(relprop.explain(model, x, target=1, rules=NAMES[0]).relevance, expected)


@pytest.mark.parametrize(
    ("rules", "name"),
    [(GradientTimesInput(), NAMES[0]), (SquaredGradient(), NAMES[1])],
)
def test_they_can_be_given_as_objects(rules: Any, name: str) -> None:
    model, x = nn.Linear(4, 3).eval(), torch.randn(2, 4)
    assert relprop.explain(model, x, rules=rules).preset == name
    assert relprop.rules.BASELINES[name] == rules


@pytest.mark.parametrize(
    "options", [{"record": "*"}, {"conditions": {"": 0}}, {"start": "0"}, {"parameters": "weight"}]
)
@pytest.mark.parametrize("name", NAMES)
def test_what_needs_rules_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(RuleError, match=f"rules='{name}' is a plain gradient: record, conditions, start and"):
        relprop.explain(nn.Linear(4, 3).eval(), torch.randn(2, 4), rules=name, **options)
    refused = pytest.raises(
        RuleError, match=r"is a plain gradient: use torch.autograd.grad alone, or give other rules"
    )
    with refused, relprop.propagating(name):
        pass


class Cut(nn.Module):
    """Its output depends on parameters, and not on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.detach())


@pytest.mark.parametrize("model", [Cut().eval(), lambda x: x.detach() * 2])
def test_a_score_that_does_not_depend_on_the_input_is_refused(model: Any) -> None:
    with pytest.raises(ModelError, match="the explained score does not depend on the input"):
        relprop.explain(model, torch.randn(2, 4), rules=NAMES[0])


def test_inputs_and_targets_are_checked_as_ever() -> None:
    model = nn.Linear(4, 3).eval()
    with pytest.raises(InputError, match="target 3 is out of range"):
        relprop.explain(model, torch.randn(2, 4), target=3, rules=NAMES[0])
    with pytest.raises(InputError, match="nothing to explain"):
        relprop.explain(model, torch.ones(2, 4, dtype=torch.int64), rules=NAMES[0])
    with pytest.raises(RuleError, match="there is no preset 'squared-gradien'"):
        relprop.explain(model, torch.randn(2, 4), rules="squared-gradien")
