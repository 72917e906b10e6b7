"""`relprop tutorial`: the 2017 tutorial on real MNIST, from one command."""

from pathlib import Path
from typing import Annotated

import typer


def tutorial(
    out: Annotated[
        Path, typer.Option(help="The folder for the pictures and the report.", metavar="FOLDER")
    ] = Path("out/tutorial"),
    weights: Annotated[
        Path | None,
        typer.Option(
            help="A folder with both networks in the tutorial's text format: mlp/l1-W.txt, ..., "
            "cnn/c1-5x5x1x10-W.txt, ...",
            metavar="FOLDER",
            show_default="those of the package",
        ),
    ] = None,
) -> None:
    """Go through the 2017 tutorial on real MNIST, both networks, in a few seconds.

    Makes its six pictures, the example of its successor, and report.html,
    a page that explains each step. What an earlier run left is replaced.
    """
    from relprop.cli.work.tutorial import make_tutorial

    make_tutorial(out, weights)
