"""MambaLRP (Jafari et al. 2024) on Mamba as transformers runs it, beside a replica by detached factors."""

from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relprop
from networks import DOUBLE
from relprop.rules import Epsilon, SignalTakesAll
from torchvision_shim import import_torchvision

SETTINGS = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 40, "state_size": 4, "time_step_rank": 3}
TARGET = 5


@pytest.fixture(scope="module")
def model() -> Any:
    import_torchvision()  # which transformers imports
    transformers = import_module("transformers")
    torch.manual_seed(0)
    made = transformers.MambaForCausalLM(transformers.MambaConfig(**SETTINGS)).double().eval()
    for parameter in made.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, **DOUBLE)
    return made.requires_grad_(False)


IDS = torch.randint(3, 40, (2, 7), generator=torch.Generator().manual_seed(1))


def normalised(x: Tensor, norm: Any) -> Tensor:
    """RMS norm whose denominator is a constant; transformers computes it in single precision."""
    single = x.float()
    by = (single.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt().detach()
    return norm.weight * (single * by).double()


def silu(x: Tensor) -> Tensor:
    """The identity rule: the sigmoid is a constant."""
    return x * x.sigmoid().detach()


def mixed(x: Tensor, mixer: Any) -> Tensor:
    signal, gate = (x @ mixer.in_proj.weight.T).transpose(1, 2).chunk(2, 1)
    steps, kernel = x.shape[1], mixer.conv1d.weight.shape[-1]
    conv = F.conv1d(
        F.pad(signal, (kernel - 1, 0)), mixer.conv1d.weight, mixer.conv1d.bias, groups=signal.shape[1]
    )
    u = silu(conv[:, :, :steps])
    delta, B, C = (u.transpose(1, 2) @ mixer.x_proj.weight.T).detach().split([3, 4, 4], -1)
    delta = F.softplus(delta @ mixer.dt_proj.weight.T + mixer.dt_proj.bias).transpose(1, 2)
    A = -torch.exp(mixer.A_log)
    state, outputs = torch.zeros(*u.shape[:2], 4, **DOUBLE), []
    for t in range(steps):
        kept = torch.exp(A * delta[:, :, t, None])
        state = kept * state + delta[:, :, t, None] * B[:, None, t] * u[:, :, t, None]
        outputs.append((state * C[:, None, t]).sum(-1))
    y, g = torch.stack(outputs, -1) + u * mixer.D[:, None], silu(gate)
    half = (y * g.detach() + y.detach() * g) / 2
    product = half + (y * g - half).detach()  # half for each factor
    return product.transpose(1, 2) @ mixer.out_proj.weight.T


def replica(model: Any) -> Tensor:
    """Gradient times input of the embeddings, summed, (samples, tokens)."""
    embedded = model.backbone.embeddings(IDS).requires_grad_()
    x = embedded
    for block in model.backbone.layers:
        x = x + mixed(normalised(x, block.norm), block.mixer)
    scores = normalised(x, model.backbone.norm_f) @ model.lm_head.weight.T
    with torch.no_grad():
        expected = model(IDS, use_cache=False).logits
    torch.testing.assert_close(scores.detach(), expected.double(), rtol=1e-5, atol=1e-5)
    (c,) = torch.autograd.grad(scores[:, -1, TARGET].sum(), embedded)
    return (c * embedded.detach()).sum(-1)


def explained(model: Any, rules: Any) -> relprop.Explanation:
    return relprop.explain(
        model,
        input_ids=IDS,
        target=lambda output: output.logits[:, -1, TARGET],
        rules=rules,
        kwargs={"use_cache": False},
    )


def test_it_is_what_the_detached_factors_give(model: Any) -> None:
    e = explained(model, "mamba-lrp")
    expected = replica(model)
    torch.testing.assert_close(e.relevance, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))
    absorbed = {sink for sink, amount in e.ledger.absorbed.items() if amount.any()}
    assert absorbed <= {"bias", "parameters"}
    assert e.ledger.gap.max() < 1e-6  # the norms compute in single precision


def test_other_rules_give_something_else(model: Any) -> None:
    """Or the replica would show nothing."""
    expected = replica(model)
    for rules in ("attnlrp", "cp-lrp", [("*", SignalTakesAll()), ("*", Epsilon(0))]):
        off = (explained(model, rules).relevance - expected).abs().max() / expected.abs().max()
        assert off > 1e-2


def test_gates_get_nothing_beside_a_signal() -> None:
    torch.manual_seed(0)
    signal, gate, last = (torch.nn.Linear(4, 4).double() for _ in range(3))

    class Gated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.signal, self.gate, self.last = signal, gate, last

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.signal(x) * F.softplus(self.last(self.gate(y)))

    x, y = torch.randn(2, 3, 4, **DOUBLE)
    rules = [("gate", Epsilon(0, gates=True)), ("*", Epsilon(0))]
    e = relprop.explain(Gated().eval(), x, y, target=1, rules=rules)
    assert not e.inputs["y"].any()
    assert e.inputs["x"].any()
    shared = relprop.explain(Gated().eval(), x, y, target=1, rules="epsilon")
    assert shared.inputs["y"].any()
    alone = relprop.explain(lambda y: last(gate(y)), y, target=1, rules=[("*", Epsilon(0, gates=True))])
    assert alone.relevance.any()
