"""A finished picture, and its parts: maps over or beside pictures, numbers below them, scale and title."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop.errors import InputError
from relprop.files import path_of
from relprop.view.arrays import Pixels, as_pixels
from relprop.view.display import as_pictures
from relprop.view.grid import LINE, colour_bar, padded, words
from relprop.view.heatmaps import Maps, Scaled, enlarge, overlay, paint
from relprop.view.mosaic import png_bytes, save_png
from relprop.view.options import Options

SIZE = 224
"""Length of the longer side of a small map in pixels, roughly, since values have whole pixels."""

STRIP = 32
"""Height of the map of a sequence in pixels."""

BAR = 160
"""Largest height of the scale in pixels."""


@dataclass(frozen=True, eq=False)
class Plot:
    """A finished picture. Notebooks show it.

    Attributes:
        pixels: red, green and blue, uint8, (height, width, 3).
        metadata: a description in words, by key, which is stored in the PNG file.
    """

    pixels: Pixels
    metadata: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: Path | str) -> None:
        """Write the picture to a PNG file, whole or not at all.

        Raises:
            InputError: the name does not end in .png.
            FileError: the file cannot be written.
        """
        if path_of(path, "save").suffix.lower() != ".png":
            raise InputError(f"save({str(path)!r}): pictures are PNG files; give a name that ends in .png.")
        save_png(path, self.pixels, dict(self.metadata))

    def _repr_png_(self) -> bytes:
        return png_bytes(self.pixels, dict(self.metadata))

    def __repr__(self) -> str:
        height, width, _ = self.pixels.shape
        about = self.metadata.get("Title", "a picture")
        return f"Plot({about}; {width} x {height} pixels; .save(path) writes it)"


def map_shape(values: Maps, look: Options) -> tuple[int, int]:
    """Return the height and width of a drawn map in pixels.

    Raises:
        InputError: `enlarge` is not a whole number, or is less than 1.
    """
    height, width = values.shape[1:]
    if look.enlarge is not None and (look.enlarge < 1 or look.enlarge != int(look.enlarge)):
        raise InputError(f"plot(enlarge={look.enlarge}): give a whole number, 1 or more.")
    if height == 1 and width > 1:
        return STRIP, width * (look.enlarge or max(1, round(2 * SIZE / width)))
    factor = look.enlarge or max(1, round(SIZE / max(height, width)))
    return factor * height, factor * width


def draw_maps(scaled: Scaled, picture: Any, look: Options) -> list[Pixels]:
    """Draw each map, over or beside its picture if there is one.

    Raises:
        InputError: `beside` without a picture, or a picture of a sequence or of features; a picture that does
            not fit; an option out of range.
        FileError: a picture cannot be read.
    """
    if picture is None and look.beside:
        raise InputError("plot(beside=True) needs a picture: plot(picture=images, beside=True).")
    shape = map_shape(scaled.values, look)
    values = enlarge(scaled.values, *shape, smooth=look.smooth)
    if picture is None:
        return list(paint(values, look.colours))
    if scaled.values.shape[1] == 1:
        raise InputError(
            "plot(picture=...): relevance of a sequence or of features has no picture. Leave picture= out."
        )
    pictures = as_pictures(picture, len(values), *shape)
    if not look.beside:
        return list(overlay(values, pictures, look.colours, opacity=look.opacity, grey=look.grey))
    maps = paint(values, look.colours)
    gap = np.full((len(maps), shape[0], 2, 3), 255, np.uint8)
    return list(np.concatenate([as_pixels(pictures), gap, maps], axis=2))


def full_colours(scaled: Scaled, look: Options) -> list[str]:
    """Return the text below each map: the relevance of the full colour, if each map has its own."""
    if look.shared or len(scaled.limits) == 1 or not look.bar:
        return [""] * len(scaled.limits)
    return [f"{'±' * look.signed}{limit:.2g}" for limit in scaled.limits]


def finished(sheet: Pixels, limits: NDArray[np.float64], look: Options, metadata: dict[str, str]) -> Plot:
    """Add the scale and the title."""
    if look.bar:
        limit = float(limits[0]) if look.shared or len(limits) == 1 else None
        sheet = padded(sheet, max(4 * LINE, sheet.shape[0]), sheet.shape[1])
        bar = colour_bar(look.colours, limit, signed=look.signed, height=min(BAR, sheet.shape[0]))
        bar = padded(bar, sheet.shape[0], bar.shape[1] + 8)
        sheet = np.concatenate([sheet, bar], axis=1)
    if look.title:
        title = words(look.title, sheet.shape[1])
        sheet = np.concatenate([padded(title, title.shape[0] + 12, title.shape[1]), sheet])
        metadata = metadata | {"Title": look.title}
    return Plot(sheet, metadata)
