"""A user's request for a model, and the last step of making a model, which all families share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from relprop.models.model import Model, Prepare, prepared_as
from relprop.rules.bounds import Bounds

RANDOM = "random"
"""Given instead of a file of weights: the network's initial weights, always the same."""


@dataclass(frozen=True)
class Request:
    """A user's request for a model: the arguments of `relprop.models.resolve`."""

    model: str
    """The model's name, as the user wrote it."""
    weights: str | Path | None = None
    """A file, "random", or None for the trained weights on this machine."""
    classes: tuple[str, ...] | None = None
    """Names of the classes, if the user gives them."""
    size: tuple[int, int] | None = None
    """Height and width of the input in pixels, for models of the user's own."""
    mean: tuple[float, ...] | None = None
    """Mean of the normalisation, for models of the user's own."""
    std: tuple[float, ...] | None = None
    """Standard deviation of the normalisation, for models of the user's own."""

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
    """Draw the same random weights each time, and do not change the state of the user's random numbers."""
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
    """Return a `Model` of a module, in evaluation mode and without gradients for its parameters.

    Args:
        request: the user's request.
        module: the module with its weights. Its mode and its parameters' `requires_grad` are changed.
        prepare: turns a picture into the module's input.
        classes: names of the classes, if they are known.
        bounds: bounds of the input, if they are known.
        weights: the source of the weights in words, or None for those that the user gave.
        digits: whether its pictures are single digits.
    """
    module.eval()
    for parameter in module.parameters():  # scripted modules have no requires_grad_
        parameter.requires_grad_(False)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    origin = weights or (RANDOM if request.weights == RANDOM else str(request.weights))
    prepare = prepare if dtype == torch.float32 else prepared_as(dtype, prepare)
    return Model(request.model, module, prepare, classes, bounds, origin, digits)
