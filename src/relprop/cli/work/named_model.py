"""From the options that name a model to the model."""

import os
from pathlib import Path

import torch

from relprop.cli.model_options import ModelOptions
from relprop.errors import FileError, InputError
from relprop.models import RANDOM, Model, resolve
from relprop.results.named import device_named


def named_model(options: ModelOptions) -> Model:
    """Make the model that the options name.

    Raises:
        InputError: an option has no meaning, or the model does not take it.
        ModelError: there is no such model, or it does not work here.
        FileError: a file is missing, damaged or does not fit.
    """
    weights = options.weights
    if weights is not None and weights.lower() == RANDOM and not os.path.exists(weights):
        weights = RANDOM
    device = chosen_device(options.device)
    model = resolve(
        options.model,
        weights=weights,
        classes=_names(options.classes) if options.classes is not None else None,
        size=_size(options.size) if options.size is not None else None,
        mean=_numbers(options.mean, "--mean") if options.mean is not None else None,
        std=_numbers(options.std, "--std") if options.std is not None else None,
    )
    return model if device is None else model.on(device)


def chosen_device(name: str | None) -> torch.device | None:
    """Return the device of --device, or None if the option is not given.

    Raises:
        InputError: it is no device, or there is none here.
    """
    return None if name is None else device_named(name, f"--device {name}")


def _names(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise FileError(
            f"cannot read the class names in {path}: {error.strerror}. Check the name and the folder."
        ) from error
    except UnicodeDecodeError:
        raise FileError(
            f"{path} is not text in UTF-8. Give a file with one class name on each line."
        ) from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise FileError(f"{path} has no class names. Give a file with one class name on each line.")
    return names


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    try:
        size = int(height), int(width or height)
    except ValueError:
        size = 0, 0
    if min(size) < 1:
        raise InputError(f"--size {text}: give height and width in pixels, such as 224 or 224x320.")
    return size


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise InputError(
            f"{option} {text}: give one number for each channel, separated by commas, such as "
            "0.485,0.456,0.406."
        ) from None
