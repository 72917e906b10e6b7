"""Running a model on a prepared picture, and turning its errors into errors that say where to look."""

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

# Folders of torch and relprop, whose code is not the model's own.
_NOT_THE_MODELS = tuple(
    f"{Path(module).parent}{os.sep}" for module in (torch.__file__, Path(__file__).parent)
)


def output_of(model: Model, x: Tensor) -> Any:
    """Return the model's output for an input (1, C, H, W), computed without gradients.

    Raises:
        ModelError: the model fails on the input.
    """
    with errors_of(model, x), torch.no_grad():
        return model.module(x)


@contextmanager
def errors_of(model: Model, x: Tensor, *, noted: bool = False) -> Iterator[None]:
    """Turn an error of a model into a ModelError that repeats it, and names the input.

    For models of the user's own, it also names the line.

    Args:
        model: the model, which runs inside.
        x: the model's input.
        noted: turn only errors that `relprop.explain` has marked as the model's own by a note.

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
    """Return file and line of the model's own code that failed last, or the file that makes the model."""
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
