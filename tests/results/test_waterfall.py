"""The steps of a waterfall: entries, sinks and the score, which add up."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from relprop.errors import InputError
from relprop.results.waterfall import Step, steps, steps_of


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def named_steps(names, amounts, absorbed, score, k, **options):
    return steps(names.__getitem__, amounts, absorbed, score, k, "waterfall", **options)


@pytest.mark.parametrize("rules", ["epsilon", "alpha2-beta1", "gradient-times-input"])
@pytest.mark.parametrize("k", [1, 5, 11, 50])
@pytest.mark.parametrize("sample", [0, 2])
def test_steps_add_up_to_the_score_exactly(rules, k, sample):
    found = relprop.explain(
        network(), torch.rand(3, 12), target=lambda y: y[:, 0] + 5, rules=rules, bounds=(0, 1)
    )
    told = steps_of(found.inputs, found.ledger, sample, k, "waterfall")
    score = float(found.ledger.seed[sample])
    assert math.fsum(step.amount for step in told) == pytest.approx(score, rel=1e-15)
    assert score == pytest.approx(float(found.score[sample]))
    entries = [step for step in told if step.kind in ("entry", "others")]
    assert math.fsum(step.amount for step in entries) == pytest.approx(
        float(found.relevance[sample].double().sum()), rel=1e-12
    )
    # What is missing is rounding, and not a part of the score.
    assert all(abs(step.amount) < 1e-3 * score for step in told if step.kind == "difference")


def test_steps_are_the_largest_entries_the_others_and_the_sinks():
    amounts = np.array([1.0, -5.0, 0.25, 0.5])
    found = named_steps("abcd", amounts, {"epsilon": 0.125, "bias": -2.0, "softmax": 0.0}, -5.0, 2)
    assert found == [
        Step("b", -5.0, "entry"),
        Step("a", 1.0, "entry"),
        Step("the other 2 inputs", 0.75, "others"),
        Step("bias", -2.0, "sink"),
        Step("epsilon", 0.125, "sink"),
        Step("not in the ledger", 0.125, "difference"),
    ]
    mixed = named_steps("abcd", amounts, {}, 9.0, 4, mixed=True)[-1]
    assert (mixed.name, mixed.amount) == ("other samples", 12.25)
    assert named_steps("a", np.array([1.0]), {}, 1.0 + 1e-6, 1)[-1].name == "rounding"
    few = named_steps("a", np.array([1.0]), {"epsilon": 1e-4, "bias": -2e-4}, 1.0 - 1e-4, 1)
    assert [(step.name, step.kind) for step in few] == [("a", "entry"), ("small sinks", "difference")]
    assert few[1].amount == pytest.approx(-1e-4)
    assert [step.name for step in named_steps("a", np.array([1.0]), {}, 1.0, 1)] == ["a"]


def test_a_single_other_is_named():
    assert [step.name for step in named_steps("abc", np.array([1.0, 2, 3]), {}, 6.0, 2)] == ["c", "b", "a"]


def test_a_whole_input_is_not_summed_over_its_first_dimension():
    found = relprop.explain(lambda x: (x * x).sum(), torch.tensor([[1.0, 5.0], [3.0, 2.0]]))
    told = steps_of(found.inputs, found.ledger, 0, 1, "waterfall")
    assert [(step.name, step.amount) for step in told[:2]] == [("(0, 1)", 25.0), ("the other 3 inputs", 14.0)]


def test_names_of_features_pixels_steps_and_of_several_inputs():
    ledger = relprop.explain(network(), torch.rand(1, 12), target=lambda y: y[:, 0] + 5).ledger

    def names(values=None, features=None, **inputs):
        told = steps_of(inputs, ledger, 0, 1, "waterfall", features=features, values=values)
        return told[0].name

    table = torch.tensor([[0.0, 2.0, 1.0]])
    assert names(x=table) == "feature 1"
    assert names(x=table, features=["a", "b", "c"], values=[1, -2, 3]) == "b = −2"
    assert names(x=torch.eye(3)[None, None] * torch.tensor([1.0, 1.0, 2.0])) == "pixel (2, 2)"
    assert names(x=table[None]) == "time step 1"
    assert names(age=table, pixels=torch.full((1, 2, 2, 2), 9.0)) == "pixels: pixel (0, 0)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, r"explanation.waterfall\(k=0\): give a whole number, 1 or more"),
        (
            {"sample": 3},
            r"explanation.waterfall\(sample=3\): there is no such sample; give a number from 0 to 2",
        ),
        ({"features": ["a"]}, r"explanation.waterfall\(features=...\) has 1 names for 12 features"),
        (
            {"values": [1.0]},
            r"explanation.waterfall\(values=...\) has the shape \(1,\); the input has \(12,\) or",
        ),
        ({"ax": 1}, r"explanation.waterfall\(ax=...\): this is int, and no axes"),
    ],
)
def test_what_has_no_meaning_is_refused_by_waterfall(arguments, message):
    found = relprop.explain(network(), torch.rand(3, 12), target=lambda y: y[:, 0] + 5)
    with pytest.raises(InputError, match=message):
        found.waterfall(**arguments)


def test_a_ledger_that_is_nan_is_refused_by_waterfall():
    with pytest.raises(
        InputError, match=r"waterfall: the ledger has an amount that is NaN or infinite, of 'bias'. Fin"
    ):
        named_steps("a", np.array([1.0]), {"bias": math.nan}, 2.0, 1)


def test_few_of_many_entries_are_named():
    told = []
    steps(lambda number: told.append(number) or "", np.arange(100000.0), {}, 1.0, 3, "waterfall")
    assert told == [99999, 99998, 99997]


def test_ids_of_all_samples_in_one_dimension_are_refused():
    bag = torch.nn.EmbeddingBag(10, 4).eval()
    ids, offsets = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([0, 2])
    found = relprop.explain(bag, ids, offsets=offsets, target=0)
    for name, call in (
        ("top", found.top),
        ("aggregate", lambda: found.aggregate([[0]])),
        ("waterfall", found.waterfall),
    ):
        with pytest.raises(
            InputError,
            match=rf"explanation.{name}: relevance of shape \(5,\) has the entries of all 2 samples in one",
        ):
            call()
