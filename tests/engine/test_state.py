"""What a model keeps of a run, writes to, or has computed before it; weights that change; threads."""

import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from alike import same_relevance
from networks import DOUBLE, linear, modules
from relprop.errors import CoverageError
from relprop.rules import Epsilon, ZPlus


def test_what_was_computed_before_the_run_is_constant() -> None:
    generator, layer = linear(3, 6), linear()
    x = generator(torch.randn(2, 3, **DOUBLE))  # has a history
    scale = generator.weight.abs().sum()
    same_relevance(lambda x: layer(x) * scale, lambda x: layer(x) * scale.detach(), x)
    assert x.requires_grad


def test_a_model_explained_while_it_keeps_tensors_of_the_last_run() -> None:
    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()
            self.last: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            h = self.layer(x)
            result = h if self.last is None else h + self.last
            self.last = h
            return result

    model, x = Stateful().eval(), torch.randn(2, 6, **DOUBLE)
    relprop.explain(model, x)
    e = relprop.explain(model, x)
    assert e.ledger.gap.max() < 1e-10


def test_a_buffer_that_the_model_writes_to_is_left_without_a_graph() -> None:
    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()
            self.register_buffer("memory", torch.zeros(2, 6, **DOUBLE))

        def forward(self, x: Tensor) -> Tensor:
            self.memory.mul_(0.5).add_(self.layer(x))
            return self.memory.clone()

    model, x = Memory().eval(), torch.randn(2, 6, **DOUBLE)
    for _ in range(2):
        e = relprop.explain(model, x, rules=Epsilon(0.1))
        assert e.ledger.gap.max() < 1e-10
    assert not model.memory.requires_grad
    copy.deepcopy(model)


def test_parameters_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(6, 6), nn.PReLU(), nn.Linear(6, 3)).double().eval()
        scale = torch.rand(6, **DOUBLE)
    x = torch.randn(2, 6, **DOUBLE)
    before = relprop.explain(lambda x: model(x * scale), x, rules=ZPlus(), target=0)
    assert before.ledger.gap.max() < 1e-10
    with torch.inference_mode():
        model[2].weight[0, 1] += 50  # counts no version
    after = relprop.explain(lambda x: model(x * scale), x, rules=ZPlus(), target=0)
    fresh = copy.deepcopy(model)
    torch.testing.assert_close(
        after.relevance, relprop.explain(lambda x: fresh(x * scale), x, rules=ZPlus(), target=0).relevance
    )


def test_relevance_made_in_another_thread_is_followed() -> None:
    a, b = linear(), linear()
    for _ in range(50):  # autograd numbers its nodes thread by thread
        torch.rand(2, requires_grad=True) * 2

    def model(x: Tensor) -> Tensor:
        made: list[Tensor] = []
        thread = threading.Thread(target=lambda: made.append(b(x).relu()))
        thread.start()
        thread.join()
        return a(x) + made[0]

    x = torch.randn(2, 6, **DOUBLE)
    same_relevance(model, lambda x: a(x) + b(x).relu(), x)


def test_what_was_computed_before_is_constant_in_every_thread() -> None:
    layer, scale = linear(), linear().weight.abs().sum()
    x = torch.randn(2, 6, **DOUBLE)
    found: list[relprop.Explanation] = []
    thread = threading.Thread(target=lambda: found.append(relprop.explain(lambda x: layer(x) * scale, x)))
    thread.start()
    thread.join()
    assert found[0].ledger.gap.max() < 1e-12


class Writing(nn.Module):
    """Accumulates into something that is not a buffer."""

    def __init__(self, state: Tensor) -> None:
        super().__init__()
        self.layer, self.state = linear(3, 3), state

    def forward(self, x: Tensor) -> Tensor:
        self.state.mul_(0).add_(x)
        return self.layer(self.state * 1.0 + x)


def test_a_parameter_without_gradient_that_is_written_to() -> None:
    x = torch.randn(2, 3, **DOUBLE)
    model = Writing(nn.Parameter(torch.ones(2, 3, **DOUBLE), requires_grad=False)).eval()
    same_relevance(model, lambda x: model.layer(x * 1.0 + x), x)
    assert not model.state.requires_grad


