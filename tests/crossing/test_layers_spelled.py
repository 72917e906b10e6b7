"""Layers that are written out, or in another notation, get the relevance of their modules by every rule."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close
from relprop.rules import Flat, Gamma, WSquare

RULES = [
    *(
        "epsilon-gamma-box",
        "epsilon-gamma-flat",
        "epsilon-plus-flat",
        "deep-taylor",
        "alpha2-beta1",
        "epsilon",
    ),
    *(Flat(), WSquare(), Gamma(0.25)),
]
Function = Callable[[Tensor], Tensor]


def drawn(module: Any, seed: int) -> Any:
    """The module with random weights, also of what is usually 0 or 1."""
    torch.manual_seed(seed)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point():
            values = torch.rand if name.endswith("var") else torch.randn
            tensor.data = values(tensor.shape, **DOUBLE) + (0.5 if name.endswith("var") else 0)
    return module.double().eval()


def statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm, (1, channels, 1, 1)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - scale * norm.running_mean
    return scale.detach()[None, :, None, None], shift.detach()[None, :, None, None]


PICTURES = torch.randn(2, 2, 6, 6, **DOUBLE, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(2, 6, **DOUBLE, generator=torch.Generator().manual_seed(1))
CONV, INSIDE = drawn(nn.Conv2d(2, 4, 3, padding=1), 0), nn.Conv2d(2, 4, 3).double()
INSIDE.load_state_dict(CONV.state_dict())
NORM, SECOND = drawn(nn.BatchNorm2d(2), 1), drawn(nn.BatchNorm2d(2), 2)
(A0, B0), (A1, B1) = statistics(NORM), statistics(SECOND)
HEAD, MEANS = drawn(nn.Linear(144, 3), 3), drawn(nn.Linear(4, 3), 4)
ONE, LAST, LAYER_NORM = drawn(nn.Linear(6, 8), 5), drawn(nn.Linear(8, 3), 6), drawn(nn.LayerNorm(8), 7)


def bordered(x: Tensor) -> Tensor:
    canvas = torch.zeros(len(x), 2, 8, 8, **DOUBLE)
    canvas[:, :, 1:7, 1:7] = x
    return canvas


def channels_last_bordered(x: Tensor) -> Tensor:
    return F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).permute(0, 3, 1, 2)


def in_depth(x: Tensor) -> Tensor:
    return F.conv3d(x, INSIDE.weight[:, :, None], INSIDE.bias)[:, :, 0]


def joined_with_zeros(x: Tensor) -> Tensor:
    side, above = torch.zeros(len(x), 2, 6, 1, **DOUBLE), torch.zeros(len(x), 2, 1, 8, **DOUBLE)
    return torch.cat([above, torch.cat([side, x, side], 3), above], 2)


def centred(h: Tensor) -> tuple[Tensor, Tensor]:
    d = h - h.mean(-1, keepdim=True)
    return d, d.pow(2).mean(-1, keepdim=True) + LAYER_NORM.eps


SPELLED: Mapping[str, tuple[Tensor, tuple[Function, ...]]] = {
    "two batch norms before a convolution": (
        PICTURES,
        (
            lambda x: HEAD(F.relu(CONV(SECOND(NORM(x)))).flatten(1)),
            lambda x: HEAD(F.relu(CONV((x * A0 + B0) * A1 + B1)).flatten(1)),
            lambda x: HEAD(F.relu(CONV(x * (A0 * A1) + (B0 * A1 + B1))).flatten(1)),
        ),
    ),
    "a border of zeros": (
        PICTURES,
        (
            lambda x: HEAD(F.relu(CONV(x)).flatten(1)),
            lambda x: HEAD(F.relu(INSIDE(F.pad(x, (1, 1, 1, 1)))).flatten(1)),
            lambda x: HEAD(F.relu(INSIDE(F.pad(F.pad(x, (1, 1)), (0, 0, 1, 1)))).flatten(1)),
            lambda x: HEAD(F.relu(INSIDE(bordered(x))).flatten(1)),
            lambda x: HEAD(F.relu(INSIDE(joined_with_zeros(x))).flatten(1)),
            lambda x: HEAD(F.relu(INSIDE(channels_last_bordered(x))).flatten(1)),
            lambda x: HEAD(
                F.relu(INSIDE(F.pad(x.flatten(0, 1), (1, 1, 1, 1)).unflatten(0, x.shape[:2]))).flatten(1)
            ),
            lambda x: HEAD(F.relu(INSIDE(F.pad(x.flip(3), (1, 1, 1, 1)).flip(3))).flatten(1)),
            lambda x: HEAD(F.relu(in_depth(F.pad(x, (1, 1, 1, 1)).unsqueeze(2))).flatten(1)),
        ),
    ),
    "a mean": (
        PICTURES,
        (
            lambda x: MEANS(F.relu(CONV(x)).mean((2, 3))),
            lambda x: MEANS(F.relu(CONV(x)).sum((2, 3)) / 36),
            lambda x: MEANS(F.adaptive_avg_pool2d(F.relu(CONV(x)), 1).flatten(1)),
            lambda x: MEANS(F.avg_pool2d(F.relu(CONV(x)), 6)[:, :, 0, 0]),
            lambda x: MEANS(torch.einsum("bchw->bc", F.relu(CONV(x))) / 36),
            lambda x: MEANS(F.relu(CONV(x)).sum(3).sum(2) * (1 / 36)),
        ),
    ),
    "layer norm": (
        ROWS,
        (
            lambda x: LAST(F.relu(LAYER_NORM(ONE(x)))),
            lambda x: LAST(
                F.relu((lambda d, v: d / v.sqrt() * LAYER_NORM.weight + LAYER_NORM.bias)(*centred(ONE(x))))
            ),
            lambda x: LAST(
                F.relu(
                    (lambda d, v: LAYER_NORM.weight * (d * torch.rsqrt(v)) + LAYER_NORM.bias)(
                        *centred(ONE(x))
                    )
                )
            ),
        ),
    ),
    "layer norm of the input": (
        ROWS,
        (
            lambda x: LAST(F.relu(ONE(F.layer_norm(x, (6,), eps=LAYER_NORM.eps)))),
            lambda x: LAST(F.relu(ONE((lambda d, v: d / v.sqrt())(*centred(x))))),
        ),
    ),
    "relu behind a shift": (
        ROWS,
        (
            lambda x: LAST(F.relu(ONE(x) + 0.5)),
            lambda x: LAST((ONE(x) + 0.5).clamp(min=0)),
            lambda x: LAST(torch.maximum(ONE(x) + 0.5, torch.zeros((), **DOUBLE))),
            lambda x: LAST((lambda h: torch.where(h > 0, h, 0.0))(ONE(x).add_(0.5))),
        ),
    ),
}


def explained(function: Function, x: Tensor, rules: Any) -> relprop.Explanation:
    return relprop.explain(function, x, target=0, rules=rules, bounds=(-6, 6))


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("name", SPELLED)
def test_a_layer_is_explained_alike_however_it_is_written(name: str, rules: Any) -> None:
    x, (first, *others) = SPELLED[name]
    expected = explained(first, x, rules)
    assert expected.ledger.gap.max() < 1e-12
    for function in others:
        e = explained(function, x, rules)
        close(e.relevance, expected.relevance)
        assert e.ledger.gap.max() < 1e-12


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_outputs_that_see_nothing_leave_the_ledger_balanced(rules: Any) -> None:
    """Those of a filter of zeros, and those that see only padding."""
    conv = drawn(nn.Conv2d(2, 2, 3, padding=4), 8)
    with torch.no_grad():
        conv.weight[1] = 0
    head = drawn(nn.Linear(2 * 12 * 12, 3), 9)
    e = explained(lambda x: head(F.relu(NORM(conv(x))).flatten(1)), PICTURES, rules)
    assert e.ledger.gap.max() < 1e-12


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_an_expanded_parameter_is_a_bias_for_one_sample_and_for_several(rules: Any) -> None:
    parameter = nn.Parameter(torch.randn(1, 8, **DOUBLE))

    def function(x: Tensor) -> Tensor:
        return LAST(F.relu(parameter.expand(len(x), -1) + ONE(x)))

    several = explained(function, ROWS, rules)
    for i in range(len(ROWS)):
        alone = explained(function, ROWS[i : i + 1], rules)
        close(several.relevance[i : i + 1], alone.relevance)
        for sink, amount in alone.ledger.absorbed.items():
            torch.testing.assert_close(several.ledger.absorbed[sink][i : i + 1], amount)
