"""Interactive pages of explanations: of pictures, and of signals and tables as bars.

`to_html` makes a page of explanations as Python has them. `items_of` encodes one sample after the other, and
`relprop.pages.report` puts the page together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from relprop.errors import Call, InputError
from relprop.pages.items import LONGEST, Item, Map, encoded, encoded_size, picture_url, still
from relprop.pages.look import TO_HTML, Look, look_of
from relprop.pages.report import MOST_BYTES, report, thumbnail_size
from relprop.pages.words import Accounted, Told, ToldOfMap, classes_of, title_of, told_of
from relprop.view.arrays import as_array, require_finite
from relprop.view.display import as_picture
from relprop.view.subject import drawable
from relprop.view.way import ROUNDING

_AXES = ("channel", "row", "column")

MOST = 1000
"""Largest number of samples of a page if none are chosen."""


def to_html(
    explanations: Accounted | Mapping[str, Accounted],
    picture: Any = None,
    *,
    call: Call = TO_HTML,
    **options: Any,
) -> str:
    """Return a page of HTML on which every value can be read, without another file and without a network.

    Args:
        explanations: an explanation; or several of the same samples, such as those of several classes or
            rules, by the names of the toggles between them.
        picture: the picture that the model saw: its input, or Pillow images, arrays or names of files. See
            `relprop.view.display.as_pictures`. Pictures of more than 1,024 pixels are reduced.
        call: what the user called, for errors.
        options: see `relprop.pages.look.Look`.

    Raises:
        InputError: relevance that a page cannot show, an option without meaning, explanations of different
            samples, a picture that does not fit, or more data than a page should have.
        FileError: a picture cannot be read.
    """
    look = look_of(options, call)
    given = dict(explanations) if isinstance(explanations, Mapping) else {"": explanations}
    return report(list(items_of(given, picture, look)), look, title=look.title or title_of(given, look))


def items_of(
    given: Mapping[str, Accounted],
    picture: Any,
    look: Look,
    *,
    told: Callable[[int], Told] | None = None,
    thumbnails: int = 0,
) -> Iterator[Item]:
    """Encode one sample after the other.

    Args:
        given: explanations of the same samples, by name.
        picture: as for `to_html`.
        look: options.
        told: what is told of each sample, by number; by default what its explanations know.
        thumbnails: how many samples the page has, if it has others too.

    Raises:
        InputError: as for `to_html`.
        FileError: a picture cannot be read.
    """
    found = _relevance(given, picture, look)
    first = next(iter(found.values()))
    count = len(first)
    chosen = look.chosen(count, MOST)
    _require_room(encoded_size(first.shape[1:]) * len(given), chosen, look.call)
    labels, truth = look.labels_of(count), look.truth_of(count, classes_of(given, count))
    pictures = _Pictures(picture, count, look.call)
    small = thumbnail_size(thumbnails or len(chosen))
    applied = {name: "\n".join(map(str, each.rules)) for name, each in given.items()}
    used = 0
    for place, sample in enumerate(chosen):
        maps = {name: as_array(R[sample], str(look.call), "values") for name, R in found.items()}
        for name, values in maps.items():
            require_finite(values, f"{look.call}: {f'{name}, ' if name else ''}sample {sample}", _AXES)
        one = next(iter(maps.values()))
        image, url = pictures.of(sample, *one.shape[1:])
        right = None if truth is None else truth[sample]
        said = told_of(given, sample, look, labels, right) if told is None else told(sample)
        item = Item(
            told=said,
            shape=(one.shape[0], one.shape[1], one.shape[2]),
            picture=url,
            still=still(one, image, look, small),
            maps=tuple(
                _map(name, given[name], sample, values, applied[name], said.maps[name])
                for name, values in maps.items()
            ),
        )
        used += item.size
        if place == 0:
            _require_room(item.size, chosen, look.call)
        if used > MOST_BYTES:
            _require_room(-(-used // place) if place else used, chosen, look.call)
        yield item


class _Pictures:
    """The pictures of the samples. One that serves all samples is encoded once."""

    def __init__(self, picture: Any, count: int, call: Call) -> None:
        several = isinstance(picture, (list, tuple)) or (
            isinstance(picture, (torch.Tensor, np.ndarray)) and picture.ndim == 4
        )
        if several and len(picture) not in (1, count):
            raise InputError(
                f"{call('picture=...')} has {len(picture)} pictures for {count} samples; give one, or one "
                "for each."
            )
        self._call = call
        self._picture = picture
        self._each = several and len(picture) == count
        self._shared: tuple[Any, str] | None = None

    def of(self, sample: int, height: int, width: int) -> tuple[Any, str]:
        """Return a sample's picture, and its URL."""
        if self._picture is None:
            return None, ""
        if self._shared is not None:
            return self._shared
        one = self._picture[sample] if self._each else self._picture
        try:
            image = as_picture(one, height, width, LONGEST)
        except InputError as error:
            raise InputError(f"{self._call}: {error}") from None
        found = image, picture_url(image)
        if not self._each:
            self._shared = found
        return found


