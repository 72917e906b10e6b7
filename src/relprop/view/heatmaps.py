"""The steps from relevance to pixels: reduce channels, scale, enlarge, colour, and lay over a picture.

Each step is a function of arrays. `relprop.view.plot` calls them in this order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, SupportsFloat

import numpy as np
import torch
from numpy.typing import NDArray

from relprop.errors import Call, InputError, did_you_mean
from relprop.view.arrays import Pixels, as_array, as_pixels, require_finite
from relprop.view.colour import Colour, colour_named

Maps = NDArray[np.float64]
"""float64, shape (N, H, W)."""

REDUCTIONS: dict[str, Callable[[Maps], Maps]] = {
    "sum": lambda R: R.sum(1),
    "absolute sum": lambda R: np.abs(R).sum(1),
    "max": lambda R: np.take_along_axis(R, np.abs(R).argmax(1)[:, None], 1)[:, 0],
    "norm": lambda R: np.sqrt((R * R).sum(1)),
}
"""Functions that reduce the channels to one value, from (N, C, H, W) to (N, H, W).

- "sum": the relevance of the pixel. With this one alone, a map has the same sum as the relevance.
- "absolute sum", "norm" (Euclidean): the amount of relevance without its sign.
- "max": the largest relevance by absolute value, with its sign.
"""

UNSIGNED = ("absolute sum", "norm")

# Numbers for readable overlays, chosen by eye on digits and photographs.
# Smaller values have the colour of this one, and only their opacity is lower.
COLOUR_FROM = 0.5
# Opacity is proportional to this power of the absolute value.
OPACITY_POWER = 0.75
# Grey pictures are mixed with this share of white, so that dark colours can be seen on black.
LIGHTENED = 0.5


@dataclass(frozen=True, eq=False)
class Scaled:
    """Maps that are scaled to [-1, 1].

    Attributes:
        values: the scaled maps, in [-1, 1], (N, H, W).
        limits: the relevance that became 1, (N,). It is zero if all maps of this scale are zero.
    """

    values: Maps
    limits: NDArray[np.float64]


def require_drawable(shape: tuple[int, ...]) -> None:
    """Check that relevance of a shape can be drawn.

    Raises:
        InputError: it is that of no images, sequences or features, or has no elements.
    """
    if len(shape) not in (2, 3, 4) or 0 in shape:
        raise InputError(
            f"relevance of shape {tuple(shape)} cannot be drawn. Give that of images (N, C, H, W), sequences "
            "(N, C, T) or features (N, F), N > 0. Select a part of explanation.relevance, sum over other "
            "dimensions, and give it to relprop.view.plot.plot."
        )


def reduce_channels(relevance: torch.Tensor | NDArray[Any], channels: str = "sum") -> Maps:
    """Reduce the channels of relevance to one map for each sample.

    Args:
        relevance: relevance of images (N, C, H, W), sequences (N, C, T) or features (N, F), of any real
            dtype. Sequences and features become maps of height 1.
        channels: a name in `REDUCTIONS`.

    Returns:
        float64, shape (N, H, W).

    Raises:
        InputError: relevance of another shape or dtype, or without elements; values that are not finite; an
            unknown reduction.
    """
    if channels not in REDUCTIONS:
        hint = did_you_mean(str(channels), REDUCTIONS)
        raise InputError(
            f"channels={channels!r}: no such reduction.{hint} There are: {', '.join(map(repr, REDUCTIONS))}."
        )
    R = as_array(relevance, "heatmaps", "values")
    require_drawable(R.shape)
    if R.ndim == 2:
        R = R[:, None, :]
    if R.ndim == 3:
        R = R[:, :, None, :]
    # NaN in any channel makes the map NaN. So it is found below, without its channel.
    with np.errstate(invalid="ignore"):
        maps = REDUCTIONS[channels](R)
    require_finite(maps, "heatmaps")
    return maps


def scale(maps: Maps, *, percentile: float = 99.5, shared: bool = False) -> Scaled:
    """Scale maps to [-1, 1]. Zero stays zero.

    Args:
        maps: the maps, (N, H, W).
        percentile: percentile of the absolute values that are not zero, above 0, up to 100. It becomes 1, and
            larger values are clipped. So a few large values do not make all others invisible. 100 clips
            nothing.
        shared: one scale for all maps, so that they can be compared, instead of one for each.

    Raises:
        InputError: `percentile` is out of range.
    """
    if not isinstance(percentile, SupportsFloat) or not 0 < percentile <= 100:
        raise InputError(f"percentile={percentile!r}: give a number above 0, and 100 at most.")
    sizes = np.abs(maps).reshape(1 if shared else len(maps), -1)
    limits = np.array([np.percentile(row[row > 0], percentile) if row.any() else 0.0 for row in sizes])
    limits = np.broadcast_to(limits, len(maps)).copy()
    values = np.clip(maps / np.where(limits > 0, limits, 1)[:, None, None], -1, 1)
    return Scaled(values, limits)


def enlarge(values: Maps, height: int, width: int, *, smooth: bool = False) -> Maps:
    """Resize maps (N, H, W) to (N, height, width): each value becomes a rectangle.

    `smooth` interpolates between the values instead, bilinearly.
    """
    if values.shape[1:] == (height, width):
        return values
    mode = "bilinear" if smooth else "nearest-exact"
    resized = torch.nn.functional.interpolate(torch.from_numpy(values)[None], (height, width), mode=mode)
    enlarged: Maps = resized[0].numpy()
    return enlarged


def paint(values: Maps, colour: str | Colour = "signed") -> Pixels:
    """Colour values in [-1, 1], (N, H, W). The result is uint8, (N, H, W, 3).

    Raises:
        InputError: there is no colour map of this name.
    """
    return as_pixels(colour_named(colour, Call("paint"))(values))


def overlay(
    values: Maps,
    pictures: NDArray[np.floating[Any]],
    colour: str | Colour = "signed",
    *,
    opacity: float = 0.9,
    grey: bool = True,
) -> Pixels:
    """Lay relevance over pictures. The larger the relevance, the more opaque it is.

    Args:
        values: relevance in [-1, 1], (N, H, W).
        pictures: red, green and blue in [0, 1], (N, H, W, 3).
        colour: the name of a colour map, or a function.
        opacity: opacity of the largest relevance, 0 to 1.
        grey: show the pictures in light grey, so that all colours are relevance.

    Returns:
        uint8, (N, H, W, 3).

    Raises:
        InputError: the sizes differ, `opacity` is out of range, or there is no colour map of this name.
    """
    if pictures.shape != (*values.shape, 3):
        raise InputError(
            f"overlay: the pictures have shape {pictures.shape}, but the maps need {(*values.shape, 3)}."
        )
    if not 0 <= opacity <= 1:
        raise InputError(f"overlay(opacity={opacity}): give a number from 0 to 1.")
    base = backdrop(pictures) if grey else pictures
    colours, alpha = layer(values, colour, opacity)
    mixed = (1 - alpha) * base + alpha * colours
    return as_pixels(np.clip(mixed, 0, 1))


def backdrop(pictures: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return pictures (..., 3) in light grey, so that dark colours can be seen over them."""
    # Luma of ITU-R BT.601, as in Pillow's mode "L".
    luma = pictures @ np.array([0.299, 0.587, 0.114])
    return np.repeat(LIGHTENED + (1 - LIGHTENED) * luma[..., None], 3, axis=-1)


def layer(
    values: NDArray[np.floating[Any]], colour: str | Colour = "signed", opacity: float = 0.9
) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64]]:
    """Return what `overlay` lays over a picture: colours (..., 3) and their opacity (..., 1), in [0, 1].

    Args:
        values: relevance in [-1, 1], of any shape.
        colour: the name of a colour map, or a function.
        opacity: opacity of the largest relevance, 0 to 1.
    """
    size = np.abs(values)
    seen = np.copysign(np.maximum(size, COLOUR_FROM), values)
    return colour_named(colour, Call("overlay"))(seen), opacity * (size**OPACITY_POWER)[..., None]
