"""LXT's explicit mode: functions that send relevance itself back, with stabilisers; here with none."""

from collections.abc import Callable, Sequence

import lxt_parts as parts
import pytest
import torch
import torch.nn.functional as F
from lxt_parts import explicit, functional
from torch import Tensor

from relprop.rules import Epsilon

Agree = Callable[[Tensor, Tensor], None]
Function = Callable[..., Tensor]


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def exactly(name: str, *options: object) -> Function:
    """A function of LXT whose stabiliser can be given to what it calls only."""
    forward = getattr(functional, name).apply
    return lambda x: forward(x, *options, 0.0)


WEIGHT, BIAS = draw(4, 4), draw(4)

CASES: dict[str, tuple[Function, Function, Sequence[tuple[int, ...]]]] = {
    "linear": (
        lambda x: functional.linear_epsilon(x, WEIGHT, BIAS, 0.0),
        lambda x: F.linear(x, WEIGHT, BIAS),
        [(2, 3, 4)],
    ),
    "softmax": (
        lambda x: functional.softmax(x, -1),
        lambda x: torch.softmax(x, -1),
        [(2, 3, 4)],
    ),
    "a matrix product": (
        lambda a, b: functional.matmul(a, b, epsilon=0.0),
        torch.matmul,
        [(2, 3, 4), (2, 4, 5)],
    ),
    "a sum": (
        lambda a, b: functional.add2(a, b, epsilon=0.0),
        torch.add,
        [(2, 3, 4), (2, 3, 4)],
    ),
    "a product": (functional.mul2, torch.mul, [(2, 3, 4), (2, 3, 4)]),
    "a product with a constant": (
        lambda x: functional.mul2(x, BIAS),
        lambda x: x * BIAS,
        [(2, 3, 4)],
    ),
    "a mean": (
        exactly("mean_fn", -1, True),
        lambda x: x.mean(-1, keepdim=True),
        [(2, 3, 4)],
    ),
    "layer norm": (
        exactly("layer_norm_grad_fn", BIAS, 1 - BIAS, 1e-5),
        lambda x: F.layer_norm(x, (4,), BIAS, 1 - BIAS, 1e-5),
        [(2, 3, 4)],
    ),
    "RMS norm": (
        lambda x: functional.rms_norm_identity(x, BIAS, 1e-6),
        lambda x: rms_norm(x, BIAS),
        [(2, 3, 4)],
    ),
    "normalisation": (
        lambda x: functional.normalize(x, dim=-1),
        lambda x: F.normalize(x, dim=-1),
        [(2, 3, 4)],
    ),
    "an activation": (lambda x: explicit.identity(F.silu, x), F.silu, [(2, 3, 4)]),
    "a function in general": (
        lambda x: explicit.epsilon_lrp(lambda x: F.conv1d(x, WEIGHT[:, :3, None]), 0.0, x),
        lambda x: F.conv1d(x, WEIGHT[:, :3, None]),
        [(2, 3, 4)],
    ),
}


@pytest.mark.parametrize("function", CASES)
def test_each_function(function: str, assert_agree: Agree) -> None:
    by_lxt, plain, shapes = CASES[function]
    inputs = [draw(*shape) for shape in shapes]
    weights = torch.randn_like(plain(*inputs))
    references = parts.by_explicit(by_lxt, *inputs, weights=weights)
    found = parts.by_relprop(plain, *inputs, weights=weights, rules=Epsilon(0))
    for R, reference in zip(found, references, strict=True):
        assert_agree(R, reference)
