"""A page from its template, its scripts and its texts, in one file.

The policy of a page allows its own scripts, by their hash, and its own pictures. Nothing is loaded, sent or
run from anywhere else. All pages share the look of `page.css`, in light and dark mode.
"""

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from relprop.errors import visible
from relprop.files import VERSION

_HEAD = 4096
"""A page says within so many bytes what wrote it."""

_POLICY = (
    "default-src 'none'",
    "style-src 'unsafe-inline'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
)


def page(room: str, template: str, title: str, scripts: Sequence[str] = (), **texts: str) -> str:
    """Return a page of HTML that needs no other file and no network.

    Args:
        room: the package that has the template and the scripts, such as "relprop.text".
        template: name of the template. It begins with $head, which the rest of its style follows, and has
            $title, $version, the names of the texts and, if there are scripts, $script in their places.
        title: the page's title, as HTML.
        scripts: names of the scripts, in their order. They become one script.
        texts: what the template's other names stand for, as HTML.
    """
    script = "\n".join(_read(room, name) for name in scripts)
    allowed = [f"script-src 'sha256-{_digest(script)}'"] if scripts else []
    common = {"title": title, "version": escape(VERSION)}
    policy = "; ".join([*_POLICY, *allowed])
    look = _read("relprop.pages", "page.css")
    head = Template(_read("relprop.pages", "head.html")).substitute(common, policy=policy, look=look)
    return Template(_read(room, template)).substitute(texts, **common, head=head, script=script)


def _read(room: str, name: str) -> str:
    return resources.files(room).joinpath(name).read_text(encoding="utf-8")


def data_block(name: str, data: Any) -> str:
    """Return data as an element of HTML that scripts read by its id. No text in it can end the element.

    Args:
        name: the element's id.
        data: numbers, texts, lists and dicts. Numbers must be finite.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # "</script>" or "<!--" within a text would otherwise be HTML.
    safe = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="{escape(name)}">{safe}</script>'


def data_url(content: bytes, kind: str = "image/png") -> str:
    """Return the content of a file as a URL, for pictures that are part of a page."""
    return f"data:{kind};base64,{base64_of(content)}"


def base64_of(content: bytes) -> str:
    """Return bytes as a text that scripts read."""
    return b64encode(content).decode("ascii")


def safe(text: str) -> str:
    """Return a text as HTML, in which what is invisible is an escape."""
    return escape(visible(text))


def number(value: float, form: str = ".4g") -> str:
    """Return a number as text, with a true minus sign."""
    return f"{value:{form}}".replace("-", "\N{MINUS SIGN}")


def is_own_page(path: Path) -> bool:
    """Whether a file is a page that relprop wrote."""
    try:
        with path.open("rb") as file:
            return b'<meta name="generator" content="relprop ' in file.read(_HEAD)
    except OSError:
        return False


def _digest(script: str) -> str:
    return base64_of(sha256(script.encode("utf-8")).digest())