@pytest.mark.parametrize("kind", ["parameter", "computed"])
def test_a_trainable_parameter_that_is_written_to_is_a_gap_and_stays_as_it_is(kind: str) -> None:
    parameter = nn.Parameter(torch.ones(2, 3, **DOUBLE))
    model = Writing(parameter if kind == "parameter" else parameter * 2).eval()
    model.forward = lambda x: model.layer(model.state.add_(x) * 1.0)  # type: ignore[method-assign]
    before = model.state.detach().clone()
    with pytest.raises(
        CoverageError, match=r"add in module .*it writes to a parameter, or to a tensor computed from one"
    ):
        relprop.explain(model, torch.randn(2, 3, **DOUBLE))
    assert torch.equal(model.state, before)


def test_a_buffer_that_the_model_writes_to_through_a_view() -> None:
    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear(3, 3)
            self.register_buffer("memory", torch.zeros(2, 2, 3, **DOUBLE))

        def forward(self, x: Tensor) -> Tensor:
            self.memory.zero_()
            view = self.memory[0]
            view.add_(x)
            return self.layer(view * 1.0)

    model, x = Memory().eval(), torch.randn(2, 3, **DOUBLE)
    for _ in range(2):
        same_relevance(model, lambda x: model.layer(x), x)
    assert not model.memory.requires_grad


def test_a_write_through_data_beside_the_first_column_is_noticed() -> None:
    layer, x = nn.Linear(1024, 1024, bias=False).eval(), torch.rand(1, 1024)
    before = relprop.explain(layer, x, target=torch.ones(1024), rules=ZPlus()).relevance
    layer.weight.data[:, 1:] *= -1
    after = relprop.explain(layer, x, target=torch.ones(1024), rules=ZPlus()).relevance
    fresh = relprop.explain(copy.deepcopy(layer), x, target=torch.ones(1024), rules=ZPlus()).relevance
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, fresh)


def test_changed_weights_are_noticed(x: Tensor) -> None:
    model = modules()
    relprop.explain(model, x, rules=ZPlus())
    with torch.no_grad():
        model[0].weight.mul_(-1)
    model[3].weight.data.neg_()  # counts no version
    fresh = copy.deepcopy(model)
    torch.testing.assert_close(
        relprop.explain(model, x, rules=ZPlus()).relevance, relprop.explain(fresh, x, rules=ZPlus()).relevance
    )


class Lazy(nn.Module):
    """Makes a buffer in its first call and keeps it."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.first, self.second, self.make = nn.Linear(6, 8), nn.Linear(8, 5), make
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.kept is None:
            self.kept = self.make(h)
        return self.second((h + self.kept[:1, :].expand(len(x), -1)).relu())


@pytest.mark.parametrize(
    "make", [lambda h: torch.ones_like(h) * 0.3, lambda h: h.detach() * 2, lambda h: h * 2]
)
def test_what_a_model_keeps_of_a_run_is_a_tensor_like_others(make: Any) -> None:
    model, x = Lazy(make).double().eval(), torch.randn(4, 6, dtype=torch.float64)
    e = relprop.explain(model, x, target=0)
    torch.testing.assert_close(model(x), e.output)
    torch.testing.assert_close(copy.deepcopy(model)(x), e.output)
    assert model.kept is not None
    kept = model.kept
    for view in (kept.t(), kept.view(-1), kept[:, 1:], kept.unsqueeze(0), *kept.unbind(1), *kept.split(2)):
        assert float(view.sum()) == pytest.approx(float(view.clone().sum()))
    kept[0, 0] = 7
    assert float(kept[0, 0]) == 7
    again = relprop.explain(model, x, target=0)
    torch.testing.assert_close(model(x), again.output)


def test_a_constant_of_a_shape_alone_is_a_bias_whoever_made_it() -> None:
    model, x = Lazy(lambda h: torch.ones_like(h[:1]) * 0.3).double().eval(), torch.randn(4, 6).double()
    first = relprop.explain(model, x, target=0, rules=ZPlus()).relevance
    model.kept = None
    model(x)
    torch.testing.assert_close(relprop.explain(model, x, target=0, rules=ZPlus()).relevance, first)


def test_an_output_that_is_a_buffer_of_the_model_keeps_its_values(x: Tensor) -> None:
    class Accumulating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("sum", torch.zeros(4, 6))

        def forward(self, x: Tensor) -> Tensor:
            return self.sum.copy_(x * 2)  # type: ignore[operator, no-any-return]

    model, x = Accumulating().eval(), torch.randn(4, 6)
    e = relprop.explain(model, x, target=0)
    relprop.explain(model, x * 3, target=0)
    assert torch.equal(e.output, x * 2)
