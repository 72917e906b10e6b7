"""MambaLRP (Jafari et al. 2024) on Mamba and Mamba-2 of transformers, beside replicas by detached factors."""

from collections.abc import Callable
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

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 40, "state_size": 4}
OF_MAMBA2 = {"num_heads": 4, "head_dim": 8, "expand": 2, "n_groups": 2, "chunk_size": 4}
TARGET = 5


def made(name: str, **settings: Any) -> Any:
    import_torchvision()  # which transformers imports
    transformers = import_module("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES, **settings)
    model = getattr(transformers, f"{name}ForCausalLM")(config).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, **DOUBLE)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> Any:
    return made("Mamba", time_step_rank=3)


@pytest.fixture(scope="module")
def mamba2() -> Any:
    return made("Mamba2", **OF_MAMBA2)


IDS = torch.randint(3, 40, (2, 7), generator=torch.Generator().manual_seed(1))


def normalised(x: Tensor, norm: Any) -> Tensor:
    """RMS norm whose denominator is a constant; transformers computes it in single precision."""
    single = x.float()
    by = (single.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt().detach()
    return norm.weight * (single * by).double()


def silu(x: Tensor) -> Tensor:
    """The identity rule: the sigmoid is a constant."""
    return x * x.sigmoid().detach()


def half_each(a: Tensor, b: Tensor) -> Tensor:
    """a·b, of which each factor gets half."""
    half = (a * b.detach() + a.detach() * b) / 2
    return half + (a * b - half).detach()


def by_mamba(x: Tensor, mixer: Any) -> Tensor:
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
    return half_each(y, g).transpose(1, 2) @ mixer.out_proj.weight.T


def by_mamba2(x: Tensor, mixer: Any) -> Tensor:
    """The recurrence step by step, where transformers computes chunks."""
    gate, xBC, delta = (x @ mixer.in_proj.weight.T).split([32, 48, 4], -1)
    weight, steps = mixer.conv1d.weight, x.shape[1]
    conv = F.conv1d(F.pad(xBC.transpose(1, 2), (3, 0)), weight, mixer.conv1d.bias, groups=48)
    u, B, C = silu(conv).transpose(1, 2).split([32, 8, 8], -1)
    u = u.unflatten(-1, (4, 8))
    B, C = (t.detach().unflatten(-1, (2, 4)).repeat_interleave(2, 2) for t in (B, C))
    delta = F.softplus(delta.detach() + mixer.dt_bias)[..., None, None]
    A = -torch.exp(mixer.A_log)[:, None, None]
    state, outputs = torch.zeros(len(x), 4, 8, 4, **DOUBLE), []
    for t in range(steps):
        written = delta[:, t] * B[:, t, :, None] * u[:, t, ..., None]
        state = torch.exp(A * delta[:, t]) * state + written
        outputs.append((state * C[:, t, :, None]).sum(-1))
    y = (torch.stack(outputs, 1) + u * mixer.D[:, None]).flatten(2)
    group = getattr(mixer.norm, "group_size", 32)  # earlier versions normalise all together
    product = half_each(y, silu(gate)).unflatten(-1, (-1, group))
    by = (product.square().mean(-1, keepdim=True) + mixer.norm.variance_epsilon).rsqrt().detach()
    return mixer.norm.weight * (product * by).flatten(-2) @ mixer.out_proj.weight.T


def replica(model: Any, mixed: Callable[[Tensor, Any], Tensor]) -> Tensor:
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


@pytest.mark.parametrize(("name", "mixed"), [("model", by_mamba), ("mamba2", by_mamba2)], ids=["1", "2"])
def test_it_is_what_the_detached_factors_give(
    name: str, mixed: Callable[[Tensor, Any], Tensor], request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    e = explained(model, "mamba-lrp")
    expected = replica(model, mixed)
    torch.testing.assert_close(e.relevance, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))
    absorbed = {sink for sink, amount in e.ledger.absorbed.items() if amount.any()}
    assert absorbed <= {"bias", "parameters"}
    assert e.ledger.gap.max() < 1e-6  # the norms compute in single precision


@pytest.mark.parametrize(("name", "mixed"), [("model", by_mamba), ("mamba2", by_mamba2)], ids=["1", "2"])
def test_other_rules_give_something_else(
    name: str, mixed: Callable[[Tensor, Any], Tensor], request: pytest.FixtureRequest
) -> None:
    """Or the replicas would show nothing."""
    model = request.getfixturevalue(name)
    expected = replica(model, mixed)
    for rules in ("attnlrp", "cp-lrp", [("*", SignalTakesAll()), ("*", Epsilon(0))]):
        off = (explained(model, rules).relevance - expected).abs().max() / expected.abs().max()
        assert off > 5e-3


def test_padded_tokens_leave_parts_gates(mamba2: Any) -> None:
    """They are multiplied by zero before they are split."""
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), IDS], 1)
    mask = (torch.arange(10) > 2).expand(2, -1).long()
    e = relprop.explain(
        mamba2,
        input_ids=padded,
        target=lambda output: output.logits[:, -1, TARGET],
        rules="mamba-lrp",
        kwargs={"use_cache": False, "attention_mask": mask},
    )
    assert {sink for sink, amount in e.ledger.absorbed.items() if amount.any()} <= {"bias", "parameters"}


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


def test_parts_of_the_outputs_are_gates() -> None:
    torch.manual_seed(0)
    layer, last = torch.nn.Linear(3, 8).double(), torch.nn.Linear(4, 2).double()

    def model(x: Tensor) -> Tensor:
        a, b = layer(x).tanh().split(4, 1)
        return last(a * b)

    def by_detaching(x: Tensor) -> Tensor:
        a, b = layer(x).tanh().split(4, 1)
        return last(a * b.detach())

    x = torch.randn(2, 3, **DOUBLE)
    e = relprop.explain(model, x, target=1, rules="Epsilon(0, gates=(1,))")
    expected = relprop.explain(by_detaching, x, target=1, rules="Epsilon(0)")
    torch.testing.assert_close(e.relevance, expected.relevance)
    assert e.rules[0].rule == Epsilon(0, gates=(1,))


def test_what_is_no_number_of_a_part() -> None:
    for gates in (-1, (1, -1), "yes", (True,)):
        with pytest.raises(
            relprop.errors.RuleError, match=r"gates must be True, False, or numbers of the parts"
        ):
            Epsilon(0, gates=gates)  # type: ignore[arg-type]
