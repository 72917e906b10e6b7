"""Recurrent layers are explained as their cells, as networks written out, and as the formulas say."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
import relprop.operations.recurrent as recurrent
from networks import DOUBLE
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, ZPlus

SAMPLES, STEPS, INPUTS, WIDTH = 2, 5, 6, 8
KINDS: dict[type[nn.RNNBase], type[nn.RNNCellBase]] = {
    nn.LSTM: nn.LSTMCell,
    nn.GRU: nn.GRUCell,
    nn.RNN: nn.RNNCell,
}
RULES: list[Any] = [
    *("epsilon", "epsilon-plus", "epsilon-gamma-flat", "attnlrp", "cp-lrp"),
    *(Epsilon(0.1), Gamma(0.25), AlphaBeta(2, 1), ZPlus(), Flat()),
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
each_rule = pytest.mark.parametrize("rules", RULES, ids=str)
Function = Callable[..., Tensor]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, **DOUBLE, generator=torch.Generator().manual_seed(seed))


X = drawn(SAMPLES, STEPS, INPUTS)


def layer(kind: type[nn.RNNBase], **settings: Any) -> Any:
    torch.manual_seed(1)
    return kind(INPUTS, WIDTH, batch_first=True, **settings).double().eval().requires_grad_(False)


def head(width: int) -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(width, 3).double().requires_grad_(False)


def alike(function: Function, other: Function, *inputs: Tensor, rules: Any) -> relprop.Explanation:
    """Assert that two functions have the same relevance, by ledgers that balance."""
    e, expected = (relprop.explain(f, *inputs, target=[0, 1], rules=rules) for f in (function, other))
    for name, R in e.inputs.items():
        largest = expected.inputs[name].abs().max()
        torch.testing.assert_close(R, expected.inputs[name], rtol=0, atol=1e-10 * float(largest))
        assert largest > 0
    assert e.ledger.gap.max() < 1e-10
    return e


# ---- layers, cells, written out ----


def of_cells(kind: type[nn.RNNBase], whole: Any, x: Tensor) -> Tensor:
    cell: Any = KINDS[kind](INPUTS, WIDTH).double().requires_grad_(False)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell, name).data = getattr(whole, f"{name}_l0")
    state = None
    for t in range(STEPS):
        state = cell(x[:, t], state)
    return head(WIDTH)(state[0] if kind is nn.LSTM else state)


def written_out(kind: type[nn.RNNBase], whole: Any, x: Tensor, *, at_once: bool) -> Tensor:
    w, u, b, d = whole._flat_weights
    h = c = torch.zeros(len(x), WIDTH, **DOUBLE)
    all_steps = F.linear(x, w, b)
    for t in range(STEPS):
        of_x = all_steps[:, t] if at_once else F.linear(x[:, t], w, b)
        of_h = F.linear(h, u, d)
        if kind is nn.LSTM:
            i, f, g, o = (of_x + of_h).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        elif kind is nn.GRU:
            x_r, x_z, x_n, h_r, h_z, h_n = *of_x.chunk(3, 1), *of_h.chunk(3, 1)
            r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
            h = z * h + (1 - z) * (x_n + r * h_n).tanh()
        else:
            h = (of_x + of_h).tanh()
    return head(WIDTH)(h)


@each_rule
@each_kind
def test_a_layer_is_its_cells_and_a_network_that_is_written_out(kind: Any, rules: Any) -> None:
    whole = layer(kind)

    def fused(x: Tensor) -> Tensor:
        return head(WIDTH)(whole(x)[0][:, -1])

    for other in (
        partial(of_cells, kind, whole),
        partial(written_out, kind, whole, at_once=True),
        partial(written_out, kind, whole, at_once=False),
    ):
        alike(fused, other, X, rules=rules)


SETTINGS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "without bias": {"bias": False},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
    "three layers, dropout": {"num_layers": 3, "dropout": 0.5},
    "relu": {"nonlinearity": "relu"},
    "projections": {"proj_size": 3},
}
CASES = [
    (kind, name)
    for kind in KINDS
    for name in SETTINGS
    if (name != "relu" or kind is nn.RNN) and (name != "projections" or kind is nn.LSTM)
]
each_case = pytest.mark.parametrize(("kind", "name"), CASES, ids=lambda v: getattr(v, "__name__", v))


def with_states(whole: Any, x: Tensor, *states: Tensor) -> Tensor:
    """A function of all results of a layer; its states come with the samples first."""
    first = tuple(t.transpose(0, 1).contiguous() for t in states)
    output, last = whole(x, None if not first else first if len(first) == 2 else first[0])
    every = last if isinstance(last, tuple) else (last,)
    scores = head(output.shape[-1])(output[:, -1]) + head(output.shape[-1])(output[:, 1])
    return scores + sum(t.cumsum(2).sum((0, 2))[:, None] for t in every)


def states_for(whole: Any) -> tuple[Tensor, ...]:
    layers = whole.num_layers * (2 if whole.bidirectional else 1)
    h = drawn(SAMPLES, layers, whole.proj_size or WIDTH, seed=3)
    return (h, drawn(SAMPLES, layers, WIDTH, seed=4)) if isinstance(whole, nn.LSTM) else (h,)


@pytest.mark.parametrize("rules", [r for r in RULES if r not in ("attnlrp", Flat())], ids=str)
@pytest.mark.parametrize("given", [False, True], ids=["states of zeros", "states as inputs"])
@each_case
def test_steps_are_crossed_as_their_parts_are(
    kind: Any, name: str, given: bool, rules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer is decomposed into operations that have entries of their own: another way to the same."""
    whole = layer(kind, **SETTINGS[name])
    inputs = (X, *states_for(whole)) if given else (X,)
    e = relprop.explain(partial(with_states, whole), *inputs, target=[0, 1], rules=rules)
    monkeypatch.setattr(recurrent, "_by_default", lambda *_: False)
    parts = relprop.explain(partial(with_states, whole), *inputs, target=[0, 1], rules=rules)
    for of_input, R in e.inputs.items():
        expected = parts.inputs[of_input]
        torch.testing.assert_close(R, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))
    for sink, amount in parts.ledger.absorbed.items():
        torch.testing.assert_close(e.ledger.absorbed[sink], amount, rtol=1e-9, atol=1e-9)
    assert e.ledger.gap.max() < 1e-10
    assert not e.ledger.mixed


