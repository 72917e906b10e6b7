"""The entries with the largest relevance: pixels, features, time steps or tokens."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from relprop.errors import InputError, did_you_mean
from relprop.results.columns import aligned, as_percent, comma_separated, one_line, share_of
from relprop.view.arrays import as_array, require_finite
from relprop.view.entries import (
    Amounts,
    digits_of,
    feature_names,
    kind_of_entry,
    largest,
    place_of_entry,
    require_count,
    values_of,
)
from relprop.view.heatmaps import REDUCTIONS


@dataclass(frozen=True)
class Entry:
    """An entry of the input.

    Attributes:
        place: where it is: (row, column) of a pixel, (step,) of a signal, (number,) of a feature or token.
        name: of a feature or token; otherwise the place as text.
        relevance: its relevance.
        share: its relevance as a share of the score. NaN if the score is zero.
        value: what the input was there, if the user gave it.
    """

    place: tuple[int, ...]
    name: str
    relevance: float
    share: float
    value: float | None = None


@dataclass(frozen=True)
class Largest:
    """The entries with the largest relevance by size, the largest first. Printing it prints a table.

    Attributes:
        entries: the entries.
        what: what an entry is: "pixel", "feature", "time step", "token".
        count: how many entries the input has.
        score: the explained score, which shares refer to.
        measure: the name of the score.
    """

    entries: tuple[Entry, ...]
    what: str
    count: int
    score: float
    measure: str = "score"

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __getitem__(self, number: int) -> Entry:
        return self.entries[number]

    def as_data(self) -> list[dict[str, Any]]:
        """Return the entries as dicts of numbers and texts. A share that is no number becomes None."""
        told = [asdict(entry) for entry in self.entries]
        return [row | {"share": row["share"] if math.isfinite(row["share"]) else None} for row in told]

    def to_csv(self) -> str:
        """Return the entries as comma-separated values: place, name, value, relevance, share."""
        head = ["place", "name", "value", "relevance", "share"]
        rows = [
            [" ".join(map(str, entry["place"])), *(entry[key] for key in head[1:])]
            for entry in self.as_data()
        ]
        return comma_separated([head, *rows])

    def __str__(self) -> str:
        values = any(entry.value is not None for entry in self.entries)
        head = [self.what, *(["value"] if values else []), "relevance", f"share of the {self.measure}"]
        rows = [
            [
                one_line(entry.name),
                *(["" if entry.value is None else digits_of(entry.value)] if values else []),
                digits_of(entry.relevance),
                as_percent(entry.share),
            ]
            for entry in self.entries
        ]
        shown = math.fsum(entry.relevance for entry in self.entries)
        many = f"{self.count:,} {self.what if self.count == 1 else _many(self.what)}"
        parts = as_percent(share_of(shown, self.score))
        below = f"{len(self)} of {many}, {parts} of the {self.measure} {digits_of(self.score)}"
        return f"{aligned([head, *rows])}\n{below}"

    __repr__ = __str__


def _many(what: str) -> str:
    return "entries" if what == "entry" else f"{what}s"


def largest_of(
    R: Tensor,
    sample: int,
    k: int,
    score: float,
    measure: str,
    *,
    channels: str | None = "sum",
    features: Sequence[str] | None = None,
    values: Any = None,
) -> Largest:
    """Return the k entries of a sample's relevance that are largest by size.

    Args:
        R: relevance of all samples.
        sample: number of the sample.
        k: how many; if there are fewer entries, all.
        score: of the sample.
        measure: the name of the score.
        channels: how the channels of images and signals become one value, or None if each is an entry.
        features: names of the features of a table.
        values: the input of all samples, or of this one.

    Raises:
        InputError: `k` is less than 1, there is no such reduction, relevance is not finite, or names or
            values do not fit.
    """
    k = require_count(k, "explanation.top")
    has_channels = R.dim() > 2 and channels is not None
    if has_channels and channels not in REDUCTIONS:
        hint = did_you_mean(str(channels), REDUCTIONS)
        raise InputError(
            f"explanation.top(channels={channels!r}): no such reduction.{hint}"
            f" There are: {', '.join(map(repr, REDUCTIONS))}, and None, for each channel by itself."
        )
    amounts = as_array(R[sample : sample + 1], "explanation.top", "values")
    require_finite(amounts, "explanation.top")
    # Reductions have a dimension of samples.
    amounts = REDUCTIONS[channels](amounts)[0] if has_channels and channels is not None else amounts[0]
    seen = _seen(values, R, sample, amounts.shape)
    if features is not None and R.dim() != 2:
        raise InputError(
            "explanation.top(features=...) is for tables (N, F), but relevance has the shape "
            f"{tuple(R.shape)}. Leave features= out."
        )
    names = feature_names(features, amounts.size, "explanation.top")
    what = kind_of_entry(R.dim()) if has_channels or R.dim() <= 2 else "entry"
    return entries_of(amounts, k, score, measure, what=what, names=names, values=seen)


def entries_of(
    amounts: Amounts,
    k: int,
    score: float,
    measure: str,
    *,
    what: str,
    names: Sequence[str] | None = None,
    values: Amounts | None = None,
) -> Largest:
    """Return the k largest of amounts, of any shape, with the names and values of the same shape."""
    flat = amounts.reshape(-1)
    places = [np.unravel_index(number, amounts.shape) for number in largest(flat, k)]
    entries = []
    for number, place in zip(largest(flat, k).tolist(), places, strict=True):
        where = tuple(map(int, place))
        amount = float(flat[number])
        value = None if values is None else float(values.reshape(-1)[number])
        name = names[number] if names is not None else place_of_entry(where)
        entries.append(Entry(where, name, amount, share_of(amount, score), value))
    return Largest(tuple(entries), what, flat.size, score, measure)


def _seen(values: Any, R: Tensor, sample: int, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Return the input at each entry, if the user gave it and an entry is one element.

    Raises:
        InputError: it has another shape, or entries are several channels.
    """
    own = tuple(R.shape[1:])
    found = values_of(values, own, sample, len(R), "explanation.top")
    if found is None or found.shape == shape:
        return found
    if own[0] == 1:
        only: Amounts = found[0]
        return only
    raise InputError(
        f"explanation.top(values=...): an entry is the sum over {own[0]} channels, which have a value each. "
        "Leave values= out, or give channels=None."
    )
