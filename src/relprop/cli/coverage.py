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

    Examples:
      relprop coverage torchvision:resnet50
      relprop coverage my_models.py:net --size 64 --rules alpha2-beta1
      relprop coverage hf:my-folder --rules attnlrp
    """
    from relprop.cli.work.coverage import tell_coverage

    options = ModelOptions(model, weights or RANDOM, size=size)
    tell_coverage(options, rules, picture=picture, text=text, as_json=as_json)
