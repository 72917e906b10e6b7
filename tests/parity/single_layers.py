"""Networks small enough to work out by hand, and one explanation of them by either library."""

from typing import Any

import torch
import zennit_parts as parts
from torch import Tensor, nn
from zennit.core import Composite

from relprop import explain


def neuron(weights: list[float], bias: float) -> nn.Linear:
    layer = nn.Linear(len(weights), 1).double().eval()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weights]))
        layer.bias.fill_(bias)
    return layer


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


ONE = row(1)


def by_relprop(model: nn.Module, x: Tensor, rules: Any, c: Tensor = ONE) -> Any:
    explanation = explain(model, x, target=c, rules=rules)
    assert explanation.ledger.gap.max() < 1e-12
    return explanation.relevance


def by_zennit(model: nn.Module, x: Tensor, hook: Any, c: Tensor = ONE) -> Tensor:
    composite = hook if isinstance(hook, Composite) else parts.everywhere(hook)
    return parts.relevance(model, x, composite, c)
