"""What commands that take a model share: how the model, what belongs to it, and the rules are named."""

from pathlib import Path
from typing import Annotated, Any

import typer

from relprop.errors import FileError, InputError
from relprop.models import FORMS, RANDOM, Model, resolve
from relprop.rules.presets import DEFAULT, DEFAULT_FOR_TOKENS

ModelName = Annotated[str, typer.Argument(help=f"The model: {FORMS}.", show_default=False)]

Weights = Annotated[
    str | None,
    typer.Option(
        help="A file of weights, safetensors or a checkpoint (nothing in it is executed); or 'random', for "
        "trying things out.",
        metavar="FILE",
        show_default="the trained weights that are on this machine",
    ),
]

Classes = Annotated[
    Path | None,
    typer.Option(
        help="A text file with the names of the classes, one a line.",
        metavar="FILE",
        show_default="those that the model is known to have",
    ),
]

Size = Annotated[
    str | None,
    typer.Option(
        help="Height and width of the input of a model of your own: 224 or 224x320.",
        metavar="SIZE",
        show_default="its attribute input_size",
    ),
]

Mean = Annotated[
    str | None,
    typer.Option(
        help="How a model of your own wants values from 0 to 1 normalised, by channel: 0.485,0.456,0.406.",
        metavar="NUMBERS",
        show_default="its attribute mean, or 0",
    ),
]

Std = Annotated[
    str | None,
    typer.Option(
        help="Likewise, what is divided by.", metavar="NUMBERS", show_default="its attribute std, or 1"
    ),
]


def _rules(default: str, example: str) -> Any:
    return typer.Option(
        help=f"The preset of rules, such as {example}, a rule, such as 'Gamma(0.25)', or a TOML or JSON "
        "file of rules.",
        metavar="RULES",
        show_default=default,
    )


Rules = Annotated[str | None, _rules(DEFAULT, "deep-taylor")]

RulesForTokens = Annotated[str | None, _rules(DEFAULT_FOR_TOKENS, "attnlrp")]


def named_model(
    model: str,
    weights: str | None = None,
    classes: Path | None = None,
    size: str | None = None,
    mean: str | None = None,
    std: str | None = None,
) -> Model:
    """Make the model that the options name.

    Raises:
        InputError: an option has no meaning, or the model does not take it.
        ModelError: there is no such model, or it does not work here.
        FileError: a file is missing, damaged or does not fit.
    """
    if weights is not None and weights.lower() == RANDOM and not Path(weights).exists():
        weights = RANDOM
    return resolve(
        model,
        weights=weights,
        classes=_names(classes) if classes is not None else None,
        size=_size(size) if size is not None else None,
        mean=_numbers(mean, "--mean") if mean is not None else None,
        std=_numbers(std, "--std") if std is not None else None,
    )


def _names(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise FileError(f"cannot read the names of the classes in {path}: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise FileError(f"{path} is not text in UTF-8: give the names of the classes, one a line.") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise FileError(f"{path} has no names of classes in it: give one a line.")
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
            f"{option} {text}: give numbers, one a channel, with commas between, such as 0.485,0.456,0.406."
        ) from None
