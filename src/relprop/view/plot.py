"""Pictures of explanations, for notebooks and files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from relprop.errors import Call, InputError
from relprop.view.arrays import Pixels, as_pixels
from relprop.view.display import as_pictures
from relprop.view.grid import captioned, grid
from relprop.view.heatmaps import Scaled, reduce_channels, scale
from relprop.view.options import PLOT, Options, options_of
from relprop.view.sheet import Plot, draw_maps, finished, full_colours, map_shape


class Explained(Protocol):
    """An explanation, as far as it can be drawn: see `relprop.results.explanation.Explanation`."""

    @property
    def inputs(self) -> Mapping[str, torch.Tensor]:
        """Relevance of the inputs, by name."""

    @property
    def inner(self) -> Mapping[str, torch.Tensor]:
        """Relevance of the outputs of recorded modules, by path."""

    @property
    def target(self) -> Any:
        """The explained class of each sample, or what else is explained."""

    @property
    def score(self) -> torch.Tensor:
        """The explained score of each sample."""

    @property
    def measure(self) -> str:
        """The name of the score."""

    def described(self, model: str | None, samples: Sequence[int] | None, /) -> dict[str, str]:
        """Return a description in words, for the metadata of files."""


COLUMNS = 6
"""Default number of maps in a row."""

MOST = 64
"""Largest number of samples that are drawn if none are chosen."""


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
    R, name = relevance_of(relevance, look.of)
    chosen = _chosen(len(R), look)
    scaled = scale(reduce_channels(R[chosen], look.channels), percentile=look.percentile, shared=look.shared)
    labels = _labels(relevance, len(R), look)
    cells = draw_maps(scaled, _picture(picture, len(R), chosen), look)
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
    found = {name: relevance_of(explanation, look.of)[0] for name, explanation in explanations.items()}
    shapes = {tuple(R.shape) for R in found.values()}
    if len({(shape[0], *shape[2:]) for shape in shapes}) > 1:
        raise InputError(
            f"compare: relevance has the shapes {', '.join(map(str, sorted(shapes)))}; compare explanations "
            "of the same samples."
        )
    count = len(next(iter(found.values())))
    chosen = _chosen(count, look)
    maps = [reduce_channels(R[chosen], look.channels) for R in found.values()]
    together = scale(np.concatenate(maps), percentile=look.percentile, shared=look.shared)
    rows = np.arange(len(together.limits)).reshape(len(maps), len(chosen))
    given = _picture(picture, count, chosen)
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
    labels = _given_labels(count, look)
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


def relevance_of(
    subject: Explained | torch.Tensor, of: str | None, call: Call = PLOT
) -> tuple[torch.Tensor, str | None]:
    """Return the relevance to draw, and its name or, for the only input, None.

    Args:
        subject: an explanation, or relevance itself.
        of: the input or recorded module that the user names.
        call: what was called, for errors.

    Raises:
        InputError: there is no such relevance, or there are several and none is named.
    """
    inputs = {"": subject} if isinstance(subject, torch.Tensor) else subject.inputs
    inner: Mapping[str, torch.Tensor] = {} if isinstance(subject, torch.Tensor) else subject.inner
    if len(inputs) == 1 and (of is None or of in inputs):
        return _with_samples(next(iter(inputs.values()))), None
    shapes = [f"{name} {tuple(R.shape)}" for name, R in inputs.items()]
    names = ", ".join([*shapes, *inner]) if inner or len(inputs) > 1 else ""
    if of is None:
        raise InputError(
            f"there is relevance of several inputs: {names}. Choose one: "
            f"{call(f'of={next(iter(inputs))!r}')}."
        )
    if of in inputs:
        return _with_samples(inputs[of]), of
    if of not in inner:
        raise InputError(
            f"{call(f'of={of!r}')}: there is no relevance of this name. "
            + (f"There is: {names}." if names else "There is only that of the input. Leave of= out.")
        )
    try:
        return _with_samples(inner[of]), of
    except InputError as error:
        raise InputError(
            f"{call(f'of={of!r}')}: {error} Draw it by plot(tensor), of relprop.view.plot."
        ) from None


def _with_samples(R: torch.Tensor) -> torch.Tensor:
    if R.dim() < 2 or not R.numel():
        reduce_channels(R)  # raises an error that names the shape
    return R


def _chosen(count: int, look: Options) -> list[int]:
    if look.samples is None:
        if count > MOST:
            raise InputError(
                f"there are {count} samples, too many for a picture. Choose some: plot(samples=range(12))."
            )
        return list(range(count))
    chosen = [int(sample) for sample in look.samples]
    wrong = [sample for sample in chosen if not 0 <= sample < count]
    if wrong or not chosen:
        raise InputError(f"plot(samples={look.samples!r}): give one number or more, from 0 to {count - 1}.")
    return chosen


def _given_labels(count: int, look: Options) -> list[str] | None:
    if look.labels is None:
        return None
    if isinstance(look.labels, str) or len(look.labels) != count:
        raise InputError(f"plot(labels={look.labels!r}): give a list of {count} texts, one for each sample.")
    return [str(label) for label in look.labels]


def _labels(subject: Explained | torch.Tensor, count: int, look: Options) -> list[str]:
    given = _given_labels(count, look)
    if given is not None:
        return given
    if isinstance(subject, torch.Tensor) or subject.score.numel() != count:
        return [""] * count
    scores = [f"{subject.measure} {score:.4g}" for score in subject.score.tolist()]
    target = subject.target
    if not isinstance(target, torch.Tensor) or target.is_floating_point() or target.numel() != count:
        return scores
    return [f"{_class(c, look)}, {score}" for c, score in zip(target.tolist(), scores, strict=True)]


def _class(number: int, look: Options) -> str:
    if look.classes is None:
        return str(number)
    if not 0 <= number < len(look.classes):
        raise InputError(
            f"plot(classes=...) has {len(look.classes)} names, but class {number} is explained; give a name "
            "for each class."
        )
    return look.classes[number]


def _picture(picture: Any, count: int, chosen: Sequence[int]) -> Any:
    """Return the pictures of the chosen samples, if there is a picture for each sample."""
    several = isinstance(picture, (list, tuple)) or (
        isinstance(picture, (torch.Tensor, np.ndarray)) and picture.ndim == 4
    )
    if several and len(picture) == count:
        return [picture[sample] for sample in chosen]
    return picture
