"""`explanation.top`: the entries with the largest relevance."""

import csv
import dataclasses
import io

import numpy as np
import pytest
import torch

import relprop
from relprop.errors import InputError
from relprop.results.largest import Entry


def explained(R, score=2.0):
    """An explanation with this relevance of its only input."""
    model = torch.nn.Linear(2, 1).eval()
    found = relprop.explain(model, torch.ones(len(R), 2), target=0)
    return dataclasses.replace(found, inputs={"x": R}, score=torch.full((len(R),), score))


def test_features_by_size_with_their_sign_and_share():
    R = torch.tensor([[0.0, 9.0, 0.0, 0.0], [0.5, -1.0, 0.25, 0.0]])
    found = explained(R).top(3, sample=1, features=["a", "b", "c", "d"], values=[1, 2, 3, 4])
    assert list(found) == [
        Entry((1,), "b", -1.0, -0.5, 2.0),
        Entry((0,), "a", 0.5, 0.25, 1.0),
        Entry((2,), "c", 0.25, 0.125, 3.0),
    ]
    assert (len(found), found[0].name, found.count, found.what) == (3, "b", 4, "feature")
    assert explained(R).top(2, sample=-1).entries[0].name == "1"


def test_it_prints_as_a_table():
    R = torch.tensor([[0.5, -1.0, 0.25, 0.0]])
    found = explained(R).top(
        2, features=["age", "income", "x", "y"], values=torch.tensor([[30.0, 1e5, 0, 0]])
    )
    assert (
        str(found)
        == repr(found)
        == (
            "feature   value  relevance  share of the score\n"
            "income   100000         -1               -50 %\n"
            "age          30        0.5                25 %\n"
            "2 of 4 features, -25 % of the score 2"
        )
    )
    assert str(explained(R).top(1)).splitlines()[:2] == [
        "feature  relevance  share of the score",
        "1               -1               -50 %",
    ]


def test_pixels_are_sums_over_channels_by_row_and_column():
    R = torch.zeros(2, 3, 4, 5)
    R[1, :, 2, 3], R[1, 0, 0, 1] = -1, 2.5
    found = explained(R).top(2, sample=1)
    assert [(entry.place, entry.name, entry.relevance) for entry in found] == [
        ((2, 3), "(2, 3)", -3.0),
        ((0, 1), "(0, 1)", 2.5),
    ]
    assert (found.what, found.count) == ("pixel", 20)
    each = explained(R).top(1, sample=1, channels=None)
    assert (each[0].place, each.what, each.count) == ((0, 0, 1), "entry", 60)
    assert explained(R).top(1, sample=1, channels="norm")[0].relevance == 2.5


def test_time_steps_of_signals():
    R = torch.zeros(1, 2, 6)
    R[0, :, 4] = 1
    found = explained(R).top(1)
    assert (found[0].place, found[0].name, found[0].relevance, found.what) == ((4,), "4", 2.0, "time step")


def test_values_of_images_of_one_channel():
    R = torch.tensor([[[[1.0, 2.0]]]])
    assert [entry.value for entry in explained(R).top(2, values=torch.tensor([[[[5.0, 6.0]]]]))] == [6.0, 5.0]
    with pytest.raises(
        InputError, match=r"top\(values=...\): an entry is the sum over 2 channels, which have a val"
    ):
        explained(R.expand(1, 2, 1, 2)).top(values=torch.ones(1, 2, 1, 2))


def test_of_equal_entries_the_first_is_first_and_fewer_are_all():
    assert [entry.place for entry in explained(torch.ones(1, 3)).top(10)] == [(0,), (1,), (2,)]
    assert len(explained(torch.ones(1, 3)).top(10)) == 3


def test_a_score_of_zero_has_no_shares():
    found = explained(torch.ones(1, 2), score=0.0).top()
    assert np.isnan(found[0].share)
    assert found.as_data()[0]["share"] is None
    assert "nan" not in str(found)


