"""Pictures side by side, with captions and colour bars."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from relprop.view.arrays import Pixels
from relprop.view.colour import Colour
from relprop.view.heatmaps import paint

TEXT = 13
"""Size of the font in pixels."""
LINE = 16
"""Height of a line in pixels."""
INK = (40, 40, 40)
"""Red, green and blue of texts."""
FRAME = 215
"""Level of grey of the line around each picture. Without it white maps would have no edge."""

GAP = 8
"""White pixels between pictures."""

# The font that comes with Pillow has only the letters of English.
_SPELLED = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "—": "-",
        "×": "x",
        "ß": "ss",
        "ø": "o",
        "Ø": "O",
        "ł": "l",
        "Ł": "L",
        "æ": "ae",
        "Æ": "Ae",
        "’": "'",
        "→": "->",
    }
)


def plain(text: str) -> str:
    """Spell a text with the letters of the font: γ as gamma, é as e, and ? for any other letter."""
    spelled = ""
    for letter in unicodedata.normalize("NFKC", text).translate(_SPELLED):
        name = unicodedata.name(letter, "")
        if name.startswith("GREEK") and "LETTER" in name:
            word = name.split("LETTER ")[1].split(" ")[0].lower()
            spelled += word if " SMALL " in name else word.capitalize()
            continue
        base = unicodedata.normalize("NFKD", letter)[0]
        known = " " <= base <= "~" or base in "±·…\n"
        spelled += base if known else "?"
    return spelled


def words(text: str, width: int | None = None, *, align: str = "centre") -> Pixels:
    """Write a text in dark grey on white.

    Args:
        text: the text. A line break begins a new line.
        width: width of the lines in pixels. Longer lines are broken between words, and longer words between
            letters. None writes each line as wide as it is.
        align: "left", "centre" or "right".

    Returns:
        uint8, (16 · lines, width, 3).
    """
    font = ImageFont.load_default(TEXT)
    lines = [line for part in plain(text).split("\n") for line in _wrapped(part, width, font)]
    wide = width or max(1, *(int(np.ceil(font.getlength(line))) for line in lines))
    image = Image.new("RGB", (wide, LINE * len(lines)), "white")
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        left = {"left": 0.0, "right": wide - font.getlength(line)}.get(
            align, (wide - font.getlength(line)) / 2
        )
        draw.text((round(left), LINE * number), line, fill=INK, font=font)
    return np.asarray(image)


def _wrapped(text: str, width: int | None, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    if width is None:
        return [text]
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [part for line in lines for part in _broken(line, width, font)]


def _broken(line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Break a line into parts that fit, each of at least one letter."""
    parts = [""]
    for letter in line:
        if parts[-1] and font.getlength(parts[-1] + letter) > width:
            parts.append("")
        parts[-1] += letter
    return parts


def captioned(picture: Pixels, above: str = "", below: str = "") -> Pixels:
    """Draw a line around a picture, and write texts of its width above and below it."""
    picture = np.pad(picture, ((1, 1), (1, 1), (0, 0)), constant_values=FRAME)
    parts = [words(above, picture.shape[1])] if above else []
    parts.append(picture)
    if below:
        parts.append(words(below, picture.shape[1]))
    return np.concatenate(parts)


def padded(picture: Pixels, height: int, width: int, *, bottom: bool = False) -> Pixels:
    """Put a picture in the middle of a white one of this size, or in the middle of its lower edge."""
    rows, columns = height - picture.shape[0], width - picture.shape[1]
    above = rows if bottom else rows // 2
    around = ((above, rows - above), (columns // 2, columns - columns // 2), (0, 0))
    return np.pad(picture, around, constant_values=255)


def grid(
    cells: Sequence[Sequence[Pixels]], *, above: Sequence[str] = (), left: Sequence[str] = (), gap: int = GAP
) -> Pixels:
    """Arrange pictures of any sizes in rows and columns, on white.

    Args:
        cells: the rows of pictures, each uint8 (H, W, 3). Rows may have different lengths.
        above: texts above the columns.
        left: texts to the left of the rows.
        gap: white pixels between the pictures, and around all of them.

    Returns:
        uint8, (height, width, 3).
    """
    count = max(map(len, cells))
    heights = [max(cell.shape[0] for cell in row) for row in cells]
    widths = [max(row[c].shape[1] for row in cells if c < len(row)) for c in range(count)]
    empty = np.full((1, 1, 3), 255, np.uint8)
    # Pictures are at the bottom of their row, since captions above them may have several lines.
    rows = [
        [padded(row[c] if c < len(row) else empty, height, widths[c], bottom=True) for c in range(count)]
        for row, height in zip(cells, heights, strict=True)
    ]
    if left:
        names = [words(name, align="right") for name in left]
        wide = max(name.shape[1] for name in names)
        for row, name, height in zip(rows, names, heights, strict=True):
            aligned = np.pad(name, ((0, 0), (wide - name.shape[1], 0), (0, 0)), constant_values=255)
            row.insert(0, padded(aligned, height, wide))
        widths.insert(0, wide)
    if above:
        texts = [words(text, width) for text, width in zip(above, widths[-count:], strict=True)]
        tall = max(text.shape[0] for text in texts)
        heads = [np.pad(text, ((tall - len(text), 0), (0, 0), (0, 0)), constant_values=255) for text in texts]
        rows.insert(0, [np.full((tall, widths[0], 3), 255, np.uint8), *heads] if left else heads)
    lines = [_joined(row, 1, gap) for row in rows]
    return np.pad(_joined(lines, 0, gap), ((gap, gap), (gap, gap), (0, 0)), constant_values=255)


def _joined(parts: Sequence[Pixels], axis: int, gap: int) -> Pixels:
    """Join pictures of one height (`axis` 1) or of one width (`axis` 0), with white between them."""
    shape = list(parts[0].shape)
    shape[axis] = gap
    between = np.full(shape, 255, np.uint8)
    return np.concatenate([p for part in parts for p in (part, between)][:-1], axis=axis)


def colour_bar(
    colour: str | Colour, limit: float | None, *, signed: bool = True, height: int = 160, width: int = 14
) -> Pixels:
    """Draw the scale: the colours, with the largest values at the top, and numbers beside them.

    Args:
        colour: the name of a colour map, or a function.
        limit: the relevance at the top. None if each map has its own; the ends are then "+" and "-".
        signed: whether the scale begins at minus the limit. Otherwise it begins at zero.
        height: height in pixels, with half a line above and below the colours for the numbers.
        width: width of the coloured part in pixels.

    Returns:
        uint8, (height, width with the numbers, 3).
    """
    steps = max(height - LINE, 2)
    values = np.linspace(1, -1 if signed else 0, steps)
    bar = np.repeat(paint(values[None, :, None], colour)[0], width, axis=1)
    bar = np.pad(bar, ((LINE // 2, LINE - LINE // 2), (0, 4), (0, 0)), constant_values=255)
    top = "+" if limit is None else f"{limit:.2g}"
    numbers = [top, "0", "-" if limit is None else f"-{limit:.2g}"] if signed else [top, "0"]
    written = [words(number, align="left") for number in numbers]
    wide = max(image.shape[1] for image in written)
    column = np.full((bar.shape[0], wide, 3), 255, np.uint8)
    for number, image in enumerate(written):
        middle = round(number * (steps - 1) / (len(numbers) - 1))
        column[middle : middle + LINE, : image.shape[1]] = image
    return np.concatenate([bar, column], axis=1)
