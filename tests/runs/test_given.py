"""What graphs are kept for: arguments and targets that differ in nothing but values share one."""

import pickle
import warnings
from collections import UserDict
from copy import copy, deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import relprop
from by_graph import assert_by_graph, assert_same, graphs_of
from networks import DOUBLE
from relprop import Explainer
from relprop.rules import Epsilon
from relprop.runs.tracing import trace

pytestmark = pytest.mark.filterwarnings("ignore:the explained score is negative")

torch.manual_seed(0)
layer = nn.Linear(4, 3).double()


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


# ---- arguments ----


def test_arguments_by_name_in_another_order() -> None:
    explainer = Explainer(lambda a, b: layer(a * 2 + b.exp()), rules=Epsilon(1e-3))
    a, b = values(2, 4), values(2, 4, seed=1)
    compiled = explainer.compile(target=0, kwargs={"a": a, "b": b})
    assert_by_graph(explainer, compiled, target=0, kwargs={"b": b, "a": a}, graphs=2)
    assert_by_graph(explainer, compiled, target=0, kwargs={"a": b, "b": a})


@pytest.mark.parametrize("mapping", [dict, UserDict])
def test_mappings_in_another_order(mapping: Any) -> None:
    explainer = Explainer(lambda given: layer(given["a"] * 2 + given["b"].exp()), rules=Epsilon(1e-3))
    a, b = values(2, 4), values(2, 4, seed=1)
    compiled = explainer.compile(mapping(a=a, b=b), target=0)
    assert_by_graph(explainer, compiled, mapping(b=b, a=a), target=0, graphs=2)


def test_inputs_that_are_views() -> None:
    explainer = Explainer(lambda x: layer(x.mul_(2)), rules=Epsilon(1e-3))
    whole = values(10, 8)
    before = whole.clone()
    compiled = explainer.compile(whole[:2, :4], target=0)
    assert_by_graph(explainer, compiled, whole[2:4, 4:], target=0)
    assert_by_graph(explainer, compiled, whole[1:5:2, ::2], target=0, graphs=2)
    assert_by_graph(explainer, compiled, whole[3:5, 1:5].requires_grad_(), target=0)
    assert torch.equal(whole, before)  # in spite of the write


def test_a_model_that_looks_at_strides() -> None:
    explainer = Explainer(lambda x: layer(x * x.stride(0)), rules=Epsilon(1e-3))
    whole = values(8, 4)
    compiled = explainer.compile(whole[:2], target=0)
    for x in (whole[::4], values(4, 2).t(), values(2, 8)[:, 4:], whole[3:5]):
        assert_same(compiled(x, target=0), explainer(x, target=0))
    assert graphs_of(compiled) == 4


def test_masks_stay_as_they_are() -> None:
    def model(x: Tensor, mask: Tensor) -> Tensor:
        mask[:, 0] = 0
        return layer(x * mask)

    explainer = Explainer(model, rules=Epsilon(1e-3))
    compiled = explainer.compile(values(2, 4), torch.ones(2, 4, dtype=torch.int8), target=0)
    mask = torch.ones(2, 4, dtype=torch.int8)
    assert_by_graph(explainer, compiled, values(2, 4, seed=1), mask, target=0)
    assert bool(mask.all())


def test_the_type_of_new_tensors() -> None:
    explainer = Explainer(lambda x: layer(x * (torch.ones(4) / 3).double()), rules=Epsilon(1e-3))
    compiled = explainer.compile(values(2, 4), target=0)
    torch.set_default_dtype(torch.float64)
    try:
        assert_by_graph(explainer, compiled, values(2, 4), target=0, graphs=2)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("preset", ["epsilon-gamma-flat", "epsilon-alpha2-beta1", "attnlrp"])
def test_autocast(preset: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.GELU(), nn.Flatten(), nn.LayerNorm(48), nn.Linear(48, 4))
    explainer = Explainer(model.eval(), rules=preset)
    x, other = torch.rand(2, 2, 1, 6, 6)
    compiled = explainer.compile(x, target=0)
    assert compiled(other, target=0).output.dtype is torch.float32
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "ε = 1e-06 is below the resolution|the explained score is negative")
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", dtype=dtype):
                compiled(x, target=0)
                found, expected = compiled(other, target=1), explainer(other, target=1)
            assert found.output.dtype is dtype
            torch.testing.assert_close(found.output, expected.output, rtol=0, atol=0)
            torch.testing.assert_close(found.relevance, expected.relevance)
            torch.testing.assert_close(found.ledger.absorbed, expected.ledger.absorbed, rtol=1e-4, atol=1e-6)
    assert graphs_of(compiled) == 3
    assert_by_graph(explainer, compiled, other, target=1)


def test_the_type_of_autocast_within_the_model() -> None:
    first, last = nn.Linear(4, 6).eval(), nn.Linear(6, 3).eval()

    def model(x: Tensor) -> Tensor:
        with torch.autocast("cpu"):
            return last(first(x).relu()).float()

    explainer, x = Explainer(model, rules=Epsilon(1e-2)), torch.rand(2, 4)
    compiled = explainer.compile(x, target=0)
    before = torch.get_autocast_dtype("cpu")
    torch.set_autocast_dtype("cpu", torch.float16)
    try:
        assert torch.equal(compiled(x, target=0).output, model(x).detach())
    finally:
        torch.set_autocast_dtype("cpu", before)
    assert graphs_of(compiled) == 2


