"""explain(..., checkpoint=...) of models that change what their layers get, fail, or run under autocast."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from bit_by_bit import same
from leftovers import everything_about
from relprop import Composite
from relprop.errors import ModelError
from relprop.rules import Epsilon, Gamma
from small_transformers import drawn

N, T, D = 2, 5, 8
RULES: list[Any] = ["attnlrp", "cp-lrp", "epsilon", Gamma(0.25)]
each_rule = pytest.mark.parametrize("rules", RULES, ids=str)


class Scaled(nn.Module):
    """A layer that a constant takes part in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, D)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        h = self.layer(x)
        return x + h * h.sigmoid() * scale


class Overwriting(nn.Module):
    """One tensor tells each layer its number."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Scaled() for _ in range(3))
        self.head = nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.new_zeros(D)
        for number, layer in enumerate(self.layers):
            scale.fill_(1 + number)
            x = layer(x, scale)
        return self.head(x)


@each_rule
def test_a_constant_that_is_overwritten_between_layers(rules: Any) -> None:
    model, x = drawn(Overwriting()), torch.randn(N, D).double()
    e = relprop.explain(model, x, target=1, rules=rules)
    assert e.ledger.gap.max() < 1e-10
    same(e, relprop.explain(model, x, target=1, rules=rules, checkpoint="layers.*"))


class Streaming(nn.Module):
    """One layer whose weights are loaded for each of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.weights = nn.Sequential(nn.Linear(D, D), nn.Tanh()), nn.Buffer(torch.randn(3, D, D))

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            with torch.no_grad():
                self.layer[0].weight.copy_(weight)
            x = self.layer(x)
        return x


class Buffered(nn.Module):
    """Gives its layers what it wrote to a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Sequential(nn.Linear(D, D, bias=False), nn.Tanh()), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        buffer = torch.zeros(len(x), D, dtype=x.dtype)
        buffer[:, : D - 1] = x[:, : D - 1]
        scores: Tensor = self.last(self.layer(buffer))
        return scores


@each_rule
@pytest.mark.parametrize("blocks", [["layer"], ["layer.0"], ["layer.1"]])
def test_a_buffer_that_relevant_values_were_written_to(rules: Any, blocks: list[str]) -> None:
    model, x = Buffered().double().eval(), torch.randn(N, D, dtype=torch.float64)
    expected = relprop.explain(model, x, target=1, rules=rules)
    found = relprop.explain(model, x, target=1, rules=rules, checkpoint=blocks)
    assert torch.equal(found.relevance, expected.relevance)


def test_weights_that_are_overwritten_are_refused_by_name() -> None:
    model, x = drawn(Streaming()), torch.rand(N, D).double()
    message = r"'0\.weight' of Sequential, a module of checkpoint=.*, was overwritten after the.*Leave it out"
    with pytest.raises(ModelError, match=message):
        relprop.explain(model, x, target=1, rules="epsilon", checkpoint="layer")


class Failing(nn.Module):
    """Gives up after a part of its work."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x).tanh()
        if h.shape[-1] == D:
            raise ValueError("too wide")
        return h


class Trying(nn.Module):
    """Does without a layer that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = Failing(), Scaled(), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        try:
            x = self.first(x)
        except ValueError:
            x = x.sigmoid()
        return self.head(self.second(x, torch.ones(D).double()))


@each_rule
@pytest.mark.parametrize("blocks", ["first", ["first", "second"]], ids=str)
def test_a_module_that_fails_where_the_model_goes_on(blocks: Any, rules: Any) -> None:
    model, x = drawn(Trying()), torch.randn(N, D).double()
    before = list(everything_about(model))
    e = relprop.explain(model, x, target=1, rules=rules)
    same(e, relprop.explain(model, x, target=1, rules=rules, checkpoint=blocks))
    assert list(everything_about(model)) == before


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(D), nn.Linear(D, 3 * D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return x + self.out(
            F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        )


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(Attending() for _ in range(2)), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            for layer in self.layers:
                x = layer(x)
        return self.head(x.float()[:, -1])


@pytest.mark.filterwarnings("ignore:the books do not close")
@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp", "epsilon"])
def test_autocast_within_the_model(rules: str) -> None:
    model, x = drawn(Autocast(), torch.float32), torch.randn(N, T, D)
    assert model.layers[0].qkv.weight.dtype == torch.float32
    e = relprop.explain(model, x, target=1, rules=rules)
    same(e, relprop.explain(model, x, target=1, rules=rules, checkpoint="layers.*"))
    assert not torch.is_autocast_enabled("cpu")


@each_rule
def test_modules_of_a_function(rules: Any) -> None:
    model, x = drawn(Overwriting()), torch.randn(N, D).double()
    e = relprop.explain(lambda x: model(x), x, target=1, rules=rules)
    for blocks in (model.layers, [model.layers[0], model.layers[2]], model.layers[1]):
        same(e, relprop.explain(lambda x: model(x), x, target=1, rules=rules, checkpoint=blocks))


# ---- what a run kept is free when it ends ----


def without_collection(function: Callable[[], None]) -> None:
    gc.collect()
    gc.disable()
    try:
        function()
    finally:
        gc.enable()


@pytest.mark.parametrize("checkpoint", [(), "layers.*"], ids=["without", "checkpointed"])
@each_rule
def test_a_run_is_free_as_soon_as_it_ends(rules: Any, checkpoint: Any) -> None:
    model, x = drawn(Overwriting()), torch.randn(N, D).double()
    inner: list[weakref.ref[Any]] = []
    handle = model.head.register_forward_pre_hook(
        lambda _module, given: inner.append(weakref.ref(given[0].untyped_storage()))
    )
    runs: list[weakref.ref[Any]] = []
    chosen = rules if isinstance(rules, (str, Composite)) else Composite([("*", rules)])

    def noting(output: Tensor) -> Tensor:
        from relprop.engine.active import active_runs

        runs.extend(weakref.ref(run) for run in active_runs.stack)
        return output[:, 1]

    def run() -> None:
        e = relprop.explain(model, x, target=noting, rules=chosen, checkpoint=checkpoint)
        assert e.relevance.shape == x.shape
        assert len(runs) == len(inner) == 1
        assert runs[0]() is None
        assert inner[0]() is None

    without_collection(run)
    handle.remove()


@pytest.mark.parametrize("checkpoint", [(), "layers.*"], ids=["without", "checkpointed"])
def test_no_tensor_is_left_of_a_call(checkpoint: Any) -> None:
    model, x = drawn(Overwriting()), torch.randn(N, D).double()

    def tensors() -> int:
        return sum(issubclass(type(each), Tensor) for each in gc.get_objects())

    def run() -> None:
        counts = []
        for _ in range(4):
            relprop.explain(model, x, target=1, rules=Epsilon(), checkpoint=checkpoint)
            counts.append(tensors())
        assert counts[1:] == [counts[1]] * 3

    without_collection(run)
