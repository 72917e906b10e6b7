"""A plot of the relevance that each operation absorbed: a row for each operation, the output at the top."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import SupportsIndex

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from relprop.errors import InputError
from relprop.files import VERSION
from relprop.view.arrays import Pixels
from relprop.view.grid import INK, LINE, TEXT, padded, plain, words
from relprop.view.ledger_rows import grouped
from relprop.view.sheet import Plot
from relprop.view.way import Step, Way

RGB = tuple[int, int, int]
Segment = tuple[float, float, RGB]
"""A part of a bar: the amounts at its ends, and its colour."""

# Tol's "muted" colours, which colour-blind readers can tell apart, and nearly black. These sinks always have
# their own colour, so that plots can be compared. The most frequent ones have the colours that differ most.
COLOURS: Mapping[str, RGB] = MappingProxyType(
    {
        "bias": (51, 34, 136),
        "epsilon": (221, 204, 119),
        "no contribution": (204, 102, 119),
        "constant": (17, 119, 51),
        "shift": (136, 204, 238),
        "pointwise": (68, 170, 153),
        "softmax": (170, 68, 153),
        "statistic": (136, 34, 85),
        "condition": (153, 153, 51),
        "zero input": (20, 20, 20),
    }
)

REMAINING: RGB = (187, 187, 187)
FAINT: RGB = (120, 120, 120)
_BAND = 245
"""Level of grey of every second row, so that the eye finds the numbers of a name."""

_ROW = LINE + 3
_MARGIN = 12
_NAME = 300
_BARS = (180, 260)
"""Widths in pixels: of a name at most, and of the two columns of bars."""


def draw(found: Way, rows: int = 60, title: str | None = None) -> Plot:
    """Draw a way: the relevance that remains behind each operation, and the amounts that its sinks absorbed.

    Bars of positive amounts go to the right, those of negative amounts to the left. Each of the two columns
    has its own scale.

    Args:
        found: the way.
        rows: the largest number of operations, or groups of operations, to draw.
        title: text above the plot; by default the samples.

    Raises:
        InputError: `rows` is less than 1.
    """
    if not isinstance(rows, SupportsIndex) or rows < 1:
        raise InputError(f"ledger.plot(rows={rows!r}): give the largest number of rows, 1 or more.")
    title = f"Where relevance went, from output to input ({found.samples})" if title is None else title
    steps, sinks = grouped(found, rows), found.sinks
    colours = colours_of(sinks)
    sheet = _striped(_columns(found, steps, colours))
    names = {f"{sink} {found.written(found.absorbed[sink])}": colours[sink] for sink in sinks}
    parts = [_legend(names, sheet.shape[1])] if sinks else []
    if title:
        parts.insert(0, words(title, sheet.shape[1], align="left"))
    parts = [padded(part, part.shape[0] + 10, part.shape[1]) for part in parts]
    sheet = np.pad(
        np.concatenate([*parts, sheet]), ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), constant_values=255
    )
    return Plot(sheet, _about(found, title))


def colours_of(sinks: Sequence[str]) -> dict[str, RGB]:
    """Return a colour for each sink: its own in `COLOURS` or, for other sinks, one that is free."""
    free = [colour for sink, colour in COLOURS.items() if sink not in sinks] or [INK]
    unknown = [sink for sink in sinks if sink not in COLOURS]
    return {
        sink: COLOURS[sink] if sink in COLOURS else free[unknown.index(sink) % len(free)] for sink in sinks
    }


def _columns(found: Way, steps: Sequence[Step], colours: Mapping[str, RGB]) -> list[Pixels]:
    """Draw the columns: module, operation, remaining and absorbed amounts. The first row has the heads."""
    left = [found.seed, *(step.remaining for step in steps), found.inputs]
    what = [f"{step.count} operations" if step.count > 1 else step.operation for step in steps]
    remains = [[(0.0, amount, REMAINING)] for amount in left]
    columns = [
        _texts(["", "seed", *(_shortened(step.path or "(root)") for step in steps), "inputs"]),
        _texts(["", "", *what, ""], FAINT),
        _bars("remaining", remains, _BARS[0]),
        _texts(["", *map(found.written, left)], right=True),
    ]
    if steps:
        stacks = [[], *(_stacked(step, colours) for step in steps), []]
        larger = _extent(remains)[2] / _BARS[0] * _BARS[1] / (_extent(stacks)[2] or 1)
        enlarged = f", {larger:.{0 if larger >= 10 else 1}f} times enlarged" if larger > 1.05 else ""
        columns.append(_bars(f"absorbed{enlarged}", stacks, _BARS[1]))
        columns.append(_texts(["", "", *(found.written(step.total) for step in steps), ""], right=True))
    return columns


def _stacked(step: Step, colours: Mapping[str, RGB]) -> list[Segment]:
    """Put the sinks' amounts side by side: positive ones to the right of zero, negative ones to the left."""
    ends, stack = {True: 0.0, False: 0.0}, []
    for sink, colour in colours.items():
        amount = step.absorbed.get(sink, 0.0)
        if math.isfinite(amount) and amount:
            start = ends[amount > 0]
            ends[amount > 0] = start + amount
            stack.append((start, start + amount, colour))
    return stack


