"""Models of the user's own: a function in a Python file that the user names.

The function is called without arguments and returns the model. Options, or attributes of the model, describe
its input:

- `input_size`: height and width in pixels, such as (224, 224), or one number for both;
- `mean` and `std`: the mean and standard deviation by which values from 0 to 1 are normalised, one number for
  each channel or one for all; by default 0 and 1;
- `classes`: names of the classes.

A photograph is resized so that its shorter side is that of `input_size`, and its centre is cut out.
"""

import difflib
import importlib.util
import inspect
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relprop.errors import InputError, ModelError
from relprop.models.checkpoints import load_checkpoint
from relprop.models.model import Model, Normalisation, preparing_photographs
from relprop.models.request import Request, finished, seeded
from relprop.rules.bounds import Bounds

_COLOUR = 3  # red, green and blue

LARGEST, LONGEST = 4096**2, 4 * 4096
"""The most pixels of a picture for a model, and of its side, far more than networks for pictures take."""


def own_model(request: Request) -> Model:
    """Return the model that "path.py:function" names. The file is run like a program of the user.

    Raises:
        ModelError: the file or the function is missing or fails, the function does not return a module, or
            the size of its input is missing, or its size or normalisation does not fit.
        InputError: a standard deviation is 0.
        FileError: the file of weights is missing or damaged, would run code on loading, or does not fit.
    """
    path, _, name = request.model.rpartition(":")
    if not path or path.endswith(":"):
        path, name = request.model.rstrip(":"), ""
    with seeded():
        module = _made(Path(path), name, request.model)
    if request.weights_file is not None:
        load_checkpoint(module, request.weights_file)
    size = _size(module, request)
    channels = _channels(module, request, size)
    normalisation = Normalisation(
        _numbers(module, "mean", request.mean, channels, 0.0, request.model),
        _numbers(module, "std", request.std, channels, 1.0, request.model),
    )
    if 0 in normalisation.std:
        raise InputError(f"{request.model}: std={normalisation.std} divides by zero. Give numbers above 0.")
    classes = request.classes or _attribute(module, "classes", request.model)
    return finished(
        request,
        module,
        prepare=preparing_photographs(min(size), size, channels, normalisation.apply),
        classes=tuple(map(str, classes)) if isinstance(classes, (list, tuple)) else None,
        bounds=_bounds(module, normalisation, channels, size),
        weights=None if request.weights_file else f"as {name} made them",
    )


def _made(path: Path, name: str, model: str) -> nn.Module:
    """Run the file, call the function, and return its module."""
    if not os.path.isfile(path):  # which is also no for a name that is too long
        raise ModelError(f"{model}: there is no file {path}. Check the name and the folder.")
    with _importing_beside(path):
        namespace = _run(path, model)
        factory = _function(namespace, name, path, model)
        made = _tried(factory, path, model)
    if not isinstance(made, nn.Module):
        raise ModelError(f"{model} returned {type(made).__name__}. It must return a torch.nn.Module.")
    return made


@contextmanager
def _importing_beside(path: Path) -> Iterator[None]:
    """Let the file import other files of its folder, as if it were run as a program."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _run(path: Path, model: str) -> dict[str, Any]:
    name = f"relprop_own_{path.stem}"
    loader = SourceFileLoader(name, str(path.resolve()))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for the module that they are defined in
    _tried(lambda: loader.exec_module(module), path, model)
    return vars(module)


def _tried(function: Callable[[], Any], path: Path, model: str) -> Any:
    """Call a function. If it fails, raise a ModelError that names the line of the user's file."""
    try:
        return function()
    except (Exception, SystemExit) as error:
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path.resolve())
        ]
        if isinstance(error, SyntaxError) and error.filename == str(path.resolve()):
            lines.append(error.lineno)
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        raise ModelError(
            f"{model} failed at {place}: {type(error).__name__}: {error}. relprop runs the file and calls "
            "the function without arguments. The function must return the model."
        ) from error


def _function(namespace: dict[str, Any], name: str, path: Path, model: str) -> Callable[[], Any]:
    found = namespace.get(name)
    if isinstance(found, nn.Module):
        return lambda: found
    if callable(found):
        factory: Callable[[], Any] = found
        return factory
    own = [
        key
        for key, value in namespace.items()
        if getattr(value, "__module__", "") == namespace["__name__"]
        and (inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, nn.Module)))
    ]
    near = difflib.get_close_matches(name, own, n=1) or own[:1]
    offer = f" Did you mean {path}:{near[0]}?" if near else ""
    there = f"It defines {', '.join(own)}." if own else "It defines no function."
    problem = f"there is no function {name!r} in {path}" if name else "name the function that makes the model"
    raise ModelError(f"{model}: {problem}.{offer} {there}")


