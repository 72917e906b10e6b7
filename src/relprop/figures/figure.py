"""A finished figure: shown by notebooks, written as SVG, PDF or PNG."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from relprop.errors import InputError, visible
from relprop.figures.style import own_style
from relprop.files import VERSION, path_of, write_whole

KINDS = (".svg", ".pdf", ".png")


@dataclass(frozen=True, eq=False)
class Figure:
    """A finished figure. Notebooks show it.

    Attributes:
        drawing: the figure of matplotlib. What is added to it is shown and saved, too.
        metadata: a description in words, by key, which is stored in files.
    """

    drawing: Drawing
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def axes(self) -> list[Axes]:
        """The axes, in the order in which they were made."""
        return self.drawing.axes

    def save(self, path: Path | str) -> None:
        """Write the figure, whole or not at all. The same figure has the same bytes: no date is stored.

        Args:
            path: ends in `.svg` (texts stay texts), `.pdf` (fonts are embedded) or `.png` (300 dots an inch).

        Raises:
            InputError: the name ends in something else.
            FileError: the file cannot be written.
        """
        path = path_of(path, "figure.save")
        if path.suffix.lower() not in KINDS:
            raise InputError(
                f"figure.save({str(path)!r}): give a name that ends in .svg or .pdf, for papers, or in .png."
            )
        write_whole(path, self.as_bytes(path.suffix.lower()[1:]))

    def as_bytes(self, kind: str, dpi: float | None = None) -> bytes:
        """Return the content of a file of a kind: "svg", "pdf" or "png"."""
        content = io.BytesIO()
        with own_style():
            dots = dpi or mpl.rcParams["savefig.dpi"]
            self.drawing.savefig(content, format=kind, dpi=dots, metadata=_metadata(kind, self.metadata))
        return content.getvalue()

    def _repr_png_(self) -> bytes:
        return self.as_bytes("png", dpi=200)

    def __repr__(self) -> str:
        width, height = self.drawing.get_size_inches()
        about = self.metadata.get("Title", "a figure")
        return f"Figure({about}; {width:.3g} x {height:.3g} inches; .save(path) writes it)"


def _metadata(kind: str, about: Mapping[str, str]) -> dict[str, Any]:
    """Return a description with the keys that a kind of file has, and without a date."""
    texts = {key: visible(text, keep="\n") for key, text in about.items()}
    software = texts.pop("Software", f"relprop {VERSION}")
    if kind == "png":
        return {**texts, "Software": software}
    title = texts.pop("Title", "")
    told = "\n".join(f"{key}: {text}" for key, text in texts.items())
    found: dict[str, Any] = {"Title": title, "Creator": software}
    if kind == "svg":
        return {**found, "Description": told, "Date": None}
    return {**found, "Subject": told, "CreationDate": None}
