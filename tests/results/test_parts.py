"""`explanation.aggregate`: relevance summed over superpixels, masks, spans and groups of columns."""

import csv
import dataclasses
import io

import numpy as np
import pytest
import torch

import relprop
from relprop.errors import InputError
from relprop.results.parts import Part


def explained(*shape, score=2.0):
    """An explanation with random relevance of its only input, of this shape."""
    model = torch.nn.Linear(2, 1).eval()
    found = relprop.explain(model, torch.ones(shape[0], 2), target=0)
    R = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return dataclasses.replace(found, inputs={"x": R}, score=torch.full((shape[0],), score))


SEGMENTS = torch.tensor([[0, 0, 1], [3, 3, 1]])


def sums(found, sample=0):
    return dict(zip(found.names, found.relevance[sample].tolist(), strict=True))


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize("shape", [(2, 3), (4, 2, 3), (4, 5, 2, 3)])
def test_superpixels_of_every_shape(shape, as_array):
    found = explained(4, 5, 2, 3)
    wide = SEGMENTS if len(shape) < 4 else SEGMENTS[None, None]
    segments = wide.expand(shape)
    parts = found.aggregate(segments.numpy().astype(np.uint8) if as_array else segments)
    assert parts.names == ("segment 0", "segment 1", "segment 3")
    R = found.relevance.double()
    for number in (0, 1, 3):
        wanted = R[:, :, SEGMENTS == number].sum((1, 2))
        assert parts[f"segment {number}"].allclose(wanted)
    assert parts.relevance.dtype == torch.float64
    assert not parts.rest.any()
    assert parts.total.allclose(R.sum((1, 2, 3)), rtol=1e-14, atol=1e-14)


def test_each_sample_has_its_own_superpixels():
    found = explained(2, 1, 2, 3)
    segments = torch.stack([SEGMENTS, SEGMENTS.flip(0)])
    parts = found.aggregate(segments)
    R = found.relevance.double()
    assert parts["segment 3"].allclose(torch.stack([R[0, 0, 1, :2].sum(), R[1, 0, 0, :2].sum()]))


def test_negative_integers_are_the_rest_and_names_may_be_given():
    found = explained(1, 2, 2, 3)
    parts = found.aggregate(SEGMENTS - 1, ["right", "below"])
    assert parts.names == ("right", "below")
    R = found.relevance.double()
    assert parts[relprop.results.parts.REST].allclose(R[:, :, 0, :2].sum((1, 2)))
    assert parts.total.allclose(R.sum((1, 2, 3)))
    assert found.aggregate(SEGMENTS, {0: "a", 1: "b", 3: "c", 9: "none"}).names == ("a", "b", "c")


def test_masks_by_name_and_one_mask():
    found = explained(2, 3, 2, 3)
    cat = SEGMENTS == 0
    R = found.relevance.double()
    parts = found.aggregate({"cat": cat, "dog": (SEGMENTS == 1).numpy()})
    assert parts.names == ("cat", "dog")
    assert parts["cat"].allclose(R[:, :, cat].sum((1, 2)))
    assert parts.rest.allclose(R[:, :, SEGMENTS == 3].sum((1, 2)))
    one = found.aggregate(cat)
    assert one.names == ("the mask",)
    assert one.total.allclose(parts.total)
    assert found.aggregate(cat, ["cat"]).names == ("cat",)


def test_spans_of_a_signal():
    found = explained(2, 3, 10)
    R = found.relevance.double()
    parts = found.aggregate([(0, 4), (6, 10)])
    assert parts.names == ("0 to 4", "6 to 10")
    assert parts["6 to 10"].allclose(R[:, :, 6:].sum((1, 2)))
    assert parts.rest.allclose(R[:, :, 4:6].sum((1, 2)))
    named = found.aggregate({"beats": [(0, 2), (8, 10)], "pause": (2, 8)})
    assert named["beats"].allclose(R[:, :, [0, 1, 8, 9]].sum((1, 2)))
    assert not named.rest.any()
    assert found.aggregate([(0, 4)], names=["begin"]).names == ("begin",)


def test_groups_of_columns_of_a_table():
    found = explained(3, 4)
    R = found.relevance.double()
    parts = found.aggregate({"ends": [0, 3], "middle": np.array([1])})
    assert parts["ends"].allclose(R[:, [0, 3]].sum(1))
    assert parts.rest.allclose(R[:, 2])
    by_name = found.aggregate({"ends": ["a", "d"], "middle": [1]}, features=list("abcd"))
    assert by_name.relevance.equal(parts.relevance)
    assert found.aggregate([[0, 1], [2]]).names == ("part 0", "part 1")
    assert found.aggregate([(0, 2), (1, 3)]).relevance.allclose(R.reshape(3, 2, 2).sum(1))  # columns, too
    assert found.aggregate({"two": (0, 3)})["two"].allclose(R[:, [0, 3]].sum(1))  # columns, and no span