@each_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_output_is_torchs_to_the_last_bit(kind: Any, dtype: torch.dtype) -> None:
    whole = layer(kind, num_layers=2, bidirectional=True).to(dtype)
    model = nn.ModuleDict({"layer": whole})

    def forward(x: Tensor) -> Tensor:
        return model["layer"](x)[0].flatten(1)

    e = relprop.explain(forward, X.to(dtype), target=3, rules="epsilon")
    with torch.no_grad():
        assert torch.equal(e.output, forward(X.to(dtype)))


def test_a_state_that_is_a_constant_is_in_the_ledger() -> None:
    whole = layer(nn.LSTM)
    h, c = (t.transpose(0, 1) for t in states_for(whole))
    e = relprop.explain(lambda x: whole(x, (h, c))[0][:, -1], X, target=1, rules="cp-lrp")
    as_inputs = relprop.explain(
        lambda x, h, c: whole(x, (h.transpose(0, 1), c.transpose(0, 1)))[0][:, -1],
        X,
        h.transpose(0, 1),
        c.transpose(0, 1),
        target=1,
        rules="cp-lrp",
    )
    expected = sum(as_inputs.inputs[name].sum((1, 2)) for name in ("h", "c"))
    torch.testing.assert_close(e.ledger.absorbed["constant"], expected)
    torch.testing.assert_close(e.relevance, as_inputs.inputs["x"])


# ---- formulas ----


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def by_epsilon(x: Any, weight: Any, z: Any, R: Any, epsilon: float) -> Any:
    """R_i = Σ_j x_i w_ji R_j / (z_j ± ε), with the bias in z."""
    return x * (weight.T @ (R / (z + np.where(z < 0, -epsilon, epsilon))))


