"""Models that come with their weights, and how weights are read: safetensors only, nothing is executed."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from relprop.bounds import remember_bounds
from relprop.errors import FileError, ModelError
from relprop.zoo.mnist import cnn, mlp, pad


@dataclass(frozen=True)
class Bundled:
    """A model in the package: how it is built, what it takes and what its scores mean."""

    name: str
    build: Callable[[], nn.Sequential]
    weights: str
    """File in the package's data folder."""
    archive: str
    """Folder in the tutorial's text archives (see `relprop.zoo.text_format`)."""
    shape: tuple[int, ...]
    """Of one input, without the batch."""
    low: float
    high: float
    """Smallest and largest value that an input can have: the box of the zB rule."""
    classes: tuple[str, ...]
    prepare: Callable[[Tensor], Tensor]
    """Takes MNIST images (N, 1, 28, 28) in [-1, 1] to the model's input."""


def _unchanged(images: Tensor) -> Tensor:
    return images


_DIGITS = tuple("0123456789")

BUNDLED: dict[str, Bundled] = {
    model.name: model
    for model in (
        Bundled(
            "mnist-mlp", mlp, "mnist-mlp.safetensors", "mlp", (1, 28, 28), -1.0, 1.0, _DIGITS, _unchanged
        ),
        Bundled("mnist-cnn", cnn, "mnist-cnn.safetensors", "cnn", (1, 32, 32), -1.0, 1.0, _DIGITS, pad),
    )
}


def bundled(name: str) -> Bundled:
    """Look up a model in the package.

    Raises:
        ModelError: no model has this name; those with a similar name are offered.
    """
    if name in BUNDLED:
        return BUNDLED[name]
    near = difflib.get_close_matches(name, BUNDLED, cutoff=0.4)
    offer = f"Did you mean {' or '.join(near)}? " if near else ""
    raise ModelError(f"no bundled model is called {name!r}. {offer}There are: {', '.join(BUNDLED)}.")


def load(name: str, weights: Path | str | None = None) -> nn.Module:
    """Build a model of the package with trained weights, in eval mode and without gradients for them.

    Args:
        name: "mnist-mlp" or "mnist-cnn".
        weights: a safetensors file, such as `relprop train` writes; without it, the package's own weights.

    Raises:
        ModelError: no model has this name.
        FileError: the file of weights is missing or damaged, or belongs to another network.
    """
    found = bundled(name)
    model = found.build()
    if weights is not None:
        load_weights(model, Path(weights))
    else:
        with resources.as_file(resources.files("relprop.data") / "files" / found.weights) as path:
            load_weights(model, path)
    remember_bounds(model, (found.low, found.high))
    return model.eval().requires_grad_(False)


def load_weights(model: nn.Module, path: Path) -> None:
    """Copy the tensors of a safetensors file into `model`, all or, if they do not fit, none.

    Raises:
        FileError: the file is missing or damaged, or a name, shape or type differs from the model's,
            or a value is not finite.
    """
    try:
        state = safetensors.torch.load(path.read_bytes())
    except OSError as error:
        raise FileError(f"cannot read the weights in {path}: {error.strerror}.") from error
    except safetensors.SafetensorError as error:
        raise FileError(
            f"{path} is truncated, damaged or not a safetensors file: {error}. Replace it by a whole copy."
        ) from error
    fit(model, state, str(path))


def fit(model: nn.Module, state: Mapping[str, Tensor], place: str) -> None:
    """Copy `state` into `model`, all or none; `place` names in the error where `state` came from.

    Raises:
        FileError: a name, shape or type differs from the model's, or a value is not finite. All are listed.
    """
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} is not in the model" for name in state if name not in own]
    for name in own.keys() & state.keys():
        wrong += _misfit(name, own[name], state[name])
    if wrong:
        raise FileError(
            f"the weights in {place} do not fit the model: {'; '.join(sorted(wrong))}. "
            "Take weights that were saved from the same network."
        )
    model.load_state_dict(state)


def _misfit(name: str, own: Tensor, other: Tensor) -> list[str]:
    """Say what keeps `other` from taking the place of `own`."""
    if own.shape != other.shape:
        return [f"{name} has the shape {tuple(other.shape)}, should be {tuple(own.shape)}"]
    if own.dtype != other.dtype:
        return [f"{name} is {other.dtype}, should be {own.dtype}"]
    if not bool(torch.isfinite(other).all()):
        return [f"{name} contains values that are not finite"]
    return []
