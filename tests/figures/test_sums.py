"""Figures of few numbers: waterfalls, and sums over parts as bars and as maps."""

import itertools
import pickle

import matplotlib.figure
import numpy as np
import pytest
import torch

import relprop
from relprop.errors import InputError
from relprop.figures.figure import Figure
from relprop.view.heatmaps import scale

SEGMENTS = torch.arange(64).reshape(8, 8) // 16


def labels(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_each_bar_of_a_waterfall_begins_where_the_one_above_ends(table):
    explanation, x = table
    figure = explanation.waterfall(3, 1, features=list("abcdefgh"), values=x, title="Why?")
    assert isinstance(figure, Figure)
    (ax,) = figure.axes
    names, bars = labels(ax), ax.patches
    assert [name.partition(" = ")[0] in "abcdefgh" for name in names[:3]] == [True] * 3
    assert names[3] == "the other 5 inputs"
    assert names[-1] == "score"
    assert set(names[4:-1]) == {sink for sink, a in explanation.ledger.absorbed.items() if abs(a[1]) > 1e-3}
    for above, below in itertools.pairwise(bars[:-1]):
        assert below.get_x() == pytest.approx(above.get_x() + above.get_width())
    score = float(explanation.ledger.seed[1])
    assert bars[-1].get_x() == 0
    assert bars[-1].get_width() == pytest.approx(score)
    assert sum(bar.get_width() for bar in bars[:-1]) == pytest.approx(score, rel=1e-5)
    assert ax.get_title() == "Why?"
    assert figure.drawing.get_size_inches()[0] == pytest.approx(3.4)
    assert figure.metadata["Score"] == f"{float(explanation.score[1]):.6g}"


def test_a_waterfall_on_axes_of_the_user(table, ax):
    explanation, _ = table
    assert explanation.waterfall(ax=ax) is ax
    assert labels(ax)[-1] == "score"
    low, high = ax.get_xlim()
    ends = [end for bar in ax.patches for end in (bar.get_x(), bar.get_x() + bar.get_width())]
    assert low < min(ends) < max(ends) < high


def test_a_waterfall_of_pixels_and_of_two_inputs(images):
    explanation, _ = images
    (ax,) = explanation.waterfall(k=2).axes
    assert labels(ax)[2] == "the other 62 inputs"
    linear = torch.nn.Linear(4, 1).eval()
    both = relprop.explain(
        lambda a, b: linear(torch.cat([a, b], 1)),
        torch.rand(1, 2),
        torch.rand(1, 2),
        target=lambda y: y[:, 0] + 9,
    )
    (ax,) = both.waterfall().axes
    assert {name.partition(":")[0] for name in labels(ax)[:4]} == set(both.inputs)


def test_parts_as_bars(table, ax):
    explanation, _ = table
    parts = explanation.aggregate({"first": [0, 1], "last": [7]})
    figure = parts.bars(sample=1)
    (own,) = figure.axes
    amounts = {part.name: part.relevance for part in parts.of(1)}
    assert sorted(labels(own), key=lambda name: -abs(amounts[name])) == labels(own)
    np.testing.assert_allclose(
        [bar.get_width() for bar in own.patches], [amounts[name] for name in labels(own)]
    )
    assert figure.metadata["Sample"] == "1"
    assert parts.bars(1, 1, ax=ax) is ax
    assert labels(ax)[1] == "the other 2"


def test_parts_as_a_map_over_the_picture_with_their_edges(images, ax):
    explanation, x = images
    parts = explanation.aggregate(SEGMENTS)
    figure = parts.map(x[1], sample=1, title="Stripes")
    own, bar = figure.axes
    base, layer = sorted(own.get_images(), key=lambda image: image.zorder)
    assert base.get_array().shape == (8, 8, 3)
    largest = float(parts.relevance[1].abs().max())
    assert [text.get_text() for text in bar.get_yticklabels()][-1] == f"{largest:.3g}"
    assert own.get_title() == "Stripes"
    # Opacity grows with the size of the sum.
    order = np.argsort([layer.get_array()[row, 0, 3] for row in (0, 2, 4, 6)])
    assert order.tolist() == parts.relevance[1].abs().argsort().tolist()
    (edges,) = own.patches
    assert edges.get_path().vertices.tolist() == [
        [-0.5, 1.5],
        [7.5, 1.5],
        [-0.5, 3.5],
        [7.5, 3.5],
        [-0.5, 5.5],
        [7.5, 5.5],
    ]
    of_all = parts.map(x, sample=1).axes[0].get_images()
    np.testing.assert_array_equal(min(of_all, key=lambda image: image.zorder).get_array(), base.get_array())
    assert parts.map(ax=ax) is ax
    values = parts.as_map()[0, :1].numpy()
    np.testing.assert_allclose(ax.get_images()[0].get_array(), values[0])
    assert ax.get_images()[0].get_clim()[1] == pytest.approx(float(scale(values, percentile=100).limits[0]))


def test_edges_are_at_pixels_of_a_larger_picture(images):
    explanation, _ = images
    figure = explanation.aggregate(SEGMENTS).map(np.zeros((16, 16, 3), np.uint8), bar=False)
    (edges,) = figure.axes[0].patches
    assert {row for _, row in edges.get_path().vertices.tolist()} == {3.5, 7.5, 11.5}
    assert len(figure.axes) == 1


def test_edges_go_around_parts_of_any_form(images):
    ring = torch.zeros(8, 8, dtype=torch.bool)
    ring[2:5, 3:6] = True
    ring[3, 4] = False
    (edges,) = images[0].aggregate(ring).map().axes[0].patches
    lines = {tuple(map(tuple, line)) for line in (edges.get_path().vertices.reshape(-1, 2, 2) + 0.5).tolist()}
    outer = {((3, 2), (6, 2)), ((3, 5), (6, 5)), ((3, 2), (3, 5)), ((6, 2), (6, 5))}
    assert lines == outer | {((4, 3), (5, 3)), ((4, 4), (5, 4)), ((4, 3), (4, 4)), ((5, 3), (5, 4))}


def test_parts_of_single_pixels_have_no_edges(images, monkeypatch):
    monkeypatch.setattr("relprop.figures.parts.MOST_EDGES", 13)
    (edges,) = images[0].aggregate(torch.arange(64).reshape(8, 8)).map().axes[0].patches
    assert not len(edges.get_path().vertices)


def test_figures_of_parts_are_files(images, tmp_path):
    explanation, x = images
    parts = explanation.aggregate(SEGMENTS)
    parts.map(x[0]).save(tmp_path / "a.svg")
    parts.bars().save(tmp_path / "b.pdf")
    assert "segment 3" in (parts.bars().as_bytes("svg")).decode()
    assert (tmp_path / "a.svg").read_text().count("<image") >= 2
    assert (tmp_path / "b.pdf").stat().st_size > 1000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda parts: parts.bars(k=0), r"parts.bars\(k=0\): give a whole number, 1 or more"),
        (
            lambda parts: parts.bars(sample=3),
            r"parts.bars\(sample=3\): there is no such sample; give a number from 0 to 2",
        ),
        (lambda parts: parts.bars(title=None), r"parts.bars\(title=None\): give a text"),
        (lambda parts: parts.bars(width=99), r"parts.bars\(width=99\): give the width in inches"),
        (lambda parts: parts.bars(ax=1), r"parts.bars\(ax=...\): this is int, and no axes"),
        (lambda parts: parts.map(sample=3), r"parts.map\(sample=3\): there is no such sample"),
        (lambda parts: parts.map(ax=1), r"parts.map\(ax=...\): this is int, and no axes"),
        (
            lambda parts: parts.map(k=3),
            r"parts.map\(k=...\): there is no such option. There are: percentile, colour",
        ),
        (lambda parts: parts.map(beside=True), r"parts.map\(beside=True\) needs a picture"),
        (lambda parts: parts.map(torch.ones(3, 8, 4)), r"picture= is 4 x 8 pixels and the map 8 x 8"),
        (lambda parts: parts.map(width=99), r"parts.map\(width=99\): give the width in inches"),
    ],
)
def test_what_has_no_meaning_is_refused_by_figures_of_parts(images, call, message):
    with pytest.raises(InputError, match=message):
        call(images[0].aggregate(SEGMENTS))


