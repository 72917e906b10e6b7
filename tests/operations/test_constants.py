"""Constants beside what is relevant: masks, infinities, integers, and what is used again."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relprop
from alike import same_relevance
from networks import DOUBLE, linear
from relprop.errors import CoverageError
from relprop.rules import Epsilon


def test_a_masked_class_does_not_spoil_the_others() -> None:
    layer, mask = linear(4, 3), torch.tensor([0.0, 0.0, -torch.inf], **DOUBLE)
    x = torch.randn(2, 4, **DOUBLE)
    e = relprop.explain(lambda x: layer(x) + mask, x, target=1, rules=Epsilon(0.1))
    expected = relprop.explain(layer, x, target=1, rules=Epsilon(0.1))
    torch.testing.assert_close(e.relevance, expected.relevance)
    assert e.ledger.gap.max() < 1e-12


def test_padding_with_minus_infinity_before_a_maximum() -> None:
    layer, x = linear(8, 3), torch.randn(2, 1, 8, **DOUBLE)

    def model(x: Tensor) -> Tensor:
        return layer(F.max_pool1d(F.pad(x, (1, 1), value=-torch.inf), 3, 1).flatten(1))

    same_relevance(model, lambda x: layer(F.max_pool1d(x, 3, 1, padding=1).flatten(1)), x, Epsilon(0.1))


def test_a_constant_of_integers_among_parts() -> None:
    e = relprop.explain(
        lambda x: torch.cat([x, torch.ones(2, 1, dtype=torch.int64)], 1), torch.rand(2, 3), target=3
    )
    torch.testing.assert_close(e.ledger.absorbed["constant"], torch.ones(2, **DOUBLE))


def test_constants_and_masks_that_are_used_again() -> None:
    layer, constant = linear(4, 3), torch.ones(2, 1, **DOUBLE)
    mask = torch.tensor([[True, False, False, True]])

    def model(x: Tensor) -> Tensor:
        constant.fill_(2.0)
        y = torch.cat([x, constant], 1) + constant
        constant.zero_()
        used = mask.clone()
        y = y.masked_fill(used, 0.7)
        used.fill_(False)
        return layer(y)

    assert relprop.explain(model, torch.randn(2, 3, **DOUBLE), rules=Epsilon(0.1)).ledger.gap.max() < 1e-12


def test_masked_fill_with_a_relevant_value_is_a_gap() -> None:
    with pytest.raises(CoverageError, match=r"masked_fill in module .*the value depends on the input"):
        relprop.explain(lambda x: x.masked_fill(x > 0, x.sum()), torch.randn(2, 3))
