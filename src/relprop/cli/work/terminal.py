"""What the commands share: the terminal, progress bars, and what they refuse to overwrite."""

from collections.abc import Iterable
from pathlib import Path

import rich.progress
from rich.console import Console

from relprop.errors import FileError
from relprop.view.mosaic import made_by_relprop


def console() -> Console:
    """The terminal, for plain lines: paths and numbers are printed as they are, and never cut."""
    return Console(soft_wrap=True, markup=False, emoji=False, highlight=False)


def progress_bar(terminal: Console, *columns: rich.progress.ProgressColumn) -> rich.progress.Progress:
    """A bar, columns and a description. It goes when it is done, and is silent where nobody looks."""
    return rich.progress.Progress(
        rich.progress.BarColumn(),
        *columns,
        rich.progress.TextColumn("{task.description}"),
        # Before 14.3 rich ends a bar with an empty line also where it shows none.
        console=terminal if terminal.is_terminal else Console(quiet=True),
        transient=True,
        disable=not terminal.is_terminal,
    )


def refuse_to_replace_others(pictures: Iterable[Path]) -> None:
    """Only pictures that relprop made are replaced.

    Raises:
        FileError: one of the files exists and is none of these.
    """
    for path in pictures:
        if path.is_file() and not made_by_relprop(path):
            raise FileError(
                f"{path} exists and was not made by relprop, which replaces only its own pictures. Move it, "
                "or choose another place with --out."
            )
