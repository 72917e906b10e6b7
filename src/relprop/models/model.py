"""A model with its preprocessing, which turns pictures into its input."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from relprop.rules.bounds import Bounds
from relprop.zoo import Bundled

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture as a model's input, and the part of it that the model sees.

    Attributes:
        x: the input, (1, C, H, W), of the floating-point dtype of the model's parameters.
        picture: the part of the picture that the model sees, red, green and blue, uint8 (h, w, 3).
        margin: rows and columns of x on each side that are not part of the picture.
    """

    x: Tensor
    picture: Pixels
    margin: int = 0

    def shown(self, relevance: Tensor) -> Tensor:
        """Return relevance (N, C, H, W) without the margin, (N, C, h, w)."""
        end = -self.margin or None
        return relevance[:, :, self.margin : end, self.margin : end]


Prepare = Callable[["Image", str], Prepared]
"""A function from a decoded picture, and its name for errors, to the model's input.

Raises:
    InputError: the picture cannot be prepared, for instance if nothing in it stands out as a digit.
"""


@dataclass(frozen=True, eq=False)
class Model:
    """A model that a user named, with its preprocessing and classes.

    Attributes:
        name: its name, as the user wrote it.
        module: the module, in evaluation mode, without gradients for its parameters.
        prepare: turns a Pillow image and its name into a `Prepared` input.
        classes: names of the classes, or None if they are not known.
        bounds: smallest and largest value of the input, mostly by channel, as for `relprop.explain`.
        weights: the source of the weights, in words.
        digits: whether its pictures are single digits, small and grey.
    """

    name: str
    module: nn.Module
    prepare: Prepare
    classes: tuple[str, ...] | None
    bounds: Bounds | None
    weights: str
    digits: bool = False

    def on(self, device: torch.device) -> "Model":
        """Return the model with its module and its inputs on a device. The module itself is moved."""
        return replace(self, module=self.module.to(device), prepare=prepared_as(device, self.prepare))


def prepared_as(kind: torch.dtype | torch.device, prepare: Prepare) -> Prepare:
    """Return a function that prepares inputs of a dtype, or on a device."""

    def prepare_as(picture: "Image", name: str) -> Prepared:
        prepared = prepare(picture, name)
        return replace(prepared, x=prepared.x.to(kind))

    return prepare_as


@dataclass(frozen=True)
class Normalisation:
    """Normalisation of values from 0 to 1: (x - mean) / std, with a mean and a std for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The normalised values of 0 and of 1, by channel."""
        low, high = (
            tuple((level - m) / s for m, s in zip(self.mean, self.std, strict=True)) for level in (0, 1)
        )
        return low, high

    def apply(self, images: Tensor) -> Tensor:
        """Normalise images (N, C, H, W)."""
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (images - mean) / std

    def undo(self, x: Tensor) -> Tensor:
        """Return the values from 0 to 1 of normalised images (..., C, H, W)."""
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return x * std + mean


def preparing_digits(bundled: Bundled) -> Prepare:
    """Return a function that prepares pictures of a digit as MNIST's digits were prepared."""

    def prepare(picture: "Image", name: str) -> Prepared:
        from relprop.view.digit import as_digit

        digit = torch.from_numpy(as_digit(picture, name))[None, None]
        x = bundled.prepare(digit)
        return Prepared(x, _pixels((digit[0].double() + 1) / 2), margin=(x.shape[-1] - digit.shape[-1]) // 2)

    return prepare


def preparing_photographs(
    resize: int, crop: tuple[int, int], channels: int, normalise: Callable[[Tensor], Tensor]
) -> Prepare:
    """Return a function that resizes pictures, cuts out their centre, and normalises values from 0 to 1.

    Args:
        resize: length of the shorter side in pixels.
        crop: height and width of the centre in pixels.
        channels: 3, or 1 for pictures in grey.
        normalise: normalises images (N, C, H, W).
    """

    def prepare(picture: "Image", name: str) -> Prepared:
        from relprop.view.photograph import centre

        cut = centre(picture, resize=resize, crop=crop)
        levels = np.array(cut.convert("L") if channels == 1 else cut)
        values = torch.from_numpy(levels.reshape(*crop, channels)).permute(2, 0, 1) / 255
        return Prepared(normalise(values[None]), _pixels(values))

    return prepare


def preparing_by(transforms: Callable[["Image"], Tensor], normalisation: Normalisation) -> Prepare:
    """Return a function that prepares pictures by the transforms of the model's own library.

    Args:
        transforms: the library's transforms, from a picture to (C, H, W).
        normalisation: the normalisation in these transforms. It is undone for the picture that is shown.
    """

    def prepare(picture: "Image", name: str) -> Prepared:
        from relprop.view.display import opaque

        x = transforms(opaque(picture))
        return Prepared(x[None], _pixels(normalisation.undo(x)))

    return prepare


def _pixels(values: Tensor) -> Pixels:
    """Convert values from 0 to 1, (C, H, W) with C = 1 or 3, to red, green and blue, uint8 (H, W, 3)."""
    levels = (255 * values.double().clamp(0, 1)).round().to(torch.uint8)
    pixels: Pixels = levels.permute(1, 2, 0).expand(-1, -1, 3).numpy()
    return pixels
