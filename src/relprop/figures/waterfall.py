"""The way to a score: bars that each begin where the one above ends."""

from collections.abc import Sequence
from typing import Protocol

from matplotlib.axes import Axes

from relprop.figures import bars
from relprop.figures.figure import Figure
from relprop.figures.of_bars import Frame, drawn_bars
from relprop.figures.style import FAINT

SINK = "#8c8c8c"

TOO_SMALL = 2e-4
"""A difference of a smaller part of the whole width cannot be seen and gets no bar."""


class Stepped(Protocol):
    """A step towards a score: see `relprop.results.waterfall.Step`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def amount(self) -> float:
        """What it adds."""

    @property
    def kind(self) -> str:
        """What it is: "entry", "others", "sink" or "difference"."""


def waterfall(steps: Sequence[Stepped], score: float, measure: str, frame: Frame) -> Figure | Axes:
    """Draw steps below each other, each from the end of the one before, and the score.

    Args:
        steps: the steps.
        score: what they add up to.
        measure: the name of the score.
        frame: where, and what is around them.

    Raises:
        InputError: no axes, axes of another kind, or too many steps.
    """
    entries = sum(step.kind == "entry" for step in steps)
    bars.require_few(entries, entries, frame.call)
    rows, start = [], 0.0
    colours = {"others": FAINT, "sink": SINK, "difference": FAINT}
    for step in steps:
        rows.append(bars.Bar(step.name, step.amount, start, colours.get(step.kind)))
        start += step.amount
    ends = [0.0, score, *(row.start + row.amount for row in rows)]
    span = max(ends) - min(ends)
    seen = [
        row
        for row, step in zip(rows, steps, strict=True)
        if step.kind != "difference" or abs(row.amount) > TOO_SMALL * span
    ]
    seen.append(bars.Bar(measure, score, colour=bars.TEXT))
    return drawn_bars(seen, frame, linked=True)
