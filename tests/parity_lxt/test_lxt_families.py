"""The families that LXT knows: its efficient mode patches them, relprop has them as they come."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from comparing import relative_difference
from families import FAMILIES
from lxt_side import PRESETS, Run, by_lxt, draw
from torch import Tensor

Agree = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Case:
    """Models of one family, by name of the comparison, with LXT's results."""

    preset: str
    runs: dict[str, Run]
    references: dict[str, dict[str, Tensor]]

    def relevance(self, name: str) -> tuple[Tensor, Tensor]:
        """relprop's and LXT's, after a look at the scores: both explain the same."""
        explanation = self.runs[name].by_relprop(PRESETS[self.preset])
        reference = self.references[name]
        assert relative_difference(explanation.score, reference["scores"]) < 1e-5
        return explanation.relevance, reference["relevance"]


@cache
def _compared(family: str, variant: str) -> Case:
    torch.manual_seed(0)
    runs = {
        "sdpa": draw(family, "sdpa"),
        "eager": draw(family, "eager"),
        "as it comes": draw(family, dtype=torch.float32, stabilised=True),
    }
    if FAMILIES[family].explained == "inputs_embeds":
        runs["integers"] = draw(family, integers=True)
    return Case(variant, runs, dict(zip(runs, by_lxt(list(runs.values()), variant), strict=True)))


EACH = [(name, variant) for name, family in FAMILIES.items() for variant in family.variants]
OF_TOKENS = [case for case in EACH if FAMILIES[case[0]].explained == "inputs_embeds"]


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """Of each family and variant; some tokens are padding. LXT runs once for all tests."""
    return _compared(*request.param)


of_each = pytest.mark.parametrize("case", EACH, indirect=True, ids=" ".join)
of_each_of_tokens = pytest.mark.parametrize("case", OF_TOKENS, indirect=True, ids=" ".join)


@of_each
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_relevance(case: Case, attention: str, assert_agree: Agree) -> None:
    """Element by element and per token, with either way to compute attention."""
    found, reference = case.relevance(attention)
    assert_agree(found, reference)
    assert_agree(found.sum(-1), reference.sum(-1))


@of_each_of_tokens
def test_relevance_of_tokens_by_their_numbers(case: Case, assert_agree: Agree) -> None:
    """LXT is given the embeddings, and its relevance summed; relprop is given the numbers of the tokens."""
    found, reference = case.relevance("integers")
    assert_agree(found, reference.sum(-1))


@of_each
def test_as_it_comes(case: Case) -> None:
    """In single precision, with LXT's stabiliser and the model called by relprop: what rounding leaves."""
    found, reference = case.relevance("as it comes")
    assert relative_difference(found, reference) < 2e-5
