"""A model's input as pictures: from tensors, arrays, Pillow images and files."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from relprop.errors import InputError
from relprop.view.arrays import IMAGE, as_array, as_pixels, require_finite

ASPECT = 0.02
"""Largest relative difference between the aspect ratios of a picture and its map."""


def as_pictures(picture: Any, count: int, height: int, width: int) -> NDArray[np.float64]:
    """Resize pictures to the size of their maps.

    Args:
        picture: a tensor (N, C, H, W), (C, H, W) or (H, W), an array of these shapes or with the channels
            last, a Pillow image, the name of a file, or a sequence of these. There are one or three channels.
            Values of uint8 are divided by 255. A picture of another dtype with values outside [0, 1], such as
            a normalised input, is scaled to [0, 1] by its own smallest and largest value.
        count: the number of maps. A single picture is used for all of them.
        height: height of the maps in pixels.
        width: width of the maps in pixels.

    Returns:
        Red, green and blue in [0, 1], (count, height, width, 3).

    Raises:
        InputError: the pictures have another form, number or aspect ratio, or values that are not finite.
        FileError: a file cannot be read.
    """
    resized = np.stack([_resized(one, height, width) for one in _one_or_each(picture, count)])
    return np.broadcast_to(resized, (count, height, width, 3))


def as_whole_pictures(picture: Any, count: int, height: int, width: int) -> list[NDArray[np.float64]]:
    """Return the picture of each map at its own size, red, green and blue in [0, 1], (h, w, 3).

    Args:
        picture: as for `as_pictures`.
        count: the number of maps.
        height: height of the maps.
        width: width of the maps.

    Raises:
        InputError: as for `as_pictures`.
        FileError: a file cannot be read.
    """
    pictures = _one_or_each(picture, count)
    for one in pictures:
        _require_aspect(one, height, width)
    whole = [np.asarray(one).astype(np.float64) / 255 for one in pictures]
    return whole if len(whole) == count else whole * count


def _one_or_each(picture: Any, count: int) -> list[Image.Image]:
    pictures = _split(picture)
    if len(pictures) not in (1, count):
        raise InputError(
            f"picture= has {len(pictures)} pictures for {count} maps; give one, or one for each."
        )
    return pictures


def as_picture(picture: Any, height: int, width: int, longest: int) -> Image.Image:
    """Return one picture in colour and of its own size, for a map of this height and width.

    Args:
        picture: one picture, as for `as_pictures`.
        height: height of the map in pixels.
        width: width of the map in pixels.
        longest: length of the longer side in pixels, to which larger pictures are reduced.

    Raises:
        InputError: there are several pictures, or the aspect ratio or the values are those that `as_pictures`
            refuses.
        FileError: a file cannot be read.
    """
    pictures = _split(picture)
    if len(pictures) != 1:
        raise InputError(f"picture= has {len(pictures)} pictures for one map; give one.")
    _require_aspect(pictures[0], height, width)
    longer = max(pictures[0].size)
    if longer <= longest:
        return pictures[0]
    size = [max(1, round(side * longest / longer)) for side in pictures[0].size]
    return pictures[0].resize((size[0], size[1]), Image.Resampling.LANCZOS)


def _split(picture: Any) -> list[Image.Image]:
    """Return single pictures, in colour."""
    if isinstance(picture, (str, os.PathLike)):
        from relprop.view.picture import read_picture

        picture = read_picture(picture)
    if isinstance(picture, Image.Image):
        return [opaque(picture)]
    if isinstance(picture, Sequence):
        if not picture:
            raise InputError("picture= is an empty list; give a picture, or one for each map.")
        return [image for one in picture for image in _split(one)]
    if isinstance(picture, (torch.Tensor, np.ndarray)):
        return _from_array(picture)
    raise InputError(
        f"picture= is {type(picture).__name__}; give a tensor (C, H, W), an array, a Pillow image, the name "
        "of a file, or a list of these."
    )


def _from_array(picture: torch.Tensor | NDArray[Any]) -> list[Image.Image]:
    shape = tuple(picture.shape)
    levels = str(picture.dtype).removeprefix("torch.") == "uint8"
    values = as_array(picture, "plot", "values of picture=")
    if values.ndim == 2:
        values = values[None]
    # The channels of tensors are first. Those of arrays are last if the last axis can be channels.
    last = isinstance(picture, np.ndarray) and values.shape[-1] in (1, 3)
    if values.ndim in (3, 4) and not last:
        values = np.moveaxis(values, -3, -1)
    if values.ndim not in (3, 4) or values.size == 0 or values.shape[-1] not in (1, 3):
        raise InputError(
            f"picture= has shape {shape}; give (C, H, W) or (N, C, H, W) with one or three channels C."
        )
    stack = values if values.ndim == 4 else values[None]
    require_finite(stack, "picture=", (*IMAGE, "channel"))
    return [_image(one / 255 if levels else _spread(one)) for one in stack]


def _spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = values.min(), values.max()
    if low >= 0 and high <= 1:
        return values
    return (values - low) / (high - low) if high > low else np.full_like(values, 0.5)


def _image(values: NDArray[np.float64]) -> Image.Image:
    levels = as_pixels(values)
    return Image.fromarray(np.repeat(levels, 3, axis=-1) if levels.shape[-1] == 1 else levels)


def opaque(picture: Image.Image) -> Image.Image:
    """Return a picture in colour, with white behind transparent pixels."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        return _from_array(np.asarray(picture).astype(np.float64))[0]
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _require_aspect(picture: Image.Image, height: int, width: int) -> None:
    if abs(picture.width * height / (picture.height * width) - 1) > ASPECT:
        raise InputError(
            f"picture= is {picture.width} x {picture.height} pixels and the map {width} x {height}: their "
            "shapes differ. Give the picture as the model saw it, cropped and not distorted."
        )


def _resized(picture: Image.Image, height: int, width: int) -> NDArray[np.float64]:
    _require_aspect(picture, height, width)
    if picture.size != (width, height):
        # Small pictures are enlarged by whole pixels, as the maps are.
        whole = width % picture.width == 0 and height % picture.height == 0
        picture = picture.resize(
            (width, height), Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS
        )
    return np.asarray(picture).astype(np.float64) / 255
