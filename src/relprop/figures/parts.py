"""Sums over parts of an image as a map, with the edges of the parts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from relprop.errors import Call, InputError, visible
from relprop.figures import maps
from relprop.figures.axes import label_on, require_axes, require_fitting_limits
from relprop.figures.figure import Figure
from relprop.figures.options import split
from relprop.figures.style import BAR, COLUMN, INK, TITLE, own_style
from relprop.figures.texts import lines_of, spell, wrapped
from relprop.view.display import as_whole_pictures
from relprop.view.heatmaps import scale
from relprop.view.options import require_known

MOST_EDGES = 20_000
"""Largest number of lines between parts that are drawn."""

OF_MAPS = ("percentile", "colour", "smooth", "beside", "opacity", "grey", "title", "bar", "width")
"""The options that a map of parts has."""


def parts_as_map(
    sums: torch.Tensor,
    places: torch.Tensor,
    picture: Any,
    ax: Any,
    options: Mapping[str, Any],
    about: Mapping[str, str],
    label: str,
) -> Figure | Axes:
    """Draw a map (1, H, W) of the sums of parts, over the picture if there is one, with the parts' edges.

    Args:
        sums: the sum of its part at each pixel.
        places: the number of its part at each pixel, (H, W).
        picture: of the sample, or None.
        ax: the user's axes, or None for a figure.
        options: by name.
        about: a description, for files.
        label: the text above if there is no title.

    Raises:
        InputError: an option without meaning, a picture that does not fit, or no axes.
        FileError: a picture cannot be read.
    """
    where = None if ax is None else require_axes(ax, "parts.map")
    require_known(options, OF_MAPS, Call("parts.map"))
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
        draw(where, look.title or label_on(where, label))
        return where
    inches = float(layout.width or COLUMN)
    share = height / (width * (2 + maps.GAP if look.beside else 1))
    free = inches - BAR * look.bar
    title = wrapped(look.title or label, free)
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
