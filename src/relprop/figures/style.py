"""The look of relprop's figures: sizes for papers, settings and colours."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.colors import ListedColormap

from relprop.view.colour import Colour, Values, signed

COLUMN = 3.4
"""Width of a figure in inches: one column of a paper with two."""

PAGE = 7.0
"""Width of a figure in inches: both columns."""

BAR = 0.72
"""Width of a scale of colours with its numbers in inches."""

TITLE = 0.17
"""Height of a line of a title in inches."""

INK = "#282828"
FAINT = "#b4b4b4"
POSITIVE, NEGATIVE = (tuple(map(float, signed(np.array(value)))) for value in (0.55, -0.55))
"""Colours of bars: where colour maps have them too, in the middle of each sign."""

OWN = {
    "font.size": 8.5,  # "small" is then 7 points, the least that journals ask for
    "axes.titlesize": "medium",
    "axes.labelsize": "small",
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 0.8,
    "savefig.dpi": 300,
    # Texts stay texts, and the same figure has the same bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "relprop",
    "pdf.fonttype": 42,
}


_ALONE = threading.RLock()
"""Held while matplotlib's settings are relprop's own. Matplotlib has one set of settings for all threads."""


@contextmanager
def own_style() -> Iterator[None]:
    """Set matplotlib's own defaults and `OWN` for a while. Fonts remain those that the user set.

    One thread at a time: a second one would take the settings of the first for the user's, and leave them.
    """
    settings: Any = mpl.rcParams
    with _ALONE:
        # Not by items(): to read "backend" would choose one.
        names = [name for name in settings if name.startswith(("font.", "mathtext."))]
        fonts: dict[str, Any] = {name: settings[name] for name in names if name not in OWN}
        with matplotlib.style.context(["default", {**fonts, **OWN}]):
            yield


def colour_map(colour: Colour, *, signed: bool = True, strongest: float = 1.0) -> ListedColormap:
    """Return a colour map of relprop as one of matplotlib.

    Args:
        colour: the function.
        signed: whether it has the values from -1 to 1, and not from 0 to 1.
        strongest: the value whose colour is the last one; less than 1 makes all colours lighter.
    """
    values: Values = np.linspace(-strongest if signed else 0.0, strongest, 511 if signed else 256)
    return ListedColormap(colour(values), name=getattr(colour, "__name__", "relprop"))