def _extent(bars: Sequence[Sequence[Segment]]) -> tuple[float, float, float]:
    """Return the smallest and the largest amount in bars, zero included, and their difference."""
    ends = [end for bar in bars for segment in bar for end in segment[:2] if math.isfinite(end)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    return low, high, high - low


def _bars(head: str, bars: Sequence[Sequence[Segment]], width: int) -> Pixels:
    """Draw a column of bars, with a line at zero."""
    low, _, span = _extent(bars)
    image = Image.new("RGB", (width, _ROW * len(bars)), "white")
    pen = ImageDraw.Draw(image)

    def place(amount: float) -> int:
        return round((amount - low) / (span or 1.0) * (width - 2))

    for number, bar in enumerate(bars):
        for start, end, colour in bar:
            first, last = sorted((place(start), place(end))) if math.isfinite(end) else (0, 0)
            if last > first:
                # Leave a white pixel between neighbours, if there is room for it.
                last -= 1 if last - first < 4 else 2
                pen.rectangle((first, _ROW * number + 4, last, _ROW * number + _ROW - 5), fill=colour)
    pen.line((place(0), 0, place(0), image.height), fill=INK)
    above = words(head, width, align="left")[:LINE]
    return np.concatenate([padded(above, _ROW, width), np.asarray(image)])


def _texts(texts: Sequence[str], ink: RGB = INK, *, right: bool = False) -> Pixels:
    """Write a column of texts, one in each row."""
    font = ImageFont.load_default(TEXT)
    lengths = [font.getlength(plain(text)) for text in texts]
    image = Image.new("RGB", (max(1, math.ceil(max(lengths))), _ROW * len(texts)), "white")
    pen = ImageDraw.Draw(image)
    for number, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        place = round(image.width - length) if right else 0
        pen.text((place, _ROW * number + 1), plain(text), fill=ink, font=font)
    return np.asarray(image)


def _shortened(path: str) -> str:
    """Cut off the beginning of a path that is too long. Its end tells modules apart."""
    font = ImageFont.load_default(TEXT)
    if font.getlength(plain(path)) <= _NAME:
        return path
    while font.getlength(plain(f"…{path}")) > _NAME:
        path = path[1:]
    return f"…{path}"


def _striped(columns: Sequence[Pixels], gap: int = 12) -> Pixels:
    """Put columns side by side. The rows below the heads are white and light grey in turn."""
    between = np.full((columns[0].shape[0], gap, 3), 255, np.uint8)
    sheet = np.concatenate([part for column in columns for part in (column, between)][:-1], axis=1)
    band = np.where(np.arange(len(sheet)) // _ROW % 2 == 1, _BAND, 255).astype(np.uint8)
    band[:_ROW] = 255
    return np.minimum(sheet, band[:, None, None])


def _legend(names: Mapping[str, RGB], width: int) -> Pixels:
    """Write names beside their colours, in as many lines as needed."""
    lines: list[list[Pixels]] = [[]]
    for name, colour in names.items():
        patch = np.full((LINE, 12, 3), 255, np.uint8)
        patch[2 : LINE - 2] = colour
        entry = np.concatenate([patch, words(f" {name}    ", align="left")], axis=1)
        if lines[-1] and sum(part.shape[1] for part in lines[-1]) + entry.shape[1] > width:
            lines.append([])
        lines[-1].append(entry[:, :width])
    joined = [np.concatenate(line, axis=1) for line in lines]
    return np.concatenate(
        [np.pad(line, ((0, 2), (0, width - line.shape[1]), (0, 0)), constant_values=255) for line in joined]
    )


def _about(found: Way, title: str) -> dict[str, str]:
    """Return a description of the plot, for the file's metadata."""
    about = {
        "Title": title or "Where relevance went",
        "Software": f"relprop {VERSION}",
        "Samples": found.samples,
        "Seed": found.written(found.seed),
        "Relevance of the inputs": found.written(found.inputs),
        "Absorbed": ", ".join(f"{sink} {found.written(found.absorbed[sink])}" for sink in found.sinks),
        "Ledger balances to": f"{found.gap:.1e}",
    }
    return {key: text for key, text in about.items() if text}
