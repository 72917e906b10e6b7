"""What is overwritten after it was used: weights, constants, parts and views of what is relevant."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from alike import near, relevance, same_relevance
from networks import DOUBLE, linear
from relprop.errors import ModelError
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, ZPlus


def test_weights_overwritten_in_the_forward() -> None:
    A, B = torch.randn(6, 6, **DOUBLE), torch.randn(6, 6, **DOUBLE)
    a, b = torch.randn(6, **DOUBLE), torch.randn(6, **DOUBLE)
    weight, bias = torch.zeros(6, 6, **DOUBLE), torch.zeros(6, **DOUBLE)

    def streaming(x: Tensor) -> Tensor:
        weight.copy_(A)
        bias.copy_(a)
        h = F.linear(x, weight, bias).relu()
        weight.copy_(B)
        bias.copy_(b)
        return F.linear(h, weight, bias)

    x = torch.randn(3, 6, **DOUBLE)
    for rule in (Epsilon(0.1), Gamma(0.25), AlphaBeta(2, 1), ZPlus(bias="absorb")):
        same_relevance(streaming, lambda x: F.linear(F.linear(x, A, a).relu(), B, b), x, rule)


@pytest.mark.parametrize("by", ["the new storage", "the old storage"])
def test_a_weight_that_gets_another_storage(by: str) -> None:
    A, B = torch.randn(6, 6, **DOUBLE), torch.randn(6, 6, **DOUBLE)

    def streaming(x: Tensor) -> Tensor:
        first, noise = A.clone(), torch.zeros(1)
        weight = nn.Parameter(first, requires_grad=False)
        h = F.linear(x, weight).relu()
        noise.add_(1)
        weight.data = B / 2
        if by == "the new storage":
            weight.mul_(2)
        else:
            first.zero_()
            weight.data = B
        return F.linear(h, weight)

    x = torch.randn(3, 6, **DOUBLE)
    for rule in (Epsilon(0.1), Gamma(0.25), AlphaBeta(2, 1), ZPlus()):
        same_relevance(streaming, lambda x: F.linear(F.linear(x, A).relu(), B), x, rule)


@pytest.mark.parametrize("value", [5.0, "part"])
@pytest.mark.parametrize("rule", [Epsilon(0.1), Flat()])
def test_an_assignment_takes_the_place_of_what_was_there(value: Any, rule: Any) -> None:
    layer = linear(4, 3)

    def assigning(x: Tensor) -> Tensor:
        h = x * 1.0
        h[:, 0] = x[:, 1] if value == "part" else value
        return layer(h)

    def joining(x: Tensor) -> Tensor:
        first = x[:, 1:2] if value == "part" else torch.full((2, 1), 5.0, **DOUBLE)
        return layer(torch.cat([first, x[:, 1:]], 1))

    e = same_relevance(assigning, joining, torch.randn(2, 4, **DOUBLE), rule)
    assert ("constant" in e.ledger.absorbed) == (value != "part")
    torch.testing.assert_close(e.relevance[:, 0], torch.zeros(2, **DOUBLE))


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25)])
def test_a_relu_on_a_part_of_an_output(rule: Any) -> None:
    layer, head = linear(6, 4), linear(4, 3)

    def in_place(x: Tensor) -> Tensor:
        z = layer(x)
        z[:, 1:3].relu_()
        return head(z)

    def joining(x: Tensor) -> Tensor:
        z = layer(x)
        return head(torch.cat([z[:, :1], z[:, 1:3].relu(), z[:, 3:]], 1))

    same_relevance(in_place, joining, torch.randn(3, 6, **DOUBLE), rule)


def test_what_is_overwritten_without_gradient_is_a_constant() -> None:
    layer, head = nn.Linear(4, 5).double(), nn.Linear(5, 2).double()

    def model(x: Tensor) -> Tensor:
        z = layer(x)
        with torch.no_grad():
            z.sub_(0.3)
        return head(z.relu_())

    with pytest.raises(ModelError, match=r"sub in module .*runs under torch.no_grad\(\)"):
        relprop.explain(model, torch.randn(3, 4, **DOUBLE), target=1, rules=Epsilon(0.1))


def test_a_number_that_changes_within_a_chain_of_pointwise_calls() -> None:
    layer, head, x = nn.Linear(4, 5).double(), nn.Linear(5, 2).double(), torch.randn(3, 4, **DOUBLE)

    def model(changes: float) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            number = torch.ones((), **DOUBLE)
            shifted = layer(x).relu() + number
            number.add_(changes)
            return head(shifted.sigmoid())

        return run

    near(relevance(model(5.0), x, Epsilon(0.1)), relevance(model(0.0), x, Epsilon(0.1)))


@pytest.mark.parametrize("rule", [Epsilon(0.1), Flat()])
def test_a_grid_that_is_overwritten_after_it_was_used(rule: Any) -> None:
    layer, head = nn.Conv2d(2, 3, 3, padding=1).double(), nn.Conv2d(3, 2, 5).double()
    x, where = torch.randn(2, 2, 5, 5, **DOUBLE), torch.rand(2, 5, 5, 2, **DOUBLE) - 0.5

    def model(factor: float) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            grid = where.clone()
            sampled = F.grid_sample(layer(x), grid, align_corners=False)
            grid.mul_(factor)
            return head(sampled).flatten(1)

        return run

    near(relevance(model(-1.0), x, rule), relevance(model(1.0), x, rule))


@pytest.mark.parametrize("activation", [torch.relu_, lambda z: z.mul_(2), lambda z: z.view_as(z).relu_()])
@pytest.mark.parametrize("rule", [Epsilon(0.1), Flat()])
def test_an_output_that_is_a_view_is_overwritten(rule: Any, activation: Callable[[Tensor], Tensor]) -> None:
    w, head, x = torch.randn(4, 5, **DOUBLE), nn.Linear(15, 2).double(), torch.randn(2, 3, 4, **DOUBLE)

    def model(copy: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: head(activation(copy(torch.einsum("nab,bc->nca", x, w))).flatten(1))

    near(relevance(model(lambda z: z), x, rule), relevance(model(torch.clone), x, rule))


def test_an_inplace_operation_keeps_its_meaning_for_other_names_of_the_tensor() -> None:
    class Aliased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            z = self.linear(x)
            view = z.view(-1)
            view.relu_()
            return z  # has been through the ReLU, too

    model, x = Aliased().eval(), torch.randn(3, 4)
    e = relprop.explain(model, x, target=lambda y: y.sum(1), rules=Epsilon(0))
    torch.testing.assert_close(e.output, model(x))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf)
    torch.testing.assert_close(e.relevance, gradient * x)


def test_a_reused_module_and_an_overwritten_input() -> None:
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x -= 0.5
            return self.linear(self.linear(x).relu_()).relu()

    model, x = Reused().double().eval(), torch.randn(3, 4, dtype=torch.float64)
    before = x.clone()
    e = relprop.explain(model, x, target=0, rules=Epsilon(1e-3))
    assert torch.equal(x, before)
    assert [a.path for a in e.rules] == ["linear", "linear"]
    assert e.ledger.gap.max() < 1e-12
    torch.testing.assert_close(e.output, model(x.clone()))


def test_what_is_written_without_gradient_over_something_relevant_is_a_constant() -> None:
    def model(x: Tensor) -> Tensor:
        buffer = torch.zeros(2, 4)
        buffer.copy_(x)
        with torch.no_grad():
            buffer[:, :2].copy_(x[:, :2])
        return x + buffer

    x = torch.rand(2, 4)
    for target, times in ((0, 1), (3, 2)):
        e = relprop.explain(model, x, target=target)
        assert torch.equal(e.relevance[:, target], times * x[:, target])
        assert e.ledger.gap.max() < 1e-6
