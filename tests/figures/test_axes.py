"""One sample on the user's axes: maps, pictures under them, signals, tables."""

import dataclasses
import pickle
import re

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure as Drawing

from relprop.errors import InputError
from relprop.figures.options import _KINDS, Layout
from relprop.figures.style import NEGATIVE, POSITIVE
from relprop.figures.texts import number
from relprop.view.colour import positive, signed
from relprop.view.display import as_pictures
from relprop.view.entries import with_value
from relprop.view.heatmaps import enlarge, overlay, reduce_channels, scale
from relprop.view.options import OF_FIGURES, Options


def labels(ax, axis="y"):
    return [text.get_text() for text in getattr(ax, f"get_{axis}ticklabels")()]


def numbers(ax):
    """The numbers to the right of bars."""
    return [text.get_text() for text in ax.texts]


# Images


def test_a_map_has_the_values_and_relprops_colours(images, ax):
    explanation, _ = images
    assert explanation.plot(ax=ax, sample=1) is ax
    (image,) = ax.get_images()
    wanted = reduce_channels(explanation.relevance[1:2])
    np.testing.assert_allclose(image.get_array(), wanted[0])
    limit = float(scale(wanted).limits[0])
    assert image.get_clim() == pytest.approx((-limit, limit))
    assert image.get_interpolation() == "none"
    for share in (-1, -0.5, 0, 0.5, 1):
        np.testing.assert_allclose(image.to_rgba(share * limit)[:3], signed(np.array(share)), atol=0.02)
    assert ax.get_title() == f"class 2, score {float(explanation.score[1]):.4g}"
    assert labels(ax) == labels(ax, "x") == []


def test_the_scale_has_its_numbers_and_can_be_left_out(images, ax):
    explanation, _ = images
    explanation.plot(ax=ax, percentile=100)
    limit = np.abs(reduce_channels(explanation.relevance[:1])).max()
    _, bar = ax.figure.axes
    assert labels(bar) == [f"−{limit:.3g}", "0", f"{limit:.3g}"]
    bare = Drawing().subplots()
    explanation.plot(ax=bare, bar=False)
    assert bare.figure.axes == [bare]


def test_values_without_sign_begin_at_zero(images, ax):
    explanation, _ = images
    explanation.plot(ax=ax, channels="norm")
    (image,) = ax.get_images()
    low, high = image.get_clim()
    assert low == 0
    np.testing.assert_allclose(image.to_rgba(high)[:3], positive(np.array(1.0)), atol=0.02)
    assert labels(ax.figure.axes[1])[0] == "0"


def test_relevance_of_zero_is_white(images, ax):
    explanation, _ = images
    nothing = {name: torch.zeros_like(R) for name, R in explanation.inputs.items()}
    dataclasses.replace(explanation, inputs=nothing).plot(ax=ax)
    (image,) = ax.get_images()
    np.testing.assert_allclose(image.to_rgba(image.get_array()), 1)
    assert labels(ax.figure.axes[1]) == ["0"]


def composed(ax):
    """Red, green and blue of the images of axes, the later ones over the earlier ones."""
    base, layer = (
        np.asarray(image.get_array(), float) for image in sorted(ax.get_images(), key=lambda i: i.zorder)
    )
    factor = base.shape[0] // layer.shape[0]
    layer = layer.repeat(factor, 0).repeat(factor, 1)
    return (1 - layer[..., 3:]) * base + layer[..., 3:] * layer[..., :3]


@pytest.mark.parametrize("options", [{}, {"grey": False, "opacity": 0.5}, {"colour": "heatmap"}])
def test_over_a_picture_it_looks_as_the_plot_does(images, ax, options):
    explanation, x = images
    explanation.plot(x, ax=ax, **options)
    values = scale(reduce_channels(explanation.relevance[:1])).values
    wanted = overlay(values, as_pictures(x[:1], 1, 8, 8), **{"colour": "signed"} | options)
    np.testing.assert_allclose(255 * composed(ax), wanted[0], atol=0.6)


