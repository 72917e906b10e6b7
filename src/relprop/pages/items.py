"""What a page tells of one sample, encoded at once: its picture, its maps of relevance, its numbers.

Relevance is stored as 16-bit integers, scaled by the largest absolute value of the map. So a value is exact
to half of 1/32767 of the largest one.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relprop.errors import visible
from relprop.pages.look import Look
from relprop.pages.page import base64_of, data_url
from relprop.pages.words import Told, ToldOfMap
from relprop.view.arrays import Pixels, as_pixels
from relprop.view.colour import Colour
from relprop.view.display import as_pictures
from relprop.view.heatmaps import overlay, paint, reduce_channels, scale
from relprop.view.mosaic import png_bytes

STEPS = 32767
"""The integer that stands for the largest absolute value."""

_AXIS = (120, 115, 110)
"""The colour of the line at zero."""

LONGEST = 1024
"""Length of the longer side of a picture on a page. Larger ones are reduced."""


@dataclass(frozen=True, kw_only=True)
class Map:
    """The relevance of one sample by one explanation.

    Attributes:
        name: the text of its toggle, if a sample has several explanations.
        told: what is told of it in words.
        score: the explained score.
        measure: the name of the score.
        total: the sum of relevance.
        ledger: the amounts of the ledger, by name: "seed", "inputs", and each sink.
        gap: how far the ledger is from balancing, relative to the largest amount.
        largest: the largest absolute value of relevance.
        values: relevance of all channels, (C, H, W), as `encoded` makes it.
        rules: name of the rules.
        applied: a line for each operation with its rule.
    """

    name: str
    told: ToldOfMap
    score: float
    measure: str
    total: float
    ledger: Mapping[str, float]
    gap: float
    largest: float
    values: str
    rules: str
    applied: str

    def as_data(self, rules: int) -> dict[str, Any]:
        """Return it for the page's script, with the number of its rules among those of the page."""
        return {
            "name": visible(self.name),
            "target": visible(self.told.target),
            "aim": visible(self.told.aim),
            "arrived": visible(self.told.arrived),
            "notes": [visible(f"{note[:1].upper()}{note[1:]}") for note in dict.fromkeys(self.told.notes)],
            "score": _finite(self.score),
            "measure": visible(self.measure),
            "total": _finite(self.total),
            "ledger": [(visible(name), _finite(amount)) for name, amount in self.ledger.items()],
            "gap": _finite(self.gap),
            "largest": self.largest,
            "values": self.values,
            "rules": rules,
        }


@dataclass(frozen=True, kw_only=True)
class Item:
    """One sample of a page.

    Attributes:
        told: what is told of it in words.
        shape: channels, height and width of its maps.
        picture: the picture as a URL; "" if there is none.
        still: a drawing as a URL, which is shown as thumbnail and where no script runs.
        maps: its maps, one for each explanation.
        error: why there is nothing else, if the sample could not be explained.
    """

    told: Told
    shape: tuple[int, int, int] = (0, 0, 0)
    picture: str = ""
    still: str = ""
    maps: tuple[Map, ...] = ()
    error: str = ""

    @property
    def size(self) -> int:
        """The number of bytes that it takes in a page, without its texts."""
        return len(self.picture) + len(self.still) + sum(len(each.values) for each in self.maps)

    def as_data(self, pictures: dict[str, int], rules: dict[tuple[str, str], int]) -> dict[str, Any]:
        """Return it for the page's script.

        Numbers that are not finite become None, and what is invisible in texts becomes an escape.

        Args:
            pictures: numbers of the pictures so far. Samples of the same picture share it.
            rules: numbers of the names of rules, with the rules applied, so far.
        """
        return {
            "number": self.told.number,
            "label": visible(self.told.label),
            "caption": visible(self.told.caption),
            "shape": self.shape,
            "picture": pictures.setdefault(self.picture, len(pictures)) if self.picture else None,
            "facts": [(name, visible(text)) for name, text in self.told.facts],
            "differs": self.told.differs,
            "error": visible(self.error),
            "maps": [
                each.as_data(rules.setdefault((each.rules, each.applied), len(rules))) for each in self.maps
            ],
        }


def encoded(R: NDArray[np.float64]) -> tuple[float, str]:
    """Return the largest absolute value of relevance, and relevance in steps of 1/32767 of it, in base64.

    Args:
        R: relevance of one sample, (C, H, W), finite.
    """
    largest = float(np.abs(R).max())
    levels = np.rint(R / (largest or 1.0) * STEPS).astype("<i2")
    return largest, base64_of(levels.tobytes())


def encoded_size(shape: Sequence[int]) -> int:
    """Return the number of bytes that a map of this shape takes in a page."""
    return -(-2 * math.prod(shape) // 3) * 4


def picture_url(picture: Image.Image) -> str:
    """Return a picture as a URL."""
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return data_url(content.getvalue())


def still(R: NDArray[np.float64], picture: Image.Image | None, look: Look, size: int) -> str:
    """Draw the relevance of one sample, over its picture if there is one, as a URL.

    Args:
        R: relevance, (C, H, W).
        picture: the picture.
        look: colours, percentile and so on.
        size: length of the longer side in pixels, at most.
    """
    percentile = look.percentile_of(R.shape[1])
    values = scale(reduce_channels(R[None], look.channels), percentile=percentile).values
    colour = look.colours(look.channels)
    if values.shape[1] == 1 and picture is None:
        return data_url(png_bytes(_bars(values[0, 0], colour, size)))
    if picture is None:
        drawn = paint(values, colour)[0]
    else:
        seen = as_pictures(picture, 1, *values.shape[1:])
        drawn = overlay(values, seen, colour, opacity=look.opacity, grey=look.grey)[0]
    return data_url(png_bytes(_resized(drawn, size)))


def _bars(values: NDArray[np.float64], colour: Colour, size: int) -> Pixels:
    """Draw values from -1 to 1 as bars, upwards for what is positive, as `drawing.js` does.

    Args:
        values: the values. Of more than there are pixels, each bar has the largest of several.
        colour: the colour map.
        size: the width in pixels, at most.
    """
    if len(values) > size:
        values = np.array([part[np.abs(part).argmax()] for part in np.array_split(values, size)])
    # Pale colours would not be seen on white, so the smallest bars have the colour of a quarter.
    inks = as_pixels(colour(np.sign(values) * np.maximum(np.abs(values), 0.25)))
    half = max(8, size // 6)
    level = np.arange(half, -half - 1, -1)[:, None]
    ends = np.rint(values * half)
    inside = (level * np.sign(ends) > 0) & (np.abs(level) <= np.abs(ends))
    drawn = np.where(inside[..., None], inks, np.uint8(255))
    drawn = np.repeat(drawn, max(1, size // len(values)), axis=1)
    drawn[half] = _AXIS
    return drawn


def _resized(drawn: Pixels, size: int) -> Pixels:
    """Reduce a drawing, or enlarge it by whole pixels."""
    height, width = drawn.shape[:2]
    image = Image.fromarray(drawn)
    longer = max(height, width)
    if longer > size:
        smaller = (max(1, round(width * size / longer)), max(1, round(height * size / longer)))
        return np.asarray(image.resize(smaller, Image.Resampling.BOX))
    times = max(1, size // longer)
    return np.asarray(image.resize((width * times, height * times), Image.Resampling.NEAREST))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