def of_lstm(whole: Any, x: Any, R: Any, epsilon: float) -> Any:
    """Arras et al. 2017 on one sample, (steps, inputs), where R is relevance of the last h."""
    w, u, b, d = (t.numpy() for t in whole._flat_weights)
    own = slice(2 * WIDTH, 3 * WIDTH)
    h, c, made = np.zeros(WIDTH), np.zeros(WIDTH), []
    for x_t in x:
        of_x, of_h = w @ x_t + b, u @ h + d
        i, f, g, o = np.split(of_x + of_h, 4)
        new = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        made.append((h, c, new, sigmoid(i) * np.tanh(g), sigmoid(f), of_x[own], of_h[own]))
        h, c = sigmoid(o) * np.tanh(new), new
    relevance, R_c = np.zeros_like(x), np.zeros(WIDTH)
    for t in reversed(range(len(x))):
        before, c, new, candidate, f, of_x, of_h = made[t]
        R_c = R_c + R  # the gate o gets nothing, and tanh passes all
        R_g = R_c * candidate / new
        R_c = R_c * f * c / new
        a = of_x + of_h
        relevance[t] = by_epsilon(x[t], w[own], of_x, R_g * of_x / a, epsilon)
        R = by_epsilon(before, u[own], of_h, R_g * of_h / a, epsilon)
    return relevance


def of_gru(whole: Any, x: Any, R: Any, epsilon: float) -> Any:
    """The same for a GRU: h = z·h + (1 - z)·n, n = tanh(a_x + r·a_h)."""
    w, u, b, d = (t.numpy() for t in whole._flat_weights)
    own = slice(2 * WIDTH, 3 * WIDTH)
    h, made = np.zeros(WIDTH), []
    for x_t in x:
        of_x, of_h = w @ x_t + b, u @ h + d
        r, z = (sigmoid(of_x[at] + of_h[at]) for at in (slice(WIDTH), slice(WIDTH, 2 * WIDTH)))
        n = np.tanh(of_x[own] + r * of_h[own])
        new = z * h + (1 - z) * n
        made.append((h, new, z * h, (1 - z) * n, of_x[own], r * of_h[own], of_h[own]))
        h = new
    relevance = np.zeros_like(x)
    for t in reversed(range(len(x))):
        before, new, kept, candidate, of_x, gated, of_h = made[t]
        R_n = R * candidate / new
        a = of_x + gated
        relevance[t] = by_epsilon(x[t], w[own], of_x, R_n * of_x / a, epsilon)
        R = R * kept / new + by_epsilon(before, u[own], of_h, R_n * gated / a, epsilon)
    return relevance


def of_rnn(whole: Any, x: Any, R: Any, epsilon: float) -> Any:
    w, u, b, d = (t.numpy() for t in whole._flat_weights)
    h, made = np.zeros(WIDTH), []
    for x_t in x:
        of_x, of_h = w @ x_t + b, u @ h + d
        made.append((h, of_x, of_h))
        h = np.tanh(of_x + of_h)
    relevance = np.zeros_like(x)
    for t in reversed(range(len(x))):
        before, of_x, of_h = made[t]
        relevance[t] = by_epsilon(x[t], w, of_x, R * of_x / (of_x + of_h), epsilon)
        R = by_epsilon(before, u, of_h, R * of_h / (of_x + of_h), epsilon)
    return relevance


@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 0.1])
@pytest.mark.parametrize(
    ("kind", "formulas"), [(nn.LSTM, of_lstm), (nn.GRU, of_gru), (nn.RNN, of_rnn)], ids=["LSTM", "GRU", "RNN"]
)
def test_it_is_what_the_formulas_say(kind: Any, formulas: Any, epsilon: float) -> None:
    whole = layer(kind)
    e = relprop.explain(lambda x: whole(x)[0][:, -1], X, target=3, rules=Epsilon(epsilon))
    for sample in range(SAMPLES):
        with torch.no_grad():
            last = whole(X)[0][sample, -1].numpy()
        R = np.where(np.arange(WIDTH) == 3, last, 0.0)
        expected = formulas(whole, X[sample].numpy(), R, epsilon)
        np.testing.assert_allclose(e.relevance[sample].numpy(), expected, rtol=0, atol=1e-12)


# ---- sequences of several lengths ----

LENGTHS = torch.tensor([3, 5, 1])
SEQUENCES = drawn(3, STEPS, INPUTS, seed=5)