def test_as_data_and_as_comma_separated_values():
    found = explained(torch.tensor([[1.0, -2.0]])).top(2, features=['a, "b"', "c"])
    assert found.as_data() == [
        {"place": (1,), "name": "c", "relevance": -2.0, "share": -1.0, "value": None},
        {"place": (0,), "name": 'a, "b"', "relevance": 1.0, "share": 0.5, "value": None},
    ]
    assert list(csv.reader(io.StringIO(found.to_csv()))) == [
        ["place", "name", "value", "relevance", "share"],
        ["1", "c", "", "-2.0", "-1.0"],
        ["0", 'a, "b"', "", "1.0", "0.5"],
    ]


def test_one_number_a_sample_and_an_input_without_samples():
    found = explained(torch.tensor([3.0, 4.0])).top(5, sample=1)
    assert [(entry.place, entry.relevance) for entry in found] == [((), 4.0)]
    whole = relprop.explain(lambda x: (x * x).sum(), torch.tensor([[1.0], [3.0], [2.0]]))
    assert (whole.top(1)[0].place, whole.top(1).what) == ((1, 0), "entry")
    assert "1 of 3 entries, " in str(whole.top(1))


def test_several_inputs_and_recorded_modules_by_name():
    linear = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1)).eval()
    both = torch.rand(1, 2), torch.rand(1, 2)
    found = relprop.explain(
        lambda a, b: linear(torch.cat([a, b], 1)), *both, target=lambda y: y[:, 0] + 9, record=linear[0]
    )
    one, other = found.inputs
    R = found.inputs[one][0]
    assert [entry.relevance for entry in found.top(of=one)] == sorted(R.tolist(), key=abs, reverse=True)
    assert {entry.relevance for entry in found.top(of=other)} == set(found.inputs[other][0].tolist())
    with pytest.raises(InputError, match=r"several inputs: .* Choose one: explanation.top\(of='"):
        found.top()
    with pytest.raises(
        InputError, match=r"explanation.top\(of='c'\): there is no relevance of this name. There is"
    ):
        found.top(of="c")


def test_names_with_controls_are_shown_with_escapes():
    assert "a\\x1b[31m" in str(explained(torch.ones(1, 2)).top(features=["a\x1b[31m", "b"]))


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((2, 3), {"k": 0}, r"explanation.top\(k=0\): give a whole number, 1 or more"),
        ((2, 3), {"k": "3"}, r"explanation.top\(k='3'\): give a whole number"),
        (
            (2, 3),
            {"sample": 2},
            r"explanation.top\(sample=2\): there is no such sample; give a number from 0 to 1",
        ),
        (
            (1, 3),
            {"sample": 1},
            r"explanation.top\(sample=1\): there is no such sample; there is only sample 0",
        ),
        ((2, 3), {"features": ["a"]}, r"explanation.top\(features=...\) has 1 names for 3 features"),
        (
            (2, 3, 4),
            {"features": ["a"]},
            r"top\(features=...\) is for tables \(N, F\), but .* shape \(2, 3, 4\)",
        ),
        (
            (2, 3, 4),
            {"channels": "summ"},
            r"top\(channels='summ'\): no such reduction. Did you mean 'sum'.*, and None",
        ),
        ((2, 3), {"features": 3}, r"explanation.top\(features=3\): give a list of 3 names"),
        ((2, 3), {"values": [[1], [2, 3]]}, r"explanation.top\(values=...\) has rows of different lengths"),
        (
            (2, 3),
            {"values": [1, 2]},
            r"top\(values=...\) has the shape \(2,\); the input has \(3,\) or \(2, 3\)",
        ),
    ],
)
def test_what_has_no_meaning_is_refused_by_top(shape, arguments, message):
    with pytest.raises(InputError, match=message):
        explained(torch.ones(shape)).top(**arguments)


def test_relevance_that_is_nan_is_refused_by_top():
    R = torch.ones(2, 3)
    R[1, 2] = float("nan")
    assert len(explained(R).top()) == 3
    with pytest.raises(
        InputError, match=r"explanation.top: 1 of 3 values are NaN or infinite, the first at \(0, 2\)"
    ):
        explained(R).top(sample=1)
