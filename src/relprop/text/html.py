"""Text coloured by the relevance of its tokens, as a page of HTML and in notebooks.

The page is in `text.html` beside this file, and its script in `text.js`. Every token is escaped.
"""

from collections.abc import Sequence
from html import escape

import numpy as np
from torch import Tensor

from relprop.errors import quoted, visible
from relprop.pages.page import number, page, safe
from relprop.text.answers import Answer, TokenRelevance, as_share
from relprop.text.tokens import Token
from relprop.view.colour import signed

_HINT = """<p class="quiet">Point at a generated token, or choose it, to see the relevance of the tokens
before it.</p>
<p id="line"></p>"""

_OWN_SCALES = """<p class="quiet">Each row has its own scale. Its strongest colour is the largest relevance
of a token that is part of the text. Point at a cell to see its number.</p>"""

_MOST_NAMES = 3

_ASKED = {
    "classification": "the whole text",
    "tagging": "the label of",
    "masked": "the token at",
    "causal": "the token after",
    "seq2seq": "the decoder's token after",
}


def scale_of(row: Tensor, pieces: Sequence[Token]) -> float:
    """Return the relevance of the strongest colour: the largest |relevance| of a token of the text.

    Special tokens often have several times as much. If they set the scale, all other tokens would look alike.
    Special tokens beyond the scale have the strongest colour.

    Args:
        row: relevance of the tokens, (tokens,).
        pieces: the tokens.
    """
    sizes = row.double().abs().nan_to_num(0, posinf=0)
    of_text = [float(size) for size, piece in zip(sizes, pieces, strict=True) if not piece.special]
    return max(of_text, default=0.0) or float(sizes.max()) or 1.0


def cut(explanation: TokenRelevance) -> str:
    """Return a text that names the special tokens with more relevance than the scale has; "" if none has."""
    stronger: dict[str, None] = {}
    for row in explanation.rows:
        scale = scale_of(row, explanation.pieces)
        for piece, size in zip(explanation.pieces, row.double().abs().tolist(), strict=True):
            if piece.special and size > scale:
                stronger[piece.text] = None
    names = [*list(stronger)[:_MOST_NAMES], *(["others"] if len(stronger) > _MOST_NAMES else [])]
    return f"{', '.join(names)} {'have' if len(names) > 1 else 'has'} more" if names else ""


def colours(row: Tensor, pieces: Sequence[Token]) -> list[tuple[str, str]]:
    """Return the colours of each token's background and letters, as "#rrggbb".

    Args:
        row: relevance of the tokens, (tokens,).
        pieces: the tokens.
    """
    levels = (row.double().nan_to_num(0) / scale_of(row, pieces)).clamp(-1, 1)
    found = []
    for ground in signed(levels.numpy()):
        # The relative luminance of WCAG 2. Below 0.179, white letters have more contrast than black ones.
        linear = np.where(ground <= 0.04045, ground / 12.92, ((ground + 0.055) / 1.055) ** 2.4)
        ink = "#ffffff" if float(linear @ [0.2126, 0.7152, 0.0722]) < 0.179 else "#1b1a18"
        found.append((f"#{''.join(f'{round(255 * level):02x}' for level in ground)}", ink))
    return found


def _signed(value: float) -> str:
    """Return a relevance as text, with its sign and three digits."""
    return number(value, "+.3g")


def heading(explanation: TokenRelevance) -> str:
    """Return a line that says what is explained."""
    if explanation.relevance.dim() == 2:
        count = len(explanation.answers)
        what = f"{count} token{_s(count)} after a prompt of {_prompt(explanation)}"
    else:
        what = explanation.answers[0].line
    return visible(f"{explanation.model}: {what} ({explanation.rules})")


def _prompt(explanation: TokenRelevance) -> str:
    return f"{explanation.prompt} {explanation.unit}{_s(explanation.prompt)}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def known_to(explanation: TokenRelevance, answer: Answer) -> int | None:
    """Return the number of tokens before a generated token; None if the answer is for the whole text."""
    return answer.place if explanation.relevance.dim() == 2 else None


def to_html(explanation: TokenRelevance) -> str:
    """Return a page of HTML that needs no other file and no network."""
    several = explanation.relevance.dim() == 2
    return page(
        "relprop.text",
        "text.html",
        _question(explanation),
        ["text.js"],
        facts=_facts(explanation),
        text=_text(explanation, several),
        ramp=_ramp(),
        hint=_HINT if several else "",
        matrix=_matrix(explanation) if several else "",
        table="" if several else _token_table(explanation),
        strongest=safe(_strongest(explanation)),
    )


def to_fragment(explanation: TokenRelevance) -> str:
    """Return the coloured text alone, with a line for each answer, as HTML for notebooks."""
    lines = [f"<div>{safe(heading(explanation))}</div>"]
    for answer, row in zip(explanation.answers, explanation.rows, strict=True):
        known = explanation.pieces[: known_to(explanation, answer)]
        spans = [
            _span(piece, value, look)
            for piece, value, look in zip(known, row.tolist(), colours(row, explanation.pieces), strict=False)
        ]
        label = f"<div>{safe(answer.line)}</div>" if explanation.relevance.dim() == 2 else ""
        lines.append(f'{label}<div style="white-space: pre-wrap; line-height: 1.8">{"".join(spans)}</div>')
    return f"<div>{''.join(lines)}</div>"


def _shown(piece: Token) -> str:
    """Return a token as HTML. A line break in it is shown as ↵ and a line break."""
    lines = [safe(line) for line in piece.text.split("\n")]
    return "↵\n".join(lines)