def _channels(module: nn.Module, request: Request, size: tuple[int, int]) -> int:
    """Return the number of channels of the model's pictures, 3 or, in grey, 1.

    It is found by the numbers of `mean` and `std`, or by the first layer.
    """
    effective = [
        _sequence(_attribute(module, what, request.model) if given is None else given)
        for what, given in (("mean", request.mean), ("std", request.std))
    ]
    if any(len(values) == _COLOUR for values in effective):
        return _COLOUR
    first = _first_layer(module)
    if isinstance(first, nn.Conv2d) and first.in_channels in (1, _COLOUR):
        return first.in_channels
    if isinstance(first, nn.Linear) and first.in_features in (prod(size), _COLOUR * prod(size)):
        return first.in_features // prod(size)
    # The layer's number is of no use if the model rearranges pixels into channels before it.
    own = [_attribute(module, what, request.model) for what in ("mean", "std")]
    return 1 if any(hasattr(values, "__len__") and len(_sequence(values)) == 1 for values in own) else _COLOUR


def _first_layer(module: nn.Module) -> nn.Conv2d | nn.Linear | None:
    """Return the convolution or linear layer that is listed first, which usually runs first."""
    return next((m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)), None)


def _bounds(module: nn.Module, normalisation: Normalisation, channels: int, size: tuple[int, int]) -> Bounds:
    """Return the smallest and largest value of the input, in a form that the first layer can use.

    If the model begins with a convolution over the channels, there is a number for each channel. If it begins
    with a linear layer for the flattened picture, there is a number for each element. Otherwise there is one
    number for all.
    """
    low, high = normalisation.bounds
    first = _first_layer(module)
    if isinstance(first, nn.Conv2d) and first.in_channels == channels:
        return low, high
    if len(set(low)) == len(set(high)) == 1:
        return low[0], high[0]
    if isinstance(first, nn.Linear) and first.in_features == channels * prod(size):
        every_low, every_high = (torch.tensor(bound)[:, None, None].repeat(1, *size) for bound in (low, high))
        return every_low, every_high
    return min(low), max(high)


def _size(module: nn.Module, request: Request) -> tuple[int, int]:
    size = request.size or _attribute(module, "input_size", request.model)
    if type(size) is int:
        size = (size, size)
    if size is None:
        raise ModelError(
            f"{request.model}: give the size of its pictures, by --size 224 (height and width) or by an "
            "attribute input_size = (224, 224) of the model."
        )
    # Some models have (channels, height, width).
    numbers = tuple(size)[-2:] if isinstance(size, (list, tuple)) else ()
    if len(numbers) != 2 or not all(type(n) is int and n > 0 for n in numbers):
        raise ModelError(f"{request.model}: input_size is {size!r}; give height and width, (224, 224).")
    if prod(numbers) > LARGEST or max(numbers) > LONGEST:
        raise ModelError(
            f"{request.model}: pictures of {' x '.join(map(_written, numbers))} are too large. relprop "
            f"makes them of up to {LARGEST:,} pixels, and {LONGEST:,} on a side. Give height and width, by "
            "--size 224 or by an attribute input_size = (224, 224) of the model."
        )
    return numbers[0], numbers[1]


def _written(pixels: int) -> str:
    return f"{float(min(pixels, 10**18)):.12g}"


def _attribute(module: nn.Module, name: str, model: str) -> Any:
    """Return an attribute of the model, or None if it has none.

    Raises:
        ModelError: it is a property that fails.
    """
    try:
        return getattr(module, name, None)
    except Exception as error:
        raise ModelError(
            f"{model}: its attribute {name} fails: {type(error).__name__}: {error}. relprop looks there for "
            "what belongs to the model. Make it a plain value, or delete it."
        ) from error


def _numbers(
    module: nn.Module, what: str, given: Any, channels: int, default: float, model: str
) -> tuple[float, ...]:
    """Return one number for each channel: the user's, or the model's own, or the default."""
    values = _attribute(module, what, model) if given is None else given
    if values is None:
        return (default,) * channels
    numbers = _sequence(values)
    if len(numbers) == 1:
        numbers *= channels
    if len(numbers) != channels:
        whose = (
            f"its attribute {what} is {values!r}"
            if given is None
            else f"--{what} is {','.join(f'{number:g}' for number in numbers)}"
        )
        raise ModelError(
            f"{model}: {whose}; give {channels} numbers, one for each channel, or one number for all."
        )
    if not all(map(math.isfinite, numbers)):
        raise ModelError(f"{model}: {what} is {', '.join(map(str, numbers))}. Give finite numbers.")
    return numbers


def _sequence(values: Any) -> tuple[float, ...]:
    """Return the numbers of a list, a tensor or a single number; () if they are not numbers."""
    try:
        if isinstance(values, torch.Tensor) and not values.dim():
            values = values.item()
        return tuple(float(v) for v in values) if hasattr(values, "__len__") else (float(values),)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return ()
