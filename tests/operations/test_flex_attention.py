"""Flex attention: torch refuses its gradient on the CPU, though it has one: the refusal is taken off."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import flex_attention as module
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import relprop
from relprop.errors import CoverageError, ModelError

N, HEADS, T, D = 2, 2, 128, 8


def scores(output: Tensor) -> Tensor:
    return output[:, :, -1].sum((1, 2))


@pytest.fixture
def qkv() -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(N, HEADS, T, D) for _ in range(3))


@pytest.fixture
def with_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_validate_device", lambda *_: None)


@pytest.mark.usefixtures("with_gradient")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp", relprop.rules.Epsilon(0)], ids=str)
def test_it_is_as_the_other_attention(qkv: tuple[Tensor, ...], causal: bool, rules: Any) -> None:
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, T, T, device="cpu") if causal else None
    e = relprop.explain(
        lambda q, k, v: flex_attention(q, k, v, block_mask=mask), *qkv, target=scores, rules=rules
    )
    other = relprop.explain(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal),
        *qkv,
        target=scores,
        rules=rules,
    )
    for R, expected in zip(e.inputs.values(), other.inputs.values(), strict=True):
        torch.testing.assert_close(R, expected, rtol=1e-5, atol=1e-6)
    assert [a.rule for a in e.rules] == [a.rule for a in other.rules]
    assert e.ledger.gap.max() < 1e-5


@pytest.mark.usefixtures("with_gradient")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_scores_that_are_changed_by_the_input_are_a_gap(qkv: tuple[Tensor, ...]) -> None:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = q.mean((0, 1, 3))
        return flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: score + bias[j])

    message = "flex_attention in module .*: a score_mod or mask_mod that depends on the input is not covered"
    with pytest.raises(CoverageError, match=message):
        relprop.explain(attention, *qkv, target=scores, rules="attnlrp")


def test_on_the_cpu_there_is_a_remedy(qkv: tuple[Tensor, ...]) -> None:
    message = "has no gradient on the CPU in torch. Load the model with attn_implementation='sdpa', or with"
    with pytest.raises(ModelError, match=message):
        relprop.explain(flex_attention, *qkv, target=scores, rules="attnlrp")
