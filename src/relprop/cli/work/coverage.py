"""Which rule each operation of a model gets, and what is not covered."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

import relprop
from relprop.cli.model_options import ModelOptions
from relprop.cli.words import RANDOM, TEXT
from relprop.cli.work.named_model import named_model
from relprop.cli.work.terminal import tell
from relprop.errors import InputError
from relprop.models import Model, errors_of
from relprop.models.language import PREFIX, load_language_model
from relprop.runs.coverage import Coverage
from relprop.text.explain import inputs_of
from relprop.text.tokens import tokens_of
from relprop.view.picture import read_picture
from relprop.zoo import BUNDLED


def tell_coverage(
    options: ModelOptions, rules: str | None, *, picture: Path | None, text: str | None, as_json: bool
) -> None:
    """Run a model once, and print what was found.

    Raises:
        InputError: an option is for models of another kind.
        Exit: with status 1, where not all is covered.
    """
    model = options.model
    if model.startswith(PREFIX):
        if picture is not None or options.size is not None:
            raise InputError(f"{model} is a language model: give --text, not --picture or --size.")
        told, what, sizes, result = _of_text(options, text, rules)
    else:
        if text is not None:
            raise InputError(f"{model} reads no text: --text is for language models, hf:FOLDER_OR_ID.")
        told, what, sizes, result = _of_picture(options, picture, rules)
    if as_json:
        about = {"model": model, "weights": told, "input": sizes}
        typer.echo(json.dumps(about | _as_data(result), indent=2))
    else:
        told += " (coverage does not depend on them)" if told == RANDOM else ""
        tell(f"{model}, weights: {told}; input: {what}, {'x'.join(map(str, sizes))}\n\n{result}")
        if result.remedy:
            tell(f"\nIn Python, {result.remedy}")
    if not result.complete:
        raise typer.Exit(1)


def _of_picture(
    options: ModelOptions, picture: Path | None, rules: str | None
) -> tuple[str, str, list[int], Coverage]:
    """Run a model of pictures: its weights and input in words, the input's sizes, and what was found."""
    found = named_model(options)
    x = _noise(found) if picture is None else found.prepare(read_picture(picture), str(picture)).x
    return found.weights, "noise" if picture is None else str(picture), list(x.shape), _run(found, x, rules)


def _of_text(
    options: ModelOptions, text: str | None, rules: str | None
) -> tuple[str, str, list[int], Coverage]:
    """Run a language model, likewise."""
    found = load_language_model(options.model, weights=options.weights)
    inputs: dict[str, Any] = {**inputs_of(found, tokens_of(found, TEXT if text is None else text))}
    result = relprop.coverage(found.module, **inputs, rules=rules)
    shape = list(inputs["input_ids"].shape)
    return str(options.weights), f"{shape[1]} tokens", shape, result


def _noise(model: Model) -> Tensor:
    """Make an input of the size that the model wants, (1, C, H, W), the same each time."""
    if model.digits:  # pictures of digits are refused where there is none
        shape = BUNDLED[model.name].shape
        return 2 * torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)) - 1
    levels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    return model.prepare(Image.fromarray(levels), "noise").x


def _run(model: Model, x: Tensor, rules: str | None) -> Coverage:
    with errors_of(model, x):
        return relprop.coverage(model.module, x, rules=rules, bounds=model.bounds)


def _as_data(result: Coverage) -> dict[str, Any]:
    """Tell everything, for programs."""
    return {
        "rules": result.preset,
        "complete": result.complete,
        **({"nothing": result.nothing} if result.nothing else {}),
        "calls": [
            {"path": c.path, "operation": c.operation, "how": c.how, "covered": c.covered}
            for c in result.crossings
        ],
    }
