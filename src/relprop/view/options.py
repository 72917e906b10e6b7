"""How explanations are drawn: the options that `plot`, `compare`, `Explanation.plot` and `.save` share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from relprop.errors import Call, InputError, did_you_mean
from relprop.view.colour import Colour, colour_named
from relprop.view.heatmaps import UNSIGNED

PLOT = Call("plot")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How explanations are drawn.

    Attributes:
        of: the input to draw, if there are several, or the recorded module, by name.
        samples: numbers of the samples to draw; by default all.
        channels: how channels become one value: "sum", "absolute sum", "max" or "norm".
        percentile: percentile of the absolute values from which on colours are full, above 0, up to 100.
        shared: one scale for all maps, or all bars of tables, so that they can be compared, instead of one
            for each.
        colour: the name of a colour map, or a function; by default "signed", or "positive" if `channels`
            removes the sign.
        enlarge: width and height of each value in pixels; by default the longer side of maps gets about 224
            pixels. Maps of sequences and features are always 32 pixels high.
        smooth: interpolate between values instead of drawing squares.
        beside: draw the picture beside the map instead of under it.
        opacity: opacity of the largest relevance over a picture, 0 to 1.
        grey: draw a picture under relevance in grey.
        columns: number of maps in a row; by default 6, or all of them if explanations are compared. `plot`
            draws maps of sequences and features below each other, whatever the number.
        labels: a text for each sample. `plot` writes it above the map, by default target and score. `compare`
            writes it to the left of the row, by default nothing.
        classes: names of all classes, by number, for these labels.
        title: text above the plot.
        bar: whether to draw the scale.
        model: name of the model, for the metadata.
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
        return colour_named(self.colour or ("signed" if self.signed else "positive"), PLOT)


OF_FIGURES = ("sample", "features", "values", "signal", "k", "width")
"""What only figures of matplotlib have: see `relprop.figures.options.Layout`."""


def options_of(options: Mapping[str, Any]) -> Options:
    """Return the options that users give by name.

    Raises:
        InputError: there is no option of such a name, or only figures have it. The error offers near matches.
    """
    for name in options:
        if name in OF_FIGURES:
            raise InputError(
                f"{PLOT(f'{name}=...')}: only figures have this option. Write one by "
                f"explanation.save('x.pdf', {name}=...), or '.svg', or draw on axes of "
                f"matplotlib by plot(ax=..., {name}=...)."
            )
    require_known(options, [option.name for option in fields(Options)], PLOT)
    return Options(**options)


def require_known(options: Mapping[str, Any], known: Sequence[str], call: Call) -> None:
    """Check that options exist.

    Args:
        options: what users give, by name.
        known: the names of the options.
        call: what was called, for errors.

    Raises:
        InputError: there is no option of such a name. The error offers near matches.
    """
    for name in options:
        if name not in known:
            hint = did_you_mean(name, ["picture", *known], most=1, written="{}=".format)
            raise InputError(
                f"{call(f'{name}=...')}: there is no such option.{hint} There are: {', '.join(known)}."
            )
