"""What a user asks for, and the last step that is common to all answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from relprop.models.model import Model, Prepare, Prepared
from relprop.rules.bounds import Bounds

if TYPE_CHECKING:
    from PIL.Image import Image

RANDOM = "random"
"""In place of a file of weights: the network as it is initialised, always the same."""


@dataclass(frozen=True)
class Request:
    """What a user asks for (see `relprop.models.resolve`)."""

    model: str
    """As the user wrote it."""
    weights: str | Path | None = None
    """A file, "random", or None for trained ones that are there already."""
    classes: tuple[str, ...] | None = None
    """Names of the classes, if the user gives them."""
    size: tuple[int, int] | None = None
    """Height and width of the input, for models of one's own."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """The model's name without the family before the colon."""
        return self.model.partition(":")[2]

    @property
    def weights_file(self) -> Path | None:
        """The file of weights, if the user gives one."""
        return None if self.weights in (None, RANDOM) else Path(self.weights or "")


@contextmanager
def seeded() -> Iterator[None]:
    """Draw the same random weights each time, and leave the user's random numbers alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def finished(
    request: Request,
    module: nn.Module,
    *,
    prepare: Prepare,
    classes: tuple[str, ...] | None,
    bounds: Bounds | None,
    weights: str | None,
    digits: bool = False,
) -> Model:
    """Bring a module into evaluation mode, note its bounds, and put everything together.

    Args:
        request: what the user asked for.
        module: with its weights.
        prepare: takes a picture to its input.
        classes: their names, if they are known.
        bounds: of the input, if they are known.
        weights: where they come from, if not from the user.
        digits: whether its pictures are single digits.
    """
    module.eval()
    for parameter in module.parameters():  # scripted modules have no requires_grad_
        parameter.requires_grad_(False)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    origin = weights or (RANDOM if request.weights == RANDOM else str(request.weights))
    return Model(request.model, module, _as(dtype, prepare), classes, bounds, origin, digits)


def _as(dtype: torch.dtype, prepare: Prepare) -> Prepare:
    """Prepare inputs of the type that a model's weights have."""
    if dtype == torch.float32:
        return prepare

    def prepare_as(picture: "Image", name: str) -> Prepared:
        prepared = prepare(picture, name)
        return replace(prepared, x=prepared.x.to(dtype))

    return prepare_as