def _relevance(given: Mapping[str, Accounted], picture: Any, look: Look) -> dict[str, torch.Tensor]:
    """Return the relevance by each explanation, (N, C, H, W).

    Raises:
        InputError: what is given are no explanations of the same samples, or options or the picture are for
            relevance of another shape.
    """
    if not given:
        raise InputError(f"{look.call('{}')}: give one explanation or more, by name.")
    for name, each in given.items():
        if not isinstance(name, str):
            raise InputError(f"{look.call(f'{{{name!r}: ...}}')}: names of explanations are texts.")
        if not hasattr(each, "ledger"):
            raise InputError(
                f"{look.call(type(each).__name__)}: give an explanation, as relprop.explain returns it, or "
                "several by name."
            )
    found = {
        name: _with_axes(drawable(each, look.of, look.call)[0], look.call) for name, each in given.items()
    }
    sizes = {(len(R), *R.shape[2:]) for R in found.values()}
    if len(sizes) > 1:
        shapes = ", ".join(str(tuple(R.shape)) for R in found.values())
        raise InputError(
            f"{look.call}: relevance has the shapes {shapes}; give explanations of the same samples."
        )
    first = next(iter(found.values()))
    for name, R in found.items():
        if len(given[name].score) != len(R) or R.shape != first.shape:
            raise InputError(
                f"{look.call}: relevance of shape {tuple(R.shape)} is not that of {len(given[name].score)} "
                f"samples of shape {tuple(first.shape[1:])}. Give explanations of inputs whose samples are "
                "the first dimension, with the same channels."
            )
    if picture is not None and first.shape[2] == 1 < first.shape[3]:
        raise InputError(
            f"{look.call('picture=...')}: relevance of a sequence or of features has no picture. Leave "
            "picture= out."
        )
    if look.features is not None:
        _require_features(look.features, first, look.call)
    return found


def _require_features(names: Sequence[str], R: torch.Tensor, call: Call) -> None:
    if R.shape[2] > 1:
        raise InputError(
            f"{call('features=...')}: relevance of shape {tuple(R.shape)} is that of images, which have no "
            "features. Leave features= out."
        )
    if len(names) != R.shape[3]:
        raise InputError(
            f"{call('features=...')} has {len(names)} names for {R.shape[3]} features; give a name for each."
        )


def _with_axes(R: torch.Tensor, call: Call) -> torch.Tensor:
    """Return relevance as (N, C, H, W). Sequences and features have the height 1."""
    if R.dim() == 2:
        return R[:, None, None, :]
    if R.dim() == 3:
        return R[:, :, None, :]
    if R.dim() != 4:
        raise InputError(
            f"{call}: relevance of shape {tuple(R.shape)} cannot be shown. A page shows that of images "
            "(N, C, H, W), sequences (N, C, T) and features (N, F). Sum over other dimensions: "
            'dataclasses.replace(explanation, inputs={"x": explanation.relevance.sum(2)}).'
        )
    return R


def _require_room(size: int, chosen: Sequence[int], call: Call) -> None:
    """Check that samples of this size fit into a page.

    Raises:
        InputError: they do not. The error says how many do.
    """
    if size * len(chosen) <= MOST_BYTES:
        return
    fit, most = MOST_BYTES // size, MOST_BYTES / 2**20
    if not fit:
        raise InputError(
            f"{call}: one sample takes {size / 2**20:.0f} MB, and a page has {most:.0f} MB at most. Draw it "
            "by explanation.plot(), or store it by explanation.save('x.safetensors')."
        )
    raise InputError(
        f"{call}: {len(chosen):,} samples take {size * len(chosen) / 2**20:,.0f} MB, and a page has "
        f"{most:.0f} MB at most. {fit} of them fit. Choose: {call(f'samples=range({fit})')}."
    )


def _map(
    name: str, explanation: Accounted, sample: int, R: NDArray[np.float64], applied: str, told: ToldOfMap
) -> Map:
    largest, values = encoded(R)
    amounts = {row: float(amount[sample]) for row, amount in explanation.ledger.rows()}
    most = max((abs(amount) for amount in amounts.values()), default=0.0)
    return Map(
        name=name,
        told=told,
        score=float(explanation.score[sample]),
        measure=explanation.measure,
        total=float(R.sum()),
        ledger={
            row: amount
            for row, amount in amounts.items()
            if row in ("seed", "inputs") or not abs(amount) <= ROUNDING * most
        },
        gap=float(explanation.ledger.gap[sample]),
        largest=largest,
        values=values,
        rules=explanation.preset,
        applied=applied,
    )
