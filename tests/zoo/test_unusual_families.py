"""Families of transformers that compute in ways of their own are explained as they come, and books close.

`make zoo` runs these.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from families_compared import CLOSES_TO, assert_same, explained, other_ways
from leftovers import everything_about
from transformer_families import SAMPLES, Arguments
from unusual_families import FAMILIES

pytestmark = pytest.mark.zoo

PRESETS = ("attnlrp", "cp-lrp", None)
"""None is the default."""


OTHER_WAYS = other_ways(FAMILIES)
each_family = pytest.mark.parametrize("name", FAMILIES)
each_preset = pytest.mark.parametrize("preset", PRESETS, ids=str)


def _made(name: str) -> tuple[nn.Module, Arguments, Any]:
    return FAMILIES[name].make(torch.float32)


def _score(model: nn.Module, arguments: Arguments, target: Any) -> Tensor:
    with torch.no_grad():
        score: Tensor = target(model(**arguments))
    return score


@each_preset
@each_family
def test_every_preset_explains_it_and_leaves_it_as_it_came(name: str, preset: str | None) -> None:
    model, arguments, target = _made(name)
    expected = _score(model, arguments, target)
    before = list(everything_about(model))
    explanation, relevance = explained(model, arguments, target=target, rules=preset)
    after = list(everything_about(model))

    assert ((expected.abs() > 0.05) & (expected.abs() < 100)).all()
    for of_argument, value in relevance.items():
        assert value.shape == arguments[of_argument].shape
        assert value.isfinite().all()
        assert (value.flatten(1).abs().sum(1) > 0).all()
    if "attention_mask" in arguments:
        of_argument = next(iter(arguments))  # the mask's
        assert (relevance[of_argument][arguments["attention_mask"] == 0] == 0).all()
    assert explanation.ledger.gap.max() <= CLOSES_TO[torch.float32], str(explanation.ledger)
    assert after == before
    torch.testing.assert_close(explanation.score, expected, rtol=1e-4, atol=0)


@each_preset
@pytest.mark.parametrize(("name", "other"), OTHER_WAYS)
def test_it_does_not_matter_how_attention_and_experts_are_computed(
    name: str, other: str, preset: str | None
) -> None:
    relevance, expected = (
        explained(model, arguments, target=target, rules=preset)[1]
        for model, arguments, target in (_made(name), _made(other))
    )
    assert_same(relevance, expected, 1e-4)


@each_family
def test_a_sample_is_explained_as_it_is_alone(name: str) -> None:
    """Also where a model has its samples elsewhere than first, and the books close for all of them only."""
    model, arguments, target = _made(name)
    _, relevance = explained(model, arguments, target=target, rules="attnlrp")
    for sample in range(SAMPLES):
        this = slice(sample, sample + 1)
        one = {n: v[this] if isinstance(v, Tensor) else v for n, v in arguments.items()}

        def score(output: Any, this: slice = this) -> Tensor:
            logits = output["logits"].expand(
                SAMPLES, *output["logits"].shape[1:]
            )  # a class is chosen of each
            scores: Tensor = target({"logits": logits})
            return scores[this]

        _, alone = explained(model, one, target=score, rules="attnlrp")
        assert_same({n: v[this] for n, v in relevance.items()}, alone, 1e-4)


@pytest.mark.parametrize("preset", ["attnlrp", "cp-lrp", "epsilon-plus-flat"])
@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("opt-sdpa", "model.decoder.layers.*"),
        ("gpt-oss-eager-grouped_mm", "model.layers.*"),
        ("bamba-sdpa", "model.layers.*"),
        ("deberta-eager", "deberta.encoder.layer.*"),
        ("bart-eager", "model.*coder.layers.*"),
        ("detr-eager", "model.*coder.layers.*"),
    ],
)
def test_checkpointing_changes_no_bit(name: str, blocks: str, preset: str) -> None:
    model, arguments, target = _made(name)
    targets = [target, lambda output: 2 * target(output)]
    kept = relprop.explain_each(model, **arguments, targets=targets, rules=preset)
    again = relprop.explain_each(model, **arguments, targets=targets, rules=preset, checkpoint=blocks)
    for one, other in zip(kept, again, strict=True):
        expected = one.inputs
        for of_argument, value in other.inputs.items():
            assert torch.equal(value, expected[of_argument])
        assert str(one.ledger) == str(other.ledger)
