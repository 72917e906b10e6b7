"""Relevance of images on axes: as a heatmap, or over the picture at the picture's own size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from numpy.typing import NDArray

from relprop.figures.axes import clear_ours, remember, remember_scale
from relprop.figures.style import FAINT, colour_map
from relprop.figures.texts import number
from relprop.view.heatmaps import backdrop, layer
from relprop.view.options import Options

GAP = 0.03
"""Space between a picture and the map beside it, as a share of its width."""


Scale = tuple[Normalize, ListedColormap]
"""Which relevance has which colour."""


def scale_of(limit: float, look: Options, strongest: float = 1.0) -> Scale:
    """Return the scale of colours: the full colour is at the limit, and white at zero."""
    full = limit or 1.0  # of relevance that is zero everywhere
    colours = colour_map(look.colours, signed=look.signed, strongest=strongest)
    return Normalize(-full if look.signed else 0.0, full), colours


def limits(
    relevance: NDArray[np.float64], look: Options, picture: NDArray[np.float64] | None = None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the limits of x and y of a map (H, W), with its picture (h, w, 3) if there is one."""
    height, width = relevance.shape if picture is None else picture.shape[:2]
    shift = width * (1 + GAP) if look.beside and picture is not None else 0.0
    return (-0.5 - shift, width - 0.5), (height - 0.5, -0.5)


def draw(
    ax: Axes,
    relevance: NDArray[np.float64],
    limit: float,
    look: Options,
    picture: NDArray[np.float64] | None = None,
) -> Scale:
    """Draw a map (H, W), beside or over its picture (h, w, 3) if there is one, and return its scale.

    Each value is a rectangle, in vector files too: the file has the values, and no enlarged picture.
    """
    clear_ours(ax)
    scale = scale_of(limit, look)
    (left, right), (bottom, top) = limits(relevance, look, picture)
    extent = (-0.5, right, bottom, top)
    how: dict[str, Any] = {
        "interpolation": "bilinear" if look.smooth else "none",
        "extent": extent,
        "origin": "upper",  # whatever the user's settings say
    }
    if picture is None or look.beside:
        ax.imshow(relevance, norm=scale[0], cmap=scale[1], **how)
    if picture is not None:
        seen = backdrop(picture) if look.grey and not look.beside else picture
        place = (left, left + right + 0.5, bottom, top)
        ax.imshow(np.clip(seen, 0, 1), interpolation="none", extent=place, origin="upper", zorder=-1)
        if not look.beside:
            values = np.clip(relevance / (limit or 1.0), -1, 1)
            colours, alpha = layer(values, look.colours, look.opacity)
            ax.imshow(np.clip(np.concatenate([colours, alpha], axis=-1), 0, 1), **how)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    remember(ax, ax.get_images()[-1])
    ax.set_xticks([])
    ax.set_yticks([])
    beside = picture is not None and look.beside
    ax.spines[:].set(color=FAINT, linewidth=0.5, visible=not beside)
    return scale


def colour_bar(axes: Sequence[Axes], scale: Scale, limit: float | None, look: Options, **place: Any) -> None:
    """Draw the scale beside axes, with the relevance of the full colours, or with signs alone."""
    # Any: axes of a user may be those of a figure within a figure.
    figure: Any = axes[0].figure
    options: dict[str, Any] = {"fraction": 0.045, "pad": 0.03, "aspect": 22} | place
    # The scale of single axes is a cell beside them, which tight_layout knows.
    cell, where = axes[0].get_subplotspec(), axes[0].get_position(original=True)
    bar = figure.colorbar(ScalarMappable(*scale), ax=axes[0] if len(axes) == 1 else list(axes), **options)
    if len(axes) == 1:
        remember_scale(axes[0], bar, cell, where)
    low, high = float(scale[0].vmin or 0), float(scale[0].vmax or 0)
    ends = ("−", "+") if limit is None else (number(low, digits=3), number(high, digits=3))
    if limit == 0:
        bar.set_ticks([0.0], labels=["0"])
    elif look.signed:
        bar.set_ticks([low, 0.0, high], labels=[ends[0], "0", ends[1]])
    else:
        bar.set_ticks([low, high], labels=["0", ends[1]])
    bar.outline.set(color=FAINT, linewidth=0.5)
    bar.ax.tick_params(length=0, pad=2)
