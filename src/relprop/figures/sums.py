"""Figures of few numbers: the way to a score, and sums over parts as bars and as maps."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from relprop.errors import InputError, visible
from relprop.figures import bars, maps
from relprop.figures.axes import require_axes, require_fitting_limits, require_own_names
from relprop.figures.figure import Figure
from relprop.figures.options import require_option, split
from relprop.figures.style import (
    BAR,
    COLUMN,
    FAINT,
    INK,
    TITLE,
    own_style,
)
from relprop.figures.texts import lines_of, spell, wrapped
from relprop.view.display import as_whole_pictures
from relprop.view.entries import Amounts, require_count
from relprop.view.heatmaps import scale
from relprop.view.options import require_known

SINK = "#8c8c8c"

MOST_EDGES = 20_000
"""Largest number of lines between parts that are drawn."""

TOO_SMALL = 2e-4
"""A difference of a smaller part of the whole width cannot be seen and gets no bar."""


class Stepped(Protocol):
    """A step towards a score: see `relprop.results.waterfall.Step`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def amount(self) -> float:
        """What it adds."""

    @property
    def kind(self) -> str:
        """What it is: "entry", "others", "sink" or "difference"."""


def waterfall(
    steps: Sequence[Stepped],
    score: float,
    measure: str,
    ax: Any,
    title: str,
    about: Mapping[str, str],
    *,
    literal: bool = False,
    width: float | None = None,
) -> Figure | Axes:
    """Draw steps below each other, each from the end of the one before, and the score.

    Args:
        steps: the steps.
        score: what they add up to.
        measure: the name of the score.
        ax: the user's axes, or None for a figure.
        title: text above.
        about: a description, for files.
        literal: whether "$" in names is always a letter.
        width: of the figure in inches; by default that of a column, or of a page for long names.

    Raises:
        InputError: no axes, or axes of another kind.
    """
    entries = sum(step.kind == "entry" for step in steps)
    bars.require_few(entries, entries, "explanation.waterfall")
    rows, start = [], 0.0
    colours = {"others": FAINT, "sink": SINK, "difference": FAINT}
    for step in steps:
        rows.append(bars.Bar(step.name, step.amount, start, colours.get(step.kind)))
        start += step.amount
    ends = [0.0, score, *(row.start + row.amount for row in rows)]
    span = max(ends) - min(ends)
    seen = [
        row
        for row, step in zip(rows, steps, strict=True)
        if step.kind != "difference" or abs(row.amount) > TOO_SMALL * span
    ]
    seen.append(bars.Bar(measure, score, colour=bars.TEXT))
    return _drawn(seen, ax, "explanation.waterfall", about, title, literal=literal, linked=True, width=width)


def parts_as_bars(
    parts: Sequence[tuple[str, float]], k: int, ax: Any, title: str, about: Mapping[str, str]
) -> Figure | Axes:
    """Draw the sums of parts, by name, as bars: the k largest, and the others together.

    Raises:
        InputError: `k` is less than 1, or no axes.
    """
    require_count(k, "parts.bars")
    names, amounts = [name for name, _ in parts], np.array([amount for _, amount in parts])
    return _drawn(bars.ranked(names, amounts, k, "parts.bars"), ax, "parts.bars", about, title)


def texts_as_bars(
    names: Sequence[str],
    amounts: Amounts,
    k: int,
    ax: Any,
    title: str,
    about: Mapping[str, str],
    *,
    in_order: bool,
    width: float | None,
) -> Figure | Axes:
    """Draw the relevance of pieces of a text as bars: the k largest, and the others together.

    Raises:
        InputError: no axes, or a width that is none.
    """
    rows = bars.ranked(names, amounts, k, "explanation.bars", in_order=in_order)
    return _drawn(rows, ax, "explanation.bars", about, title, literal=True, width=width)


