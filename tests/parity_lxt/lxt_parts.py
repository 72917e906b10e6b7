"""LXT's functions, which patch nothing by themselves, and explanations by them of a few operations."""

import warnings
from collections.abc import Callable
from typing import Any

import lxt_side as _lxt_side  # noqa: F401 - skips where LXT is missing
import torch
from families import precision
from torch import Tensor, nn

from relprop import explain

with warnings.catch_warnings():
    # zennit, which is not needed here.
    warnings.filterwarnings("ignore", "'zennit' library is not available", UserWarning)
    from lxt.efficient import patches as patches
    from lxt.efficient import rules as implicit
from lxt.explicit import functional as functional
from lxt.explicit import rules as explicit

__all__ = [
    "by_explicit",
    "by_gradient",
    "by_relprop",
    "explicit",
    "functional",
    "implicit",
    "neuron",
    "patches",
    "row",
]


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def neuron(weights: list[float], bias: float = 0) -> nn.Linear:
    layer = nn.Linear(len(weights), 1).double().eval()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weights]))
        layer.bias.fill_(bias)
    return layer


def by_relprop(call: Callable[..., Tensor], *inputs: Tensor, weights: Tensor, rules: Any) -> list[Tensor]:
    """Relevance of each input of the weighted sum of what a call returns."""
    with precision(torch.float64):
        return list(explain(call, *inputs, target=weights, rules=rules).inputs.values())


def by_gradient(call: Callable[..., Tensor], *inputs: Tensor, weights: Tensor) -> list[Tensor]:
    """The same by gradient times input, for what LXT's efficient mode is made of."""
    roots = [x.clone().requires_grad_() for x in inputs]
    gradients = torch.autograd.grad(call(*roots), roots, weights, allow_unused=True)
    return [x * (0 if c is None else c) for x, c in zip(inputs, gradients, strict=True)]


def by_explicit(call: Callable[..., Tensor], *inputs: Tensor, weights: Tensor) -> list[Tensor]:
    """The same where relevance itself is sent back, for what LXT's explicit mode is made of."""
    roots = [x.clone().requires_grad_() for x in inputs]
    with precision(torch.float64):
        output = call(*roots)
    return list(torch.autograd.grad(output, roots, weights * output.detach()))
