"""Networks with states that decay: gates, decays, keys and queries are constants, and the values carry all.

The replica is the plain gradient times the input of the same network in which they are detached: without
biases this is LRP-0, as MambaLRP has it for state spaces.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close
from relprop.rules import Epsilon, SignalTakesAll

STEPS, INPUTS, SIZE = 5, 4, 3
X = torch.randn(2, STEPS, INPUTS, **DOUBLE, generator=torch.Generator().manual_seed(0))
Held = Callable[[Tensor], Tensor]


class States(nn.Module):
    """The projections that all of them have, without biases. `held` is applied to what is a constant."""

    def __init__(self, held: Held = lambda t: t) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.held = held
        for name in ("query", "key", "value", "gate", "out"):
            setattr(self, name, nn.Linear(INPUTS if name != "out" else SIZE, SIZE, bias=False).double())

    def forward(self, x: Tensor) -> Tensor:
        q, k, gate = (self.held(part(x)) for part in (self.query, self.key, self.gate))
        return self.out(self.states(q, k, self.value(x), gate)).sum(1)

    def states(self, q: Tensor, k: Tensor, v: Tensor, gate: Tensor) -> Tensor:
        raise NotImplementedError


class WKV(States):
    """The weighted key values of RWKV: exponentials of keys that decay, over their sum, with a receptance."""

    def states(self, q: Tensor, k: Tensor, v: Tensor, gate: Tensor) -> Tensor:
        above, below, found = torch.zeros(2, SIZE, **DOUBLE), torch.zeros(2, SIZE, **DOUBLE), []
        for t in range(STEPS):
            weight = k[:, t].exp()
            above, below = 0.7 * above + weight * v[:, t], 0.7 * below + weight
            found.append(q[:, t].sigmoid() * above / self.held(below))
        return torch.stack(found, 1)


class MatrixLSTM(States):
    """The memory of xLSTM: outer products of values and keys, with a forget and an output gate."""

    def states(self, q: Tensor, k: Tensor, v: Tensor, gate: Tensor) -> Tensor:
        memory, norm, found = torch.zeros(2, SIZE, SIZE, **DOUBLE), torch.zeros(2, SIZE, **DOUBLE), []
        for t in range(STEPS):
            forget = F.logsigmoid(gate[:, t]).exp()
            memory = forget[..., None] * memory + v[:, t, :, None] * k[:, t, None]
            norm = forget * norm + k[:, t]
            below = (norm * q[:, t]).sum(-1, keepdim=True).abs().clamp(min=1)
            found.append(
                gate[:, t].sigmoid() * torch.einsum("nvk,nk->nv", memory, q[:, t]) / self.held(below)
            )
        return torch.stack(found, 1)


class DeltaRule(States):
    """A gated delta rule: what the memory has of a key is replaced by the new value, in part."""

    def states(self, q: Tensor, k: Tensor, v: Tensor, gate: Tensor) -> Tensor:
        memory, found = torch.zeros(2, SIZE, SIZE, **DOUBLE), []
        k = F.normalize(k, dim=-1)
        for t in range(STEPS):
            memory = memory * gate[:, t, None].sigmoid()
            known = (memory * k[:, t, None]).sum(-1)
            delta = (v[:, t] - known) * gate[:, t].sigmoid()
            memory = memory + delta[..., None] * k[:, t, None]
            found.append(torch.bmm(memory, q[:, t, :, None])[..., 0])
        return torch.stack(found, 1)


DECLARED: Any = [
    *[(path, Epsilon(0, gates=True)) for path in ("query", "key", "gate")],
    ("*", SignalTakesAll(activations=True)),
    ("*", Epsilon(0)),
]


@pytest.mark.parametrize("kind", [WKV, MatrixLSTM, DeltaRule])
def test_with_gates_declared_the_values_carry_all(kind: type[States]) -> None:
    e = relprop.explain(kind().eval(), X, target=1, rules=DECLARED)
    leaf = X.clone().requires_grad_()
    kind(Tensor.detach)(leaf)[:, 1].sum().backward()
    assert leaf.grad is not None
    close(e.relevance, X * leaf.grad)
    close(e.relevance.flatten(1).sum(1), e.score)


def test_wkv_by_cp_lrp_needs_no_declaration() -> None:
    """Its keys are weights by themselves: exponentials, over their own sum."""
    e = relprop.explain(WKV().eval(), X, target=1, rules="cp-lrp")
    leaf = X.clone().requires_grad_()
    WKV(Tensor.detach)(leaf)[:, 1].sum().backward()
    assert leaf.grad is not None
    close(e.relevance, X * leaf.grad)


@pytest.mark.parametrize("kind", [MatrixLSTM, DeltaRule])
def test_other_rules_give_something_else(kind: type[States]) -> None:
    found = relprop.explain(kind().eval(), X, target=1, rules="cp-lrp").relevance
    declared = relprop.explain(kind().eval(), X, target=1, rules=DECLARED).relevance
    assert (found - declared).abs().max() > 0.01 * declared.abs().max()
