"""`relprop coverage`: which rule each operation of a model gets, and what is not covered."""

from pathlib import Path
from typing import Annotated

import typer

from relprop.cli.model_options import ModelOptions, Rules, Size
from relprop.cli.words import FORMS, RANDOM, TEXT


def coverage(
    model: Annotated[
        str,
        typer.Argument(
            help=f"The model: {FORMS}; or hf:FOLDER_OR_ID, a language model.",
            metavar="MODEL",
            show_default=False,
        ),
    ],
    rules: Rules = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Run the model on this picture.", metavar="FILE", show_default="noise"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Load this file of weights. Coverage does not depend on the weights.",
            metavar="FILE",
            show_default=RANDOM,
        ),
    ] = None,
    size: Size = None,
    text: Annotated[
        str | None,
        typer.Option(help="Run a language model on this text.", metavar="TEXT", show_default=TEXT),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every call as JSON instead of a table.")
    ] = False,
) -> None:
    """List which rule each operation of a model gets, and which operations are not covered.

    The model runs once, by default untrained and on noise. No relevance is computed.
    The exit status is 0 if every operation is covered, 1 if not, and 2 for errors.

    Examples:
      relprop coverage torchvision:resnet50
      relprop coverage my_models.py:net --size 64 --rules alpha2-beta1
      relprop coverage hf:my-folder --rules attnlrp
    """
    from relprop.cli.work.coverage import tell_coverage

    options = ModelOptions(model, weights or RANDOM, size=size)
    tell_coverage(options, rules, picture=picture, text=text, as_json=as_json)