def _drawn(
    rows: Sequence[bars.Bar],
    ax: Any,
    call: str,
    about: Mapping[str, str],
    title: str,
    *,
    width: float | None = None,
    **how: Any,
) -> Figure | Axes:
    if width is not None:
        require_option("width", width, call)
    require_option("title", title, call)
    if ax is not None:
        where = require_axes(ax, call)
        require_own_names(where, call)
        bars.draw(where, rows, title=title, **how)
        return where
    with own_style():
        wide = float(width or bars.width_for(row.name for row in rows))
        told = wrapped(title, 0.6 * wide)
        drawing = Drawing(
            figsize=(wide, bars.height(len(rows)) + TITLE * lines_of(told)), layout="constrained"
        )
        bars.draw(drawing.subplots(), rows, title=told, **how)
    return Figure(drawing, dict(about))


OF_MAPS = ("percentile", "colour", "smooth", "beside", "opacity", "grey", "title", "bar", "width")
"""The options that a map of parts has."""


def parts_as_map(
    sums: torch.Tensor,
    places: torch.Tensor,
    picture: Any,
    ax: Any,
    options: Mapping[str, Any],
    about: Mapping[str, str],
) -> Figure | Axes:
    """Draw a map (1, H, W) of the sums of parts, over the picture if there is one, with the parts' edges.

    Args:
        sums: the sum of its part at each pixel.
        places: the number of its part at each pixel, (H, W).
        picture: of the sample, or None.
        ax: the user's axes, or None for a figure.
        options: by name.
        about: a description, for files.

    Raises:
        InputError: an option without meaning, a picture that does not fit, or no axes.
        FileError: a picture cannot be read.
    """
    where = None if ax is None else require_axes(ax, "parts.map")
    require_known(options, OF_MAPS, "parts.map")
    look, layout = split({"percentile": 100, **options}, "parts.map")
    if look.beside and picture is None:
        raise InputError("parts.map(beside=True) needs a picture: parts.map(picture, beside=True).")
    values = sums.double().cpu().numpy()
    limit = float(scale(values, percentile=look.percentile).limits[0])
    height, width = values.shape[1:]
    seen = None if picture is None else as_whole_pictures(picture, 1, height, width)[0]

    def draw(axes: Axes, title: str) -> None:
        colours = maps.draw(axes, values[0], limit, look, seen)
        shown = (height, width) if seen is None else seen.shape[:2]
        axes.add_artist(_edges(places.cpu().numpy(), shown[0] / height, shown[1] / width))
        if look.bar:
            maps.colour_bar([axes], colours, limit, look)
        if title:
            spell([axes.set_title(visible(title, keep="\n"))])

    if where is not None:
        require_fitting_limits(where, *maps.limits(values[0], look, seen), "parts.map")
        draw(where, look.title)
        return where
    inches = float(layout.width or COLUMN)
    share = height / (width * (2 + maps.GAP if look.beside else 1))
    free = inches - BAR * look.bar
    title = wrapped(look.title, free)
    size = (inches, max(0.4, free * share) + 0.1 + TITLE * lines_of(title))
    with own_style():
        drawing = Drawing(figsize=size, layout="constrained")
        draw(drawing.subplots(), title)
    return Figure(drawing, dict(about))


def _edges(places: NDArray[np.int64], tall: float, wide: float) -> PathPatch:
    """Return thin lines between pixels of different parts. A pixel is `tall` high and `wide` wide.

    There are none if they would hide the picture, as of parts of single pixels.
    """
    rows, first, last = _runs(places[1:] != places[:-1])
    level = np.stack([first, rows + 1, last, rows + 1], axis=-1)
    columns, first, last = _runs((places[:, 1:] != places[:, :-1]).T)
    upright = np.stack([columns + 1, first, columns + 1, last], axis=-1)
    lines = np.concatenate([level, upright])
    ends = (lines[: len(lines) if len(lines) <= MOST_EDGES else 0]).reshape(-1, 2) * [wide, tall] - 0.5
    codes = np.tile([Path.MOVETO, Path.LINETO], len(ends) // 2)
    return PathPatch(Path(ends, codes), fill=False, edgecolor=INK, linewidth=0.3)


def _runs(marked: NDArray[np.bool_]) -> tuple[NDArray[np.int64], ...]:
    """Return the row, the first column, and the column after the last one of each run of marked places."""
    steps = np.diff(np.pad(marked, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, first = np.nonzero(steps == 1)
    return rows, first, np.nonzero(steps == -1)[1]