@each_rule
@each_case
def test_packed_sequences_are_explained_as_each_alone(kind: Any, name: str, rules: Any) -> None:
    if name == "relu" and rules == Flat():
        pytest.skip("of a sum that is 0, Flat gives each term as much, also those of the padding")
    whole = layer(kind, **SETTINGS[name])

    def packed(x: Tensor) -> Tensor:
        rows = nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
        output, last = whole(rows)
        output, lengths = nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
        assert torch.equal(lengths, LENGTHS)
        return head(output.shape[-1])(output.sum(1)) + sum_of(last)

    def sum_of(last: Any) -> Tensor:
        every = last if isinstance(last, tuple) else (last,)
        return torch.stack([t.cumsum(2).sum((0, 2)) for t in every]).sum(0)[:, None]

    def alone(x: Tensor) -> Tensor:
        output, last = whole(x)
        return head(output.shape[-1])(output.sum(1)) + sum_of(last)

    e = relprop.explain(packed, SEQUENCES, target=[0, 1, 2], rules=rules)
    assert e.ledger.gap.max() < 1e-10
    for i, length in enumerate(LENGTHS.tolist()):
        expected = relprop.explain(alone, SEQUENCES[i : i + 1, :length], target=[i], rules=rules).relevance
        largest = float(expected.abs().max())
        torch.testing.assert_close(e.relevance[i, :length], expected[0], rtol=0, atol=1e-9 * largest)
        assert not e.relevance[i, length:].any()


# ---- what is asked beside ----


def test_relevance_of_weights_and_of_their_parts_agree() -> None:
    whole = layer(nn.LSTM)
    names = ["weight_ih_l0", "weight_hh_l0"]

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = whole

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.layer(x)[0][:, -1]
            return output

    e = relprop.explain(
        Last().eval(), X, target=1, rules="epsilon", parameters=[f"layer.{name}" for name in names]
    )
    plain = relprop.explain(Last().eval(), X, target=1, rules="epsilon")
    torch.testing.assert_close(e.relevance, plain.relevance, rtol=0, atol=1e-12)
    assert all(bool(e.parameters[f"layer.{name}"].any()) for name in names)


SHARES = [relprop.rules.Uniform(), relprop.rules.Proportional(), relprop.rules.Proportional(absolute=True)]


@each_kind
@pytest.mark.parametrize("rule", SHARES, ids=str)
def test_shares_of_gates_are_options(rule: Any, kind: Any) -> None:
    whole = layer(kind)
    for other in (partial(of_cells, kind, whole), partial(written_out, kind, whole, at_once=False)):
        alike(
            lambda x: head(WIDTH)(whole(x)[0][:, -1]),
            other,
            X,
            rules=[("*", rule), ("*", Epsilon(1e-3))],
        )


def test_several_targets_share_one_run() -> None:
    whole = layer(nn.GRU, bidirectional=True)
    targets = [0, 1, [2, 0]]
    both = relprop.explain_each(lambda x: whole(x)[0][:, 1], X, targets=targets, rules="epsilon")
    for target, e in zip(targets, both, strict=True):
        alone = relprop.explain(lambda x: whole(x)[0][:, 1], X, target=target, rules="epsilon")
        torch.testing.assert_close(e.relevance, alone.relevance, rtol=0, atol=0)


def test_a_layer_is_a_few_calls_however_many_steps() -> None:
    """Of the model's calls, each of which takes time in Python."""
    counted = {}
    for steps in (4, 40):
        whole = layer(nn.LSTM)
        covered = relprop.coverage(
            lambda x, w=whole: w(x)[0][:, -1], drawn(2, steps, INPUTS), rules="epsilon"
        )
        counted[steps] = len(covered.crossings)
    assert counted[4] == counted[40] < 12


def test_rules_are_told_once_each_in_the_coverage() -> None:
    whole = layer(nn.LSTM)
    covered = relprop.coverage(lambda x: whole(x)[0][:, -1], X, rules="epsilon")
    (how,) = [c.how for c in covered.crossings if c.operation == "lstm"]
    assert how == "Epsilon(epsilon=1e-06)"
