"""The zoo of transformers: every family of `transformer_families` is explained as it comes, and books close.

`make zoo` runs all of it; `make test` runs the families in QUICK.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

import relprop
from families_compared import CLOSES_TO, assert_same, explained, other_ways
from leftovers import everything_about
from transformer_families import FAMILIES

PRESETS = ("attnlrp", "attnlrp-vit", "cp-lrp", "epsilon", None)
"""None is the default."""


SINGLE_WITHIN = ("llama", "mistral", "mixtral", "qwen", "phi3", "gemma", "modernbert")
SINGLE_IF_EAGER = ("gpt-neox", "vit", "deit", "swin", "clip", "segformer")
"""Families that compute in single precision also in double: RMS norms, ModernBERT's rotary embedding, and the
softmax of eager attention."""
CLOSES_TO_WITHIN = 1e-6

QUICK = ("bert-sdpa", "gpt2-eager", "llama-sdpa", "mixtral-sdpa-grouped_mm", "t5-sdpa", "vit-sdpa")


def _cases(*of_each: tuple[Any, ...]) -> list[Any]:
    """Mark what takes long: all families but those in QUICK."""
    return [pytest.param(*case, marks=() if case[0] in QUICK else pytest.mark.zoo) for case in of_each]


OTHER_WAYS = other_ways(FAMILIES)
each_family = pytest.mark.parametrize("name", _cases(*((name,) for name in FAMILIES)))
each_family_in_each_precision = pytest.mark.parametrize(
    ("name", "dtype"),
    _cases(*((name, dtype) for name, family in FAMILIES.items() for dtype in family.dtypes)),
    ids=str,
)
each_preset = pytest.mark.parametrize("preset", PRESETS, ids=str)


def _closes_to(name: str, dtype: torch.dtype) -> float:
    single = SINGLE_WITHIN + (SINGLE_IF_EAGER if FAMILIES[name].attention == "eager" else ())
    return CLOSES_TO_WITHIN if name.startswith(single) and dtype == torch.float64 else CLOSES_TO[dtype]


@each_family
def test_the_family_can_show_mistakes(name: str) -> None:
    family = FAMILIES[name]
    scores = []
    for dtype in family.dtypes:
        model, arguments, target = family.make(dtype)
        with torch.no_grad():
            scores.append(target(model(**arguments)).double())
    assert ((scores[0].abs() > 0.05) & (scores[0].abs() < 100)).all()
    torch.testing.assert_close(scores[0], scores[-1], rtol=1e-4, atol=0)
    for parameter in model.parameters():
        assert parameter.numel() == 1 or parameter.std() > 0.01 * parameter.abs().max()


@each_preset
@each_family
def test_everything_is_covered(name: str, preset: str | None) -> None:
    model, arguments, _ = FAMILIES[name].make(torch.float32)
    covered = relprop.coverage(model, **arguments, rules=preset)
    assert covered.complete, str(covered)


@each_preset
@each_family_in_each_precision
def test_every_preset_explains_it_and_leaves_it_as_it_came(
    name: str, preset: str | None, dtype: torch.dtype
) -> None:
    model, arguments, target = FAMILIES[name].make(dtype)
    with torch.no_grad():
        expected = target(model(**arguments))
    before = list(everything_about(model))
    explanation, relevance = explained(model, arguments, target=target, rules=preset)
    after = list(everything_about(model))

    for of_argument, value in relevance.items():
        assert value.shape == arguments[of_argument].shape
        assert value.dtype == dtype
        assert value.isfinite().all()
        assert (value.flatten(1).abs().sum(1) > 0).all()
    if "attention_mask" in arguments:
        of_argument = next(iter(arguments))  # the mask's
        assert (relevance[of_argument][arguments["attention_mask"] == 0] == 0).all()
    assert explanation.ledger.gap.max() <= _closes_to(name, dtype), str(explanation.ledger)
    assert not explanation.ledger.mixed or FAMILIES[name].experts == "eager"  # whose rows are of all samples
    assert after == before
    torch.testing.assert_close(explanation.score, expected, rtol=CLOSES_TO[dtype], atol=0)


@each_preset
@pytest.mark.parametrize(("name", "other"), _cases(*OTHER_WAYS))
def test_it_does_not_matter_how_attention_and_experts_are_computed(
    name: str, other: str, preset: str | None
) -> None:
    dtype = FAMILIES[name].dtypes[-1]
    relevance, expected = (
        explained(model, arguments, target=target, rules=preset)[1]
        for model, arguments, target in (FAMILIES[name].make(dtype), FAMILIES[other].make(dtype))
    )
    assert_same(relevance, expected, 1e-5)


@each_family
def test_presets_do_not_influence_each_other(name: str) -> None:
    family = FAMILIES[name]
    alone = {}
    for preset in PRESETS:
        model, arguments, target = family.make(torch.float32)
        _, alone[preset] = explained(model, arguments, target=target, rules=preset)
    for order in (PRESETS, PRESETS[::-1]):
        model, arguments, target = family.make(torch.float32)
        for preset in order:
            _, relevance = explained(model, arguments, target=target, rules=preset)
            assert_same(relevance, alone[preset], 0)


@each_preset
@pytest.mark.parametrize("name", ["gpt2-eager", "gpt2-sdpa", "llama-eager", "llama-sdpa"])
def test_padding_on_the_left_changes_nothing(name: str, preset: str | None) -> None:
    """There, all that a token of padding may see is hidden."""
    model, arguments, _ = FAMILIES[name].make(torch.float32)
    ids = arguments["input_ids"]
    mask = torch.ones_like(ids)
    mask[-1, :3] = 0
    padded = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    explanation, relevance = explained(model, padded, target=_of_last_token, rules=preset)
    assert (relevance["input_ids"][mask == 0] == 0).all()
    assert explanation.ledger.gap.max() <= CLOSES_TO[torch.float32]
    _, alone = explained(model, {"input_ids": ids[-1:, 3:]}, target=_of_last_token, rules=preset)
    assert_same({"input_ids": relevance["input_ids"][-1:, 3:]}, alone, 1e-5)


def _of_last_token(output: Any) -> Tensor:
    logits: Tensor = output["logits"]
    return logits[:, -1, 7]
