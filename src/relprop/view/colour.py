"""Colours for values between -1 and 1.

A colour map takes an array of any shape with values in [-1, 1]. It returns red, green and blue in [0, 1]
along a new last axis. Values outside the range get the colour of the nearest end.

`grey` and `heatmap` are those of the 2017 heatmapping.org tutorial. `signed` and `positive` are for pictures
of explanations. In both, equal steps of the value look equally large, and colour-blind readers can tell the
two signs apart. Both interpolate between anchors in OKLab, a colour space in which distances are as large as
they look (Ottosson 2020, "A perceptual color space for image processing").
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop.errors import Call, InputError, did_you_mean

Values = NDArray[np.floating[Any]]
Colour = Callable[[Values], Values]

# The inverses of Ottosson's matrices: from OKLab to the cube roots of the responses of the three kinds of
# cones, and from these responses to linear sRGB.
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

# Lightness and chroma of the anchors from 0 to 1, the same for both signs. The largest chroma that both hues
# have in sRGB is only slightly larger.
_ARM = ((1.0, 0.0), (0.7, 0.142), (0.55, 0.165), (0.38, 0.118))
_ORANGE_RED, _BLUE = 40.0, 255.0  # hues in degrees

# Lightness, chroma and hue of the positive map: white, yellow, orange-red, purple, nearly black.
_ASCENT = ((1.0, 0.0, 85.0), (0.88, 0.1, 85.0), (0.65, 0.19, 38.0), (0.42, 0.15, 0.0), (0.2, 0.06, 310.0))


def grey(x: Values) -> Values:
    """`0.5 x + 0.5` in all three channels. -1 is black and 1 is white."""
    level = np.clip(0.5 * x + 0.5, 0, 1)
    return np.stack([level, level, level], axis=-1)


def heatmap(x: Values) -> Values:
    """Light grey at 0, red and then dark red towards 1, blue and then dark blue towards -1.

    The sign's own channel is red for x ≥ 0, and blue for x < 0. The formulas are `own = 0.9 - 0.5 dark` and
    `other = 0.9 - 0.5 fade - 0.4 dark`, with `fade = clip(|x|, 0, 0.3) / 0.3` and
    `dark = clip(|x| - 0.3, 0, 0.7) / 0.7`. So up to |x| = 0.3 the two other channels fade. From there on all
    three channels darken.
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
    """White at 0, orange and then brown towards 1, light blue and then dark blue towards -1.

    x and -x have the same lightness.
    """
    return np.where(np.asarray(x)[..., None] < 0, _NEGATIVE(np.negative(x)), _POSITIVE(x))


def positive(x: Values) -> Values:
    """White at 0 and below, then yellow, red, purple and nearly black at 1. Larger values are darker."""
    return _RISING(x)


def colour_named(colour: str | Colour, call: Call) -> Colour:
    """Return a colour map by its name. A function is returned as it is.

    Args:
        colour: a name in `COLOURS`, or a function.
        call: what got it, for errors.

    Raises:
        InputError: no colour map has this name, or it is no name and no function.
    """
    if callable(colour):
        return colour
    if not isinstance(colour, str) or colour not in COLOURS:
        hint = did_you_mean(colour, COLOURS)
        raise InputError(
            f"{call(f'colour={colour!r}')}: there is no such colour.{hint} There are: {', '.join(COLOURS)}."
        )
    return COLOURS[colour]


def _even_path(anchors: NDArray[np.float64]) -> Colour:
    """Return the colour map that interpolates between anchors in OKLab, (anchors, 3).

    Equal steps of the value, from 0 to 1, are equal distances in OKLab.
    """
    lengths = np.linalg.norm(np.diff(anchors, axis=0), axis=1)
    places = np.concatenate([[0], np.cumsum(lengths)]) / lengths.sum()

    def colour(x: Values) -> Values:
        # Outside the range, interp returns the nearest end.
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

# The colour maps that `mosaic` and `plot` accept by name. A new one is one function and one line here.
COLOURS: dict[str, Colour] = {
    "grey": grey,
    "heatmap": heatmap,
    "signed": signed,
    "positive": positive,
}