def test_modes_of_functions() -> None:
    class Gelu(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return F.gelu(args[0]) if func is F.relu else func(*args, **(kwargs or {}))

    explainer = Explainer(lambda x: layer(F.relu(x - 0.5)), rules=Epsilon(1e-3))
    compiled = explainer.compile(values(2, 4), target=0)
    with Gelu(), pytest.warns(UserWarning, match="without a graph: a TorchFunctionMode is active"):
        assert_same(compiled(values(2, 4), target=0), explainer(values(2, 4), target=0))
    with torch.device("cpu"):  # a mode as well, which is known
        assert_by_graph(explainer, compiled, values(2, 4), target=0)
    assert_by_graph(explainer, compiled, values(2, 4), target=0)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_without_gradients_around(around: Any) -> None:
    explainer = Explainer(nn.Linear(4, 3).double(), rules=Epsilon(1e-3))
    with around():
        compiled = explainer.compile(values(2, 4), target=0)
        assert_by_graph(explainer, compiled, values(2, 4, seed=1), target=1)
        found = compiled(values(2, 4), target=1)
    for tensor in (found.relevance, found.score, found.output, found.ledger.seed):
        assert not tensor.is_inference()
    assert_by_graph(explainer, compiled, values(2, 4, seed=2), target=1)


# ---- targets ----


def test_targets_that_name_classes() -> None:
    """The result has the target of the call."""
    explainer = Explainer(layer, rules=Epsilon(1e-3))
    compiled = explainer.compile(values(2, 4), target=relprop.targets.Difference(0, 1))
    assert_by_graph(explainer, compiled, values(2, 4, seed=1), target=relprop.targets.Difference(0, 1))
    for target in (None, relprop.targets.Difference(None, 1), relprop.targets.RunnerUp(1)):
        for seed in range(3):
            found, expected = (e(values(2, 4, seed=seed), target=target) for e in (compiled, explainer))
            assert str(found.target) == str(expected.target)
    assert graphs_of(compiled) == 4


def test_positions() -> None:
    at = relprop.targets.At
    model = nn.Sequential(nn.Embedding(9, 4), nn.Tanh(), nn.Linear(4, 9)).double()
    explainer = Explainer(model, rules="cp-lrp")
    compiled = explainer.compile(torch.tensor([[1, 2, 3], [4, 5, 6]]), target=at(-1))
    for ids in ([[3, 2, 1], [7, 8, 0]], [[0, 0, 8], [1, 1, 5]]):
        found, expected = (e(torch.tensor(ids), target=at(-1)) for e in (compiled, explainer))
        assert found.target == expected.target
        torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-10, atol=1e-12)
    assert graphs_of(compiled) == 1


def test_functions_are_known_by_what_they_compute() -> None:
    explainer = Explainer(layer, rules=Epsilon(1e-3))
    compiled = explainer.compile(values(2, 4), target=lambda y: y[:, 0] - y[:, 1])
    graphs = []
    for _ in range(3):  # each time another function, with the same code
        graphs.append(graphs_of(compiled))
        compiled(values(2, 4), target=lambda y: y[:, 2])
    assert graphs == [1, 2, 2]
    number = 0

    def chosen(output: Tensor) -> Tensor:
        return output[:, number]

    for each in (0, 1, 2, 0):
        number = each
        found, expected = (e(values(2, 4), target=chosen) for e in (compiled, explainer))
        torch.testing.assert_close(found.score, expected.score)


def test_a_variable_without_a_value() -> None:
    explainer = Explainer(layer, rules=Epsilon(1e-3))
    compiled = explainer.compile(values(2, 4), target=lambda y: y[:, 0] if len(y) == 2 else y[:, later])
    later = 1
    assert graphs_of(compiled) == later


# ---- warnings ----


def said(explain: Any, *args: Any, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explain(*args, **options)
    return sorted({str(w.message) for w in caught})


def test_warnings_are_repeated() -> None:
    """Those about rules, options and values outside of bounds."""
    x = values(2, 4)
    outside = x.clone()
    outside[0, 0] = 3
    for options in (
        {"rules": [("nothing.*", Epsilon(1.0)), ("*", Epsilon())]},
        {"rules": "epsilon", "accept": "sin"},
        {"rules": "deep-taylor", "bounds": (0, 1)},
    ):
        explainer = Explainer(layer, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = explainer.compile(x, target=0)
        for _ in range(2):
            expected = said(explainer, outside, target=0)
            assert expected
            assert said(compiled, outside, target=0) == expected


# ---- copies ----


@pytest.mark.parametrize("copied", [copy, deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_copies(copied: Any) -> None:
    explainer = Explainer(layer, rules="epsilon")
    other = copied(explainer.compile(values(2, 4), target=0))
    assert_same(other(values(2, 4), target=1), explainer(values(2, 4), target=1))


# ---- traces ----


def test_an_operand_that_is_written_to_is_read_again() -> None:
    def function(x: Tensor) -> list[Tensor]:
        h = x * 1
        before = h + 1
        h.mul_(2)
        return [before, h + 1]

    traced, _ = trace(function, [values(3)])
    (before, after), _ = traced.graph(values(3, seed=1))
    torch.testing.assert_close(before, values(3, seed=1) + 1)
    torch.testing.assert_close(after, values(3, seed=1) * 2 + 1)