def test_a_larger_picture_keeps_its_own_size(images, ax):
    explanation, _ = images
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    explanation.plot(picture, ax=ax, sample=2)
    base, layer = sorted(ax.get_images(), key=lambda image: image.zorder)
    assert base.get_array().shape == (32, 32, 3)
    assert layer.get_array().shape == (8, 8, 4)
    assert base.get_extent() == layer.get_extent() == [-0.5, 31.5, 31.5, -0.5]
    values = enlarge(scale(reduce_channels(explanation.relevance[2:])).values, 32, 32)
    np.testing.assert_allclose(255 * composed(ax), overlay(values, picture[None] / 255)[0], atol=0.6)


def test_a_picture_beside_the_map_does_not_touch_it(images, ax):
    explanation, x = images
    explanation.plot(x, ax=ax, beside=True)
    base, values = sorted(ax.get_images(), key=lambda image: image.zorder)
    assert base.get_extent()[1] < values.get_extent()[0]
    assert ax.get_xlim() == (base.get_extent()[0], values.get_extent()[1])
    np.testing.assert_allclose(base.get_array(), x[0].permute(1, 2, 0), atol=0.003)


# Tables


def test_features_are_bars_with_names_and_values(table, ax):
    explanation, x = table
    names = ["age", "income", "debt", "loans", "rent", "cars", "pets", "trips"]
    assert explanation.plot(ax=ax, features=names, values=x, k=5, sample=1) is ax
    R = explanation.relevance[1].double()
    order = R.abs().argsort(descending=True).tolist()
    told = [f"{names[n]} = {number(float(x[1, n]))}" for n in order[:5]]
    assert labels(ax) == [*told, "the other 3"]
    bars = ax.patches
    assert len(bars) == 6
    np.testing.assert_allclose([bar.get_width() for bar in bars[:5]], R[order[:5]])
    assert bars[5].get_width() == pytest.approx(float(R[order[5:]].sum()))
    assert sum(bar.get_width() for bar in bars) == pytest.approx(float(R.sum()))
    for bar, n in zip(bars, order[:5], strict=False):
        assert bar.get_facecolor()[:3] == pytest.approx(POSITIVE if R[n] > 0 else NEGATIVE)
    assert numbers(ax)[0] == f"{float(R[order[0]]):+.4g}".replace("-", "−")
    low, high = ax.get_xlim()
    assert all(low < end < high for bar in bars for end in (bar.get_x(), bar.get_x() + bar.get_width()))
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the largest is at the top


def test_a_single_other_feature_has_its_name(table, ax):
    explanation, _ = table
    explanation.plot(ax=ax, k=7)
    assert len(ax.patches) == 8
    assert all(label.startswith("feature ") for label in labels(ax))
    few = Drawing().subplots()
    explanation.plot(ax=few, k=6)
    assert labels(few)[-1] == "the other 2"


def test_names_may_be_mathematics_but_need_not(table, ax):
    explanation, _ = table
    money = ["income $20k-$30k", "a $5/b $6", "$a\\b$3"]
    names = [r"$\sigma$", "$ and $\\nothing$", "price in $", "$x$", "rate $R^2$", *money]
    explanation.plot(ax=ax, features=names)
    texts = {text.get_text(): text.get_parse_math() for text in ax.get_yticklabels()}
    assert texts[r"$\sigma$"]
    assert texts["$x$"]
    assert texts["rate $R^2$"]
    assert not any(texts[name] for name in money)
    assert not texts["$ and $\\nothing$"]
    assert not texts["price in $"]
    ax.figure.draw_without_rendering()


def test_long_names_are_cut_and_controls_are_shown(table, ax):
    explanation, _ = table
    explanation.plot(ax=ax, features=["a" * 100, "b\x1b[31m", "c\nd", *"efghi"])
    assert {"b\\x1b[31m", "c d"} <= set(labels(ax))
    (cut,) = [name for name in labels(ax) if "…" in name]
    assert re.fullmatch("a{15,}…a{15,}", cut)


def test_long_names_are_cut_in_their_middle_and_their_values_are_whole(table):
    explanation, x = table
    names = [f"mean outstanding balance of the current account, month {n}" for n in range(8)]
    for width in (3, 7):
        ax = Drawing(figsize=(width, 3)).subplots()
        explanation.plot(ax=ax, features=names, values=x)
        values = {f"{n} = {number(float(v))}" for n, v in enumerate(x[0])}
        assert {name[name.index(" = ") - 1 :] for name in labels(ax)} == values
        assert all(name.startswith("mean") and "…" in name for name in labels(ax))
        # The bars have a part of the width.
        ax.figure.set_layout_engine("constrained")
        ax.figure.draw_without_rendering()
        assert ax.get_position().width > 0.1


