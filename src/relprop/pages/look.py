"""How pages of pictures are drawn: the options that users give, and the colours as tables for the script."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from relprop.errors import InputError, did_you_mean, visible
from relprop.view.arrays import as_pixels
from relprop.view.colour import COLOURS, Colour, colour_named
from relprop.view.heatmaps import COLOUR_FROM, LIGHTENED, OPACITY_POWER, REDUCTIONS, UNSIGNED
from relprop.view.options import require_known

LEVELS = 255
"""Steps of colour from zero to full colour, for each sign."""

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
        percentile: percentile of the absolute values from which on colours are full, above 0, up to 100.
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
    """

    of: str | None = None
    samples: Sequence[int] | None = None
    channels: str = "sum"
    percentile: float = 99.5
    shared: bool = False
    colour: str | Colour | None = None
    opacity: float = 0.9
    grey: bool = True
    labels: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    truth: Sequence[int] | Tensor | None = None
    features: Sequence[str] | None = None
    title: str = ""
    model: str | None = None

    def __post_init__(self) -> None:
        if self.channels not in REDUCTIONS:
            raise InputError(
                f"to_html(channels={self.channels!r}): no such reduction."
                f"{did_you_mean(self.channels, REDUCTIONS)} There are: {', '.join(map(repr, REDUCTIONS))}."
            )
        if not _within(self.percentile, 100) or not self.percentile:
            raise InputError(
                f"to_html(percentile={self.percentile!r}): give a number above 0, and 100 at most."
            )
        if not _within(self.opacity, 1):
            raise InputError(f"to_html(opacity={self.opacity!r}): give a number from 0 to 1.")

    @property
    def signed(self) -> bool:
        """Whether the values drawn at first have a sign."""
        return self.channels not in UNSIGNED

    def colours(self, channels: str) -> Colour:
        """Return the colour map for a reduction of channels."""
        default = "positive" if channels in UNSIGNED else "signed"
        return colour_named(self.colour or default, "to_html")

    def class_name(self, number: int) -> str:
        """Return a class by its name or, if none is known, by its number.

        Raises:
            InputError: there are names, but not for this class.
        """
        if self.classes is None:
            return f"class {number}"
        if not 0 <= number < len(self.classes):
            raise InputError(
                f"to_html(classes=...) has {len(self.classes)} names, but there is class {number}; give a "
                "name for each class."
            )
        return str(self.classes[number])

    def of_samples(self, name: str, count: int) -> list[Any] | None:
        """Return what an option says of each sample.

        Args:
            name: the option, "labels" or "truth".
            count: the number of samples.

        Raises:
            InputError: the option has another number of elements.
        """
        given = getattr(self, name)
        if given is None:
            return None
        if isinstance(given, Tensor):
            given = given.tolist()
        if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != count:
            raise InputError(
                f"to_html({name}={given!r}): give a list of {count}, with one element for each sample."
            )
        return list(given)

    def meaning(self, target: str) -> str:
        """Return a sentence that says what the first colours of a page mean."""
        return self._meaning(self.channels).replace("$target", target)

    def for_script(self) -> dict[str, Any]:
        """Return what the page's script needs to draw: tables of colours, and how the page begins."""
        signed, unsigned = (_table(self.colours(channels)) for channels in ("sum", "norm"))
        return {
            "signed": signed,
            "unsigned": unsigned,
            "meaning": {"signed": self._meaning("sum"), "unsigned": self._meaning("norm")},
            "colourFrom": COLOUR_FROM,
            "opacityPower": OPACITY_POWER,
            "lightened": LIGHTENED,
            "channels": self.channels,
            "percentile": float(self.percentile),
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


def look_of(options: Mapping[str, Any]) -> Look:
    """Return the options that users give by name.

    Raises:
        InputError: there is no such option, or one has no meaning.
    """
    require_known(options, Look, "to_html")
    return Look(**options)


def _within(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and 0 <= value <= most


def _table(colour: Callable[..., Any]) -> str:
    """Return the colours of 2 · LEVELS + 1 values from -1 to 1 as bytes in base64: red, green, blue."""
    values = np.linspace(-1, 1, 2 * LEVELS + 1)
    return b64encode(as_pixels(colour(values)).tobytes()).decode("ascii")
