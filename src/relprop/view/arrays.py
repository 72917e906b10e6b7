"""Whatever users draw, as arrays of float64; and pixels, which is what becomes of it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from relprop.errors import InputError

Pixels = NDArray[np.uint8]
"""Red, green and blue, (..., height, width, 3)."""


def as_array(values: torch.Tensor | NDArray[Any], call: str, what: str) -> NDArray[np.float64]:
    """Turn a tensor of any real dtype, on any device, or an array into an array of float64.

    Args:
        values: the tensor or array; it is left as it is.
        call: who was given it, for errors.
        what: what it is called there, such as "images".

    Raises:
        InputError: the values are no real numbers.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        # numpy has no bfloat16, so that tensors are widened before they become arrays.
        values = (values if values.is_complex() else values.double()).numpy()
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise InputError(f"{call}: the {what} are {values.dtype}; give real numbers.")
    return values.astype(np.float64)


def require_finite(values: NDArray[np.float64], call: str) -> None:
    """Refuse values (N, H, W) that are not finite, and say where the first one is.

    Raises:
        InputError: there are such values.
    """
    finite = np.isfinite(values)
    if not finite.all():
        image, row, column = np.argwhere(~finite)[0].tolist()
        raise InputError(
            f"{call}: {np.count_nonzero(~finite)} of {finite.size} values are NaN or infinite, the first in "
            f"image {image}, row {row}, column {column}. Find out where they come from before drawing them."
        )


def as_pixels(colours: NDArray[np.floating[Any]]) -> Pixels:
    """Turn red, green and blue in [0, 1] into pixels."""
    pixels: Pixels = np.rint(255 * colours).astype(np.uint8)
    return pixels
