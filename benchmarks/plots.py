"""Plots of figures as SVG, the same text for the same figures."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 186, 28, 44

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444", "#7a5195")
"""Of Okabe and Ito, which most people can tell apart."""

DASHES = ("", "6 3", "2 3", "8 3 2 3")

Points = Sequence[tuple[float, float]]


def lines(title: str, x_name: str, y_name: str, series: Mapping[str, Points]) -> str:
    """Lines over a logarithmic x axis, each with its name at its end; 1, the gradient, is a grey line.

    Args:
        title: is read to who cannot see it, and stands on top.
        x_name: what is on the x axis.
        y_name: what is on the y axis, which begins at zero.
        series: points by name, x ascending.
    """
    xs = sorted({x for points in series.values() for x, _ in points})
    step = _step(max([1.0, *(y for points in series.values() for _, y in points)]))
    top = step * math.ceil(max([1.0, *(y for points in series.values() for _, y in points)]) / step - 1e-9)
    span = math.log(xs[-1] / xs[0]) or 1.0

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(x / xs[0]) / span

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / top

    parts = [_text(LEFT, 16, title, weight="bold")]
    for number in range(round(top / step) + 1):
        y = number * step
        parts.append(_line(LEFT, up(y), WIDTH - RIGHT, up(y), "#dddddd"))
        parts.append(_text(LEFT - 6, up(y) + 4, f"{y:g}", anchor="end"))
    parts.append(_line(LEFT, up(1), WIDTH - RIGHT, up(1), "#888888", 1.5))
    for x in xs:
        parts.append(_line(across(x), up(0), across(x), up(0) + 4, "#888888"))
        parts.append(_text(across(x), up(0) + 17, f"{x:g}", anchor="middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_name, anchor="middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f' transform="rotate(-90 14 {middle:.1f})"'
    parts.append(_text(14, middle, y_name, anchor="middle", more=turned))
    places = _apart({name: up(points[-1][1]) for name, points in series.items()})
    for number, (name, points) in enumerate(series.items()):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // 2 % len(DASHES)]
        joined = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2" '
            f'stroke-dasharray="{dash}"/>'
        )
        parts += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{colour}"/>' for x, y in points]
        parts.append(_text(across(points[-1][0]) + 8, places[name] + 4, name, colour=colour))
    return _svg(title, parts)


def dots(title: str, x_name: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """A row of dots for each name, over a logarithmic x axis; the key is on the right.

    Args:
        title: stands on top.
        x_name: what is on the x axis.
        rows: by the row's name, the figures by the name of the dot.
    """
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    figures = [figure for row in rows.values() for figure in row.values()]
    low, high = min([0.5, *figures]), max([2.0, *figures]) * 1.1
    left, right, height = 150, 110, TOP + BOTTOM + 26 * len(rows)

    def across(x: float) -> float:
        return left + (WIDTH - left - right) * math.log(x / low) / math.log(high / low)

    parts = [_text(8, 16, title, weight="bold")]
    bottom = height - BOTTOM + 4
    for tick in (0.25, 0.5, 1, 2, 5, 10, 20, 50):
        if low <= tick <= high:
            colour = "#888888" if tick == 1 else "#dddddd"
            parts.append(_line(across(tick), TOP, across(tick), bottom, colour))
            parts.append(_text(across(tick), bottom + 14, f"{tick:g}", anchor="middle"))
    parts.append(_text((left + WIDTH - right) / 2, height - 8, x_name, anchor="middle"))
    for number, (row, found) in enumerate(rows.items()):
        y = TOP + 16 + 26 * number
        parts.append(_text(left - 10, y + 4, row, anchor="end"))
        for name, figure in found.items():
            parts.append(_dot(across(figure), y, names.index(name)))
    for number, name in enumerate(names):
        y = TOP + 16 + 20 * number
        parts.append(_dot(WIDTH - right + 16, y, number))
        parts.append(_text(WIDTH - right + 28, y + 4, name))
    return _svg(title, parts, max(height, TOP + 30 + 20 * len(names)))


def _dot(x: float, y: float, number: int) -> str:
    """A circle or a square, so that colour alone need not tell."""
    colour = COLOURS[number % len(COLOURS)]
    if number % 2:
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{colour}"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'


def _step(largest: float) -> float:
    """The distance of grid lines: 1, 2 or 5 times a power of ten, for four to nine lines."""
    power = 10.0 ** math.floor(math.log10(largest / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if largest / (power * factor) <= 8)


def _apart(places: Mapping[str, float]) -> dict[str, float]:
    """Heights of names, moved so that none covers another."""
    found: dict[str, float] = {}
    last = -math.inf
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        last = max(place, last + 14)
        found[name] = last
    lowest = float(HEIGHT - BOTTOM)
    for name in reversed(found):  # up again from the bottom, as far as they touch
        found[name] = min(found[name], lowest)
        lowest = found[name] - 14
    return found


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "", colour: str = "#222222",
    more: str = "",
) -> str:  # fmt: skip
    bold = f' font-weight="{weight}"' if weight else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{bold}{more}'
    return f"<text {place}>{escape(text)}</text>"


def _line(x: float, y: float, to_x: float, to_y: float, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"/>'
    )


def _svg(title: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    """The picture, on white: also where the page is dark."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12" role="img">'
    )
    white = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", white, *parts, "</svg>"]) + "\n"