def _span(piece: Token, value: float, look: tuple[str, str], about: str = "") -> str:
    title = escape(f"{quoted(piece.text)} {_signed(value)}")
    return f'<span{about} style="{_style(look)}" title="{title}">{_shown(piece)}</span>'


def _question(explanation: TokenRelevance) -> str:
    """Return the page's title."""
    if explanation.relevance.dim() == 2:
        return safe(f"What made {explanation.model} go on like this?")
    return safe(f"What made {explanation.model} say {explanation.answers[0].target}?")


def _ramp() -> str:
    """Return the scale of colours from -1 to 1, as HTML."""
    steps = signed(np.linspace(-1, 1, 21))
    stops = ", ".join(f"rgb({', '.join(str(round(255 * float(level))) for level in step)})" for step in steps)
    return f'<span class="ramp" style="background: linear-gradient(to right, {stops})"></span>'


def _strongest(explanation: TokenRelevance) -> str:
    """Return a text that says what the strongest colour means, and which special tokens have more."""
    more = cut(explanation)
    return (
        f"The strongest colour is the largest relevance of a {explanation.unit} that is part of the text"
        + (f"; {more}." if more else ".")
    )


def _style(look: tuple[str, str]) -> str:
    return f"background-color: {look[0]}; color: {look[1]}"


def _facts(explanation: TokenRelevance) -> str:
    """Return a list with rules, target and score, and the amounts of the ledger, as HTML."""
    facts = [("Rules", explanation.rules)]
    if explanation.relevance.dim() == 1:
        answer = explanation.answers[0]
        facts += [("Target", answer.target), (answer.measure.capitalize(), f"{answer.score:.4g}")]
        if answer.probability is not None:
            facts.append(("Probability", as_share(answer.probability)))
        if answer.place is not None:
            piece = explanation.pieces[answer.place]
            facts.append(
                (
                    "Explained",
                    f"{_ASKED[explanation.task]} {quoted(piece.text)}, {explanation.unit} {answer.place}",
                )
            )
        facts.append(("Sum of relevance", _signed(answer.total)))
        sinks = sorted(answer.absorbed.items())
        facts += [(f"Absorbed: {name}", _signed(amount)) for name, amount in sinks if amount]
    else:
        facts.append(("Prompt", _prompt(explanation)))
        facts.append(("Generated", f"{len(explanation.answers)} token{_s(len(explanation.answers))}"))
    return "\n".join(f"<dt>{safe(name)}</dt><dd>{safe(told)}</dd>" for name, told in facts)


def _text(explanation: TokenRelevance, several: bool) -> str:
    """Return the tokens of the text coloured for the first answer, as HTML. Generated ones are buttons."""
    row, answer = explanation.rows[0], explanation.answers[0]
    looks = colours(row, explanation.pieces)
    parts = []
    rows = {other.place: index for index, other in enumerate(explanation.answers)} if several else {}
    for place, (piece, value) in enumerate(zip(explanation.pieces, row.tolist(), strict=True)):
        kind = [
            *(["special"] if piece.special else []),
            *(["asked"] if place == answer.place and not several else []),
        ]
        about = f' class="{" ".join(["token", *kind])}"'
        span = _span(piece, value, looks[place], about)
        if place in rows:
            # The text of an HTML button would not be broken at the end of a line.
            span = f'<span role="button" tabindex="0" data-row="{rows[place]}">{span}</span>'
        parts.append(span)
    return "".join(parts)


def _matrix(explanation: TokenRelevance) -> str:
    """Return a table with a row for each generated token and a column for each token before it, as HTML."""
    last = explanation.answers[-1].place
    columns = explanation.pieces[:last]
    head = "".join(f'<th scope="col"><span>{_shown(piece)}</span></th>' for piece in columns)
    lines = [
        _OWN_SCALES,
        '<div class="wide"><table id="matrix">',
        f"<thead><tr><td></td>{head}</tr></thead>",
        "<tbody>",
    ]
    for index, (answer, row) in enumerate(zip(explanation.answers, explanation.rows, strict=True)):
        known = columns[: answer.place]
        cells = [
            f'<td style="{_style(look)}" title="{escape(quoted(piece.text))} {_signed(value)}">'
            f'<span class="unseen">{_signed(value)}</span></td>'
            for piece, value, look in zip(known, row.tolist(), colours(row, explanation.pieces), strict=False)
        ]
        lines.append(
            f'<tr data-row="{index}" data-line="{safe(answer.line)}"><th scope="row">{safe(answer.target)}'
            f"</th>{''.join(cells)}{'<td></td>' * (len(columns) - len(known))}</tr>"
        )
    return "\n".join([*lines, "</tbody>", "</table></div>"])


def _token_table(explanation: TokenRelevance) -> str:
    """Return a table of all tokens, or words, with their relevance in numbers, as HTML."""
    lines = [
        f"<details><summary>Every {explanation.unit} in numbers</summary>",
        '<table class="numbers"><thead><tr><th scope="col">number</th>'
        f'<th scope="col">{explanation.unit}</th>'
        '<th scope="col">relevance</th></tr></thead>',
        "<tbody>",
    ]
    for place, (piece, value) in enumerate(
        zip(explanation.pieces, explanation.rows[0].tolist(), strict=True)
    ):
        name = piece.text if piece.special else quoted(piece.text)
        lines.append(f"<tr><td>{place}</td><td>{safe(name)}</td><td>{_signed(value)}</td></tr>")
    return "\n".join([*lines, "</tbody></table></details>"])
