"""Preparing a picture of a digit as MNIST's digits were prepared.

MNIST's digits are white on black (LeCun, Bottou, Bengio and Haffner 1998, section III.A, and the page of the
data set). They were scaled to fit a box of 20 × 20 pixels, with their aspect ratio kept and with grey levels
from anti-aliasing. Then they were placed so that their centre of mass is at the centre of 28 × 28 pixels. In
all 10,000 digits of the test set the longer side is 19 or 20 pixels, and the centre of mass, counted from 0,
lies between 13.5 and 14.5.
"""

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relprop.errors import InputError
from relprop.view.picture import read_picture

SIZE = 28
BOX = 20

# Larger pictures are first averaged down to about this many pixels a side. That saves time and memory, and
# nothing visible is lost.
WORKING_SIZE = 1024

# Ink below this part of the full contrast does not count when the digit's extent is measured.
FAINT = 0.1
# The share of the ink that is left out of the extent at each side, such as specks of dust.
SPECKS = 0.001

# A pixel is ink if its distance from the background is larger than this many times the border's median
# distance. For Gaussian noise in three channels the median distance is 1.5 standard deviations, so the
# threshold is 4.6 standard deviations.
NOISE = 3.0

# Contrast up to this, 5 levels of 255 in one channel, is rounding and not ink.
VISIBLE = 0.02

Grid = NDArray[np.floating[Any]]


