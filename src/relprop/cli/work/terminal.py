"""What the commands share: the terminal, progress bars, and what they refuse to overwrite."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import rich.progress
import typer
from rich.console import Console

from relprop.errors import FileError, visible
from relprop.pages.page import is_own_page
from relprop.view.mosaic import made_by_relprop


class _Lines(Console):
    """A terminal for lines with names of files and classes, in which nothing may control the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, and show what is invisible in texts as an escape."""
        super().print(*[visible(o, keep="\n") if isinstance(o, str) else o for o in objects], **options)


def console() -> Console:
    """The terminal, for plain lines: paths and numbers are printed as they are, and never cut."""
    return _Lines(soft_wrap=True, markup=False, emoji=False, highlight=False)


def tell(text: str, *, err: bool = False) -> None:
    """Print lines to stdout or stderr, in which what is invisible is shown as an escape."""
    typer.echo(visible(text, keep="\n"), err=err)


def plural(pictures: int) -> str:
    """Write a number of pictures: "1 picture", "2 pictures"."""
    return f"{pictures:,} picture{'' if pictures == 1 else 's'}"


def counted(some: int, all_: int) -> str:
    """Write how many of all pictures: "1 of 2 pictures"."""
    return f"{some:,} of {plural(all_)}"


def progress_bar(terminal: Console, *columns: rich.progress.ProgressColumn) -> rich.progress.Progress:
    """A bar, columns and a description. It goes when it is done, and is silent where nobody looks."""
    return rich.progress.Progress(
        rich.progress.BarColumn(),
        *columns,
        rich.progress.TextColumn("{task.description}", markup=False),
        # Before 14.3 rich ends a bar with an empty line also where it shows none.
        console=terminal if terminal.is_terminal else Console(quiet=True),
        transient=True,
        disable=not terminal.is_terminal,
    )


def refuse_to_replace_others(paths: Iterable[Path], remedy: str) -> None:
    """Only pictures and pages that relprop made are replaced.

    Args:
        paths: files that are about to be written.
        remedy: what else to choose, for the error: "another name".

    Raises:
        FileError: one of the files exists and is none of these.
    """
    for path in paths:
        is_page = path.suffix.lower() == ".html"
        if os.path.isfile(path) and not (is_own_page(path) if is_page else made_by_relprop(path)):
            raise FileError(
                f"{path} exists and was not made by relprop, which replaces only its own "
                f"{'pages' if is_page else 'pictures'}. Move it, or choose {remedy}."
            )
