"""Relevance of a text's tokens in the terminal: as coloured text or, without colours, as a table."""

from typing import TYPE_CHECKING

from torch import Tensor

from relprop.errors import quoted, visible
from relprop.text.answers import Answer, TokenRelevance
from relprop.text.html import colours, cut, heading, known_to, scale_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

BAR = 10
"""Number of signs in the longest bar of the table."""

MOST = 5
"""Number of tokens that are listed for each generated token, without colours."""


def to_terminal(explanation: TokenRelevance, console: "Console | None" = None) -> None:
    """Print an explanation to a terminal: as coloured text or, without colours, as a table.

    Args:
        explanation: the explanation.
        console: a console of rich; by default standard output.
    """
    from rich.console import Console

    console = console or Console(markup=False, emoji=False, highlight=False)
    coloured = console.color_system is not None and not console.no_color
    several = explanation.relevance.dim() == 2
    console.print(heading(explanation), soft_wrap=True, markup=False, emoji=False, highlight=False)
    for answer, row in zip(explanation.answers, explanation.rows, strict=True):
        if several:
            console.print(visible(answer.line), soft_wrap=True, markup=False, emoji=False, highlight=False)
        if coloured:
            console.print(_coloured(explanation, answer, row))
            continue
        lines = _strongest(explanation, row) if several else _table(explanation, row)
        for line in lines:
            console.print(line, soft_wrap=True, markup=False, emoji=False, highlight=False)
    more = cut(explanation)
    if more and (coloured or not several):
        shown = "the strongest colour" if coloured else "the longest bar"
        note = f"({shown} is the largest relevance of a {explanation.unit} of the text; {more})"
        console.print(visible(note), soft_wrap=True, markup=False, emoji=False, highlight=False)


def _coloured(explanation: TokenRelevance, answer: Answer, row: Tensor) -> "Text":
    from rich.text import Text

    line = Text()
    shown = explanation.pieces[: known_to(explanation, answer)]
    for place, (piece, (ground, ink)) in enumerate(
        zip(shown, colours(row, explanation.pieces), strict=False)
    ):
        style = f"{ink} on {ground}" + (" bold underline" if place == answer.place else "")
        first, *rest = piece.text.split("\n")
        line.append(visible(first), style)
        for part in rest:
            line.append("↵", style)
            line.append("\n")
            line.append(visible(part), style)
        if piece.special:
            line.append(" ")
    return line


def _table(explanation: TokenRelevance, row: Tensor) -> list[str]:
    """Return a line for each token: its number, text and relevance, and a bar of + or -."""
    values = row.double().nan_to_num(0).tolist()
    scale = scale_of(row, explanation.pieces)
    names = [visible(piece.text) if piece.special else quoted(piece.text) for piece in explanation.pieces]
    wide, digits = max(map(len, names)), len(str(len(names) - 1))
    lines = []
    for place, (name, value, exact) in enumerate(zip(names, values, row.tolist(), strict=True)):
        length = min(BAR, round(BAR * abs(value) / scale))
        bar = ("+" if value > 0 else "-") * length
        lines.append(f"{place:>{digits}}  {name:<{wide}}  {exact:>+10.3g}  {bar}".rstrip())
    return lines


def _strongest(explanation: TokenRelevance, row: Tensor) -> list[str]:
    """Return a line with the tokens that have most relevance."""
    order = row.double().abs().nan_to_num(0).argsort(descending=True, stable=True)[:MOST].tolist()
    told = [f"{quoted(explanation.pieces[i].text)} {float(row[i]):+.3g}" for i in order if row[i]]
    return ["  " + (", ".join(told) or "no token has relevance")]
