"""`relprop tutorial`: the 2017 tutorial on real MNIST, from one command."""

from pathlib import Path
from typing import Annotated

import typer


def tutorial(
    out: Annotated[
        Path, typer.Option(help="Write the pictures and the report into this folder.", metavar="FOLDER")
    ] = Path("out/tutorial"),
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Read both networks from this folder, in the tutorial's text format: mlp/l1-W.txt, ..., "
            "cnn/c1-5x5x1x10-W.txt, ...",
            metavar="FOLDER",
            show_default="the package's",
        ),
    ] = None,
) -> None:
    """Compute the 2017 tutorial on real MNIST, for both networks, in a few seconds.

    The command draws the tutorial's six pictures and the example of its successor, and writes
    report.html, a page that explains each step. Files of an earlier run are replaced.
    """
    from relprop.cli.work.tutorial import make_tutorial

    make_tutorial(out, weights)
