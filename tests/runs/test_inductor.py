"""`mode="inductor"`: what `torch.compile` gives is compared, and a graph is replayed if it is not right.

What it makes of networks is compared by `make compiled`; here other functions stand for it.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from by_graph import Small, assert_same, graphs_of, pictures
from networks import DOUBLE
from readers import Reader, texts
from relprop import Explainer
from relprop.rules import Gamma
from relprop.runs.inductor import _hardshrink_backward, _multiplied, _writing_apart, compilable
from relprop.runs.tracing import trace

aten = torch.ops.aten

Run = Callable[..., Any]


class Compiler:
    """Stands for `torch.compile`: it lets a function run within another one.

    Attributes:
        called: how often what it has made was called.
        dynamic: for each function whether it serves inputs of any size.
    """

    def __init__(self, within: Callable[[Run, tuple[Tensor, ...]], Any]) -> None:
        self.within = within
        self.called = 0
        self.dynamic: list[bool] = []

    def __call__(self, function: Run, **options: Any) -> Run:
        self.dynamic.append(options.pop("dynamic"))
        assert options == {
            "fullgraph": True,
            "options": {"layout_optimization": False, "post_grad_custom_post_pass": _writing_apart()},
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


def without_compiler(function: Run, **options: Any) -> Run:
    raise RuntimeError("torch.compile is not supported on Python 3.15+")


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


def test_torch_that_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", without_compiler)
    with pytest.warns(UserWarning, match="torch.compile fails with RuntimeError: torch.compile is not supp"):
        compiled = Explainer(Small(), rules="epsilon").compile(pictures(), target=0, mode="inductor")
    assert graphs_of(compiled) == 1


def test_a_mask_that_looks_otherwise_when_shaken_excuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_by(monkeypatch, of_other_values)
    layer = nn.Linear(3, 2).double()
    explainer = Explainer(lambda x, mask: layer(x * (mask >= 1.0)), rules="epsilon")
    with pytest.warns(UserWarning, match="gives another relevance of input 'x'"):
        explainer.compile(torch.rand(2, 3, **DOUBLE), torch.ones(2, 3, **DOUBLE), target=0, mode="inductor")


def test_values_that_do_not_suit_when_shaken(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_by(monkeypatch, of_other_values)

    def model(x: Tensor) -> Tensor:
        if bool(x.max() < 0.9):
            raise ValueError("too dark")
        return x * 2

    with pytest.warns(UserWarning, match="gives another relevance of input 'x'"):
        Explainer(model, rules="epsilon").compile(
            torch.full((2, 3), 0.9, **DOUBLE), target=0, mode="inductor"
        )


def test_a_compiled_graph_sees_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = []

    def noting(function: Run, inputs: tuple[Tensor, ...]) -> Any:
        needed.extend(t.requires_grad for t in inputs)
        return function(*inputs)

    compile_by(monkeypatch, noting)
    compiled = Explainer(Small(), rules="epsilon").compile(pictures(), target=0, mode="inductor")
    compiled(pictures().requires_grad_(), target=1)
    assert len(needed) == 4
    assert not any(needed)


def test_a_network_that_carries_rounding_far_may_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = compile_by(monkeypatch, of_rounded_values)
    x = torch.rand(2, 3) + 0.5
    explainer = Explainer(lambda x: (x * 1e4).sin(), rules="gradient-times-input")
    rounded = explainer(x * (1 + torch.finfo(x.dtype).eps), target=0).relevance
    expected = explainer(x, target=0).relevance
    assert float((rounded - expected).abs().max()) > 1e-3 * float(expected.abs().max())
    compiled = explainer.compile(x, target=0, mode="inductor")
    assert (graphs_of(compiled), compiler.called) == (1, 1)


def test_a_graph_for_all_lengths_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, explainer = compile_by(monkeypatch, right), Explainer(Reader(), rules="cp-lrp")
    compiled = explainer.compile(mode="inductor", dynamic=True)
    for length in (6, 7, 9, 4):
        compiled(texts(length), target=1)
    assert (compiler.dynamic, compiler.called) == ([False] * 4 + [True], 5)
    for length in (7, 12, 12):
        assert_same(compiled(texts(length), target=1), explainer(texts(length), target=1))
    assert (compiler.dynamic, compiler.called) == ([False] * 4 + [True], 8)


def test_a_compiled_graph_that_fails_for_another_length(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing_at_12(function: Run, inputs: tuple[Tensor, ...]) -> Any:
        if inputs[0].shape[1] == 12:
            raise ValueError("recompile_limit reached")
        return function(*inputs)

    compile_by(monkeypatch, failing_at_12)
    explainer = Explainer(Reader(), rules="cp-lrp")
    compiled = explainer.compile(mode="inductor", dynamic=True)
    for length in (6, 7, 9, 4, 11):
        compiled(texts(length), target=1)
    with pytest.warns(UserWarning, match="torch.compile fails with ValueError: recompile_limit reached"):
        found = compiled(texts(12), target=1)
    assert_same(found, explainer(texts(12), target=1))
    assert_same(compiled(texts(12, 1), target=1), explainer(texts(12, 1), target=1))


def test_a_graph_for_all_lengths_that_is_not_compiled_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(Reader(), rules="cp-lrp")
    compiled = explainer.compile(mode="inductor", dynamic=True)
    compile_by(monkeypatch, right)
    for length in (6, 7, 9):
        compiled(texts(length), target=1)
    compile_by(monkeypatch, failing)
    with pytest.warns(UserWarning, match="torch.compile fails with RuntimeError: No working C"):
        compiled(texts(4), target=1)
    for length in (7, 4, 12):
        assert_same(compiled(texts(length), target=1), explainer(texts(length), target=1))


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
    assert found.count(_multiplied) == 3
    assert found.count(aten.add.Tensor) == 2


def test_factors_are_multiplied_in_the_dtype_of_the_sum() -> None:
    x, y = torch.randn(3, **DOUBLE), torch.full((3,), 6e4, dtype=torch.float16)
    targets_of(lambda x, y: [torch.add(x, y, alpha=0.3), torch.sub(x, y, alpha=2)], x, y)


def test_small_values_are_zeroed_by_what_is_fused() -> None:
    values = torch.tensor([0.0, 0.5, -0.5, 0.6, -0.6, 1e9, torch.nan], **DOUBLE)
    gradient = torch.arange(1.0, 8, **DOUBLE)
    for most in (0.5, 0.0):
        found = targets_of(lambda g, v, most=most: [aten.hardshrink_backward(g, v, most)], gradient, values)
        assert found == [_hardshrink_backward]


def passed(function: Callable[..., Tensor], *inputs: Tensor) -> list[tuple[Any, bool]]:
    """Return what a graph calls after the pass, and whether torch's kernels do it; it gives the same."""
    module = make_fx(function)(*inputs)
    expected = module(*inputs)
    _writing_apart()(module.graph)
    module.recompile()
    torch.testing.assert_close(module(*inputs), expected, rtol=0, atol=0)
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    return [(node.target, "should_fallback" in node.meta) for node in nodes]


