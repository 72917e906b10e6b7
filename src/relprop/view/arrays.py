"""Tensors and arrays as arrays of float64, and colours as pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from relprop.errors import Call, InputError

Pixels = NDArray[np.uint8]
"""Red, green and blue, uint8, (..., height, width, 3)."""


def as_array(values: torch.Tensor | NDArray[Any], call: str, what: str) -> NDArray[np.float64]:
    """Convert a tensor of any real dtype, on any device, or an array to an array of float64.

    Args:
        values: the tensor or array. It is not changed.
        call: name of the function that got it, for errors.
        what: name of the values, for errors, such as "images".

    Returns:
        The values in the same shape.

    Raises:
        InputError: the values are not real numbers.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        # NumPy has no bfloat16, so tensors are converted to float64 first.
        values = (values if values.is_complex() else values.double()).numpy()
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise InputError(f"{call}: the {what} are {values.dtype}; give real numbers.")
    return values.astype(np.float64)


IMAGE = ("image", "row", "column")
"""Names of the axes of images (N, H, W)."""


def require_finite(values: NDArray[np.float64], call: str | Call, axes: Sequence[str] | None = None) -> None:
    """Check that values are finite.

    Args:
        values: the values.
        call: what got them, for the error.
        axes: a name for each axis of the values; by default those of images, if there are three.

    Raises:
        InputError: a value is NaN or infinite. The error has the place of the first one.
    """
    finite = np.isfinite(values)
    if not finite.all():
        numbers = np.argwhere(~finite)[0].tolist()
        axes = axes or (IMAGE if len(numbers) == 3 else None)
        place = f"at ({', '.join(map(str, numbers))})"
        if axes is not None:
            named = zip(axes, numbers, strict=True)
            place = f"in {', '.join(f'{axis} {number}' for axis, number in named)}"
        raise InputError(
            f"{call}: {np.count_nonzero(~finite)} of {finite.size} values are NaN or infinite, the first "
            f"{place}. Find out where they come from before drawing them."
        )


def as_pixels(colours: NDArray[np.floating[Any]]) -> Pixels:
    """Convert red, green and blue in [0, 1] to pixels, uint8 of the same shape."""
    pixels: Pixels = np.rint(255 * colours).astype(np.uint8)
    return pixels
