"""Axes of users: their kind, what they share with other axes, and what relprop drew on them before."""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar

from relprop.errors import InputError
from relprop.figures.texts import wrapped

_OURS = "_relprop_drew"
"""The attribute of axes that says what relprop drew on them: an artist, and how to remove the scale."""


def require_axes(ax: Any, call: str) -> Axes:
    """Return what a user gives as axes.

    Raises:
        InputError: it is something else, was removed from its figure, is polar or has three dimensions, or
            an axis is not linear.
    """
    if not isinstance(ax, Axes):
        remedy = "Give axes of matplotlib, as figure.add_subplot() or plt.subplots() makes them."
        if isinstance(ax, np.ndarray | list | tuple):
            remedy = "Give one of them, as in ax=axes[0]."
        raise InputError(f"{call}(ax=...): this is {type(ax).__name__}, and no axes. {remedy}")
    if ax.name != "rectilinear":
        raise InputError(
            f"{call}(ax=...): the axes are {type(ax).__name__}, with the projection {ax.name!r}. Give axes "
            "with the usual one, as figure.add_subplot() makes them."
        )
    if ax.figure is None:
        raise InputError(
            f"{call}(ax=...): the axes were removed from their figure. Give axes of a figure, as "
            "figure.add_subplot() makes them."
        )
    for axis, scale in (("x", ax.get_xscale()), ("y", ax.get_yscale())):
        if scale != "linear":
            raise InputError(
                f"{call}(ax=...): the scale of the {axis} axis is {scale!r}, but relevance may be zero "
                f"or negative. Give axes with linear scales: ax.set_{axis}scale('linear')."
            )
    return ax


def require_own_names(ax: Axes, call: str) -> None:
    """Check that names beside bars can be those of these axes alone.

    Raises:
        InputError: the y axis is shared with other axes.
    """
    if _sharing(ax, "y"):
        raise InputError(
            f"{call}(ax=...): the axes share their y axis with others, so that all would have the same names "
            "beside their bars. Make them with sharey=False; sharex=True gives them one scale."
        )


def require_fitting_limits(ax: Axes, x: tuple[float, float], y: tuple[float, float], call: str) -> None:
    """Check that other axes with which these share an axis have the limits that are needed here.

    Raises:
        InputError: they have other limits, and what is on them would be cut off.
    """
    for axis, wanted in (("x", x), ("y", y)):
        for other in _sharing(ax, axis):
            found = other.get_xlim() if axis == "x" else other.get_ylim()
            if other.has_data() and not np.allclose(found, wanted):
                raise InputError(
                    f"{call}(ax=...): the axes share their {axis} axis with others, on which it is from "
                    f"{found[0]:g} to {found[1]:g}; here it would be from {wanted[0]:g} to {wanted[1]:g}. "
                    f"Make them with share{axis}=False."
                )


def shared_ends(ax: Axes) -> list[float]:
    """Return the smallest and the largest x that is drawn on each of the axes that share their x axis."""
    return [float(end) for other in _sharing(ax, "x") if other.has_data() for end in other.dataLim.intervalx]


def _sharing(ax: Axes, axis: str) -> list[Axes]:
    group = ax.get_shared_x_axes() if axis == "x" else ax.get_shared_y_axes()
    return [other for other in group.get_siblings(ax) if other is not ax]


def clear_ours(ax: Axes) -> None:
    """Clear axes that relprop drew on before, and remove their scale of colours.

    Axes that the user has cleared since then have only the scale removed.
    """
    artist, scale = vars(ax).pop(_OURS, (None, None))
    if scale is not None:
        bar, cell, place = scale
        if bar.ax.figure is not None:  # else the user has removed it
            bar.remove()
            if cell is None:
                ax.set_position(place)
            else:
                ax.set_subplotspec(cell)
    if artist is not None and artist in ax.get_children():
        ax.clear()
        ax.set_aspect("auto")


def remember(ax: Axes, artist: Artist) -> None:
    """Remember that relprop drew this on axes, for `clear_ours`."""
    vars(ax)[_OURS] = (artist, None)


def remember_scale(ax: Axes, bar: Colorbar, cell: Any, place: Any) -> None:
    """Remember the scale of axes, and the cell and the place that the axes had before, for `clear_ours`."""
    artist, _ = vars(ax).get(_OURS, (None, None))
    vars(ax)[_OURS] = (artist, (bar, cell, place))


def ink_of(ax: Axes) -> Any:
    """Return the colour of texts on axes, which can be seen on their background, as in a dark style."""
    return ax.xaxis.label.get_color()


def label_on(ax: Axes, label: str) -> str:
    """Return a label broken into lines that are no wider than axes with a scale of colours."""
    return wrapped(label, 0.85 * inches_of(ax), float(ax.title.get_fontsize()))


def inches_of(ax: Axes) -> float:
    """Return the width of axes in inches, as it is before names and numbers have found their room."""
    figure: Any = ax.figure
    return float(ax.bbox.width / figure.dpi)
