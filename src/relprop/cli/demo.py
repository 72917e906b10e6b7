"""`relprop demo`: a page on which anybody draws a digit and sees it explained."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    file: Annotated[
        Path,
        typer.Argument(
            help="The page to write. An earlier one is replaced, any other file never.", metavar="FILE"
        ),
    ] = Path("digit.html"),
) -> None:
    """Write a page on which anybody draws a digit and sees which pixels decide how a network reads it.

    The page is one file of 1.5 MB with both networks of the tutorial in it. It needs no network,
    no server and no Python: open it in a browser, or send it by mail.

    Example:
      relprop demo digit.html
    """
    from relprop.cli.work.demo import write_demo

    write_demo(file)
