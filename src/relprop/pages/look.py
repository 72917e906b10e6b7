"""How pages of pictures are drawn: the options that users give, and the colours as tables for the script."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from relprop.errors import Call, InputError, did_you_mean, visible
from relprop.pages.lists import called, listed, whole_numbers
from relprop.pages.page import base64_of
from relprop.view.arrays import as_pixels
from relprop.view.colour import COLOURS, Colour, colour_named
from relprop.view.heatmaps import COLOUR_FROM, LIGHTENED, OPACITY_POWER, REDUCTIONS, UNSIGNED
from relprop.view.options import require_known
from relprop.view.subject import class_name

LEVELS = 255
"""Steps of colour from zero to full colour, for each sign."""

TO_HTML = Call("to_html")

_RELEVANCE = "Colours are relevance: what each part of the input contributed to the score."

_ENDS = {
    "signed": ("Orange", "blue"),
    "heatmap": ("Red", "blue"),
    "grey": ("Light grey", "dark grey"),
}
"""The colours of relevance for and against, of the colour maps with two ends."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a page of pictures begins. Its reader can change channels, percentile, scale and opacity.

    Attributes:
        of: the input to show, if there are several, or the recorded module, by name.
        samples: numbers of the samples to show; by default all, if there are at most 1,000.
        channels: how channels become one value: "sum", "absolute sum", "max" or "norm".
        percentile: percentile of the absolute values from which on colours are full, above 0, up to 100; by
            default 99.5. Bars, of sequences and tables, are as long as the largest by default: 100.
        shared: one scale for the explanations of a sample, so that they can be compared.
        colour: the name of a colour map, or a function; by default "signed", or "positive" for values
            without sign.
        opacity: opacity of the largest relevance over a picture, 0 to 1.
        grey: draw a picture under relevance in grey.
        labels: a text for each sample, such as the names of files.
        classes: names of all classes, by number.
        truth: the right class of each sample, by number. Samples with another prediction are marked.
        features: names of the features, if relevance is that of a table (samples, features).
        title: the page's title.
        model: name of the model.
        call: what the user called, for errors. It is no option.
    """

    of: str | None = None
    samples: Sequence[int] | NDArray[np.integer[Any]] | Tensor | None = None
    channels: str = "sum"
    percentile: float | None = None
    shared: bool = False
    colour: str | Colour | None = None
    opacity: float = 0.9
    grey: bool = True
    labels: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    truth: Sequence[int] | NDArray[np.integer[Any]] | Tensor | None = None
    features: Sequence[str] | None = None
    title: str = ""
    model: str | None = None
    call: Call = TO_HTML

    def __post_init__(self) -> None:
        for name in ("samples", "labels", "classes", "truth", "features"):
            object.__setattr__(self, name, listed(self.call, name, getattr(self, name)))
        for name in ("title", "model"):
            if not isinstance(getattr(self, name) or "", str):
                raise InputError(f"{self._called(name)}: give a text.")
        if self.samples is not None:
            samples = whole_numbers(self.call, "samples", list(self.samples))
            object.__setattr__(self, "samples", list(dict.fromkeys(samples)))
        if self.truth is not None:
            object.__setattr__(self, "truth", whole_numbers(self.call, "truth", list(self.truth)))
        if not isinstance(self.channels, str) or self.channels not in REDUCTIONS:
            raise InputError(
                f"{self._called('channels')}: no such reduction."
                f"{did_you_mean(self.channels, REDUCTIONS)} There are: {', '.join(map(repr, REDUCTIONS))}."
            )
        if self.percentile is not None and (not _within(self.percentile, 100) or not self.percentile):
            raise InputError(f"{self._called('percentile')}: give a number above 0, and 100 at most.")
        if not _within(self.opacity, 1):
            raise InputError(f"{self._called('opacity')}: give a number from 0 to 1.")

    def _called(self, name: str) -> str:
        return called(self.call, name, getattr(self, name))

    def colours(self, channels: str) -> Colour:
        """Return the colour map for a reduction of channels."""
        default = "positive" if channels in UNSIGNED else "signed"
        return colour_named(self.colour or default, self.call)

    def class_name(self, number: int) -> str:
        """Return a class by its name or, if none is known, by its number.

        Raises:
            InputError: there are names, but not for this class.
        """
        return class_name(number, self.classes, self.call, f"there is class {number}")

    def chosen(self, count: int, most: int) -> list[int]:
        """Return the numbers of the samples to show.

        Args:
            count: the number of samples.
            most: how many are shown at most unless some are chosen.

        Raises:
            InputError: there are more, or those chosen do not exist.
        """
        if self.samples is None:
            if count > most:
                raise InputError(
                    f"{self.call}: there are {count:,} samples; a page shows {most:,}, unless others are "
                    f"chosen. Choose: {self.call(f'samples=range({most})')}."
                )
            return list(range(count))
        chosen = [int(sample) for sample in self.samples]
        if not chosen or not all(0 <= sample < count for sample in chosen):
            raise InputError(f"{self._called('samples')}: give one number or more, from 0 to {count - 1}.")
        return chosen

    def labels_of(self, count: int) -> list[str] | None:
        """Return a text for each sample, if they are given.

        Raises:
            InputError: there is another number of texts.
        """
        return None if self.labels is None else list(map(str, self._each("labels", count)))

    def truth_of(self, count: int, classes: int | None) -> list[int] | None:
        """Return the right class of each sample, if they are given.

        Args:
            count: the number of samples.
            classes: the number of classes, if it is known.

        Raises:
            InputError: there is another number of them, or no such class.
        """
        if self.truth is None:
            return None
        given: list[int] = self._each("truth", count)
        if classes is None and self.classes is not None:
            classes = len(self.classes)
        for place, number in enumerate(given):
            if number < 0 or (classes is not None and number >= classes):
                to = "" if classes is None else f" to {classes - 1}"
                raise InputError(
                    f"{self._called('truth')}: truth[{place}] is {number}; give the numbers of classes, from "
                    f"0{to}."
                )
        return given

    def _each(self, name: str, count: int) -> list[Any]:
        """Return an option that has an element for each sample.

        Raises:
            InputError: it has another number of elements.
        """
        given: list[Any] = getattr(self, name)
        if len(given) != count:
            raise InputError(
                f"{self._called(name)} has {len(given)} elements for {count} samples; give a list of "
                f"{count}, one for each sample."
            )
        return given

    def meaning(self, target: str) -> str:
        """Return a sentence that says what the first colours of a page mean."""
        return self._meaning(self.channels).replace("$target", target)

    def percentile_of(self, rows: int) -> float:
        """Return the percentile for maps of so many rows. One row is drawn as bars."""
        if self.percentile is None:
            return 99.5 if rows > 1 else 100.0
        return float(self.percentile)

    def for_script(self, rows: int) -> dict[str, Any]:
        """Return what the page's script needs to draw: tables of colours, and how the page begins.

        Args:
            rows: the number of rows of the maps.
        """
        signed, unsigned = (_table(self.colours(channels)) for channels in ("sum", "norm"))
        return {
            "signed": signed,
            "unsigned": unsigned,
            "meaning": {"signed": self._meaning("sum"), "unsigned": self._meaning("norm")},
            "colourFrom": COLOUR_FROM,
            "opacityPower": OPACITY_POWER,
            "lightened": LIGHTENED,
            "channels": self.channels,
            "percentile": self.percentile_of(rows),
            "shared": bool(self.shared),
            "opacity": float(self.opacity),
            "grey": bool(self.grey),
            "features": [visible(str(name)) for name in self.features or ()],
        }

    def _meaning(self, channels: str) -> str:
        """Return a sentence that says what colours mean. `$target` stands for what is explained."""
        if channels in UNSIGNED:
            return f"{_RELEVANCE} The darker the colour, the more, whether it speaks for $target or against."
        given = self.colours(channels)
        name = next((name for name in _ENDS if COLOURS[name] is given), None)
        if name is None:
            return f"{_RELEVANCE} The right end of the scale speaks for $target, the left end against."
        for_it, against = _ENDS[name]
        return (
            f"{_RELEVANCE} {for_it} speaks for $target, {against} against; the stronger the colour, the more."
        )


def look_of(options: Mapping[str, Any], call: Call = TO_HTML) -> Look:
    """Return the options that users give by name.

    Args:
        options: the options.
        call: what the user called, for errors.

    Raises:
        InputError: there is no such option, or one has no meaning.
    """
    require_known(options, [each.name for each in fields(Look) if each.name != "call"], call)
    return Look(**options, call=call)


def _within(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and 0 <= value <= most


def _table(colour: Callable[..., Any]) -> str:
    """Return the colours of 2 · LEVELS + 1 values from -1 to 1 as bytes in base64: red, green, blue."""
    values = np.linspace(-1, 1, 2 * LEVELS + 1)
    return base64_of(as_pixels(colour(values)).tobytes())
