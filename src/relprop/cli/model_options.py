"""What commands that take a model share: how the model, what belongs to it, and the rules are named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from relprop.cli.words import DEFAULT, DEFAULT_FOR_TOKENS, FORMS

ModelName = Annotated[str, typer.Argument(help=f"The model: {FORMS}.", metavar="MODEL", show_default=False)]

Weights = Annotated[
    str | None,
    typer.Option(
        help="Load this file of weights, safetensors or a checkpoint. Nothing in it is executed. 'random' "
        "leaves the model untrained, for trying things out.",
        metavar="FILE",
        show_default="the trained weights that are on this machine",
    ),
]

Device = Annotated[
    str | None,
    typer.Option(
        help="Compute on this device of torch, such as cuda, cuda:1 or xpu.",
        metavar="DEVICE",
        show_default="the CPU",
    ),
]

Classes = Annotated[
    Path | None,
    typer.Option(
        help="Read the names of the classes from this text file, one on each line.",
        metavar="FILE",
        show_default="the model's names, if they are known",
    ),
]

Size = Annotated[
    str | None,
    typer.Option(
        help="Set height and width of the input, for a model of your own: 224 or 224x320.",
        metavar="SIZE",
        show_default="its attribute input_size",
    ),
]

Mean = Annotated[
    str | None,
    typer.Option(
        help="Normalise values from 0 to 1 by this mean of each channel, for a model of your own: "
        "0.485,0.456,0.406.",
        metavar="NUMBERS",
        show_default="its attribute mean, or 0",
    ),
]

Std = Annotated[
    str | None,
    typer.Option(
        help="Normalise by this standard deviation of each channel, as for --mean.",
        metavar="NUMBERS",
        show_default="its attribute std, or 1",
    ),
]


def _rules(default: str, example: str) -> Any:
    return typer.Option(
        help=f"Use these rules: a preset, such as {example}; a rule, such as 'Gamma(0.25)'; or a TOML or "
        "JSON file.",
        metavar="RULES",
        show_default=default,
    )


Rules = Annotated[str | None, _rules(DEFAULT, "deep-taylor")]

RulesForTokens = Annotated[str | None, _rules(DEFAULT_FOR_TOKENS, "attnlrp")]


@dataclass(frozen=True)
class ModelOptions:
    """A model as the command line names it, with what belongs to it; as the user wrote it."""

    model: str
    weights: str | None = None
    classes: Path | None = None
    size: str | None = None
    mean: str | None = None
    std: str | None = None
    device: str | None = None