def test_names_of_channels_and_labels_have_the_width_of_the_axes(signals):
    figure = Drawing(figsize=(7, 2), layout="constrained")
    name = "left ventricular electrode, second position (mV), filtered"
    for ax in figure.subplots(1, 3):
        signals[0].plot(ax=ax, features=[name, "b", "c"], classes=["black-and-tan coonhound, a hound", "b"])
        title = ax.get_title()
        assert "\n" in title
        assert title.replace("\n", " ").startswith("black-and-tan coonhound, a hound, score")
    figure.draw_without_rendering()
    widths = [ax.get_position().width for ax in figure.axes[:3]]
    assert min(widths) > 0.1


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (12345.0, "12345"),
        (20_200_101.0, "20200101"),
        (2024.5, "2024"),
        (12345.678, "12346"),
        (9999.7, "10000"),
        (123456.7, "123457"),
        (0.00012345, "0.0001234"),
        (-1e-7, "−1e−7"),
        (2.5e7 + 0.5, "2.5e7"),
        (-0.0, "0"),
    ],
)
def test_numbers_are_written_in_one_way_beside_names_and_bars(value, told):
    assert with_value("a", value) == f"a = {told}"
    assert number(value) == told
    assert number(abs(value), sign=True).lstrip("+") == told.lstrip("−")


def test_bars_of_a_table_have_no_percentile_and_not_too_many_rows(table, ax):
    explanation, _ = table
    with pytest.raises(
        InputError,
        match=r"plot\(percentile=90\) is for maps and signals, which have .* Leave percentile= out",
    ):
        explanation.plot(ax=ax, percentile=90)
    wide = dataclasses.replace(explanation, inputs={"input": torch.rand(2, 300)})
    with pytest.raises(
        InputError, match=r"plot\(k=201\): a figure has 200 bars at most. Give a smaller k=, or make a table"
    ):
        wide.plot(ax=ax, k=201)
    with pytest.raises(InputError, match=r"explanation.waterfall\(k=300\): a figure has 200 bars at most"):
        wide.waterfall(ax=ax, k=1000)
    with pytest.raises(InputError, match=r"parts.bars\(k=299\): a figure has 200 bars at most"):
        wide.aggregate([[n] for n in range(299)]).bars(ax=ax, k=299)
    assert not ax.has_data()


def spread(ax):
    """The ends of all bars."""
    return [end for bar in ax.patches for end in (bar.get_x(), bar.get_x() + bar.get_width())]


def test_bars_on_axes_with_a_common_scale_are_all_whole(table):
    explanation, _ = table
    larger = dataclasses.replace(explanation, inputs={"input": 10 * explanation.relevance})
    for order in ((larger, explanation), (explanation, larger)):
        axes = Drawing().subplots(1, 2, sharex=True)
        for ax, each in zip(axes, order, strict=True):
            each.plot(ax=ax)
        low, high = axes[0].get_xlim()
        assert axes[1].get_xlim() == (low, high)
        ends = [*spread(axes[0]), *spread(axes[1])]
        assert low < min(ends) < max(ends) < high


def test_bars_have_names_of_their_own(table):
    axes = Drawing().subplots(1, 2, sharey=True)
    told = r"\(ax=...\): the axes share their y axis with others, so .* Make them with sharey=False"
    for call, draw in (("plot", table[0].plot), ("waterfall", table[0].waterfall)):
        with pytest.raises(InputError, match=call + told):
            draw(ax=axes[0])
    assert not axes[0].has_data()


