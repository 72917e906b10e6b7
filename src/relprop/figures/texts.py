"""Texts of figures: titles, names and numbers, cut and broken to the room that they have."""

import re
import textwrap
from collections.abc import Iterable
from functools import cache

from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text

from relprop.errors import visible
from relprop.view.entries import digits_of, typeset

LETTER = 0.064
"""Width of a letter of a title in inches, on the average, in a figure of relprop's own."""

SIZE = 8.5
"""The size of such a title in points."""

LONGEST = 64
"""Longer names are cut, at this number of letters."""

_VALUE = re.compile(r" = −?[\d.]+(?:e−?\d+)?$")
"""What `with_value` writes behind a name."""


def letters_in(width: float, size: float) -> int:
    """Return how many letters of a size in points have room in a width in inches, 8 at least."""
    return max(8, int(0.9 * width / (LETTER * size / SIZE)))


def shortened(name: str, longest: int) -> str:
    """Return a name in one line, of no more than some letters. It is cut in its middle.

    What tells names apart is often at their end. A value behind the name stays whole.
    """
    name = visible(" ".join(name.split()))
    value = _VALUE.search(name)
    own = name[: value.start()] if value else name
    room = max(7, longest - (len(name) - len(own)) - 1)
    if len(name) <= longest or len(own) <= room + 1:
        return name
    end = room // 2
    return f"{own[: room - end]}…{own[-end:]}{name[len(own) :]}"


def spell(texts: Iterable[Text], *, literal: bool = False) -> None:
    """Let only those texts be mathematics, between "$", that are meant and can be read as such.

    Args:
        texts: texts of a figure that the user wrote, or that are the user's data.
        literal: whether "$" is always a letter, as in tokens.
    """
    for text in texts:
        text.set_parse_math(not literal and _is_mathematics(text.get_text()))


@cache
def _is_mathematics(text: str) -> bool:
    """Whether what is between "$" is mathematics. Amounts of money, as in "$20k-$30k", are none."""
    _, *rest = re.split(r"(?<!\\)\$", text)
    if not rest or len(rest) % 2:
        return False
    for formula, after in zip(rest[::2], rest[1::2], strict=True):
        if formula != formula.strip() or not re.search(r"[\\^_]|^[^\W\d]$", formula) or after[:1].isdigit():
            return False
    try:
        MathTextParser("path").parse(text)
    except ValueError:
        return False
    return True


def number(amount: float, *, sign: bool = False, digits: int = 4) -> str:
    """Return an amount, with the sign that is as wide as a plus."""
    told = typeset(digits_of(amount, digits))
    return f"+{told}" if sign and amount > 0 else told


def wrapped(label: str, width: float, size: float = SIZE) -> str:
    """Break a title of a size in points into lines of a width in inches.

    A number stays beside the word before it.
    """
    letters = max(8, int(width / (LETTER * size / SIZE)))
    return "\n".join(_wrapped(line, letters) for line in label.split("\n"))


def _wrapped(line: str, letters: int) -> str:
    first, space, last = line.rpartition(" ")
    whole = f"{first}\N{NO-BREAK SPACE}{last}" if space else line
    return "\n".join(textwrap.wrap(whole, letters)).replace("\N{NO-BREAK SPACE}", " ")


def lines_of(title: str) -> int:
    """Return how many lines a title has."""
    return title.count("\n") + 1 if title else 0
