"""How explanations are drawn: the options that `plot`, `compare`, `Explanation.plot` and `.save` share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from relprop.errors import InputError, did_you_mean
from relprop.view.colour import Colour, colour_named
from relprop.view.heatmaps import UNSIGNED


@dataclass(frozen=True, kw_only=True)
class Options:
    """How explanations are drawn.

    Attributes:
        of: what to draw, by name: an input, where there are several, or a recorded module.
        samples: which samples to draw, by number; all by default.
        channels: how channels become one value: "sum", "absolute sum", "max" or "norm".
        percentile: of the magnitudes: from there on colours are full.
        shared: one scale for all maps, so that they can be compared, instead of one for each.
        colour: a name of a colour map or a function; by default "signed", and "positive" for channels that
            lose the sign.
        enlarge: how many pixels wide and high each value becomes; by default, as makes maps of 224 pixels.
        smooth: go over from value to value instead of drawing squares.
        beside: draw the picture beside the map, not under it.
        opacity: of the largest relevance over a picture.
        grey: show a picture under relevance in grey.
        columns: how many maps in a row: 6 by default and, where explanations are compared, all of them.
        labels: what is written above each map; by default its target and score.
        classes: names of all classes, by number, for these labels.
        title: written above everything.
        bar: whether to draw the scale.
        model: its name, for the metadata.
    """

    of: str | None = None
    samples: Sequence[int] | None = None
    channels: str = "sum"
    percentile: float = 99.5
    shared: bool = False
    colour: str | Colour | None = None
    enlarge: int | None = None
    smooth: bool = False
    beside: bool = False
    opacity: float = 0.9
    grey: bool = True
    columns: int | None = None
    labels: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    title: str = ""
    bar: bool = True
    model: str | None = None

    @property
    def signed(self) -> bool:
        """Whether the values drawn have a sign."""
        return self.channels not in UNSIGNED

    @property
    def colours(self) -> Colour:
        """The colour map."""
        return colour_named(self.colour or ("signed" if self.signed else "positive"), "plot")


def options_of(options: Mapping[str, Any]) -> Options:
    """Take options as users give them, by name.

    Raises:
        InputError: there is none of this name; near matches are offered.
    """
    known = [option.name for option in fields(Options)]
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known, most=1, written="{}=".format)
            raise InputError(
                f"plot({name}=...): there is no such option.{hint} There are: {', '.join(known)}."
            )
    return Options(**options)
