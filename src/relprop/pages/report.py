"""A page with a viewer for each sample and, if there are several, a gallery of thumbnails.

The page is in `report.html` beside this file. Its script has five parts, in this order: `maps.js` has
relevance as numbers and colours, `drawing.js` the canvases, `facts.js` words and tables, `viewer.js` one
sample, and `gallery.js` all samples.
"""

from collections.abc import Sequence

from relprop.errors import visible
from relprop.pages.glossary import ABSORBED, SINKS, about_rules, shades
from relprop.pages.items import Item
from relprop.pages.look import Look
from relprop.pages.page import data_block, page, safe

MOST_BYTES = 64 * 2**20
"""The most data that a page has. Browsers open it within seconds, and it can still be sent."""


def thumbnail_size(count: int) -> int:
    """Return the length of the longer side of thumbnails in pixels. A single one is the static picture."""
    return 448 if count == 1 else 128


def meaning_of(items: Sequence[Item], look: Look) -> str:
    """Return a sentence that says what the colours of all samples mean at first."""
    aims = {each.told.aim for item in items for each in item.maps}
    return look.meaning(aims.pop() if len(aims) == 1 else "the explained class")


def report(items: Sequence[Item], look: Look, title: str, about: str = "") -> str:
    """Return the page of some samples, as HTML.

    Args:
        items: the samples, in their order.
        look: how the page begins.
        title: the page's title.
        about: a line below it, such as that a run was interrupted.
    """
    pictures: dict[str, int] = {}
    rules: dict[tuple[str, str], int] = {}
    data = [item.as_data(pictures, rules) for item in items]
    sinks = {name for item in items for each in item.maps for name in each.ledger} - {"seed", "inputs"}
    everything = {
        "items": data,
        "pictures": list(pictures),
        "rules": [
            {
                "name": visible(name),
                "applied": visible(applied, keep="\n"),
                "about": visible(about_rules(name)),
            }
            for name, applied in rules
        ],
        "shades": {visible(name): colour for name, colour in shades(sinks).items()},
        "sinks": {name: SINKS[name] for name in sorted(sinks) if name in SINKS},
        "model": visible(look.model or ""),
        "look": look.for_script(max((item.shape[1] for item in items), default=0)),
    }
    return page(
        "relprop.pages",
        "report.html",
        safe(title),
        ["maps.js", "drawing.js", "facts.js", "viewer.js", "gallery.js"],
        about=f'<p class="about">{safe(about)}</p>' if about else "",
        meaning=safe(meaning_of(items, look)),
        doubtful="or a wrong prediction" if any(item.told.differs for item in items) else "",
        absorbed=safe(ABSORBED),
        cards="\n".join(map(_card, items)),
        data=data_block("data", everything),
    )


def _warned(item: Item) -> str:
    """Say how many warnings there are, or for how many of several explanations; "" where there are none."""
    counts = [len(set(each.told.notes)) for each in item.maps]
    if len(counts) > 1 and any(counts):
        return f"warnings for {len(counts) - counts.count(0)} of {len(counts)} explanations"
    return f"{sum(counts)} warning{'s' if sum(counts) > 1 else ''}" if any(counts) else ""


def _card(item: Item) -> str:
    """Return a sample's thumbnail with what is known in a few words, as HTML."""
    label = f'<span class="name">{safe(item.told.label)}</span>'
    if item.error:
        return f'<li><div class="card">{label}<span class="warned">{safe(item.error)}</span></div></li>'
    lines = [f'<span class="quiet">{safe(item.told.caption)}</span>'] if item.told.caption else []
    if item.told.differs:
        lines.append('<span class="warned">wrong prediction</span>')
    if warned := _warned(item):
        lines.append(f'<span class="warned">{warned}</span>')
    alt = f"Relevance {f'of {item.told.label} ' if item.told.label else ''}for {item.maps[0].told.target}"
    picture = f'<img src="{item.still}" alt="{safe(alt)}" loading="lazy">'
    return f'<li><a class="card" href="#{item.told.number}">{picture}{label}{"".join(lines)}</a></li>'
