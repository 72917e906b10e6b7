"""Numbers that were worked out by hand, for a network small enough to do so.

Three inputs 1, 2, 3; three hidden neurons whose weights are all 2; one output whose weights are all 3; no
biases. It is the model of captum's tests of layer-wise relevance propagation, and so are the expected values.
"""

from typing import Any

import pytest
import torch
from torch import nn

import relprop
from relprop.rules import Absolute, AlphaBeta, Epsilon, Gamma, ZPlus

INPUTS = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)

# rule, the weight from the first input to the first neuron, relevance
NUMBERS: list[tuple[Any, float, list[float]]] = [
    # All neurons are 12 and the score is 108; each neuron gives shares of 1 : 2 : 3.
    (Epsilon(0), 2, [18, 36, 54]),
    (ZPlus(), 2, [18, 36, 54]),
    # The first neuron is -2 + 4 + 6 = 8, the score 24 + 36 + 36 = 96. Behind a ReLU with positive weights,
    # every rule gives the neurons these 24, 36, 36, of which the last two send on 12, 24, 36.
    # From the first, 24 in shares of -2 : 4 : 6, ...
    (Epsilon(0), -2, [12 - 6, 24 + 12, 36 + 18]),
    # ... of -2 : 8 : 12, ...
    (Gamma(1), -2, [28 / 3, 104 / 3, 52]),
    (Gamma(1, favour="positive"), -2, [28 / 3, 104 / 3, 52]),
    # ... of 0 : 4 : 6, ...
    (AlphaBeta(1, 0), -2, [12, 33.6, 50.4]),
    (ZPlus(), -2, [12, 33.6, 50.4]),
    # ... of 2 : 4 : 6, ...
    (Absolute(), -2, [12 + 4, 24 + 8, 36 + 12]),
    # ... and twice the positive shares less the negative one, which has all of N = -2.
    (AlphaBeta(2, 1), -2, [12 - 24, 24 + 2 * 9.6, 36 + 2 * 14.4]),
]


def network(first_weight: float, inplace: bool = False) -> nn.Sequential:
    hidden, last = nn.Linear(3, 3, bias=False), nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        hidden.weight.fill_(2)
        hidden.weight[0, 0] = first_weight
        last.weight.fill_(3)
    return nn.Sequential(hidden, nn.ReLU(inplace), last, nn.Dropout(0.01)).double().eval()


def assert_close(found: Any, expected: list[float]) -> None:
    assert (found - torch.tensor([expected], dtype=torch.float64)).abs().max() <= 1e-12 * max(
        map(abs, expected)
    )


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    ("rule", "weight", "expected"), NUMBERS, ids=[f"{rule}, weight {weight}" for rule, weight, _ in NUMBERS]
)
def test_relevance_is_as_worked_out_by_hand(
    rule: Any, weight: float, expected: list[float], inplace: bool
) -> None:
    explanation = relprop.explain(network(weight, inplace), INPUTS, target=0, rules=rule)
    assert_close(explanation.relevance, expected)
    assert explanation.ledger.gap.max() < 1e-14


def test_epsilon_takes_its_share_of_each_layer() -> None:
    """The score of 108 passes 108 + ε and, in thirds of 36, 12 + ε."""
    explanation = relprop.explain(network(2), INPUTS, target=0, rules=Epsilon(1))
    arriving = 108 * (108 / 109) * (12 / 13)
    assert_close(explanation.relevance, [arriving / 6, arriving / 3, arriving / 2])
    assert abs(explanation.ledger.absorbed["epsilon"].item() - (108 - arriving)) < 1e-12
