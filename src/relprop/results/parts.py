"""Relevance summed over parts of the input: superpixels, masks, spans of time, groups of columns."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor

from relprop.errors import InputError, did_you_mean
from relprop.results.columns import aligned, as_percent, comma_separated, one_line, share_of
from relprop.view.entries import require_count, require_sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from relprop.figures.figure import Figure

REST = "the rest"
"""The name of what is in no part."""

SHOWN = 6
"""A table has so many samples at most."""


@dataclass(frozen=True)
class Part:
    """A part of one sample.

    Attributes:
        name: of the part.
        relevance: the sum of its relevance.
        share: of the score. NaN if the score is zero.
        size: how many elements of the input it has.
    """

    name: str
    relevance: float
    share: float
    size: int


@dataclass(frozen=True, eq=False, repr=False)
class Parts:
    """Sums of relevance over parts of the input. Printing it prints a table.

    The sums of all parts and of the rest are the relevance of the input.

    Attributes:
        names: the names of the parts.
        relevance: the sums, (samples, parts) float64.
        rest: the sum of what is in no part, (samples,) float64.
        score: the explained score of each sample, (samples,).
        measure: the name of the score.
        places: which part each element of the input is in, by number, of the input's shape, int64; -1 for
            none.
        labels: what is explained of each sample, and its score.
        described: returns a description of a sample in words, for files.
    """

    names: tuple[str, ...]
    relevance: Tensor
    rest: Tensor
    score: Tensor
    measure: str
    places: Tensor
    labels: tuple[str, ...]
    described: Callable[[int], dict[str, str]]

    @property
    def total(self) -> Tensor:
        """The relevance of the whole input, (samples,) float64."""
        return self.relevance.sum(1) + self.rest

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> Tensor:
        """Return the relevance of a part by name, (samples,).

        Raises:
            InputError: there is no such part.
        """
        if name == REST and name not in self.names:
            return self.rest
        if name not in self.names:
            raise InputError(
                f"parts[{name!r}]: there is no such part.{did_you_mean(name, self.names)} There are: "
                f"{', '.join(map(repr, self.names[:20]))}{', ...' if len(self) > 20 else ''}."
            )
        return self.relevance[:, self.names.index(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def of(self, sample: int = 0) -> list[Part]:
        """Return the parts of one sample, and the rest if anything is in no part.

        Raises:
            InputError: there is no such sample.
        """
        sample = require_sample(sample, len(self.score), "parts.of")
        score = float(self.score[sample])
        sizes = torch.bincount(self.places[sample].reshape(-1) + 1, minlength=len(self) + 1).tolist()
        amounts = [*self.relevance[sample].tolist(), float(self.rest[sample])]
        rows = zip([*self.names, REST], amounts, [*sizes[1:], sizes[0]], strict=True)
        parts = [Part(name, amount, share_of(amount, score), size) for name, amount, size in rows]
        return parts if sizes[0] else parts[:-1]

    def as_map(self) -> Tensor:
        """Return the sum of its part at each element of the input, of its shape, float64; 0 in the rest.

        `relprop.view.plot.plot` draws it.
        """
        padded = torch.cat([torch.zeros_like(self.rest)[:, None], self.relevance], 1)
        flat = padded.gather(1, self.places.reshape(len(self.score), -1).to(padded.device) + 1)
        return flat.reshape(self.places.shape)

    def as_data(self) -> list[dict[str, Any]]:
        """Return a dict for each part of each sample: sample, name, relevance, share, size."""
        return [
            {
                "sample": sample,
                "name": part.name,
                "relevance": part.relevance,
                "share": part.share if math.isfinite(part.share) else None,
                "size": part.size,
            }
            for sample in range(len(self.score))
            for part in self.of(sample)
        ]

    def to_csv(self) -> str:
        """Return `as_data` as comma-separated values."""
        head = ["sample", "name", "relevance", "share", "size"]
        return comma_separated([head, *([row[key] for key in head] for row in self.as_data())])

    @overload
    def bars(
        self,
        k: int = 12,
        sample: int = 0,
        *,
        ax: None = None,
        title: str = "",
        width: float | None = None,
    ) -> "Figure": ...

    @overload
    def bars(
        self, k: int = 12, sample: int = 0, *, ax: "Axes", title: str = "", width: float | None = None
    ) -> "Axes": ...

    def bars(
        self,
        k: int = 12,
        sample: int = 0,
        *,
        ax: "Axes | None" = None,
        title: str = "",
        width: float | None = None,
    ) -> "Figure | Axes":
        """Draw a bar for each of the k largest parts of a sample, and one for the others together.

        Args:
            k: how many parts have a bar of their own.
            sample: number of the sample.
            ax: axes to draw on, in the style of the user.
            title: text above; by default what is explained, and the score.
            width: of the figure in inches; by default 3.4, or 7 for long names.

        Returns:
            A figure; or the axes, if they were given.

        Raises:
            InputError: no such sample, `k` is less than 1 or more than 200, or no axes.
        """
        from relprop.figures.of_bars import Frame, ranked_bars  # matplotlib is loaded only by those who draw

        call = "parts.bars"
        k, sample = require_count(k, call), require_sample(sample, len(self.score), call)
        told = self.of(sample)
        amounts = np.array([part.relevance for part in told])
        label, about = self.labels[sample], self._about(sample)
        frame = Frame(call=call, ax=ax, title=title, label=label, width=width, about=about)
        return ranked_bars([part.name for part in told], amounts, k, frame)

    @overload
    def map(self, picture: Any = None, *, ax: None = None, sample: int = 0, **options: Any) -> "Figure": ...

    @overload
    def map(self, picture: Any = None, *, ax: "Axes", sample: int = 0, **options: Any) -> "Axes": ...

    def map(
        self, picture: Any = None, *, ax: "Axes | None" = None, sample: int = 0, **options: Any
    ) -> "Figure | Axes":
        """Draw a map of one sample of images: each part has the colour of its sum, over the picture if given.

        Args:
            picture: as for `explanation.plot`.
            ax: axes to draw on.
            sample: number of the sample.
            options: those of `explanation.plot`. By default `percentile` is 100 here.

        Returns:
            A figure; or the axes, if they were given.

        Raises:
            InputError: no such sample, parts of something other than images, or a case that `plot` refuses.
            FileError: a picture cannot be read.
        """
        from relprop.figures.parts import parts_as_map  # as above
        from relprop.view.subject import pictures_of

        sample = require_sample(sample, len(self.score), "parts.map")
        places = self.places[sample]
        if places.dim() != 3:
            raise InputError(
                f"parts.map() is for images (N, C, H, W), but these are parts of {tuple(self.places.shape)}. "
                "Draw them by parts.bars()."
            )
        if (places != places[:1]).any():
            raise InputError("parts.map(): the parts differ between channels. Draw them by parts.bars().")
        seen = pictures_of(picture, len(self.score), [sample])
        about, label = self._about(sample), self.labels[sample]
        return parts_as_map(self.as_map()[sample, :1], places[0], seen, ax, options, about, label)

    def save(self, path: Path | str) -> None:
        """Write the table as comma-separated values, whole or not at all.

        Raises:
            InputError: the name does not end in .csv.
            FileError: the file cannot be written.
        """
        from relprop.files import path_of, write_whole

        if path_of(path, "parts.save").suffix.lower() != ".csv":
            raise InputError(
                f"parts.save({str(path)!r}): give a name that ends in .csv. Figures are saved by "
                "parts.bars().save(...) and parts.map(...).save(...)."
            )
        write_whole(Path(path), self.to_csv().encode())

    def _about(self, sample: int) -> dict[str, str]:
        told = f"{float(self.total[sample]):.6g}"
        return self.described(sample) | {"Sum of relevance": told, "Sample": str(sample)}

    def __str__(self) -> str:
        samples = len(self.score)
        if samples == 1:
            score = float(self.score[0])
            total = float(self.total[0])
            rows = [[one_line(p.name), f"{p.relevance:.4g}", as_percent(p.share)] for p in self.of(0)]
            rows.append(["sum", f"{total:.4g}", as_percent(share_of(total, score))])
            return aligned([["part", "relevance", f"share of the {self.measure}"], *rows])
        shown = min(samples, SHOWN)
        columns = torch.cat([self.relevance, self.rest[:, None], self.total[:, None]], 1)[:shown].T.tolist()
        names = [*map(one_line, self.names), REST, "sum"]
        rows = [[name, *(f"{v:.4g}" for v in row)] for name, row in zip(names, columns, strict=True)]
        if not (self.places < 0).any():
            del rows[-2]
        more = f"\n(the first {shown} of {samples} samples)" if samples > shown else ""
        return aligned([["part", *(f"sample {n}" for n in range(shown))], *rows]) + more

    __repr__ = __str__