def test_maps_and_signals_share_axes_only_with_the_same_limits(images, signals):
    one, other = Drawing().subplots(1, 2, sharex=True, sharey=True)
    images[0].plot(ax=one)
    images[0].plot(ax=other, sample=1)
    large = np.zeros((16, 16, 3), np.uint8)
    message = (
        r"\(ax=...\): the axes share their x axis .* from -0.5 to 7.5; here .* -0.5 to 15.5. Make them with"
    )
    with pytest.raises(InputError, match="plot" + message):
        images[0].plot(large, ax=other)
    with pytest.raises(InputError, match=r"parts.map" + message):
        images[0].aggregate(torch.arange(64).reshape(8, 8)).map(large, ax=other)
    with pytest.raises(InputError, match=r"here it would be from -0.5 to 39.5"):
        signals[0].plot(ax=other)
    assert other.get_xlim() == (-0.5, 7.5)


def test_axes_are_drawn_on_again_as_if_they_were_new(images, signals, table):
    figure = Drawing()
    ax = figure.subplots()
    place = ax.get_position(original=True).bounds
    for draw in (
        lambda: images[0].plot(ax=ax),
        lambda: signals[0].plot(ax=ax, signal=signals[1]),
        lambda: images[0].aggregate(torch.arange(64).reshape(8, 8) // 16).map(ax=ax),
    ):
        draw()
        assert len(figure.axes) == 2
    images[0].plot(ax=ax, bar=False)
    assert figure.axes == [ax]
    assert ax.get_position(original=True).bounds == place
    assert len(ax.get_images()) == 1
    table[0].waterfall(ax=ax)
    table[0].plot(ax=ax)
    fresh = Drawing().subplots()
    table[0].plot(ax=fresh)
    assert not ax.get_images()
    assert ax.get_aspect() == "auto"
    assert len(ax.get_children()) == len(fresh.get_children())
    assert labels(ax) == labels(fresh)
    assert ax.get_xlim() == fresh.get_xlim()


def test_what_the_user_drew_before_stays_and_what_the_user_removed_is_gone(images, table):
    figure = Drawing()
    ax = figure.subplots()
    line = ax.axvline(0.1)
    table[0].plot(ax=ax)
    assert line in ax.get_lines()
    images[0].plot(ax=ax)
    figure.axes[1].remove()
    ax.clear()
    mine = ax.axvline(0.2)
    images[0].plot(ax=ax)
    assert mine in ax.get_lines()
    assert len(figure.axes) == 2


def test_a_scale_has_its_cell_in_a_tight_layout(images):
    figure = Drawing(figsize=(8, 3))
    axes = figure.subplots(1, 2)
    for ax in axes:
        images[0].plot(ax=ax)
    figure.tight_layout()
    figure.draw_without_rendering()
    first_bar = figure.axes[2].get_tightbbox()
    assert axes[0].get_window_extent().x1 < first_bar.x0 < first_bar.x1 < axes[1].get_window_extent().x0


def test_lines_and_the_score_are_seen_in_a_dark_style(table):
    with mpl.style.context("dark_background"):
        ax = Drawing().subplots()
        table[0].waterfall(ax=ax)
    drawn = [ax.patches[-1].get_facecolor(), *ax.collections[0].get_edgecolor()]
    drawn.append(mpl.colors.to_rgba(ax.get_lines()[0].get_color()))
    assert {tuple(colour[:3]) for colour in drawn} == {(1.0, 1.0, 1.0)}


def test_axes_with_bars_and_scales_can_be_pickled(images, table):
    figure = Drawing()
    one, other = figure.subplots(1, 2)
    table[0].waterfall(ax=one)
    images[0].plot(ax=other)
    copy = pickle.loads(pickle.dumps(figure))
    assert numbers(copy.axes[0]) == numbers(one)
    images[0].plot(ax=copy.axes[1], bar=False)
    assert len(copy.axes) == 2
    copy.draw_without_rendering()


# Signals


def test_a_signal_has_a_row_for_each_channel_over_its_relevance(signals, ax):
    explanation, x = signals
    assert explanation.plot(ax=ax, signal=x, features=["left", "right", "trigger"], sample=1) is ax
    (image,) = ax.get_images()
    np.testing.assert_allclose(image.get_array(), explanation.relevance[1])
    assert image.get_extent() == [-0.5, 39.5, 2.5, -0.5]
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == 40]
    assert len(lines) == 3
    for row, (line, own) in enumerate(zip(lines, x[1].numpy(), strict=True)):
        found = line.get_ydata()
        assert abs(found - row).max() < 0.5
        assert np.corrcoef(found, own)[0, 1] == pytest.approx(-1)  # the axis points down
    assert labels(ax) == ["left", "right", "trigger"]
    assert ax.get_xlabel() == "time step"
    limit = float(scale(explanation.relevance[1:].numpy()).limits[0])
    # The line can be seen on the strongest colour.
    np.testing.assert_allclose(image.to_rgba(limit)[:3], signed(np.array(0.55)), atol=0.02)


