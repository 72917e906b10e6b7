"""`relprop coverage`: which rule each operation of a model gets, and what is not covered."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

import relprop
from relprop.cli.model_options import ModelName, Rules, Size, named_model
from relprop.engine.gaps import what_helps
from relprop.errors import InputError
from relprop.models import RANDOM, Model, errors_of
from relprop.models.language import PREFIX, load_language_model
from relprop.runs.coverage import Coverage
from relprop.text.explain import inputs_of
from relprop.text.tokens import tokens_of
from relprop.view.picture import read_picture
from relprop.zoo import BUNDLED

TEXT = "Where does this come from?"


def coverage(
    model: ModelName,
    rules: Rules = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="A picture to run the model on.", metavar="FILE", show_default="noise"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="A file of weights. It is not needed: what is covered does not depend on them.",
            metavar="FILE",
            show_default=RANDOM,
        ),
    ] = None,
    size: Size = None,
    text: Annotated[
        str | None,
        typer.Option(help="A text to run a language model on.", metavar="TEXT", show_default=TEXT),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every call, for programs, instead of a table.")
    ] = False,
) -> None:
    """Tell which rule each operation of a model gets, and what is not covered.

    The model runs once, untrained and on noise unless you give something else; no relevance is computed.
    The exit status is 0 if all is covered, 1 if not, and 2 for errors.

    relprop coverage torchvision:resnet50

    relprop coverage my_models.py:net --size 64 --rules alpha2-beta1

    relprop coverage hf:my-folder --rules attnlrp
    """
    if model.startswith(PREFIX):
        if picture is not None or size is not None:
            raise InputError(f"{model} is a language model: --picture and --size are for others.")
        told, what, sizes, result = _of_text(model, weights, text, rules)
    else:
        if text is not None:
            raise InputError(f"{model} reads no text: --text is for language models, hf:FOLDER_OR_ID.")
        told, what, sizes, result = _of_picture(model, weights, picture, size, rules)
    if as_json:
        about = {"model": model, "weights": told, "input": sizes}
        typer.echo(json.dumps(about | _as_data(result), indent=2))
    else:
        typer.echo(f"{model}, weights: {told}; input: {what}, {'x'.join(map(str, sizes))}\n\n{result}")
        remedy = what_helps({gap.operation for gap in result.gaps if gap.acceptable})
        if remedy:
            typer.echo(f"\nIn Python, {remedy}")
    if not result.complete:
        raise typer.Exit(1)


def _of_picture(
    model: str, weights: str | None, picture: Path | None, size: str | None, rules: str | None
) -> tuple[str, str, list[int], Coverage]:
    """Run a model of pictures: its weights and input in words, the input's sizes, and what was found."""
    found = named_model(model, weights or RANDOM, size=size)
    x = _noise(found) if picture is None else found.prepare(read_picture(picture), str(picture)).x
    return found.weights, "noise" if picture is None else str(picture), list(x.shape), _run(found, x, rules)


def _of_text(
    model: str, weights: str | None, text: str | None, rules: str | None
) -> tuple[str, str, list[int], Coverage]:
    """Run a language model, likewise."""
    found = load_language_model(model, weights=weights or RANDOM)
    inputs: dict[str, Any] = {**inputs_of(found, tokens_of(found, TEXT if text is None else text))}
    result = relprop.coverage(found.module, **inputs, rules=rules)
    return weights or RANDOM, f"{len(inputs['input_ids'][0])} tokens", list(inputs["input_ids"].shape), result


def _noise(model: Model) -> Tensor:
    """Make an input of the size that the model wants, (1, C, H, W), the same each time."""
    if model.digits:  # pictures of digits are refused where there is none
        shape = BUNDLED[model.name].shape
        return 2 * torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)) - 1
    levels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    return model.prepare(Image.fromarray(levels), "noise").x


def _run(model: Model, x: Tensor, rules: str | None) -> Coverage:
    with errors_of(model, x):
        return relprop.coverage(model.module, x, rules=rules)


def _as_data(result: Coverage) -> dict[str, Any]:
    """Tell everything, for programs."""
    return {
        "rules": result.preset,
        "complete": result.complete,
        "calls": [
            {"path": c.path, "operation": c.operation, "how": c.how, "covered": c.covered}
            for c in result.crossings
        ],
    }
