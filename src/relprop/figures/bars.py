"""Horizontal bars: a name, a bar and a number in each row. The largest are at the top."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from relprop.errors import InputError, visible
from relprop.figures.axes import clear_ours, inches_of, ink_of, remember, shared_ends
from relprop.figures.style import COLUMN, FAINT, NEGATIVE, PAGE, POSITIVE
from relprop.figures.texts import LONGEST, letters_in, number, shortened, spell
from relprop.view.arrays import require_finite
from relprop.view.entries import Amounts, largest

ROW = 0.19
"""Height of a row in inches."""

MOST = 200
"""Largest number of bars of a figure. Drawing more takes minutes, and nobody reads them."""

NAMES = 0.62
"""Names have room for so much of the width of axes, before it is divided between names and bars."""

LONG = 27
"""A figure with a longer name is as wide as a page, if the user does not say how wide."""


def width_for(names: Iterable[str]) -> float:
    """Return the width of a figure of bars with these names in inches."""
    return PAGE if max(map(len, names), default=0) > LONG else COLUMN


TEXT = "text"
"""The colour that texts have on the axes."""


@dataclass(frozen=True)
class Bar:
    """A row.

    Attributes:
        name: the text to the left of it.
        amount: how long the bar is.
        start: where it begins.
        colour: of the bar; by default that of the sign. `TEXT` is the colour of texts.
    """

    name: str
    amount: float
    start: float = 0.0
    colour: str | None = None


def ranked(names: Sequence[str], amounts: Amounts, k: int, call: str, *, in_order: bool = False) -> list[Bar]:
    """Return the bars of the k largest amounts, and one for all others together.

    Args:
        names: the name of each amount.
        amounts: the amounts, (entries,).
        k: how many have a bar of their own.
        call: what was called, for errors.
        in_order: whether they stay in their order, and not with the largest first.

    Raises:
        InputError: an amount is NaN or infinite, or there would be too many bars.
    """
    require_few(min(k, len(amounts)), k, call)
    require_finite(amounts, call)
    # A bar of one other would say less than its name.
    chosen = largest(amounts, len(amounts) if len(amounts) == k + 1 else k)
    bars = [Bar(names[place], float(amounts[place])) for place in (sorted(chosen) if in_order else chosen)]
    if others := len(amounts) - len(chosen):
        rest = float(np.delete(amounts, chosen).sum())
        bars.append(Bar(f"the other {others:,}", rest, colour=FAINT))
    return bars


def require_few(count: int, k: int, call: str) -> None:
    """Check how many of the largest have a bar.

    Raises:
        InputError: there are more than a figure can have.
    """
    if count > MOST:
        raise InputError(
            f"{call}(k={k}): a figure has {MOST} bars at most. Give a smaller k=, or make a table of all of "
            f"them: explanation.top(k={k}).to_csv(), or parts.save('parts.csv')."
        )


def height(rows: int) -> float:
    """Return the height of a figure of so many rows in inches, with its title and its numbers."""
    return ROW * rows + 0.62


def draw(
    ax: Axes,
    bars: Sequence[Bar],
    *,
    title: str = "",
    axis: str = "relevance",
    literal: bool = False,
    linked: bool = False,
) -> None:
    """Draw bars, with their amounts beside them.

    Args:
        ax: where.
        bars: from the top.
        title: text above.
        axis: what the amounts are.
        literal: whether "$" in names is always a letter.
        linked: whether each bar begins where the one above it ends, which thin lines show.
    """
    clear_ours(ax)
    ink, rows = ink_of(ax), np.arange(len(bars))
    starts, amounts = (np.array([getattr(bar, name) for bar in bars]) for name in ("start", "amount"))
    colours = [bar.colour or (NEGATIVE if bar.amount < 0 else POSITIVE) for bar in bars]
    colours = [ink if colour == TEXT else colour for colour in colours]
    drawn = ax.barh(rows, amounts, left=starts, height=0.72, color=colours)
    remember(ax, drawn[0])
    ax.axvline(0, color=ink, linewidth=0.6)
    if linked:
        ax.vlines((starts + amounts)[:-1], rows[:-1], rows[1:], color=ink, linewidth=0.4, linestyles="dotted")
    ax.set_yticks(rows, labels=["" for _ in bars])
    size = ax.get_yticklabels()[0].get_fontsize()
    longest = min(LONGEST, letters_in(NAMES * inches_of(ax), float(size)))
    ax.set_yticks(rows, labels=[shortened(bar.name, longest) for bar in bars])
    spell(ax.get_yticklabels(), literal=literal)
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel(axis)
    # Axes with a common scale show the bars of all of them.
    ends = [0.0, *starts, *(starts + amounts), *shared_ends(ax)]
    room = 0.02 * (max(ends) - min(ends) or 1.0)
    ax.set_xlim(min(ends) - room, max(ends) + room)
    # Few and short numbers, so that they have room below narrow axes.
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    # Numbers at the ends of bars would lie on names and on other bars.
    names = ax.get_yticklabels()
    for row, bar in enumerate(bars):
        ax.annotate(
            number(bar.amount, sign=True),
            xy=(1.0, row),
            xycoords=("axes fraction", "data"),
            xytext=(3.5, 0),
            textcoords="offset points",
            va="center_baseline",  # as that of names
            fontsize=names[0].get_fontsize(),
            color=names[0].get_color(),
            annotation_clip=False,
        )
    if title:
        spell([ax.set_title(visible(title, keep="\n"))])