def test_the_signal_may_be_the_picture_and_may_be_missing(signals, ax):
    explanation, x = signals
    explanation.plot(x[0], ax=ax)
    assert len(ax.get_lines()) == 3 + 2
    strips = Drawing().subplots()
    explanation.plot(ax=strips)
    assert len(strips.get_lines()) == 2  # between the channels
    np.testing.assert_allclose(strips.get_images()[0].to_rgba(1e9)[:3], signed(np.array(1.0)), atol=0.02)
    assert strips.get_ylabel() == "channel"


def test_a_signal_of_one_channel_may_have_no_dimension_of_it(table, ax):
    explanation, x = table
    explanation.plot(ax=ax, signal=x)
    assert ax.get_images()[0].get_array().shape == (1, 8)
    assert labels(ax) == []


def test_a_constant_signal_is_a_line_in_the_middle(signals, ax):
    explanation, x = signals
    explanation.plot(ax=ax, signal=torch.ones_like(x))
    lines = [line.get_ydata() for line in ax.get_lines() if len(line.get_xdata()) == 40]
    np.testing.assert_allclose(lines, np.arange(3)[:, None].repeat(40, 1))


def test_a_signal_has_a_gap_where_it_is_nan_or_infinite(signals, ax):
    explanation, x = signals
    broken = x[0].clone()
    broken[0, 7], broken[1, 3], broken[2] = float("nan"), float("inf"), float("nan")
    explanation.plot(ax=ax, signal=broken)
    lines = np.array([line.get_ydata() for line in ax.get_lines() if len(line.get_xdata()) == 40])
    np.testing.assert_array_equal(np.isfinite(lines), np.isfinite(broken.numpy()))
    for row in (0, 1):  # the others still fill the row
        assert np.nanmax(lines[row]) - np.nanmin(lines[row]) == pytest.approx(0.84)


# All of them


