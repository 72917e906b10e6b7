"""Whole transformers against the replica: relevance and books, the price of it, and a test of the tests."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

import attention_replica
import relprop
from attention_replica import Method, Replica
from counting import flops
from networks import close
from relprop import Composite
from relprop.rules import Epsilon, SignalTakesAll, Uniform
from small_transformers import Transformer, drawn

TOKENS, LABEL = 6, 3
METHODS: list[Method] = ["attnlrp", "cp-lrp"]


def embedded(samples: int = 2, size: int = 16) -> Tensor:
    return torch.randn(samples, TOKENS, size, dtype=torch.float64)


def explained(model: nn.Module, x: Tensor, rules: Any) -> relprop.Explanation:
    return relprop.explain(model, inputs_embeds=x, target=relprop.targets.At(-1, LABEL), rules=rules)


def closes(e: relprop.Explanation) -> float:
    """How well the books close, in parts of all relevance: a score may be small by chance."""
    amounts = e.relevance.abs().flatten(1).sum(1)
    return float(((e.ledger.total - e.score).abs() / amounts).max())


def assert_replicated(model: nn.Module, x: Tensor, rules: Any, methods: Sequence[Method]) -> None:
    """Relevance agrees to 1e-10 of the largest, and each line of the books to 1e-10 of the score's parts."""
    e = explained(model, x, rules)
    torch.testing.assert_close(e.output, model(inputs_embeds=x), rtol=1e-12, atol=1e-12)
    assert not e.ledger.mixed
    assert closes(e) < 1e-12
    for sample in range(len(x)):
        replica = Replica(model, methods)
        R = replica(x[sample], TOKENS - 1, LABEL)
        close(e.relevance[sample], R)
        books = {sink: float(amounts[sample]) for sink, amounts in e.ledger.absorbed.items()}
        for sink in {*books, *replica.books}:
            expected = replica.books.get(sink, 0.0)
            assert books.get(sink, 0.0) == pytest.approx(expected, rel=1e-10, abs=1e-10), sink


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_a_transformer_is_as_the_formulas_say(
    norm: Any, bias: bool, gated: bool, causal: bool, method: Method
) -> None:
    positions = TOKENS + 3 if bias else None
    model = drawn(Transformer(norm=norm, bias=bias, gated=gated, causal=causal, positions=positions))
    assert_replicated(model, embedded(), method, [method] * 2)


def test_the_books_have_every_sink_of_the_formulas() -> None:
    e = explained(drawn(Transformer(gated=True)), embedded(), "attnlrp")
    told = {sink for sink, amounts in e.ledger.absorbed.items() if amounts.abs().min() > 1e-6}
    assert told == {"bias", "shift", "softmax", "parameters"}
    e = explained(drawn(Transformer(gated=True)), embedded(), "cp-lrp")
    assert not e.ledger.absorbed.get("softmax", torch.zeros(1)).any()


@pytest.mark.parametrize("gated", [True, False])
def test_each_layer_may_have_its_own_method(gated: bool) -> None:
    model, x = drawn(Transformer(gated=gated)), embedded()
    rules = Composite([("layers.0.*", SignalTakesAll(activations=True)), ("*", Uniform()), ("*", Epsilon(0))])
    assert_replicated(model, x, rules, ["cp-lrp", "attnlrp"])
    turned = Composite(
        [("layers.1.*", SignalTakesAll(activations=True)), ("*", Uniform()), ("*", Epsilon(0))]
    )
    assert_replicated(model, x, turned, ["attnlrp", "cp-lrp"])
    named = Composite(
        [
            (type(model.layers[0].attention), SignalTakesAll(activations=True)),
            ("*", Uniform()),
            ("*", Epsilon(0)),
        ]
    )
    e = explained(model, x, named)
    of_attention = [a.rule for a in e.rules if a.operation == "scaled_dot_product_attention"]
    assert of_attention == [SignalTakesAll(activations=True)] * 2
    assert [a.rule for a in e.rules if a.operation == "mul"] == [Uniform()] * 2 * gated


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_cp_lrp_conserves_the_score_where_there_are_no_biases(causal: bool, gated: bool) -> None:
    model = drawn(
        Transformer(norm=nn.RMSNorm, bias=False, positions=None, causal=causal, gated=gated, layers=3)
    )
    e = explained(model, embedded(4), "cp-lrp")
    scale = e.relevance.abs().flatten(1).sum(1)
    assert ((e.relevance.flatten(1).sum(1) - e.score).abs() / scale).max() < 1e-12
    assert all(amounts.abs().max() < 1e-12 for amounts in e.ledger.absorbed.values())
    lossy = explained(model, embedded(4), "attnlrp")
    assert lossy.ledger.absorbed["softmax"].abs().min() > 1e-6