def test_what_writes_to_elements_is_left_to_torch() -> None:
    x, index = torch.randn(3, 4, **DOUBLE), torch.tensor([[0, 2, 0, 1], [1, 1, 2, 0], [2, 0, 1, 2]])
    assert passed(lambda x, i: x.scatter(0, i, x.sin()), x, index) == [
        (aten.sin.default, False),
        (aten.scatter.src, True),
    ]
    added, reduced = (
        passed(lambda x, i: x.scatter_add(0, i, x), x, index),
        passed(lambda x, i: x.scatter_reduce(0, i, x, "amax"), x, index),
    )
    assert added == [(aten.scatter_add.default, True)]
    assert reduced == [(aten.scatter_reduce.two, True)]


@pytest.mark.parametrize("put", [torch.index_put, aten._unsafe_index_put])
def test_elements_are_written_out_of_place(put: Callable[..., Tensor]) -> None:
    x, index = torch.randn(3, 4, **DOUBLE), torch.tensor([0, 2, 0])
    found = passed(lambda x, i: put(x, (i,), x.sin(), accumulate=True), x, index)
    assert found == [(aten.sin.default, False), (aten._index_put_impl.default, True)]


def test_inductor_knows_the_pass_by_its_file() -> None:
    assert _writing_apart().uuid() == _writing_apart().uuid()
    assert _writing_apart() is _writing_apart()
