"""The relevance of samples as figures: one on the user's axes, or all on axes of their own."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from relprop.errors import InputError, visible
from relprop.figures import bars, maps, signals
from relprop.figures.axes import label_on, require_axes, require_fitting_limits, require_own_names
from relprop.figures.drawn import Drawn, drawn_of
from relprop.figures.figure import Figure
from relprop.figures.options import Layout, split
from relprop.figures.style import BAR, COLUMN, PAGE, TITLE, own_style
from relprop.figures.texts import lines_of, spell, wrapped
from relprop.view.entries import with_value
from relprop.view.options import Options
from relprop.view.subject import Explained, described_as

COLUMNS = 4
"""Largest number of maps in a row, if the user does not say it."""


def on_axes(explained: Explained, ax: Any, picture: Any, options: Mapping[str, Any]) -> Axes:
    """Draw one sample on the user's axes, in the user's style, and return the axes.

    Raises:
        InputError: no axes, or axes of another kind; more than one sample; or a case that `split` and
            `drawn_of` refuse.
        FileError: a picture cannot be read.
    """
    where = require_axes(ax, "plot")
    look, layout = split(options, "plot")
    if look.samples is not None and len(look.samples) != 1:
        raise InputError(
            f"plot(ax=..., samples={look.samples!r}): axes have one sample. Give its number: plot(ax=..., "
            "sample=0)."
        )
    drawn = drawn_of(explained, picture, look, layout, every=False)
    relevance, seen = drawn.relevance[0], drawn.seen[0]
    if drawn.kind == "table":
        require_own_names(where, "plot")
    elif drawn.kind == "map":
        require_fitting_limits(where, *maps.limits(relevance, look, seen), "plot")
    else:
        require_fitting_limits(where, *signals.limits(relevance), "plot")
    scale = _draw(where, drawn, 0, look, layout, look.title or label_on(where, drawn.labels[0]))
    if scale is not None and look.bar:
        maps.colour_bar([where], scale, drawn.limits[0], look)
    return where


def figure_of(explained: Explained, picture: Any, options: Mapping[str, Any]) -> Figure:
    """Draw samples on axes of their own, for a column of a paper or for a page.

    Raises:
        InputError: a case that `split` and `drawn_of` refuse.
        FileError: a picture cannot be read.
    """
    look, layout = split(options, "explanation.save")
    drawn = drawn_of(explained, picture, look, layout, every=True)
    count = len(drawn.samples)
    narrow = count <= (2 if drawn.kind == "map" and not look.beside else 1)
    width = float(layout.width or (COLUMN if narrow and _narrow(drawn) else PAGE))
    columns = min(count, max(1, look.columns or COLUMNS)) if drawn.kind == "map" else 1
    rows = -(-count // columns)
    room = width / columns  # of each sample, in inches
    free = {"map": room - BAR * (look.bar and count == 1), "signal": room - BAR, "table": 0.6 * room}
    # The title of a single sample stands where its label would be.
    texts = [look.title] if look.title and count == 1 else drawn.labels
    labels = [wrapped(label, free[drawn.kind]) for label in texts]
    title = wrapped(look.title, width) if count > 1 else ""
    height = rows * (_height(drawn, look, layout, room) + TITLE * max(map(lines_of, labels)))
    height += TITLE * lines_of(title) + 0.12 * bool(title)
    with own_style():
        drawing = Drawing(figsize=(width, height), layout="constrained")
        cells: list[Axes] = drawing.subplots(rows, columns, squeeze=False).flatten().tolist()
        scales = [_draw(cells[n], drawn, n, look, layout, labels[n]) for n in range(count)]
        if drawn.kind == "table" and look.shared:
            ends = [ax.get_xlim() for ax in cells]
            for ax in cells:
                ax.set_xlim(min(low for low, _ in ends), max(high for _, high in ends))
        for empty in cells[count:]:
            empty.set_axis_off()
        if look.bar and scales[0] is not None:
            _bars(cells, scales[0], drawn, look)
        if title:
            spell([drawing.suptitle(visible(title, keep="\n"), fontsize="medium")])
    return Figure(drawing, _about(explained, drawn, look))


def _draw(
    ax: Axes,
    drawn: Drawn,
    number: int,
    look: Options,
    layout: Layout,
    title: str,
) -> maps.Scale | None:
    """Draw a sample, and return the scale of its colours, if it has one."""
    relevance, limit, seen = drawn.relevance[number], drawn.limits[number], drawn.seen[number]
    scale: maps.Scale | None = None
    if drawn.kind == "map":
        scale = maps.draw(ax, relevance, limit, look, seen)
    elif drawn.kind == "signal":
        scale = signals.draw(ax, relevance, limit, look, seen, drawn.names)
    else:
        rows = bars.ranked(_features(drawn, number), relevance, layout.k, "plot")
        bars.draw(ax, rows)
    if title:
        spell([ax.set_title(visible(title, keep="\n"))])
    return scale


def _features(drawn: Drawn, number: int) -> list[str]:
    """Return the names of features, with their values in a sample if these are known."""
    names = drawn.names or [f"feature {place}" for place in range(len(drawn.relevance[number]))]
    seen = drawn.seen[number]
    return [*names] if seen is None else [with_value(*pair) for pair in zip(names, seen, strict=True)]


def _narrow(drawn: Drawn) -> bool:
    """Whether the names of the only sample have room in a column."""
    return drawn.kind != "table" or bars.width_for(_features(drawn, 0)) == COLUMN


def _height(drawn: Drawn, look: Options, layout: Layout, room: float) -> float:
    """Return the height of a sample in inches, without its title."""
    if drawn.kind == "signal":
        return signals.height(len(drawn.relevance[0]))
    if drawn.kind == "table":
        return bars.height(min(len(drawn.relevance[0]), layout.k + 1))
    picture = drawn.seen[0]
    height, width = drawn.relevance[0].shape if picture is None else picture.shape[:2]
    beside = 2 + maps.GAP if look.beside else 1.0
    bar = BAR if look.bar and len(drawn.samples) == 1 else 0.05
    return float(max(0.4, (room - bar) * height / (width * beside)) + 0.14)


def _bars(cells: Sequence[Axes], scale: maps.Scale, drawn: Drawn, look: Options) -> None:
    """Draw one scale for the figure, and below each sample its own full colour if these differ."""
    count = len(drawn.samples)
    if count == 1 or look.shared:
        maps.colour_bar(cells, scale, drawn.limits[0], look)
        return
    for ax, limit in zip(cells, drawn.limits, strict=False):
        told = f"{'±' * look.signed}{limit:.2g}"
        ax.set_xlabel(told if drawn.kind == "map" else f"{ax.get_xlabel()} (full colour: {told})")
    maps.colour_bar(cells, scale, None, look, fraction=0.02, pad=0.01)


def _about(explained: Explained, drawn: Drawn, look: Options) -> dict[str, str]:
    about = described_as(explained.described(look.model, drawn.samples), drawn.name)
    return about | ({"Title": look.title} if look.title else {})
