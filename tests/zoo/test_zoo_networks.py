"""The zoo test: every preset explains every network of `zoo_networks` as it is, and the ledger closes.

`make zoo` runs all of it; `make test` runs the networks in QUICK.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

import relprop
from leftovers import everything_about
from zoo_networks import BOUNDS, NETWORKS

CLOSES_TO = {torch.float32: 1e-4, torch.float64: 1e-9}

QUICK = ("resnet18", "mobilenet_v3_small", "convnextv2_atto")
"""Batch normalisation and residuals; gates; layer and response normalisation."""

each_network = pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.zoo) for name in NETWORKS]
)


def scores(output: Any, target: Any) -> Tensor:
    """What `target` means, without relprop."""
    return target(output) if callable(target) else output[torch.arange(len(target)), target]


@each_network
def test_the_network_can_show_mistakes(name: str) -> None:
    model, x, target = NETWORKS[name].make(torch.float64)
    single, x_single, _ = NETWORKS[name].make(torch.float32)
    with torch.no_grad():
        output, output_single = model(x), single(x_single)
    score, score_single = scores(output, target), scores(output_single, target)
    assert ((score.abs() > 0.05) & (score.abs() < 100)).all()
    torch.testing.assert_close(score_single.double(), score, rtol=1e-4, atol=0)
    assert (score[0] - score[1]).abs() > 1e-3 * score.abs().max() or target[0] != target[1]
    for parameter in model.parameters():
        assert parameter.numel() == 1 or parameter.std() > 0.01 * parameter.abs().max()
    for path, buffer in model.named_buffers():
        if path.endswith(("running_mean", "running_var")):
            assert buffer.std() > 0.1 * buffer.abs().mean() > 0


@pytest.mark.parametrize("dtype", CLOSES_TO, ids=str)
@pytest.mark.parametrize("preset", relprop.PRESETS)
@each_network
def test_every_preset_explains_it_and_leaves_it_as_it_came(
    name: str, preset: str, dtype: torch.dtype
) -> None:
    model, x, target = NETWORKS[name].make(dtype)
    before = list(everything_about(model))
    explanation = relprop.explain(model, x, target=target, rules=preset, bounds=BOUNDS)
    after = list(everything_about(model))

    assert explanation.relevance.shape == x.shape
    assert explanation.relevance.dtype == dtype
    assert explanation.relevance.isfinite().all()
    assert (explanation.relevance.flatten(1).abs().sum(1) > 0).all()
    assert explanation.ledger.gap.max() <= CLOSES_TO[dtype], str(explanation.ledger)
    assert not explanation.ledger.mixed
    assert not [applied for applied in explanation.rules if isinstance(applied.rule, str)]
    assert after == before
    with torch.no_grad():
        expected = scores(model(x), target)
    torch.testing.assert_close(explanation.score, expected, rtol=CLOSES_TO[dtype], atol=0)