def test_parts_of_a_whole_input():
    found = relprop.explain(lambda x: (x * x).sum(), torch.tensor([[1.0, 5.0], [3.0, 2.0]]))
    parts = found.aggregate(torch.tensor([[0, 0], [1, 1]]))
    assert sums(parts) == {"segment 0": 26.0, "segment 1": 13.0}


def test_sums_are_exact_in_half_precision_too():
    found = explained(2, 3, 64, 64)
    half = dataclasses.replace(found, inputs={"x": found.relevance.to(torch.bfloat16)})
    parts = half.aggregate(torch.arange(64 * 64).reshape(64, 64) % 7)
    assert parts.total.allclose(half.relevance.double().sum((1, 2, 3)), rtol=1e-13, atol=1e-11)


def test_sums_with_the_ledger_are_the_score():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(32, 2)).eval()
    found = relprop.explain(model, torch.rand(2, 1, 6, 6), target=lambda y: y[:, 0] + 3)
    total = found.aggregate(torch.arange(36).reshape(6, 6) // 9).total
    absorbed = sum(found.ledger.absorbed.values())
    assert (total + absorbed).allclose(found.score.double(), rtol=1e-5)


def test_parts_of_one_sample_have_sizes_and_shares():
    found = explained(2, 1, 2, 3)
    parts = found.aggregate({"cat": SEGMENTS == 0})
    R = found.relevance.double()
    cat, rest = parts.of(1)
    assert cat == Part("cat", float(R[1, 0, 0, :2].sum()), float(R[1, 0, 0, :2].sum()) / 2, 2)
    assert (rest.name, rest.size) == ("the rest", 4)
    assert [part.name for part in found.aggregate(SEGMENTS * 0).of()] == ["segment 0"]
    assert (len(parts), list(parts)) == (1, ["cat"])


def test_a_map_of_parts_has_the_sums_at_their_pixels():
    found = explained(2, 3, 2, 3)
    parts = found.aggregate({"cat": SEGMENTS == 0})
    drawn = parts.as_map()
    assert drawn.shape == (2, 3, 2, 3)
    assert drawn[1, :, 0, :2].eq(parts["cat"][1]).all()
    assert not drawn[:, :, 1].any()


def test_parts_print_as_a_table():
    one = explained(1, 1, 2, 3)
    ones = dataclasses.replace(one, inputs={"x": torch.tensor([[[[1.0, 1, 2], [-3, -1, 4]]]])})
    assert str(ones.aggregate({"cat": SEGMENTS == 0, "dog": SEGMENTS == 3})) == (
        "part      relevance  share of the score\n"
        "cat               2               100 %\n"
        "dog              -4              -200 %\n"
        "the rest          6               300 %\n"
        "sum               4               200 %"
    )
    lines = repr(explained(8, 2).aggregate([[0], [1]])).splitlines()
    assert lines[0].split() == ["part", *(word for n in range(6) for word in ("sample", str(n)))]
    assert [line[:6] for line in lines[1:]] == ["part 0", "part 1", "sum   ", "(the f"]


def test_parts_as_data_and_in_a_file(tmp_path):
    found = explained(2, 2)
    parts = found.aggregate({"a": [0]})
    R = found.relevance.double()
    assert parts.as_data()[2] == {
        "sample": 1,
        "name": "a",
        "relevance": float(R[1, 0]),
        "share": float(R[1, 0]) / 2,
        "size": 1,
    }
    rows = list(csv.reader(io.StringIO(parts.to_csv())))
    assert rows[0] == ["sample", "name", "relevance", "share", "size"]
    assert [row[:2] for row in rows[1:]] == [["0", "a"], ["0", "the rest"], ["1", "a"], ["1", "the rest"]]
    parts.save(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == parts.to_csv()
    with pytest.raises(
        InputError, match=r"parts.save\('.*a.txt'\): give a name that ends in .csv. Figures are"
    ):
        parts.save(tmp_path / "a.txt")


IMAGE, SIGNAL, TABLE = (2, 3, 4, 5), (2, 3, 10), (2, 4)
WHOLE = torch.ones(4, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        (
            IMAGE,
            [torch.ones(5, 4).long()],
            r"aggregate: segments has the shape \(5, 4\), but the input has \(2, 3, 4, 5\). Give \(4, 5\) "
            r"or \(2, 4, 5\) or \(2, 3, 4, 5\)",
        ),
        (
            IMAGE,
            [{"cat": torch.ones(3).bool()}],
            r"aggregate: segments\['cat'\] has the shape \(3,\), but the input",
        ),
        (IMAGE, [{"cat": [(0, 3)]}], r"aggregate: segments\['cat'\] is list. Give a boolean mask\."),
        (
            IMAGE,
            [{"cat": torch.ones(4, 5)}],
            r"segments\['cat'\] is float32 of shape \(4, 5\). Give a boolean mask",
        ),
        (
            IMAGE,
            [torch.ones(4, 5)],
            r"aggregate: the segments are float32. Give a map of integers, a boolean mask",
        ),
        (IMAGE, ["cat"], r"aggregate: the segments are str. Give a map of integers"),
        (IMAGE, [None], r"aggregate: the segments are NoneType"),
        (IMAGE, [{}], r"aggregate: there are no parts. Give one or more"),
        (IMAGE, [-torch.ones(4, 5).long()], r"the map has negative integers only"),
        (
            IMAGE,
            [{"a": WHOLE, "b": WHOLE}],
            r"the parts 'a' and 'b' share 120 elements, whose relevance would be counted twice",
        ),
        (IMAGE, [{"a": ~WHOLE}], r"the part 'a' is empty. Leave it out"),
        (IMAGE, [WHOLE.long(), ["a", "b"]], r"aggregate\(names=...\) has 2 different names for 1 parts"),
        (IMAGE, [WHOLE.long(), "a"], r"aggregate\(names=...\) has 'a' for 1 parts"),
        (IMAGE, [WHOLE.long(), {0: "a"}], r"aggregate\(names=...\) has no name for segment 1"),
        (IMAGE, [{"a": WHOLE}, ["b"]], r"aggregate\(names=...\): parts by name have names already"),
        (
            SIGNAL,
            [[(0, 11)]],
            r"segments\[0\] has the span \(0, 11\), but the input has 10 steps. Give 0 <= start < end",
        ),
        (SIGNAL, [{"a": (5, 5)}], r"segments\['a'\] has the span \(5, 5\)"),
        (SIGNAL, [[(0, 5), (4, 6)]], r"the parts '0 to 5' and '4 to 6' share 6 elements"),
        (SIGNAL, [[(0, 5), (0, 5)]], r"two parts have the same name"),
        (
            SIGNAL,
            [[3]],
            r"segments\[0\] is int. Give a boolean mask, a span \(start, end\), or a list of numbers",
        ),
        (TABLE, [{"a": [4]}], r"segments\['a'\] has 4. Give whole numbers from 0 to 3"),
        (TABLE, [{"a": [1.5]}], r"segments\['a'\] has 1.5. Give whole numbers"),
        (TABLE, [{"a": []}], r"segments\['a'\] is empty"),
        (
            TABLE,
            [{"a": ["age"]}],
            r"segments\['a'\] has the name 'age'. Give the names of all columns: features=",
        ),
    ],
)
def test_parts_without_meaning_are_refused(shape, arguments, message):
    with pytest.raises(InputError, match=message):
        explained(*shape).aggregate(*arguments)


def test_a_name_that_is_none_is_an_error():
    with pytest.raises(InputError, match=r"has 'agee', which is no name of features=. Did you mean 'age'"):
        explained(2, 2).aggregate({"a": ["agee"]}, features=["age", "b"])
    with pytest.raises(
        InputError, match=r"parts\['cut'\]: there is no such part. Did you mean 'cat'\? There are: 'cat'"
    ):
        explained(2, 2).aggregate({"cat": [0]})["cut"]
    with pytest.raises(
        InputError, match=r"aggregate\(features=...\) has 1 names for 2 features; give a name f"
    ):
        explained(2, 2).aggregate({"a": ["age"]}, features=["age"])
    with pytest.raises(InputError, match=r"aggregate\(names=...\) has 3 for 1 parts. Give a name for each"):
        explained(2, 2).aggregate([[0]], names=3)
    with pytest.raises(InputError, match=r"parts.of\(sample=2\): there is no such sample"):
        explained(2, 2).aggregate({"cat": [0]}).of(2)


def test_relevance_that_is_nan_is_refused_by_aggregate():
    found = explained(2, 2)
    R = found.relevance.clone()
    R[1, 0] = float("inf")
    with pytest.raises(
        InputError, match=r"explanation.aggregate: 1 of 4 values are NaN or infinite, the first at \(1, 0"
    ):
        dataclasses.replace(found, inputs={"x": R}).aggregate([[0]])
