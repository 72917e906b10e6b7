"""A model with all that is needed to explain pictures by it, and how pictures become its input."""

from collections.abc import Callable
from dataclasses import dataclass
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
        """Cut relevance (N, C, H, W) to what the picture shows, (N, C, h, w)."""
        end = -self.margin or None
        return relevance[:, :, self.margin : end, self.margin : end]


Prepare = Callable[["Image", str], Prepared]
"""Takes a decoded picture, and the name by which errors call it.

Raises:
    InputError: the picture shows nothing that the model could see.
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


@dataclass(frozen=True)
class Normalisation:
    """What values from 0 to 1 become: (x - mean) / std, with a number for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What 0 and 1 become, by channel."""
        low, high = (
            tuple((level - m) / s for m, s in zip(self.mean, self.std, strict=True)) for level in (0, 1)
        )
        return low, high

    def apply(self, images: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (images - mean) / std

    def undo(self, x: Tensor) -> Tensor:
        """Return to values from 0 to 1."""
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return x * std + mean


def preparing_digits(bundled: Bundled) -> Prepare:
    """Read pictures of a digit as MNIST's are."""

    def prepare(picture: "Image", name: str) -> Prepared:
        from relprop.view.digit import as_digit

        digit = torch.from_numpy(as_digit(picture, name))[None, None]
        x = bundled.prepare(digit)
        return Prepared(x, _pixels((digit[0].double() + 1) / 2), margin=(x.shape[-1] - digit.shape[-1]) // 2)

    return prepare


def preparing_photographs(
    resize: int, crop: tuple[int, int], channels: int, normalise: Callable[[Tensor], Tensor]
) -> Prepare:
    """Resize the shorter side, cut out the centre, and normalise values from 0 to 1."""

    def prepare(picture: "Image", name: str) -> Prepared:
        from relprop.view.photograph import centre

        cut = centre(picture, resize=resize, crop=crop)
        levels = np.array(cut.convert("L") if channels == 1 else cut)
        values = torch.from_numpy(levels.reshape(*crop, channels)).permute(2, 0, 1) / 255
        return Prepared(normalise(values[None]), _pixels(values))

    return prepare


def preparing_by(transforms: Callable[["Image"], Tensor], normalisation: Normalisation) -> Prepare:
    """Prepare as the model's own library does; what is shown is what comes of it, no longer normalised."""

    def prepare(picture: "Image", name: str) -> Prepared:
        from relprop.view.display import opaque

        x = transforms(opaque(picture))
        return Prepared(x[None], _pixels(normalisation.undo(x)))

    return prepare


def _pixels(values: Tensor) -> Pixels:
    """Turn values from 0 to 1, (C, H, W), into red, green and blue."""
    levels = (255 * values.double().clamp(0, 1)).round().to(torch.uint8)
    pixels: Pixels = levels.permute(1, 2, 0).expand(-1, -1, 3).numpy()
    return pixels
