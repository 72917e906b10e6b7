"""Explanations in notebooks: still pictures, and the interactive page in a frame.

Notebooks that are not trusted, and sites that show notebooks, remove frames and scripts. So the pictures
come first and need neither. The frame holds the whole page, with its own policy. The frame's sandbox runs the
script of the page and keeps it away from the notebook. The page is loaded when the frame is opened, and has
only as many samples as keep a notebook small.
"""

from html import escape
from typing import Any

from relprop.errors import visible
from relprop.pages.items import Item, encoded_size
from relprop.pages.look import look_of
from relprop.pages.pictures import items_of
from relprop.pages.report import report
from relprop.pages.words import Accounted, title_of
from relprop.view.plot import relevance_of

MOST_SAMPLES = 12
"""The most samples that a notebook shows."""

MOST_BYTES = 2**21
"""The most relevance, encoded, that a notebook has for one explanation."""


def for_notebook(explanation: Accounted) -> str:
    """Return `to_fragment`, or the explanation as text if it cannot be drawn. This raises no error."""
    try:
        return to_fragment(explanation)
    except Exception:
        return f"<pre>{_safe(repr(explanation))}</pre>"


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
    R, _ = relevance_of(explanation, options.get("of"), "to_html")
    count = len(R)
    if options.get("samples") is None:
        fit = MOST_BYTES // encoded_size((1, 1, R[0].numel()))
        options["samples"] = range(max(1, min(count, MOST_SAMPLES, fit)))
    look = look_of(options)
    title = look.title or title_of({"": explanation}, look)
    items = list(items_of({"": explanation}, picture, look))
    page = report(items, look, title)
    told = [f"<b>{_safe(title)}</b>", f"{_safe(look.meaning())}"]
    if len(items) < count:
        told.append(
            f"{len(items)} of {count} samples are shown; explanation.save(&quot;page.html&quot;) has more."
        )
    frame = (
        f'<iframe srcdoc="{escape(page)}" sandbox="allow-scripts" loading="lazy" title="{_safe(title)}" '
        'style="width: 100%; height: 48rem; border: 1px solid #8884"></iframe>'
    )
    return (
        f"<div><p>{'<br>'.join(told)}</p>"
        f'<div style="display: flex; flex-wrap: wrap; gap: 1em">{"".join(map(_figure, items))}</div>'
        f"<details><summary>Interactive: read values, change colours</summary>{frame}</details></div>"
    )


def _figure(item: Item) -> str:
    words = ", ".join(filter(None, [item.label, item.caption]))
    caption = f"<figcaption>{_safe(words)}</figcaption>"
    return f'<figure style="margin: 0"><img src="{item.still}" alt="{_safe(words)}">{caption}</figure>'


def _safe(text: str) -> str:
    return escape(visible(text))
