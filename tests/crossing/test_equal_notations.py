"""Spellings that random programs found to be explained differently, and that are alike now (`make fuzz`)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE, batch_norm, close
from relprop.rules import Epsilon, Flat, Gamma, ZBox, ZPlus

RULES = [
    "epsilon",
    "cp-lrp",
    "attnlrp",
    "deep-taylor",
    "vgg-2019",
    Epsilon(0.1),
    Gamma(0.25),
    ZPlus("absorb"),
    Flat(),
]
Function = Callable[[Tensor], Tensor]


def layer(inputs: int, outputs: int, seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs).double()


ONE, OTHER, HEAD = layer(6, 6, 0), layer(6, 6, 1), layer(6, 3, 2)
X = torch.randn(3, 6, **DOUBLE, generator=torch.Generator().manual_seed(3))
SEQUENCE = torch.randn(3, 4, 6, **DOUBLE, generator=torch.Generator().manual_seed(4))
SCALE, SHIFT = torch.randn(2, 6, **DOUBLE, generator=torch.Generator().manual_seed(5))
KEEP = torch.tensor([False, True, True, False, True, True])
NORM = batch_norm(6).double().eval()
m, v, w, b = NORM.running_mean, NORM.running_var, NORM.weight.detach(), NORM.bias.detach()


def weighted_sum(output: Tensor) -> Tensor:
    return output.flatten(1).cumsum(1).sum(1)


def relevance(function: Function, x: Tensor, rules: Any) -> Tensor:
    e = relprop.explain(
        function, x, target=lambda y: y.flatten(1).cumsum(1).sum(1), rules=rules, bounds=(-4, 4)
    )
    assert e.ledger.gap.max() < 1e-9
    return e.relevance


def alike(functions: list[Function], x: Tensor, rules: Any) -> None:
    first, *others = [relevance(function, x, rules) for function in functions]
    assert first.abs().max() > 0
    for other in others:
        close(other, first)


def over_its_sum(e: Tensor) -> Tensor:
    return e / e.sum(-1, keepdim=True)


def clone_of_every_other(x: Tensor) -> Tensor:
    h = x[:, ::2]
    return h.clone() * h.clone().sigmoid()


NOTATIONS: dict[str, list[Function]] = {
    "softmax of scaled scores": [
        lambda x: HEAD((ONE(x) * 0.5).softmax(-1) * OTHER(x)),
        lambda x: HEAD(over_its_sum((ONE(x) * 0.5).exp()) * OTHER(x)),
        lambda x: HEAD(over_its_sum(torch.exp(ONE(x) / 2)) * OTHER(x)),
    ],
    "softmax that is an operand of a function": [
        lambda x: (x * 0.5).softmax(-1).sigmoid(),
        lambda x: over_its_sum((x * 0.5).exp()).sigmoid(),
    ],
    "batch norm of a weight": [
        lambda x: F.batch_norm(x.sigmoid(), m, v, w, b) * OTHER(x),
        lambda x: ((x.sigmoid() - m) / (v + 1e-5).sqrt() * w + b) * OTHER(x),
    ],
    "layer norm of a weight": [
        lambda x: F.layer_norm(x.sigmoid(), (6,)) * OTHER(x),
        lambda x: (
            (lambda c: c / (c.square().mean(-1, keepdim=True) + 1e-5).sqrt())(
                x.sigmoid() - x.sigmoid().mean(-1, keepdim=True)
            )
            * OTHER(x)
        ),
    ],
    "scale and shift of a layer norm": [
        lambda x: HEAD(F.layer_norm(x, (6,), SCALE, SHIFT)),
        lambda x: HEAD(F.layer_norm(x, (6,)) * SCALE + SHIFT),
        lambda x: HEAD(
            (lambda c: c * (c.square().mean(-1, keepdim=True) + 1e-5).rsqrt())(x - x.mean(-1, keepdim=True))
            * SCALE
            + SHIFT
        ),
    ],
    "ones as a tensor": [
        lambda x: torch.sigmoid(1 - x),
        lambda x: torch.sigmoid(torch.ones_like(x) - x),
        lambda x: torch.sigmoid(torch.add(torch.ones_like(x), x, alpha=-1)),
        lambda x: torch.sigmoid(-x + torch.full_like(x, 1.0)),
    ],
    "expanded constants": [
        lambda x: (x.sigmoid() * SCALE + SHIFT) * OTHER(x),
        lambda x: (x.sigmoid() * SCALE.expand_as(x) + SHIFT.expand_as(x)) * OTHER(x),
    ],
    "one minus a layer": [
        lambda x: F.relu(1 - ONE(x)),
        lambda x: F.relu(-ONE(x) + 1),
        lambda x: F.relu(ONE(x) * -1 + 1),
        lambda x: F.relu(torch.rsub(ONE(x), 1)),
    ],
    "numbers before a layer": [
        lambda x: HEAD((x - 0.5) / 0.5),
        lambda x: HEAD(x * 2 - 1),
        lambda x: HEAD(x / 0.5 - 1),
        lambda x: HEAD(-(1 - 2 * x)),
    ],
    "leaky relu in a chain": [
        lambda x: F.leaky_relu(1 - x.sigmoid() * 2, 0.1).sigmoid(),
        lambda x: (lambda h: torch.maximum(h, 0.1 * h))(1 - x.sigmoid() * 2).sigmoid(),
    ],
    "copies with other strides": [
        lambda x: F.silu(x[:, ::2]),
        clone_of_every_other,
    ],
    "all values in their places": [
        lambda x: x.sigmoid() * x,
        lambda x: torch.ops.aten.alias(x.sigmoid()) * x,
        lambda x: x.view_as(x) * x.sigmoid()[...],
        lambda x: x.reshape(x.shape).sigmoid() * x,
    ],
}


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("name", NOTATIONS)
@pytest.mark.filterwarnings("ignore:.*outside of the bounds", "ignore:.*softmax", "ignore:.*not 0 at 0")
def test_notations_are_alike(name: str, rules: Any) -> None:
    alike(NOTATIONS[name], X, rules)


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_expanded_constants_are_folded_in_a_sequence(rules: Any) -> None:
    alike(
        [
            lambda x: F.relu(ONE(x) * SCALE + SHIFT),
            lambda x: F.relu(ONE(x) * SCALE.expand(len(x), 4, 6) + SHIFT.expand(len(x), 4, 6)),
        ],
        SEQUENCE,
        rules,
    )


def test_a_signal_where_other_elements_are_masked_is_a_signal() -> None:
    masked: list[Function] = [
        lambda x: (1 - torch.where(KEEP, x, 0.0)) * OTHER(x),
        lambda x: (1 - x * KEEP) * OTHER(x),
        lambda x: (1 - x.masked_fill(~KEEP, 0.0)) * OTHER(x),
    ]
    for rules in ("cp-lrp", "epsilon"):
        alike(masked, X, rules)


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_an_einsum_that_only_moves_is_a_permutation(rules: Any) -> None:
    alike(
        [
            lambda x: F.relu(1 - ONE(x).transpose(1, 2)),
            lambda x: F.relu(1 - torch.einsum("nij->nji", ONE(x))),
            lambda x: F.relu(1 - torch.einsum("n...j->nj...", ONE(x))),
        ],
        SEQUENCE,
        rules,
    )


def overwritten(x: Tensor) -> Tensor:
    h = torch.relu(x)
    h[:, 2] = h[:, 1]
    return h


WEIGHT, BIAS = ONE.weight.detach(), ONE.bias.detach()
NORM_OF_FOUR = batch_norm(4).double().eval()
m4, v4, w4, b4 = (
    t.detach().view(-1, 1)
    for t in (NORM_OF_FOUR.running_mean, NORM_OF_FOUR.running_var, NORM_OF_FOUR.weight, NORM_OF_FOUR.bias)
)
torch.manual_seed(6)
WINDOWS = nn.Conv1d(4, 2, 1).double()


def in_parts(x: Tensor, scale: float = 1.0) -> Tensor:
    """ONE, a few outputs at a time."""
    parts = [
        F.linear(x, w, b) * scale for w, b in zip(WEIGHT.split([1, 2, 3]), BIAS.split([1, 2, 3]), strict=True)
    ]
    return torch.cat(parts, -1)


IN_SEQUENCE: dict[str, list[Function]] = {
    "a layer in parts, shifted and rearranged": [
        lambda x: F.relu(1 - ONE(x)),
        lambda x: F.relu(1 - in_parts(x)),
        lambda x: F.relu(1 - in_parts(x).unflatten(-1, (3, 2)).flatten(-2)),
        lambda x: F.relu(1 - in_parts(x, 2.0) / 2),
        lambda x: F.relu(1 - torch.cat([in_parts(x[:, :1]), in_parts(x[:, 1:])], 1)),
        lambda x: F.relu(1 - torch.stack([in_parts(row) for row in x.unbind(1)], 1)),
    ],
    "a layer in parts, scaled and shifted by output": [
        lambda x: F.relu(ONE(x) * SCALE + SHIFT),
        lambda x: F.relu(in_parts(x) * SCALE + SHIFT),
        lambda x: F.relu((in_parts(x.flip(1), 2.0).flip(1) / 2 * SCALE).add(SHIFT)),
        lambda x: F.relu((in_parts(x).transpose(1, 2) * SCALE[:, None] + SHIFT[:, None]).transpose(1, 2)),
    ],
    "a batch norm between layers of other dimensions": [
        lambda x: WINDOWS(F.batch_norm(ONE(x), m4[:, 0], v4[:, 0], w4[:, 0], b4[:, 0])),
        lambda x: WINDOWS(b4 + (ONE(x) - m4) * (w4 * (v4 + 1e-5).rsqrt())),
        lambda x: WINDOWS((ONE(x) - m4) / (v4 + 1e-5).sqrt() * w4 + b4),
    ],
    "part of an activation overwritten by another": [
        lambda x: ONE(x) @ (lambda h: torch.cat([h[:, :2], h[:, 1:2], h[:, 3:]], 1))(torch.relu(x)).mT,
        lambda x: ONE(x) @ overwritten(x).mT,
    ],
    "twice a value": [
        lambda x: (x + x) * F.hardsigmoid(x),
        lambda x: (x + x.view_as(x)) * F.hardsigmoid(x),
        lambda x: 2 * x * F.hardsigmoid(x),
    ],
    "a sum that begins with 0": [
        lambda x: F.relu(1 - x) + OTHER(x),
        lambda x: sum([F.relu(1 - x), OTHER(x)]),
        lambda x: F.relu(1 - x) - 0 + (OTHER(x) + 0.0),
    ],
}


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("name", IN_SEQUENCE)
@pytest.mark.filterwarnings("ignore:.*outside of the bounds")
def test_notations_are_alike_in_a_sequence(name: str, rules: Any) -> None:
    alike(IN_SEQUENCE[name], SEQUENCE, rules)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_program_may_hold_a_number_as_a_tensor() -> None:
    def program(x: Tensor) -> Tensor:
        return torch.mul(x * 0.5, torch.tensor(0.5, **DOUBLE))

    traced = torch.jit.trace(program, (X,), check_trace=False)
    with torch.no_grad():
        traced(X)  # at the second call, torch writes the program anew
    alike([program, traced], X, "epsilon")


@pytest.mark.parametrize("rules", [Flat(), ZBox(-50, 50), "epsilon"], ids=str)
def test_relevance_on_a_contraction_is_shared_as_on_a_product_and_a_sum(rules: Any) -> None:
    last = layer(1, 2, 6)

    def shifted(x: Tensor) -> Tensor:
        return x * SCALE + SHIFT

    alike(
        [
            lambda x: last((shifted(x) * x).sum(-1, keepdim=True)),
            lambda x: last(torch.bmm(shifted(x)[:, None], x[:, :, None])[:, 0]),
            lambda x: last((x[:, None] @ shifted(x)[..., None])[..., 0]),
            lambda x: last(torch.einsum("ni,ni->n", shifted(x), x)[:, None]),
        ],
        X,
        rules,
    )


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_a_result_may_be_written_to_an_empty_tensor(rules: Any) -> None:
    def into_empty(x: Tensor) -> Tensor:
        empty = torch.empty(0, **DOUBLE)
        torch.matmul(x, ONE.weight.T, out=empty)
        return HEAD(torch.add(empty, ONE.bias, out=torch.empty(0, **DOUBLE)).relu())

    with torch.no_grad():
        close(into_empty(X), HEAD(ONE(X).relu()))
    alike([lambda x: HEAD(ONE(x).relu()), into_empty], X, rules)
