"""What a figure of samples has in it: maps of images, signals or tables, with what the model saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from relprop.errors import InputError
from relprop.figures.options import Layout
from relprop.view.arrays import as_array, require_finite
from relprop.view.display import as_whole_pictures
from relprop.view.entries import feature_names, require_sample, values_of
from relprop.view.heatmaps import reduce_channels, scale
from relprop.view.options import Options
from relprop.view.subject import Explained, chosen_samples, drawable, labels_of, pictures_of

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Drawn:
    """What is drawn of the chosen samples. All lists have one entry for each of them.

    Attributes:
        kind: "map", "signal" or "table".
        samples: their numbers.
        labels: the text above each of them.
        relevance: of each sample: maps (H, W), signals (C, T) or features (F,).
        limits: the relevance of the full colour.
        seen: what the model saw: pictures (h, w, 3), signals or features; None if it is not known.
        names: of features or channels, or None.
        name: of the input, or None for the only one.
    """

    kind: str
    samples: Sequence[int]
    labels: Sequence[str]
    relevance: Sequence[Array]
    limits: Sequence[float]
    seen: Sequence[Array | None]
    names: Sequence[str] | None = None
    name: str | None = None


def drawn_of(explained: Explained, picture: Any, look: Options, layout: Layout, *, every: bool) -> Drawn:
    """Return what is drawn of the chosen samples.

    Args:
        explained: the explanation.
        picture: the pictures, or the signal, that the model saw.
        look: the options of `plot`.
        layout: the options of figures.
        every: whether all samples are drawn if none is chosen, and not the first one alone.

    Raises:
        InputError: the relevance cannot be drawn, there are no such samples, or the picture, the signal, the
            values or the names do not fit.
        FileError: a picture cannot be read.
    """
    R, name = drawable(explained, look.of)
    labels = labels_of(explained, len(R), look)
    if layout.sample is not None or (look.samples is None and not every):
        chosen = [require_sample(0 if layout.sample is None else layout.sample, len(R), "plot")]
    else:
        chosen = chosen_samples(len(R), look)
    kind = {2: "table", 3: "signal"}.get(R.dim(), "map")
    if kind == "table" and (layout.signal is not None or picture is not None):
        kind = "signal"  # of one channel
    _require_fitting(kind, look, layout)
    parts = {"map": _maps, "signal": _signals, "table": _tables}[kind](R, chosen, picture, look, layout)
    return Drawn(kind, chosen, [labels[sample] for sample in chosen], *parts, name=name)


Parts = tuple[Sequence[Array], Sequence[float], Sequence[Array | None], Sequence[str] | None]
"""Relevance, limits, what the model saw, and names."""


def _require_fitting(kind: str, look: Options, layout: Layout) -> None:
    """Refuse options that mean nothing for relevance of this kind.

    Raises:
        InputError: there is one.
    """
    allowed = {"signal": ("signal",), "values": ("table",), "features": ("table", "signal")}
    for option, kinds in allowed.items():
        if getattr(layout, option) is not None and kind not in kinds:
            whose = " and ".join({"table": "tables (N, F)", "signal": "signals (N, C, T)"}[k] for k in kinds)
            raise InputError(f"plot({option}=...) is for {whose} only. Leave {option}= out.")
    if kind != "map" and look.channels != "sum":
        raise InputError(
            f"plot(channels={look.channels!r}): in a figure each channel of a signal has a row, and each "
            "feature a bar. Leave channels= out."
        )
    if kind == "table" and look.percentile != Options.percentile:
        raise InputError(
            f"plot(percentile={look.percentile!r}) is for maps and signals, which have colours. "
            "Bars have no colours to be full. Leave percentile= out."
        )
    if kind != "map" and look.beside:
        raise InputError("plot(beside=True) is for pictures only. Leave beside= out.")


def _maps(R: torch.Tensor, chosen: list[int], picture: Any, look: Options, layout: Layout) -> Parts:
    relevance = reduce_channels(R[chosen], look.channels)
    limits = scale(relevance, percentile=look.percentile, shared=look.shared).limits
    given = pictures_of(picture, len(R), chosen)
    if given is None and look.beside:
        raise InputError("plot(beside=True) needs a picture: plot(picture=images, beside=True).")
    seen: Sequence[Array | None] = [None] * len(chosen)
    if given is not None:
        seen = as_whole_pictures(given, len(chosen), *relevance.shape[1:])
    return list(relevance), limits.tolist(), seen, None


def _signals(R: torch.Tensor, chosen: list[int], picture: Any, look: Options, layout: Layout) -> Parts:
    relevance = as_array(R[chosen] if R.dim() == 3 else R[chosen][:, None], "plot", "values")
    require_finite(relevance, "plot")
    limits = scale(relevance, percentile=look.percentile, shared=look.shared).limits
    names = feature_names(layout.features, relevance.shape[1], "plot")
    given, what = (picture, "picture") if layout.signal is None else (layout.signal, "signal")
    shape = tuple(R.shape[1:])
    seen = [values_of(given, shape, sample, len(R), "plot", what) for sample in chosen]
    lines = [None if one is None else one.reshape(relevance.shape[1:]) for one in seen]
    return list(relevance), limits.tolist(), lines, names


def _tables(R: torch.Tensor, chosen: list[int], picture: Any, look: Options, layout: Layout) -> Parts:
    count = R.shape[1]
    names = feature_names(layout.features, count, "plot")
    seen = [values_of(layout.values, (count,), sample, len(R), "plot") for sample in chosen]
    amounts = as_array(R[chosen], "plot", "values")
    require_finite(amounts, "plot")
    return list(amounts), [0.0] * len(chosen), seen, names
