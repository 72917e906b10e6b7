"""What a page of pictures has in it, read back as its script reads it."""

import json
import re
from base64 import b64decode
from html.parser import HTMLParser
from typing import Any

import numpy as np
from numpy.typing import NDArray


def data_of(page: str) -> dict[str, Any]:
    """The data of the page's script."""
    [block] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(block)


def relevance_in(data: dict[str, Any], item: int, explanation: int = 0) -> NDArray[np.float64]:
    """The relevance of a sample, (C, H, W)."""
    found = data["items"][item]["maps"][explanation]
    levels = np.frombuffer(b64decode(found["values"]), "<i2").reshape(data["items"][item]["shape"])
    return levels * found["largest"] / 32767


class Elements(HTMLParser):
    """The elements of a page, in order, and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
