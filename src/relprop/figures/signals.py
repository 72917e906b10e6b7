"""Relevance of signals on axes: each channel is a row, its relevance the colour behind it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from relprop.figures.axes import clear_ours, inches_of, remember
from relprop.figures.maps import Scale, scale_of
from relprop.figures.style import FAINT, INK
from relprop.figures.texts import LONGEST, letters_in, shortened, spell
from relprop.view.options import Options

STRONGEST = 0.55
"""The value of the colour map that is the strongest colour behind a line, so that the line can be seen."""

NAMES = 0.4
"""Names of channels have room for so much of the width of axes."""

MOST_NAMES = 24
"""More channels are not named one by one."""


def height(channels: int) -> float:
    """Return the height of a figure of so many channels in inches, with its title and its axis."""
    return max(0.7, min(0.32 * channels, 6.0)) + 0.6


def limits(relevance: NDArray[np.float64]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the limits of x and y of a signal (C, T)."""
    channels, steps = relevance.shape
    return (-0.5, steps - 0.5), (channels - 0.5, -0.5)


def draw(
    ax: Axes,
    relevance: NDArray[np.float64],
    limit: float,
    look: Options,
    signal: NDArray[np.float64] | None = None,
    names: Sequence[str] | None = None,
) -> Scale:
    """Draw relevance (C, T), with the signal (C, T) over it if there is one, and return the scale.

    Each channel of the signal fills its row, whatever its unit: from its smallest value to its largest.
    Its line has a gap where the signal is NaN or infinite.
    """
    channels, steps = relevance.shape
    clear_ours(ax)
    x, y = limits(relevance)
    scale = scale_of(limit, look, strongest=1.0 if signal is None else STRONGEST)
    image = ax.imshow(
        relevance,
        norm=scale[0],
        cmap=scale[1],
        interpolation="none",
        aspect="auto",
        origin="upper",  # whatever the user's settings say
        extent=(*x, *y),
    )
    remember(ax, image)
    if signal is not None:
        known = np.isfinite(signal)
        seen = np.where(known, signal, np.nan)
        low = signal.min(1, keepdims=True, where=known, initial=np.inf)
        high = signal.max(1, keepdims=True, where=known, initial=-np.inf)
        middle = np.where(known, 0.5, np.nan)
        share = np.divide(seen - low, high - low, out=middle, where=(high > low) & known)
        for row, line in enumerate(share):
            ax.plot(np.arange(steps), row + 0.42 - 0.84 * line, color=INK, linewidth=0.7)
    for row in range(1, channels):
        ax.axhline(row - 0.5, color=FAINT, linewidth=0.5)
    ax.set_xlim(*x)
    ax.set_ylim(*y)
    every = -(-channels // MOST_NAMES)
    rows = list(range(0, channels, every))
    if names is None and channels == 1:
        rows = []
    told = [names[row] if names is not None else str(row) for row in rows]
    ax.set_yticks(rows, labels=["" for _ in rows])
    for label in ax.get_yticklabels()[:1]:
        longest = min(LONGEST, letters_in(NAMES * inches_of(ax), float(label.get_fontsize())))
        told = [shortened(name, longest) for name in told]
    ax.set_yticks(rows, labels=told)
    spell(ax.get_yticklabels())
    if names is None and channels > 1:
        ax.set_ylabel("channel")
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("time step")
    ax.spines[:].set(color=FAINT, linewidth=0.5)
    return scale
