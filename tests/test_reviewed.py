"""Complex weights, gates by any spelling, einsum of two constants, hidden rows, feed-forward layers."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close
from relprop import Composite, CoverageError, Epsilon, Gamma, SignalTakesAll
from small_transformers import drawn

N, T, D = 2, 5, 6

# ---- complex weights ----

COMPLEX = torch.randn(D, D, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))


def filtered(x: Tensor) -> Tensor:
    """A filter that learnt its frequencies' channels, as of a Fourier neural operator."""
    return torch.fft.irfft(torch.einsum("btf,fo->bto", torch.fft.rfft(x, dim=1), COMPLEX), n=T, dim=1)


def test_complex_weights_are_a_gap_with_a_remedy() -> None:
    x = torch.randn(N, T, D, **DOUBLE)
    message = r"einsum in module .* at .*test_reviewed\.py:\d+: .*complex(.|\n)*accept=\['einsum'\]"
    with pytest.raises(CoverageError, match=message):
        relprop.explain(lambda x: filtered(x).sum(1), x, target=1, rules="epsilon")


def test_accepted_complex_weights_are_the_plain_gradient() -> None:
    x = torch.randn(N, T, D, **DOUBLE).requires_grad_()
    e = relprop.explain(lambda x: filtered(x).sum(1), x, target=1, rules="epsilon", accept=["einsum"])
    (gradient,) = torch.autograd.grad(filtered(x).sum(1)[:, 1].sum(), x)
    close(e.relevance, (x * gradient).detach())
    assert e.ledger.gap.max() < 1e-12


JOINING: dict[str, Callable[[Tensor], Tensor]] = {
    "a bias": lambda z: z + COMPLEX[0],
    "cat": lambda z: torch.cat([z, COMPLEX[None].expand(N, -1, -1)], 1),
    "cat in front": lambda z: torch.cat([COMPLEX[None].expand(N, -1, -1), z], 1),
    "stack": lambda z: torch.stack([z, COMPLEX[:1].expand(z.shape)], 1),
}


@pytest.mark.parametrize("joining", JOINING)
@pytest.mark.parametrize("rules", ["epsilon", "attnlrp", Gamma(0.25)], ids=str)
def test_complex_constants_absorb_their_part(joining: str, rules: Any) -> None:
    def model(x: Tensor) -> Tensor:
        return torch.view_as_real(JOINING[joining](torch.fft.fft(x, dim=1))).flatten(1)

    x = torch.randn(N, T, D, **DOUBLE)
    for target in (0, 7, -1, -8):  # real and imaginary parts, at both ends
        e = relprop.explain(model, x, target=target % model(x).shape[1], rules=rules)
        whole = e.relevance.sum((1, 2)) + e.ledger.absorbed.get("constant", 0)
        close(whole, e.score)
        assert e.ledger.gap.max() < 1e-12


# ---- gates ----

ROOT = 0.7978845608028654
SPELLINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "FastGELU": (
        lambda x: 0.5 * x * (1.0 + torch.tanh(x * ROOT * (1.0 + 0.044715 * x * x))),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "gelu_new": (
        lambda x: 0.5 * x * (1.0 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x, 3.0)))),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "GELU by erf": (lambda x: x * 0.5 * (1.0 + torch.erf(x / 2**0.5)), F.gelu),
    "quick_gelu": (lambda x: x * torch.sigmoid(1.702 * x), lambda x: F.silu(1.702 * x) / 1.702),
    "x sigmoid": (lambda x: x * x.sigmoid(), F.silu),
    "x times 1 over 1 + exp": (lambda x: x * (1 + torch.exp(-x)).reciprocal(), F.silu),
    "clamp": (lambda x: x.clamp(min=0), F.relu),
    "clamp_min": (lambda x: torch.clamp_min(x, 0), F.relu),
    "relu": (lambda x: x.relu(), F.relu),
}


class Gated(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor], *, turned: bool = False) -> None:
        super().__init__()
        self.act, self.turned = act, turned
        self.gate, self.up, self.down = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.act(self.gate(x)), self.up(x)
        return self.down(up * gate if self.turned else gate * up)