def test_only_parts_of_images_are_maps(images, table):
    with pytest.raises(
        InputError, match=r"parts.map\(\) is for images \(N, C, H, W\), but these are parts of \(2, 8\)"
    ):
        table[0].aggregate([[0]]).map()
    first = torch.zeros(3, 3, 8, 8, dtype=torch.bool)
    first[:, 0] = True
    with pytest.raises(
        InputError, match=r"parts.map\(\): the parts differ between channels. Draw them by parts.bars"
    ):
        images[0].aggregate(first).map()


def test_the_title_is_by_default_what_is_explained_with_its_score(images, ax):
    explanation, x = images
    parts = explanation.aggregate(SEGMENTS)
    label = f"class 2, score {float(explanation.score[1]):.4g}"
    drawn = [parts.bars(sample=1), parts.map(x, sample=1), explanation.waterfall(sample=1)]
    assert [figure.axes[0].get_title() for figure in drawn] == [label] * 3
    for draw in (parts.bars, parts.map, explanation.waterfall):
        assert draw(ax=ax, sample=1).get_title() == label
        assert draw(ax=ax, sample=1, title="Mine").get_title() == "Mine"
        assert draw(sample=1, width=5).drawing.get_size_inches()[0] == pytest.approx(5)


def test_only_the_sample_that_is_drawn_is_described(table, monkeypatch):
    told = []
    own = relprop.Explanation.described
    monkeypatch.setattr(relprop.Explanation, "described", lambda self, *of: told.append(of) or own(self, *of))
    parts = table[0].aggregate([[0, 1]])
    assert not told
    parts.bars(sample=1)
    assert told == [(None, [1])]
    assert pickle.loads(pickle.dumps(parts)).bars().metadata == parts.bars().metadata


def test_a_figure_of_parts_is_described_by_its_own_sample_and_relevance():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 3)).eval()
    found = relprop.explain(model, torch.rand(2, 1, 8, 8), target=[0, 2], record="0")
    about = found.aggregate(torch.zeros(6, 6, dtype=torch.int64), of="0").map(sample=1).metadata
    assert about["Title"] == "Relevance of 0 for class 2"
    assert about["Relevance of"] == "0"
    assert about["Score"] == f"{float(found.score[1]):.6g}"
    assert about["Sum of relevance"] == f"{float(found.inner['0'][1].double().sum()):.6g}"


def test_figures_of_the_user_are_left_as_they_are(table):
    outer = matplotlib.figure.Figure()
    one, other = outer.subplots(1, 2)
    table[0].waterfall(ax=one)
    assert outer.axes == [one, other]
    assert not other.patches