def test_tokens_that_come_later_get_nothing() -> None:
    model, x = drawn(Transformer(causal=True)), embedded()
    e = relprop.explain(model, inputs_embeds=x, target=relprop.targets.At(2, LABEL), rules="attnlrp")
    assert (e.relevance[:, 3:] == 0).all()
    assert (e.relevance[:, :3] != 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_samples_do_not_influence_each_other(method: Method) -> None:
    model, x = drawn(Transformer(gated=True)), embedded(3)
    together = explained(model, x, method)
    for sample in range(3):
        alone = explained(model, x[sample : sample + 1], method)
        close(alone.relevance[0], together.relevance[sample])


# ---- a test of the tests ----

STEPS = ["linear", "layer_norm", "rms_norm", "softmax", "matmul", "weighted", "activation", "gated", "add"]


def a_bit_more(result: Any) -> Any:
    """0.1 % more than a step's result; of several, only the first."""
    return result * 1.001 if isinstance(result, Tensor) else (result[0] * 1.001, *result[1:])


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_wrong_by_a_thousandth_is_found(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method: Method = "cp-lrp" if step == "weighted" else "attnlrp"
    norm = nn.RMSNorm if step == "rms_norm" else nn.LayerNorm
    model, x = drawn(Transformer(norm=norm, gated=True)), embedded(1)
    assert_replicated(model, x, method, [method] * 2)
    right: Callable[..., Any] = getattr(attention_replica, step)
    monkeypatch.setattr(attention_replica, step, lambda *args: a_bit_more(right(*args)))
    with pytest.raises(AssertionError):
        assert_replicated(model, x, method, [method] * 2)


@pytest.mark.parametrize("sink", ["bias", "shift", "softmax", "parameters"])
def test_books_that_are_wrong_by_a_thousandth_are_found(sink: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = drawn(Transformer()), embedded(1)
    right = attention_replica.note

    def note(books: Any, name: str, amount: Tensor) -> None:
        right(books, name, amount * (1.001 if name == sink else 1))

    monkeypatch.setattr(attention_replica, "note", note)
    with pytest.raises(AssertionError, match=sink):
        assert_replicated(model, x, "attnlrp", ["attnlrp"] * 2)


# ---- the price ----


class Kernels(TorchDispatchMode):
    """Counts the calls of fused kernels of attention, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(function)] += "_attention" in str(function)
        return function(*args, **(kwargs or {}))


def kernels(function: Callable[[], Any]) -> Counter[str]:
    with Kernels() as counted:
        function()
    return +counted.calls


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_the_price_of_a_gradient(method: Method, gated: bool, causal: bool) -> None:
    """The counter sees products with weights and, in the kernel that is written out, those of attention.

    Fused kernels are counted call by call.
    """
    model = drawn(Transformer(64, gated=gated, causal=causal, words=40), torch.float32)
    x = torch.randn(2, 12, 64)

    def gradient() -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(model(inputs_embeds=leaf)[:, -1, LABEL].sum(), leaf)

    def explanation() -> None:
        explained(model, x, method)

    explanation()
    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
        with sdpa_kernel(backend):
            assert flops(explanation) <= 1.02 * flops(gradient)
            assert kernels(explanation) == kernels(gradient)
