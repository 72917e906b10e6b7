"""Pictures of explanations, for notebooks and files."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from relprop.errors import InputError
from relprop.view.arrays import Pixels, as_pixels
from relprop.view.display import as_pictures
from relprop.view.grid import captioned, grid
from relprop.view.heatmaps import Scaled, reduce_channels, scale
from relprop.view.options import options_of
from relprop.view.sheet import Plot, draw_maps, finished, full_colours, map_shape
from relprop.view.subject import (
    Explained,
    chosen_samples,
    drawable,
    given_labels,
    labels_of,
    pictures_of,
)

COLUMNS = 6
"""Default number of maps in a row."""


def plot(relevance: Explained | torch.Tensor, picture: Any = None, **options: Any) -> Plot:
    """Draw an explanation: a heatmap of each sample or, with a picture, relevance laid over the picture.

    Args:
        relevance: an explanation, or relevance itself: of images (N, C, H, W), of sequences (N, C, T) or of
            features (N, F). Sequences and features are drawn as strips.
        picture: the picture that the model saw: its input, or Pillow images, arrays or names of files. See
            `relprop.view.display.as_pictures`.
        options: see `Options`.

    Raises:
        InputError: the relevance cannot be drawn, an option is unknown or out of range, or the picture does
            not fit.
        FileError: a picture cannot be read.
    """
    look = options_of(options)
    R, name = drawable(relevance, look.of)
    chosen = chosen_samples(len(R), look)
    scaled = scale(reduce_channels(R[chosen], look.channels), percentile=look.percentile, shared=look.shared)
    labels = labels_of(relevance, len(R), look)
    cells = draw_maps(scaled, pictures_of(picture, len(R), chosen), look)
    limits = full_colours(scaled, look)
    cells = [
        captioned(cell, above=labels[sample], below=limit)
        for cell, sample, limit in zip(cells, chosen, limits, strict=True)
    ]
    columns = 1 if R.dim() < 4 else max(1, COLUMNS if look.columns is None else look.columns)
    picture_of_all = grid([cells[i : i + columns] for i in range(0, len(cells), columns)])
    metadata = {} if isinstance(relevance, torch.Tensor) else relevance.described(look.model, chosen)
    if name is not None and metadata:
        title = metadata["Title"].replace("Relevance of the input", f"Relevance of {name}", 1)
        metadata |= {"Title": title, "Relevance of": name}
    return finished(picture_of_all, scaled.limits, look, metadata)


def compare(explanations: Mapping[str, Explained], picture: Any = None, **options: Any) -> Plot:
    """Draw several explanations of the same samples side by side, such as those of several rules or classes.

    Args:
        explanations: the explanations, by the text above their columns. Each sample has a row.
        picture: the picture, as for `plot`. It has a column of its own and, without `beside`, is under the
            relevance too.
        options: see `Options`.

    Raises:
        InputError: as for `plot`; or there is no explanation, or their shapes differ.
        FileError: a picture cannot be read.
    """
    look = options_of(options)
    if not explanations:
        raise InputError("compare({}): give one explanation or more, by name.")
    found = {name: drawable(explanation, look.of)[0] for name, explanation in explanations.items()}
    shapes = {tuple(R.shape) for R in found.values()}
    if len({(shape[0], *shape[2:]) for shape in shapes}) > 1:
        raise InputError(
            f"compare: relevance has the shapes {', '.join(map(str, sorted(shapes)))}; compare explanations "
            "of the same samples."
        )
    count = len(next(iter(found.values())))
    chosen = chosen_samples(count, look)
    maps = [reduce_channels(R[chosen], look.channels) for R in found.values()]
    together = scale(np.concatenate(maps), percentile=look.percentile, shared=look.shared)
    rows = np.arange(len(together.limits)).reshape(len(maps), len(chosen))
    given = pictures_of(picture, count, chosen)
    limits = full_colours(together, look)
    columns = []
    for numbers in rows:
        scaled = Scaled(together.values[numbers], together.limits[numbers])
        # The picture has a column of its own.
        cells = draw_maps(scaled, None if look.beside else given, replace(look, beside=False))
        columns.append([captioned(cell, below=limits[n]) for cell, n in zip(cells, numbers, strict=True)])
    above = list(explanations)
    if given is not None:
        shape = map_shape(together.values, look)
        # If the maps have a number below them, the picture gets a blank line, to be at the same height.
        blank = " " if limits[0] else ""
        pictures = as_pixels(as_pictures(given, len(chosen), *shape))
        columns.insert(0, [captioned(one, below=blank) for one in pictures])
        above.insert(0, "")
    labels = given_labels(count, look)
    left = [labels[sample] for sample in chosen] if labels else []
    sheet = _in_rows(list(zip(*columns, strict=True)), above, left, look.columns)
    metadata = {"Title": f"Relevance, compared: {', '.join(explanations)}"}
    for name, explanation in explanations.items():
        for key, text in explanation.described(look.model, chosen).items():
            # Title, software and model are written once, everything else for each explanation.
            metadata.setdefault(key if key in ("Title", "Software", "Model") else f"{key} ({name})", text)
    return finished(sheet, together.limits, look, metadata)


def _in_rows(
    rows: list[tuple[Pixels, ...]], above: list[str], left: list[str], columns: int | None
) -> Pixels:
    """Arrange a row for each sample, or several rows if there are more maps than columns."""
    if columns is None or columns >= len(above):
        return grid(rows, above=above, left=left)
    columns = max(1, columns)
    blocks = []
    for start in range(0, len(above), columns):
        cells = [row[start : start + columns] for row in rows]
        blocks.append(grid(cells, above=above[start : start + columns], left=left))
    return grid([[block] for block in blocks])
