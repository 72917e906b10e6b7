"""Running a model on a prepared picture: what it raises becomes an error that says where to look."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relprop.errors import ModelError, RelpropError
from relprop.models.model import Model

# Code of torch and of relprop, through which the model's own is reached.
_NOT_THE_MODELS = tuple(
    f"{Path(module).parent}{os.sep}" for module in (torch.__file__, Path(__file__).parent)
)


def output_of(model: Model, x: Tensor) -> Any:
    """Return what the model says of an input (1, C, H, W), without gradients.

    Raises:
        ModelError: the model fails on it.
    """
    with errors_of(model, x), torch.no_grad():
        return model.module(x)


@contextmanager
def errors_of(model: Model, x: Tensor, *, noted: bool = False) -> Iterator[None]:
    """Turn what a model raises into an error that repeats it, and names the input and the line.

    Args:
        model: which runs inside.
        x: what it is called with.
        noted: leave errors alone that `relprop.explain` has not noted as those of the model.

    Raises:
        ModelError: the model failed.
    """
    try:
        yield
    except RelpropError:
        raise
    except Exception as error:
        if noted and not any("the model's own error" in note for note in getattr(error, "__notes__", ())):
            raise
        raise ModelError(_told(model, x, error)) from error


def _told(model: Model, x: Tensor, error: Exception) -> str:
    kind = str(x.dtype).removeprefix("torch.")
    said = " ".join(str(error).split()).rstrip(".")
    own = model.name.rpartition(":")[0].endswith(".py")
    advice = f" Look at {_place(model, error)}." if own else ""
    advice += " --size gives the pictures another size." if own else ""
    return (
        f"{model.name} fails on an input of shape {tuple(x.shape)}, {kind}: {type(error).__name__}: {said}. "
        f"The model gets this tensor as its only argument.{advice}"
    )


def _place(model: Model, error: Exception) -> str:
    """The last line of the model's own code, or the file that makes it."""
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith(_NOT_THE_MODELS) and Path(f.filename).is_file()
    ]
    path = model.name.rpartition(":")[0]
    if not frames:
        return path
    found = Path(frames[-1].filename)
    shown = path if found == Path(path).resolve() else found
    return f"{shown}, line {frames[-1].lineno}"