def test_no_setting_of_the_user_turns_a_map_around(images, signals):
    parts = images[0].aggregate(torch.arange(64).reshape(8, 8) // 16)
    drawn = [Drawing().subplots() for _ in range(4)]
    with mpl.rc_context({"image.origin": "lower"}):
        images[0].plot(images[1], ax=drawn[0])
        images[0].plot(images[1], ax=drawn[1], beside=True)
        signals[0].plot(ax=drawn[2])
        parts.map(ax=drawn[3])
    assert {image.origin for ax in drawn for image in ax.get_images()} == {"upper"}


def test_the_style_of_the_user_is_used_and_left(images, table, ax):
    before = dict(mpl.rcParams.copy())
    with mpl.rc_context({"font.size": 20.0, "axes.titlesize": "medium"}):
        images[0].plot(images[1], ax=ax)
        assert ax.title.get_fontsize() == 20
        within = dict(mpl.rcParams.copy())
        table[0].plot(ax=Drawing().subplots())
        assert dict(mpl.rcParams.copy()) == within
    assert dict(mpl.rcParams.copy()) == before


def test_samples_are_counted_from_the_last_one_too(images, ax):
    explanation, _ = images
    told = f"score {float(explanation.score[2]):.4g}"
    assert told in explanation.plot(ax=ax, sample=-1).get_title()
    assert told in explanation.plot(ax=ax, samples=[-1]).get_title()
    assert told in explanation.plot(ax=ax, samples=iter([2])).get_title()
    assert told in explanation.plot(ax=ax, sample=torch.tensor(2)).get_title()


def test_every_option_has_a_kind_or_is_checked_with_the_relevance():
    known = {option.name for kind in (Options, Layout) for option in dataclasses.fields(kind)}
    assert known - _KINDS.keys() == {"sample", "features", "values", "signal"}
    assert _KINDS.keys() <= known
    assert tuple(option.name for option in dataclasses.fields(Layout)) == OF_FIGURES


def test_options_of_figures_are_told_to_those_who_draw_none(signals, tmp_path):
    message = (
        r"plot\(signal=...\): only figures have this option. Write one by "
        r"explanation.save\('x.pdf', signal=...\), or '.svg', or draw on axes of matplotlib "
        r"by plot\(ax=..., signal=...\)"
    )
    for draw in (signals[0].plot, lambda **how: signals[0].save(tmp_path / "a.png", **how)):
        with pytest.raises(InputError, match=message):
            draw(signal=signals[1])


def test_a_title_and_names_of_classes(images, ax):
    explanation, _ = images
    explanation.plot(ax=ax, classes=["a", "b", "tiger cat", "d", "e"])
    assert ax.get_title().startswith("tiger cat, score ")
    explanation.plot(ax=ax, title="Mine")
    assert ax.get_title() == "Mine"


def test_axes_within_a_figure_of_figures(images):
    outer = Drawing(layout="constrained")
    left, _ = outer.subfigures(1, 2)
    ax = left.subplots()
    images[0].plot(ax=ax)
    assert len(left.axes) == 2
    outer.draw_without_rendering()


def removed(figure):
    ax = figure.subplots()
    ax.remove()
    return ax


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda f: "ax",
            r"plot\(ax=...\): this is str, and no axes. Give axes of matplotlib, as figure.add_sub",
        ),
        (lambda f: f, r"plot\(ax=...\): this is Figure, and no axes"),
        (
            lambda f: f.subplots(1, 2),
            r"plot\(ax=...\): this is ndarray, and no axes. Give one of them, as in ax=axes\[0\]",
        ),
        (
            lambda f: f.add_subplot(projection="polar"),
            r"plot\(ax=...\): the axes are PolarAxes, with the projection 'polar'. Give axes with the us",
        ),
        (
            lambda f: f.add_subplot(xscale="log"),
            r"plot\(ax=...\): the scale of the x axis is 'log', but relevance may be zero or neg",
        ),
        (lambda f: f.add_subplot(yscale="symlog"), r"y axis is 'symlog', .* ax.set_yscale\('linear'\)"),
        (removed, r"plot\(ax=...\): the axes were removed from their figure. Give axes of a figure"),
        (lambda f: f.add_subplot(projection="3d"), r"the axes are Axes3D, with the projection '3d'"),
    ],
)
def test_axes_of_a_wrong_kind_are_refused(images, make, message):
    with pytest.raises(InputError, match=message):
        images[0].plot(ax=make(Drawing()))


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        (
            "images",
            {"colr": 1},
            r"plot\(colr=...\): there is no such option. Did you mean colour=\? There are: of, ",
        ),
        ("images", {"featurs": 1}, r"plot\(featurs=...\): there is no such option. Did you mean features=\?"),
        ("images", {"sample": 3}, r"plot\(sample=3\): there is no such sample; give a number from 0 to 2"),
        ("images", {"sample": True}, r"plot\(sample=True\): there is no such sample"),
        (
            "images",
            {"samples": [0, 1]},
            r"plot\(ax=..., samples=\[0, 1\]\): axes have one sample. Give its number",
        ),
        ("images", {"sample": 0, "samples": [0]}, r"plot: give sample= or samples=, and not both"),
        ("images", {"beside": True}, r"plot\(beside=True\) needs a picture"),
        ("images", {"opacity": 2}, r"plot\(opacity=2\): give a number from 0 to 1"),
        (
            "images",
            {"features": ["a"]},
            r"plot\(features=...\) is for tables \(N, F\) and signals \(N, C, T\) only",
        ),
        ("images", {"values": [1]}, r"plot\(values=...\) is for tables \(N, F\) only. Leave values= out"),
        ("images", {"signal": [1]}, r"plot\(signal=...\) is for signals \(N, C, T\) only"),
        ("images", {"colour": 3}, r"plot\(colour=3\): give the name of a colour map, or a function"),
        ("images", {"of": ["input"]}, r"plot\(of=\['input'\]\): give the name of an input or of a recorded"),
        ("images", {"channels": ["sum"]}, r"plot\(channels=\['sum'\]\): give one of 'sum', "),
        ("images", {"model": 5}, r"plot\(model=5\): give a text"),
        ("images", {"bar": None}, r"plot\(bar=None\): give True or False"),
        ("images", {"bar": "no"}, r"plot\(bar='no'\): give True or False"),
        ("images", {"percentile": "9"}, r"plot\(percentile='9'\): give a number above 0, up to 100"),
        ("images", {"opacity": torch.tensor(0.5)}, r"plot\(opacity=tensor\(0.5000\)\): give a number from 0"),
        ("table", {"width": np.ones(2)}, r"plot\(width=array\(\[1., 1.\]\)\): give the width in inches"),
        ("table", {"k": torch.ones(2)}, r"plot\(k=tensor\(\[1., 1.\]\)\): give a whole number"),
        ("table", {"features": torch.tensor(1)}, r"plot\(features=tensor\(1\)\): give a list of 8 names"),
        ("table", {"sample": ""}, r"plot\(sample=''\): there is no such sample; give a number from 0 to 1"),
        ("table", {"sample": []}, r"plot\(sample=\[\]\): there is no such sample"),
        ("images", {"samples": torch.tensor(1)}, r"plot\(samples=tensor\(1\)\): give a list of numbers"),
        ("images", {"title": 3}, r"plot\(title=3\): give a text"),
        ("images", {"samples": 3}, r"plot\(samples=3\): give a list of numbers"),
        ("images", {"samples": ["a"]}, r"plot\(samples=\['a'\]\): give a list of numbers"),
        ("images", {"columns": 0}, r"plot\(columns=0\): give a whole number, 1 or more"),
        ("images", {"labels": 3}, r"plot\(labels=3\): give a list of texts, one for each sample"),
        ("images", {"classes": 3}, r"plot\(classes=3\): give a list of the names of all classes"),
        (
            "images",
            {"colour": "gray"},
            r"plot\(colour='gray'\): there is no such colour. Did you mean 'grey'",
        ),
        ("table", {"k": 0}, r"plot\(k=0\): give a whole number, 1 or more"),
        ("table", {"k": 1.5}, r"plot\(k=1.5\): give a whole number"),
        (
            "table",
            {"features": ["a"]},
            r"plot\(features=...\) has 1 names for 8 features; give a name for each",
        ),
        ("table", {"features": "a"}, r"plot\(features=...\) has a single text for 8 features"),
        (
            "table",
            {"values": torch.ones(3)},
            r"plot\(values=...\) has the shape \(3,\); the input has \(8,\) or \(2, 8\)",
        ),
        ("table", {"values": ["a"] * 8}, r"plot: the values are <U1; give real numbers"),
        (
            "table",
            {"channels": "norm"},
            r"plot\(channels='norm'\): in a figure each channel of a signal has a row",
        ),
        ("table", {"beside": True}, r"plot\(beside=True\) is for pictures only"),
        (
            "signals",
            {"signal": torch.ones(3)},
            r"plot\(signal=...\) has the shape \(3,\); the input has \(3, 40\) or ",
        ),
        (
            "signals",
            {"picture": torch.ones(3)},
            r"plot\(picture=...\) has the shape \(3,\); the input has \(3, 40\)",
        ),
        ("signals", {"width": 0}, r"plot\(width=0\): give the width in inches, from 1 to 50, such as 3.4"),
    ],
)
def test_options_without_meaning_are_refused_on_axes(what, options, message, request, ax):
    explanation, _ = request.getfixturevalue(what)
    with pytest.raises(InputError, match=message):
        explanation.plot(ax=ax, **options)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("images", r"heatmaps: 1 of 64 values are NaN or infinite, the first in image 0, row 0, column 0"),
        ("signals", r"plot: 1 of 120 values are NaN or infinite, the first in image 0, row 0, column 0"),
        ("table", r"plot: 1 of 8 values are NaN or infinite, the first at \(0, 0\). Find out where"),
    ],
)
def test_relevance_that_is_nan_is_refused(what, message, request, ax):
    explanation, _ = request.getfixturevalue(what)
    R = explanation.relevance.clone()
    R.view(-1)[0] = float("nan")
    broken = dataclasses.replace(explanation, inputs={"x": R})
    with pytest.raises(InputError, match=message):
        broken.plot(ax=ax)
