"""Writing the page on which digits are drawn."""

from pathlib import Path

from relprop.cli.work.terminal import refuse_to_replace_others, tell
from relprop.errors import InputError
from relprop.files import write_whole
from relprop.tutorial.demo.page import demo


def write_demo(file: Path) -> None:
    """Write the page, and say where it is.

    Raises:
        InputError: the name does not end in .html.
        FileError: there is a file that relprop did not make, or the page cannot be written.
    """
    if file.is_dir():
        file = file / "digit.html"
    if file.suffix.lower() != ".html":
        raise InputError(
            f"relprop demo {file}: the page is HTML. Give a name that ends in .html, or a folder."
        )
    refuse_to_replace_others([file], "another name")
    content = demo().encode("utf-8")
    write_whole(file, content)
    tell(f"{file}: {len(content) / 1e6:.1f} MB. Open it in a browser and draw a digit.")
