"""Drawing small pictures in a row, and writing PNG files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from relprop.errors import Call, InputError
from relprop.files import path_of, write_whole
from relprop.view.arrays import Pixels, as_array, as_pixels, require_finite
from relprop.view.colour import Colour, colour_named


def mosaic(
    images: torch.Tensor | NDArray[Any],
    colour: str | Colour = "heatmap",
    *,
    enlarge: int = 2,
    border: int = 2,
    rescale: bool = True,
) -> Pixels:
    """Draw N images of one channel as one row.

    Args:
        images: shape (N, H, W) or (N, 1, H, W), any real dtype, any device.
        colour: a name in `COLOURS`, or a function like those in it.
        enlarge: width and height of each value in pixels, 1 or more.
        border: white pixels around each image, counted before enlarging, 0 or more.
        rescale: divide by the largest absolute value of the batch, so that images can be compared with each
            other. A batch of zeros stays zero. Otherwise values should lie in [-1, 1].

    Returns:
        Red, green and blue, uint8, shape (enlarge·(H + 2·border), enlarge·N·(W + 2·border), 3).

    Raises:
        InputError: images of another shape or dtype, or none; values that are not finite; an unknown colour;
            `enlarge` or `border` out of range.
    """
    values = _values(images)
    if enlarge < 1 or border < 0:
        raise InputError(
            f"mosaic(enlarge={enlarge}, border={border}): enlarge must be 1 or more, and border 0 or more."
        )
    if rescale:
        values = values / (np.abs(values).max() or 1.0)
    rgb = colour_named(colour, Call("mosaic"))(values)
    rgb = np.pad(rgb, ((0, 0), (border, border), (border, border), (0, 0)), constant_values=1.0)
    count, height, width, _ = rgb.shape
    row = rgb.transpose(1, 0, 2, 3).reshape(height, count * width, 3)
    return as_pixels(row).repeat(enlarge, axis=0).repeat(enlarge, axis=1)


def made_by_relprop(path: Path) -> bool:
    """Whether a file is a PNG file whose metadata has relprop as the software that wrote it."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return str(picture.info.get("Software", "")).startswith("relprop")
    except (OSError, Image.DecompressionBombError):
        return False


def save_png(path: Path | str, rgb: Pixels, metadata: dict[str, str] | None = None) -> None:
    """Write pixels to a PNG file, whole or not at all. A file at `path` is replaced.

    The same pixels and metadata give the same bytes, since no date is stored.

    Args:
        path: the file. Its folder is made if it is missing.
        rgb: red, green and blue, uint8, shape (H, W, 3).
        metadata: texts to store in the file, by keys such as `Title` or `Software`.

    Raises:
        InputError: `rgb` has another dtype or shape.
        FileError: the file cannot be written.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise InputError(
            f"save_png({str(path)!r}): the pixels are {rgb.dtype} of shape {rgb.shape}; "
            "give uint8 of shape (H, W, 3), as mosaic returns them."
        )
    write_whole(path_of(path, "save_png"), png_bytes(rgb, metadata))


def png_bytes(rgb: Pixels, metadata: dict[str, str] | None = None) -> bytes:
    """Encode pixels, uint8 of shape (H, W, 3), as the bytes of a PNG file (see `save_png`)."""
    from PIL import Image, PngImagePlugin

    text = PngImagePlugin.PngInfo()
    for key, value in (metadata or {}).items():
        # Names of such fields are Latin-1.
        name = key.replace("\N{MINUS SIGN}", "-").encode("latin-1", "backslashreplace")
        text.add_text(name, value)
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(content, format="PNG", pnginfo=text)
    return content.getvalue()


def _values(images: torch.Tensor | NDArray[Any]) -> NDArray[np.float64]:
    """Check the images and return them as float64 of shape (N, H, W)."""
    images = as_array(images, "mosaic", "images")
    if images.ndim not in (3, 4) or images.size == 0 or images.shape[1:-2] not in ((), (1,)):
        raise InputError(
            f"mosaic: the images have shape {images.shape}; give (N, H, W) or (N, 1, H, W), N > 0. "
            "For a single image use image[None]; sum the channels of a colour image first."
        )
    values = images.reshape(len(images), *images.shape[-2:])
    require_finite(values, "mosaic")
    return values