@pytest.mark.parametrize("turned", [False, True], ids=["gate first", "gate last"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_a_gate_is_one_by_any_spelling(name: str, turned: bool) -> None:
    spelling, function = SPELLINGS[name]
    x = torch.randn(4, D, **DOUBLE)
    found = []
    for act in (spelling, function):
        torch.manual_seed(5)
        e = relprop.explain(drawn(Gated(act, turned=turned)), x, target=0, rules="cp-lrp")
        products = [a for a in e.rules if isinstance(a.rule, SignalTakesAll)]
        assert [a.operation for a in products] == ["mul"]
        assert e.ledger.gap.max() < 1e-12
        found.append(e.relevance)
    close(*found)
    # All of it came by the signal: with the gates fixed, the network is linear.
    torch.manual_seed(5)
    model = drawn(Gated(function))
    gate = function(model.gate(x)).detach()
    fixed = relprop.explain(lambda x: model.down(gate * model.up(x)), x, target=0, rules="cp-lrp")
    close(found[0], fixed.relevance)


# ---- einsum of several constants ----


@pytest.mark.parametrize("equation", ["bi,ij,jk->bk", "...i,ij,jk->...k", "ij,...i,jk->...k"])
def test_einsum_with_two_constants_is_two_layers(equation: str) -> None:
    one, other = torch.randn(D, 7, **DOUBLE), torch.randn(7, 3, **DOUBLE)
    x = torch.rand(N, D, **DOUBLE)

    def model(x: Tensor) -> Tensor:
        operands = (one, x, other) if equation.startswith("ij") else (x, one, other)
        return torch.einsum(equation, *operands)

    e = relprop.explain(model, x, target=1, rules=Gamma(0.25))
    assert [a.rule for a in e.rules] == [Gamma(0.25)] * 2
    close(e.relevance, relprop.explain(lambda x: (x @ one) @ other, x, target=1, rules=Gamma(0.25)).relevance)
    whole = relprop.explain(lambda x: x @ (one @ other), x, target=1, rules=Gamma(0.25)).relevance
    assert (e.relevance - whole).abs().max() > 1e-3
    assert e.ledger.gap.max() < 1e-12


# ---- rows that are hidden as a whole ----


class Pooled(nn.Module):
    """Attention written out, some of whose rows are hidden as a whole; all outputs count the same."""

    def __init__(self, hide: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.hide = hide
        self.q, self.k, self.v, self.head = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.zeros(T, T, dtype=torch.bool)
        hidden[:2] = True
        scores = self.hide(self.q(x) @ self.k(x).transpose(1, 2) / D**0.5, hidden)
        return self.head((scores.softmax(-1) @ self.v(x)).mean(1))


LOWEST = torch.finfo(torch.float32).min


@pytest.mark.parametrize("added", [False, True], ids=["masked_fill", "add"])
@pytest.mark.parametrize(
    ("low", "rules"),
    [(-1e4, "cp-lrp"), *((low, rules) for low in (-1e9, LOWEST) for rules in ("attnlrp", "cp-lrp"))],
)
def test_rows_that_are_hidden_as_a_whole(low: float, added: bool, rules: str) -> None:
    def hide(scores: Tensor, hidden: Tensor) -> Tensor:
        if added:
            return scores + torch.zeros(T, T).masked_fill(hidden, low)
        return scores.masked_fill(hidden, low)

    model, x = drawn(Pooled(hide), torch.float32), torch.randn(N, T, D)
    e = relprop.explain(model, x, target=1, rules=rules)
    assert e.relevance.isfinite().all()
    assert e.ledger.gap.max() < 1e-4
    assert all(amount.isfinite().all() for amount in e.ledger.absorbed.values())


# ---- feed-forward layers by name ----


class AttentionBlock(nn.Module):
    """Named after one of its two halves."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.ModuleDict({"proj": nn.Linear(D, D)})
        self.mlp = nn.Sequential(nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn["proj"](x)
        return x + self.mlp(x)


def named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def bert() -> nn.Module:
    attention = named(self=nn.Linear(D, D), output=named(dense=nn.Linear(D, D)))
    return named(
        attention=attention,
        intermediate=named(dense=nn.Linear(D, 2 * D)),
        output=named(dense=nn.Linear(2 * D, D)),
    )


PATHS: dict[str, tuple[Callable[[], nn.Module], set[str], set[str]]] = {
    "AttentionBlock": (
        lambda: named(block=AttentionBlock()),
        {"block.mlp.0", "block.mlp.2"},
        {"block.attn.proj"},
    ),
    "BERT": (
        lambda: named(layer=bert()),
        {"layer.intermediate.dense", "layer.output.dense"},
        {"layer.attention.self", "layer.attention.output.dense"},
    ),
}


@pytest.mark.parametrize("case", PATHS)
def test_feed_forward_layers_are_told_from_attention(case: str) -> None:
    make, feeding, others = PATHS[case]
    rules = Composite([(relprop.feed_forward, Gamma(0.05)), ("*", Epsilon())])
    e = relprop.explain(drawn(make()), torch.randn(N, D, **DOUBLE), target=1, rules=rules)
    assert {a.path for a in e.rules if a.rule == Gamma(0.05)} == feeding
    assert {a.path for a in e.rules if a.rule == Epsilon()} == others
