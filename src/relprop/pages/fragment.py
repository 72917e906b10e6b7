"""Explanations in notebooks: still pictures, and the interactive page in a frame.

Notebooks that are not trusted, and sites that show notebooks, remove frames and scripts. So the pictures
come first and need neither. The frame holds the whole page, with its own policy. The frame's sandbox runs the
script of the page and keeps it away from the notebook. The page is loaded when the frame is opened, and has
only as many samples as keep a notebook small.
"""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import accumulate
from typing import Any

from relprop.errors import Call, RelpropError
from relprop.pages.items import Item, encoded_size
from relprop.pages.look import look_of
from relprop.pages.page import safe
from relprop.pages.pictures import items_of
from relprop.pages.report import MOST_BYTES as WHOLE
from relprop.pages.report import meaning_of, report
from relprop.pages.words import Accounted, title_of
from relprop.view.subject import drawable

MOST_SAMPLES = 12
"""The most samples that a notebook shows."""

CALL = Call("to_fragment", "explanation")

MOST_BYTES = 2**20
"""The most data of the page in the frame."""


def for_notebook(explanation: Accounted) -> str:
    """Return `to_fragment`, or the explanation as text, and why it cannot be drawn."""
    try:
        return to_fragment(explanation)
    except RelpropError as error:
        return f"<pre>{safe(repr(explanation))}</pre><p>Not drawn: {safe(str(error))}</p>"


def to_fragment(explanation: Accounted, picture: Any = None, **options: Any) -> str:
    """Return an explanation as HTML for a notebook: still pictures, and the page of `to_html` in a frame.

    Args:
        explanation: the explanation.
        picture: as for `relprop.pages.pictures.to_html`.
        options: as for `relprop.pages.pictures.to_html`. Without `samples`, the first ones are shown.

    Raises:
        InputError: as for `to_html`.
        FileError: a picture cannot be read.
    """
    R, _ = drawable(explanation, options.get("of"), CALL)
    count = len(R)
    if options.get("samples") is None:
        fit = WHOLE // encoded_size(R.shape[1:])
        options["samples"] = range(max(1, min(count, MOST_SAMPLES, fit)))
    look = look_of(options, CALL)
    items = list(items_of({"": explanation}, picture, look))
    title = look.title or title_of({"": explanation}, look)
    inside = [item for item, size in zip(items, _sizes(items), strict=True) if size <= MOST_BYTES]
    told = [f"<b>{safe(title)}</b>", safe(meaning_of(items, look))]
    if len(inside) < count:
        told.append(
            f"{_counted(len(items), len(inside), count)} explanation.save(&quot;page.html&quot;) has all."
        )
    return (
        f"<div><p>{'<br>'.join(told)}</p>"
        f'<div style="display: flex; flex-wrap: wrap; gap: 1em">{"".join(map(_figure, items))}</div>'
        f"{_frame(report(inside, look, title), title) if inside else ''}</div>"
    )


def _counted(shown: int, inside: int, count: int) -> str:
    """Say how many samples are shown, and how many of these also interactively, where that is not all."""
    told = [f"{shown} of {count} samples are shown."] if shown < count else []
    if inside < shown:
        told.append(f"Only {inside or 'none'} of {shown} can be shown interactively here.")
    return " ".join(told)


def _sizes(items: Sequence[Item]) -> Iterable[int]:
    """Return the size of each sample together with those before it."""
    return accumulate(item.size for item in items)


def _frame(page: str, title: str) -> str:
    return (
        "<details><summary>Interactive: read values, change colours</summary>"
        f'<iframe srcdoc="{escape(page)}" sandbox="allow-scripts" loading="lazy" title="{safe(title)}" '
        'style="width: 100%; height: 48rem; border: 1px solid #8884"></iframe></details>'
    )


def _figure(item: Item) -> str:
    words = ", ".join(filter(None, [item.told.label, item.told.caption]))
    caption = f"<figcaption>{safe(words)}</figcaption>"
    return f'<figure style="margin: 0"><img src="{item.still}" alt="{safe(words)}">{caption}</figure>'
