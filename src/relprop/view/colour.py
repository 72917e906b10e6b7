"""Colours for values between -1 and 1.

A colour map takes an array of any shape, values in [-1, 1], and returns red, green and blue in [0, 1]
along a new last axis. Values beyond the range take the colour of its nearest end.

`grey` and `heatmap` are those of the 2017 heatmapping.org tutorial. `signed` and `positive` are the ones
for pictures of explanations: equal steps of the value look equally large, and colour-blind eyes tell the
two signs apart. Both go from anchors to anchors in OKLab, a space of colours in which distances are as
large as they look (Ottosson 2020, "A perceptual color space for image processing").
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop.errors import InputError, did_you_mean

Values = NDArray[np.floating[Any]]
Colour = Callable[[Values], Values]

# From OKLab to the cube roots of what the three kinds of cones receive, and from cones to linear sRGB: the
# inverses of Ottosson's matrices.
_TO_CONES = np.linalg.inv(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_TO_LINEAR_RGB = np.linalg.inv(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)

# Lightness and chroma from 0 to 1, the same for both signs; the largest chroma that both hues have in sRGB is
# hardly larger.
_ARM = ((1.0, 0.0), (0.7, 0.142), (0.55, 0.165), (0.38, 0.118))
_ORANGE_RED, _BLUE = 40.0, 255.0  # hues in degrees

# Lightness, chroma and hue of the positive map: white, yellow, orange-red, purple, nearly black.
_ASCENT = ((1.0, 0.0, 85.0), (0.88, 0.1, 85.0), (0.65, 0.19, 38.0), (0.42, 0.15, 0.0), (0.2, 0.06, 310.0))


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


def signed(x: Values) -> Values:
    """White at 0, over orange to brown at 1; over light blue to dark blue at -1, as dark as at 1."""
    return np.where(np.asarray(x)[..., None] < 0, _NEGATIVE(np.negative(x)), _POSITIVE(x))


def positive(x: Values) -> Values:
    """White at 0 (and below), over yellow, red and purple to nearly black at 1; ever darker."""
    return _RISING(x)


def colour_named(colour: str | Colour, call: str) -> Colour:
    """Look up a colour map by name; a function is taken as it is.

    Raises:
        InputError: no colour map has this name. The error names the call by `call`.
    """
    if not isinstance(colour, str):
        return colour
    if colour not in COLOURS:
        hint = did_you_mean(colour, COLOURS)
        raise InputError(f"{call}(colour={colour!r}): no such colour.{hint} There are: {', '.join(COLOURS)}.")
    return COLOURS[colour]


def _even_path(anchors: NDArray[np.float64]) -> Colour:
    """Go from anchor to anchor in OKLab, (anchors, 3), evenly while the value goes from 0 to 1."""
    lengths = np.linalg.norm(np.diff(anchors, axis=0), axis=1)
    places = np.concatenate([[0], np.cumsum(lengths)]) / lengths.sum()

    def colour(x: Values) -> Values:
        # Beyond the ends, interp gives the ends.
        lab = np.stack([np.interp(x, places, component) for component in anchors.T], axis=-1)
        linear = np.clip((lab @ _TO_CONES.T) ** 3 @ _TO_LINEAR_RGB.T, 0, 1)
        # sRGB's transfer function, IEC 61966-2-1
        rgb: Values = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        return rgb

    return colour


def _lab(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    return lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))


_POSITIVE = _even_path(np.array([_lab(*point, _ORANGE_RED) for point in _ARM]))
_NEGATIVE = _even_path(np.array([_lab(*point, _BLUE) for point in _ARM]))
_RISING = _even_path(np.array([_lab(*point) for point in _ASCENT]))

# What `mosaic` and `plot` accept by name. A new colour map is one function and one line here.
COLOURS: dict[str, Colour] = {
    "grey": grey,
    "heatmap": heatmap,
    "signed": signed,
    "positive": positive,
}
