"""A figure of bars alone: of parts, of pieces of a text, of the steps to a score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from relprop.figures import bars
from relprop.figures.axes import label_on, require_axes, require_own_names
from relprop.figures.figure import Figure
from relprop.figures.options import require_option
from relprop.figures.style import TITLE, own_style
from relprop.figures.texts import lines_of, wrapped
from relprop.view.entries import Amounts


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where bars are drawn, and what is around them.

    Attributes:
        call: what was called, for errors.
        ax: the user's axes, or None for a figure.
        title: the text above that the user gave.
        label: the text above if there is no title: what is explained.
        width: of the figure in inches; by default that of a column, or of a page for long names.
        about: a description, for files.
        literal: whether "$" in names is always a letter.
    """

    call: str
    ax: Any = None
    title: str = ""
    label: str = ""
    width: float | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    literal: bool = False


def ranked_bars(
    names: Sequence[str], amounts: Amounts, k: int, frame: Frame, *, in_order: bool = False
) -> Figure | Axes:
    """Draw the k largest amounts, by name, and the others together.

    Raises:
        InputError: no axes, a title or a width that is none, too many bars, or an amount that is NaN.
    """
    return drawn_bars(bars.ranked(names, amounts, k, frame.call, in_order=in_order), frame)


def drawn_bars(rows: Sequence[bars.Bar], frame: Frame, *, linked: bool = False) -> Figure | Axes:
    """Draw bars on the user's axes, or on those of a figure.

    Raises:
        InputError: no axes, or a title or a width that is none.
    """
    if frame.width is not None:
        require_option("width", frame.width, frame.call)
    require_option("title", frame.title, frame.call)
    if frame.ax is not None:
        where = require_axes(frame.ax, frame.call)
        require_own_names(where, frame.call)
        title = frame.title or label_on(where, frame.label)
        bars.draw(where, rows, title=title, literal=frame.literal, linked=linked)
        return where
    with own_style():
        wide = float(frame.width or bars.width_for(row.name for row in rows))
        title = wrapped(frame.title or frame.label, 0.6 * wide)
        size = (wide, bars.height(len(rows)) + TITLE * lines_of(title))
        drawing = Drawing(figsize=size, layout="constrained")
        bars.draw(drawing.subplots(), rows, title=title, literal=frame.literal, linked=linked)
    return Figure(drawing, dict(frame.about))
