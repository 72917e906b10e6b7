"""`mode="inductor"`: what `torch.compile` gives is compared, and a graph is replayed if it is not right.

What it makes of networks is compared by `make compiled`; here other functions stand for it.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from by_graph import Small, assert_same, graphs_of, pictures
from networks import DOUBLE
from relprop import Explainer
from relprop.rules import Gamma
from relprop.runs.graphs import compilable
from relprop.runs.tracing import trace

aten = torch.ops.aten

Run = Callable[..., Any]


class Compiler:
    """Stands for `torch.compile`: it lets a function run within another one.

    Attributes:
        called: how often what it has made was called.
    """

    def __init__(self, within: Callable[[Run, tuple[Tensor, ...]], Any]) -> None:
        self.within = within
        self.called = 0

    def __call__(self, function: Run, **options: Any) -> Run:
        assert options == {
            "fullgraph": True,
            "dynamic": False,
            "options": {"layout_optimization": False},
        }

        def compiled(*inputs: Tensor) -> Any:
            self.called += 1
            return self.within(function, inputs)

        return compiled


def right(function: Run, inputs: tuple[Tensor, ...]) -> Any:
    return function(*inputs)


def of_other_values(function: Run, inputs: tuple[Tensor, ...]) -> Any:
    return function(inputs[0] * 1.5, *inputs[1:])


def of_rounded_values(function: Run, inputs: tuple[Tensor, ...]) -> Any:
    return function(inputs[0] * (1 + torch.finfo(inputs[0].dtype).eps), *inputs[1:])


def failing(function: Run, inputs: tuple[Tensor, ...]) -> Any:
    raise RuntimeError("No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1 for more")


def failing_in_the_backend(function: Run, inputs: tuple[Tensor, ...]) -> Any:
    raise RuntimeError("backend='inductor' raised:\nValueError: a mutation\n\nSet TORCHDYNAMO_VERBOSE=1")


def with_a_guard_that_fails(function: Run, inputs: tuple[Tensor, ...]) -> Any:
    tensors, _ = function(*inputs)
    return tensors, torch.tensor(False)


def compile_by(monkeypatch: pytest.MonkeyPatch, within: Callable[[Run, tuple[Tensor, ...]], Any]) -> Compiler:
    compiler = Compiler(within)
    monkeypatch.setattr(torch, "compile", compiler)
    return compiler


def test_a_compiled_graph_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, explainer = compile_by(monkeypatch, right), Explainer(Small(), rules=Gamma(0.25))
    compiled = explainer.compile(pictures(), target=0, mode="inductor")
    assert (graphs_of(compiled), compiler.called) == (1, 1)
    assert_same(compiled(pictures(seed=1), target=2), explainer(pictures(seed=1), target=2))
    assert (graphs_of(compiled), compiler.called) == (1, 2)


@pytest.mark.parametrize(
    ("within", "reason"),
    [
        (of_other_values, "gives another relevance of input 'x'"),
        (failing, "fails with RuntimeError: No working C++ compiler found"),
        (failing_in_the_backend, "fails with ValueError: a mutation"),
        (with_a_guard_that_fails, "gives another decision"),
    ],
)
def test_a_graph_that_is_not_compiled_right_is_replayed(
    within: Callable[[Run, tuple[Tensor, ...]], Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, explainer = compile_by(monkeypatch, within), Explainer(Small(), rules="epsilon")
    expected = f"mode='inductor': torch.compile {reason}. Graphs are run as by mode='replay'."
    with pytest.warns(UserWarning, match=f"^{re.escape(expected)}$"):
        compiled = explainer.compile(pictures(), target=0, mode="inductor")
    assert_same(compiled(pictures(seed=1), target=2), explainer(pictures(seed=1), target=2))
    assert (graphs_of(compiled), compiler.called) == (1, 1)


def test_a_network_that_carries_rounding_far_may_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = compile_by(monkeypatch, of_rounded_values)
    x = torch.rand(2, 3) + 0.5
    explainer = Explainer(lambda x: (x * 1e4).sin(), rules="gradient-times-input")
    rounded = explainer(x * (1 + torch.finfo(x.dtype).eps), target=0).relevance
    expected = explainer(x, target=0).relevance
    assert float((rounded - expected).abs().max()) > 1e-3 * float(expected.abs().max())
    compiled = explainer.compile(x, target=0, mode="inductor")
    assert (graphs_of(compiled), compiler.called) == (1, 1)


# ---- faults of Inductor that are avoided ----


def targets_of(function: Callable[..., list[Tensor]], *inputs: Tensor) -> list[Any]:
    """Return what the graph that is to be compiled calls, which gives the same."""
    traced, results = trace(function, inputs)
    module = compilable(traced.graph)
    torch.testing.assert_close(module(*inputs)[0], results, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(traced.graph(*inputs)[0], results, rtol=0, atol=0)
    return [node.target for node in module.graph.nodes if node.op == "call_function"]


def test_factors_of_sums_are_products_of_their_own() -> None:
    x, y = torch.randn(2, 3, 3, **DOUBLE)

    def sums(x: Tensor, y: Tensor) -> list[Tensor]:
        one = torch.add(x, x @ y, alpha=0.5)
        one.sub_(y, alpha=2)
        return [one, torch.sub(one, x, alpha=3), x + y]

    found = targets_of(sums, x, y)
    assert found.count(aten.mul.Tensor) == 3
    assert found.count(aten.add.Tensor) == 2


@pytest.mark.parametrize(("size", "dim"), [((2, 1), 1), ((2, 1), -1), ((1, 3), 0), ((2, 2), 1), ((1, 1), 1)])
def test_the_gradient_of_one_element_is_not_scattered(size: tuple[int, int], dim: int) -> None:
    x = torch.randn(2, 3, **DOUBLE)
    index = torch.zeros(size, dtype=torch.int64) + 1

    def gradient(x: Tensor) -> list[Tensor]:
        return [aten.gather_backward((x * 2).gather(dim, index), x, dim, index, False)]

    assert aten.gather_backward.default not in targets_of(gradient, x)


def test_the_gradient_of_the_only_element_is_scattered() -> None:
    index = torch.tensor(0)

    def gradient(x: Tensor) -> list[Tensor]:
        return [aten.gather_backward((x * 2).gather(0, index), x, 0, index, False)]

    targets_of(gradient, torch.randn((), **DOUBLE))


def test_classes_are_taken_by_no_scatter() -> None:
    model, classes = nn.Linear(3, 4).double(), torch.tensor([1, 3])
    explainer = Explainer(model, rules="epsilon")
    compiled = explainer.compile(torch.rand(2, 3, **DOUBLE), target=classes)
    assert compiled._graphs is not None
    (kind,) = compiled._graphs._kinds.values()
    traced = kind.graphs[0].traced.graph
    assert aten.gather_backward.default in [node.target for node in traced.graph.nodes]
    assert aten.gather_backward.default not in [node.target for node in compilable(traced).graph.nodes]
