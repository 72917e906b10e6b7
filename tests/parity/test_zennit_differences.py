"""Rules in which relprop and zennit differ on purpose: by how much, why, and with what option they agree.

The options are compared over all layers in test_zennit_rules.py as well.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import zennit_parts as parts
from comparing import relative_difference
from rules_as_in_zennit import AlphaBetaWithoutExchange
from single_layers import by_relprop, by_zennit, neuron, row
from torch import Tensor, nn
from zennit import composites
from zennit import rules as zennit  # after zennit_parts, which makes it importable
from zennit.attribution import Gradient

from relprop import explain
from relprop.rules import AlphaBeta, Gamma, WSquare, ZPlus

exactly = parts.exactly
Agree = Callable[[Any, Tensor], None]


def test_alpha_beta_where_all_contributions_have_one_sign(assert_agree: Agree) -> None:
    """Without negative contributions β has nowhere to go; zennit's αβ then sends on α times the relevance.

    relprop gives the other side all of it, so that nothing is made or lost.
    """
    model, x = neuron([1, 2], bias=0), row(1, 1)
    assert_agree(by_relprop(model, x, AlphaBeta(2, 1)), row(1, 2))
    assert_agree(by_zennit(model, x, zennit.AlphaBeta(2, 1, exactly)), row(2, 4))
    assert_agree(by_zennit(model, -x, zennit.AlphaBeta(2, 1, exactly)), row(1, 2))  # of R = -3 it sends 3
    assert_agree(by_relprop(model, -x, AlphaBeta(2, 1)), row(-1, -2))
    assert_agree(by_relprop(model, x, AlphaBetaWithoutExchange(2, 1)), row(2, 4))
    assert_agree(by_zennit(model, x, parts.alpha_beta_with_exchange(2, 1)), row(1, 2))


def test_gamma_without_bias_goes_by_the_sign_of_what_is_shared_out(assert_agree: Agree) -> None:
    """Here z = 2 and z0 = -1. zennit ignores the bias in the denominator, and not in the sign.

    So it favours P where z0 + γP may be zero: a pole. relprop favours N, and the denominator is -1 - 2γ.
    """
    model, x = neuron([1, -2], bias=3), row(1, 1)
    assert_agree(by_relprop(model, x, Gamma(0.5, "ignore")), 2 * row(1, -3) / -2)
    assert_agree(by_zennit(model, x, parts.gamma_without_bias(0.5)), 2 * row(1, -3) / -2)
    assert_agree(by_zennit(model, x, zennit.Gamma(0.5, exactly, zero_params="bias")), 2 * row(1.5, -2) / -0.5)
    at_the_pole = by_zennit(model, x, zennit.Gamma(1, 1e-6, zero_params="bias"))
    assert at_the_pole.abs().max() > 1e6


def test_w_square_does_not_count_the_bias(assert_agree: Agree) -> None:
    """zennit has b² in the denominator unless told otherwise; relprop's rule is about the inputs alone."""
    model, x = neuron([1, 2], bias=5), row(1, 1)
    assert_agree(by_relprop(model, x, WSquare()), 8 * row(1, 4) / 5)
    assert_agree(by_zennit(model, x, zennit.WSquare(exactly)), 8 * row(1, 4) / 30)
    assert_agree(by_zennit(model, x, zennit.WSquare(exactly, zero_params="bias")), 8 * row(1, 4) / 5)


@pytest.mark.parametrize(
    ("rule", "absorbing", "hook", "ignoring"),
    [
        (
            ZPlus(),
            ZPlus("absorb"),
            zennit.ZPlus(exactly),
            zennit.ZPlus(exactly, zero_params="bias"),
        ),
        (
            AlphaBeta(2, 1),
            AlphaBeta(2, 1, "absorb"),
            zennit.AlphaBeta(2, 1, exactly),
            zennit.AlphaBeta(2, 1, exactly, zero_params="bias"),
        ),
    ],
)
def test_bias_of_z_plus_and_alpha_beta(
    rule: Any, absorbing: Any, hook: Any, ignoring: Any, assert_agree: Agree
) -> None:
    """Both can count the positive bias with P and the negative one with N, or neither; their defaults differ.

    relprop ignores biases here, as in deep Taylor decomposition; then all relevance arrives.
    """
    model, x = neuron([3, -1], bias=2), row(1, 1)
    assert_agree(by_relprop(model, x, rule), by_zennit(model, x, ignoring))
    assert_agree(by_relprop(model, x, absorbing), by_zennit(model, x, hook))
    assert_agree(by_relprop(model, x, rule).sum(), torch.tensor(4.0, dtype=torch.float64))
    assert relative_difference(by_relprop(model, x, rule), by_zennit(model, x, hook)) > 0.1


def test_stabilisers_stand_only_in_epsilon(assert_agree: Agree) -> None:
    """zennit adds 1e-6 to the denominators of all rules; relprop divides, and leaves out zeros.

    The difference grows with the stabiliser in proportion.
    """
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 2, stride=2)).double().eval()
    x = torch.randn(3, 2, 6, 6, dtype=torch.float64)
    c = torch.randn_like(model(x))
    found = by_relprop(model, x, Gamma(0.25), c)
    assert_agree(found, by_zennit(model, x, zennit.Gamma(0.25, exactly), c))
    differences = [
        relative_difference(found, by_zennit(model, x, zennit.Gamma(0.25, stabiliser), c))
        for stabiliser in (1e-6, 1e-8)
    ]
    assert differences[0] > 1e-7
    assert 90 < differences[0] / differences[1] < 110


def test_relevance_starts_from_the_score(assert_agree: Agree) -> None:
    """zennit's attributors start from 1 when given a one-hot vector, and relprop from the score."""
    model = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 3)).double().eval()
    x = torch.randn(2, 4, dtype=torch.float64)
    one_hot = row(0, 1, 0).expand(2, 3)
    explanation = explain(model, x, target=one_hot, rules=ZPlus("absorb"))
    composite = composites.ExcitationBackprop(stabilizer=exactly)
    with Gradient(model, composite) as attributor:
        _, R = attributor(x, one_hot)
    assert_agree(explanation.relevance / explanation.score[:, None], R)