def read_digit(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Read a picture of one digit as an input of networks that were trained on MNIST.

    The background is the median colour of the border. Transparency counts as a colour. Ink is what differs
    from the background, lighter or darker. A picture that is already 28 × 28, grey, opaque and white on black
    keeps its grey levels.

    Returns:
        float32, shape (28, 28), in [-1, 1]. The digit is near 1, the background is -1.

    Raises:
        FileError: the file is missing, empty, a folder, damaged or not a picture.
        InputError: the picture has too many pixels or values that are not finite, or nothing stands out from
            the background.
    """
    return as_digit(read_picture(path), path)


def as_digit(picture: Image.Image, path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Prepare a picture of one digit, as `read_digit` does. `path` is its name in errors."""
    pixels = _as_mnist(picture)
    if pixels is None:
        pixels = _centred(_fitted(_ink(_channels(picture, path), path)))
    return (2 * pixels - 1).astype(np.float32)


def _as_mnist(picture: Image.Image) -> Grid | None:
    """Return the grey levels in [0, 1], (28, 28), of a picture that looks like one of MNIST's, or None."""
    if picture.size != (SIZE, SIZE) or picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        return None
    rgba = np.asarray(picture.convert("RGBA"))
    grey = rgba[..., 0]
    opaque_grey = (rgba[..., :3] == grey[..., None]).all() and (rgba[..., 3] == 255).all()
    black_border = np.median(_border(grey)) == 0
    return grey / 255 if opaque_grey and black_border and grey.max() >= 200 else None


def _channels(picture: Image.Image, path: str | os.PathLike[str]) -> Grid:
    """Return the picture as values in [0, 1], (height, width, channels), averaged down to the working size.

    The channels are red, green and blue multiplied by opacity, and opacity. So all transparent pixels are the
    same, whatever colour is stored in them. Pictures of 16 or 32 bits have one channel, scaled to [0, 1].
    """
    factor = max(1, max(picture.size) // WORKING_SIZE)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        levels = np.asarray(picture).astype(np.float64)
        finite = np.isfinite(levels)
        if not finite.all():
            raise InputError(
                f"{path}: {np.count_nonzero(~finite):,} of the {levels.size:,} pixels are NaN or infinite. "
                "Replace them by the background before saving."
            )
        lowest, highest = levels.min(), levels.max()
        spread = (levels - lowest) / max(highest - lowest, np.finfo(np.float64).tiny)
        reduced = Image.fromarray(spread.astype(np.float32)).reduce(factor)
        return np.asarray(reduced)[..., None]
    # "RGBa" is Pillow's name for colours multiplied by opacity.
    reduced = picture.convert("RGBA").convert("RGBa").reduce(factor)
    return (
        np.frombuffer(reduced.tobytes(), np.uint8)
        .reshape(reduced.height, reduced.width, 4)
        .astype(np.float32)
        / 255
    )


def _ink(channels: Grid, path: str | os.PathLike[str]) -> Grid:
    """Return how much of each pixel is ink, in [0, 1]: its distance from the background, at full contrast."""
    distance = _length(channels - _background(channels))
    paper = NOISE * float(np.median(_border(distance)))
    if distance.max() <= max(2 * paper, VISIBLE):
        raise InputError(
            f"{path}: nothing stands out from the background, so there is no digit to see. "
            "Give a dark digit on a light background or the reverse, with some plain background around it."
        )
    # Full contrast is the 0.9 quantile of the clear ink and not its maximum, so that one dark speck does not
    # make the rest pale.
    clear = distance[distance > paper + FAINT * (distance.max() - paper)]
    full = float(np.quantile(clear, 0.9))
    ink: Grid = np.clip((distance - paper) / (full - paper), 0, 1)
    return ink


def _background(channels: Grid) -> Grid:
    """Estimate the background of each pixel: the border's median colour plus a change of the light.

    The change is a quadratic surface that is fitted to the border. Border pixels that are unusually far from
    the median are left out, since a digit may reach the border. On an even background the change is zero.
    """
    height, width = channels.shape[:2]
    v, u = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    surface = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)
    median = np.median(_border(channels), axis=0)
    change = _border(channels) - median
    usual = _length(change) <= NOISE * np.median(_length(change))
    coefficients = np.linalg.lstsq(_border(surface)[usual], change[usual], rcond=None)[0]
    background: Grid = median + surface @ coefficients
    return background


def _fitted(ink: Grid) -> Grid:
    """Cut the digit out, and scale it so that its longer side is 20 pixels and its brightest pixel is 1."""
    clear = np.where(ink > FAINT, ink, 0)
    (top, bottom), (left, right) = (_extent(clear.sum(axis=axis)) for axis in (1, 0))
    height, width = bottom - top, right - left
    scale = BOX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # A larger picture is averaged over areas. A smaller one is interpolated, since areas would make blocks.
    method = Image.Resampling.BOX if scale <= 1 else Image.Resampling.BILINEAR
    cut = Image.fromarray(ink[top:bottom, left:right])
    fitted: Grid = np.asarray(cut.resize(size, method))
    # Averaging with the background beside it makes a thin line pale.
    brightest = float(fitted.max())
    return fitted / brightest


def _extent(profile: Grid) -> tuple[int, int]:
    """Return the first row or column of the digit, and the first one after it."""
    share = np.cumsum(profile, dtype=np.float64) / profile.sum(dtype=np.float64)
    return int(np.searchsorted(share, SPECKS)), int(np.searchsorted(share, 1 - SPECKS)) + 1


def _centred(digit: Grid) -> Grid:
    """Place the digit on 28 × 28 zeros, by whole pixels, so that its centre of mass is in [13.5, 14.5)."""
    canvas = np.zeros((SIZE, SIZE), np.float32)
    corner = []
    for axis, length in enumerate(digit.shape):
        profile = digit.sum(axis=1 - axis)
        centre = float((profile * np.arange(length)).sum() / profile.sum())
        offset = math.ceil(SIZE / 2 - 0.5 - centre)
        corner.append(min(max(offset, 0), SIZE - length))
    (top, left), (height, width) = corner, digit.shape
    canvas[top : top + height, left : left + width] = digit
    return canvas


def _border(array: NDArray[Any]) -> NDArray[Any]:
    """Return the outermost pixels of (height, width, ...) as (count, ...)."""
    return np.concatenate([array[0], array[-1], array[1:-1, 0], array[1:-1, -1]])


def _length(vectors: Grid) -> Grid:
    """Return the Euclidean length along the last axis."""
    length: Grid = np.sqrt((vectors**2).sum(axis=-1))
    return length
