"""How a graph is simplified, and which functions it calls: the results are the same to the last bit."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from by_graph import Small, assert_by_graph, pictures
from relprop import Explainer
from relprop.rules import Epsilon
from relprop.runs.graphs import respelled
from relprop.runs.spelling import spelling_of
from relprop.runs.tracing import trace

aten = torch.ops.aten
A, B = torch.randn(3, 4), torch.randn(3, 4)


class OfTheUser(Tensor):
    pass


@pytest.mark.parametrize(
    ("operation", "args", "kwargs", "function"),
    [
        (aten.mul.Tensor, (A, B), {}, torch.mul),
        (aten.mul.Tensor, (A, 0.5), {}, torch.mul),
        (aten.add.Tensor, (A, B), {"alpha": 2}, torch.add),
        (aten.sum.dim_IntList, (A, [1], True), {}, torch.sum),
        (aten.reshape.default, (A, [4, 3]), {}, torch.reshape),
        (aten.view.default, (A, [4, 3]), {}, torch._C.TensorBase.view),
        (aten.mul_.Tensor, (A, B), {}, torch._C.TensorBase.mul_),
        (aten.silu.default, (A,), {}, torch._C._nn.silu),
        (aten.cat.default, ([A, B], 1), {}, torch.cat),
        (aten.pow.Tensor_Scalar, (A, 2), {}, torch.pow),
    ],
)
def test_the_function_of_an_operation(operation: Any, args: Any, kwargs: Any, function: Any) -> None:
    kept = A.clone()
    assert spelling_of(operation, args, kwargs) is function
    assert torch.equal(A, kept)  # it was not run


@pytest.mark.parametrize(
    ("operation", "args", "kwargs"),
    [
        (aten.mul.Scalar, (A, 0.5), {}),  # torch.mul calls mul.Tensor
        (aten.slice.Tensor, (A, 1, 0, 2), {}),  # there is none
        (aten.hardshrink_backward.default, (A, B, 0.5), {}),
        (aten.mul.Tensor, (A.as_subclass(OfTheUser), B), {}),  # which may do anything
        (aten.sum.dim_IntList, (A, [1], True), {"dtype": 7}),  # it takes no such argument
    ],
)
def test_operations_that_stay(operation: Any, args: Any, kwargs: Any) -> None:
    assert spelling_of(operation, args, kwargs) is operation


def test_lists_of_tensors_are_other_arguments_than_lists_with_none() -> None:
    index = torch.tensor([0, 1])
    assert spelling_of(aten.index_put.default, (A, [index], B[:2]), {}) is torch.index_put
    assert spelling_of(aten.index_put.default, (A, [None, index], B[:, :2]), {}) is aten.index_put.default


def attention(x: Tensor, y: Tensor) -> list[Tensor]:
    heads = [t.view(2, 3, 2, 2).transpose(1, 2) for t in (x, y)]
    mixed = (heads[0] @ heads[1].mT).softmax(-1) @ heads[1]
    return [mixed.transpose(1, 2).reshape(2, 3, 4).view(6, 4).sum(1, dtype=torch.float64)]


def written(x: Tensor, y: Tensor) -> list[Tensor]:
    whole = torch.zeros(6, 4)
    whole.view(2, 3, 4).view(2, 12)[:, 0] = x[:, 0, 0]
    part = whole.view(24).view(4, 6)
    part.add_(1)
    return [whole * 2, part.sum() + y.max()]


@pytest.mark.parametrize("function", [attention, written])
def test_the_same_bits(function: Callable[..., Sequence[Tensor]]) -> None:
    inputs = [torch.randn(2, 3, 4), torch.randn(2, 3, 4)]
    traced, results = trace(function, inputs)
    others = [torch.randn(2, 3, 4), torch.randn(2, 3, 4)]
    for given, expected in ((inputs, results), (others, function(*others))):
        by_operations = traced.graph(*given)[0]
        for found in (by_operations, respelled(_copied(traced.graph))(*given)[0]):
            assert all(map(torch.equal, found, expected))


def _copied(module: fx.GraphModule) -> fx.GraphModule:
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    return fx.GraphModule(module, graph)


def test_parts_are_written_by_lists_of_indices() -> None:
    def written_twice(x: Tensor) -> Tensor:
        h = x * 2
        h[torch.tensor([0, 1]), torch.tensor([1, 2])] = 7.0
        h[:, torch.tensor([0])] = 8.0
        return h

    explainer = Explainer(written_twice, rules="epsilon")
    compiled = explainer.compile(torch.rand(2, 4), target=3)
    for x in torch.rand(2, 2, 4):
        assert torch.equal(compiled(x, target=3).relevance, explainer(x, target=3).relevance)


def test_shapes_one_after_the_other_are_one_operation() -> None:
    traced, _ = trace(lambda x: [x.view(6, 4).view(24).reshape(2, 12) * 2], [torch.randn(2, 3, 4)])
    assert [node.target for node in traced.graph.graph.nodes if node.op == "call_function"] == [
        aten.reshape.default,
        aten.mul.Tensor,
    ]


@pytest.mark.parametrize(
    ("size", "stride", "offset", "is_view"),
    [
        ((4, 6), (6, 1), 0, True),
        ((2, 12, 1, 1), (12, 1, 1, 1), None, True),
        ((24,), (1,), 0, True),
        ((4, 5), (6, 1), 0, False),
        ((6, 4), (1, 6), 0, False),
        ((23,), (1,), 1, False),
    ],
)
def test_memory_that_is_taken_whole_is_a_view(
    size: Any, stride: Any, offset: int | None, is_view: bool
) -> None:
    def taken(x: Tensor) -> list[Tensor]:
        return [(x * 2).as_strided(size, stride, offset).exp()]

    traced, _ = trace(taken, [torch.randn(2, 3, 4)])
    found = [node.target for node in traced.graph.graph.nodes if node.op == "call_function"]
    assert (aten.as_strided.default in found) is not is_view
    x = torch.randn(2, 3, 4)
    assert torch.equal(traced.graph(x)[0][0], taken(x)[0])


def test_weights_without_a_value_are_no_change() -> None:
    model = Small()
    model.register_buffer("unused", torch.tensor([torch.nan, torch.inf]))
    explainer = Explainer(model, rules="epsilon")
    assert_by_graph(explainer, explainer.compile(pictures()), pictures())


@pytest.mark.parametrize(
    "weight",
    [
        torch.randn(4, 3, dtype=torch.float64).T,
        torch.randn(4, 6, dtype=torch.float64)[:, ::2].T,
        torch.randn(3, 1, dtype=torch.float64).expand(3, 4),
        torch.randn(3, 4, dtype=torch.complex128),
        torch.randn(3, 4, dtype=torch.complex128).conj(),
        torch.randn(3, 4, dtype=torch.bfloat16),
        torch.ones(3, 4, dtype=torch.bool),
    ],
    ids=["transposed", "strided", "expanded", "complex", "conjugated", "bfloat16", "bool"],
)
def test_a_write_by_data_is_noticed(weight: Tensor) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("held", weight.detach())

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.held.real.double()).sum(1, keepdim=True)

    model = Model().eval()
    explainer = Explainer(model, rules=[("*", Epsilon(0))])
    compiled = explainer.compile(torch.ones(1, 3, dtype=torch.float64))
    before = compiled(torch.ones(1, 3, dtype=torch.float64)).score
    model.held.data[0, 0] = 0
    after = compiled(torch.ones(1, 3, dtype=torch.float64)).score
    assert after != before
    assert after == explainer(torch.ones(1, 3, dtype=torch.float64)).score
