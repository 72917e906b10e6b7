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
        help="A file of weights, safetensors or a checkpoint (nothing in it is executed); or 'random', to "
        "try things out.",
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
        help="How a model of your own wants values from 0 to 1 normalised, the mean of each channel: "
        "0.485,0.456,0.406.",
        metavar="NUMBERS",
        show_default="its attribute mean, or 0",
    ),
]

Std = Annotated[
    str | None,
    typer.Option(
        help="Likewise, the standard deviation of each channel.",
        metavar="NUMBERS",
        show_default="its attribute std, or 1",
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


@dataclass(frozen=True)
class ModelOptions:
    """A model as the command line names it, with what belongs to it; as the user wrote it."""

    model: str
    weights: str | None = None
    classes: Path | None = None
    size: str | None = None
    mean: str | None = None
    std: str | None = None
