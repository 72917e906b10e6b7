"""Colours for values between -1 and 1, those of the 2017 heatmapping.org tutorial.

A colour map takes an array of any shape, values in [-1, 1], and returns red, green and blue in [0, 1]
along a new last axis. Values beyond the range take the colour of its nearest end.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]]
Colour = Callable[[Values], Values]


def grey(x: Values) -> Values:
    """`0.5 x + 0.5` in all three channels: -1 is black, 1 is white."""
    level = np.clip(0.5 * x + 0.5, 0, 1)
    return np.stack([level, level, level], axis=-1)


def heatmap(x: Values) -> Values:
    """Light grey at 0, over red to dark red at 1; over blue to dark blue at -1.

    Up to |x| = 0.3 the two channels that are not the sign's own fade; beyond, all three darken:
    `own = 0.9 - 0.5 dark`, `other = 0.9 - 0.5 fade - 0.4 dark`, with `fade = clip(|x|, 0, 0.3) / 0.3` and
    `dark = clip(|x| - 0.3, 0, 0.7) / 0.7`.
    """
    size = np.abs(x)
    fade = np.clip(size, 0, 0.3) / 0.3
    dark = np.clip(size - 0.3, 0, 0.7) / 0.7
    own = 0.9 - 0.5 * dark
    other = 0.9 - 0.5 * fade - 0.4 * dark
    red = np.where(x >= 0, own, other)
    blue = np.where(x >= 0, other, own)
    return np.stack([red, other, blue], axis=-1)


# What `mosaic` accepts by name. A new colour map is one function and one line here.
COLOURS: dict[str, Colour] = {
    "grey": grey,
    "heatmap": heatmap,
}
