"""The tutorial's pictures, and the page that shows and explains them.

The page's text and formulas are in `report.html` beside this file. This file fills in the results of a run,
escaped. The pictures are part of the page, so it needs no other file and no network. It has no
scripts, and its policy allows none.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import torch
from torch import Tensor

from relprop.pages.page import data_url, number, page
from relprop.tutorial.steps import PUBLISHED, REPETITIONS, Maps, Tutorial
from relprop.view.arrays import Pixels
from relprop.view.mosaic import mosaic

NETWORKS = {"mnist-mlp": "MLP", "mnist-cnn": "CNN"}

CAPTIONS = {
    "data": "The digits in grey.",
    "mlp-sensitivity": "MLP, sensitivity.",
    "mlp-deeptaylor": "MLP, deep Taylor: zᴮ at the pixels, z⁺ above.",
    "cnn-sensitivity": "CNN, sensitivity.",
    "cnn-deeptaylor": "CNN, deep Taylor: zᴮ at the pixels, z⁺ above.",
    "cnn-alphabeta": "CNN, α2β1: zᴮ at the pixels, αβ with α = 2 and β = 1 above.",
    "mlp-successor": "MLP, the successor’s rules: zᴮ at the pixels, γ = 0.1, then ε = 0.1 rms(z).",
}
"""Caption of each picture, by its name.

The page has them in this order, except that both pictures of sensitivity come together.
"""


def pictures(result: Tutorial) -> dict[str, Pixels]:
    """Draw the digits, and the maps of each step, as rows of twelve: uint8 (64, 768, 3), by name."""
    rows = {name: mosaic(maps.picture) for name, maps in result.maps.items()}
    return {"data": mosaic(result.images, "grey"), **rows}


def described(name: str, result: Tutorial) -> str:
    """Return a description of a picture, for readers who cannot see it, and for the PNG file."""
    digits = ", ".join(map(str, result.labels.tolist()))
    if name == "data":
        return f"Twelve handwritten digits in a row: {digits}."
    return f"Twelve heatmaps in a row, of the digits {digits}. {CAPTIONS[name]}"


def report(result: Tutorial, files: Mapping[str, bytes], weights: str) -> str:
    """Return the page as HTML.

    Args:
        result: the results of the tutorial's computation.
        files: the bytes of each picture's PNG file, by name.
        weights: the weights that were used, in words, as the end of "computed by this run, with ...".
    """
    figures = {name.replace("-", "_"): _figure(name, result, files[name]) for name in CAPTIONS}
    return page(
        "relprop.tutorial",
        "report.html",
        "Relevance propagation on twelve digits",
        **figures,
        weights=escape(weights),
        errors=_errors(result),
        sums=_sums(result),
        checks=_checks(result),
    )


def percent(rate: float) -> str:
    """Return a share between 0 and 1 as text, such as "0.61 %"."""
    return f"{100 * rate:.2f} %"


def _figure(name: str, result: Tutorial, png: bytes) -> str:
    return (
        f'<figure>\n<div class="wide"><img width="768" height="64" '
        f'alt="{escape(described(name, result))}" src="{data_url(png)}"></div>\n'
        f"<figcaption>{escape(CAPTIONS[name])}</figcaption>\n</figure>"
    )


def _errors(result: Tutorial) -> str:
    rows = [
        [
            NETWORKS[name],
            f"{error.wrong} of {error.digits:,}",
            percent(error.rate),
            percent(PUBLISHED[name]),
            f"{error.seconds:.2f} s",
        ]
        for name, error in result.errors.items()
    ]
    return _table(
        "Test errors, and those that the tutorial states for its own weights.",
        ["network", "not recognised", "test error", "the tutorial’s", "run time"],
        rows,
    )


def _sums(result: Tutorial) -> str:
    mlp, cnn, alphabeta = (
        result.maps[name] for name in ("mlp-deeptaylor", "cnn-deeptaylor", "cnn-alphabeta")
    )
    columns: list[Tensor] = [mlp.scores, mlp.sums, cnn.scores, cnn.sums, alphabeta.sums]
    rows = [
        [str(int(label)), *(_number(value, 4) for value in values)]
        for label, values in zip(result.labels, torch.stack(columns, 1).tolist(), strict=True)
    ]
    return _table(
        "The score of each digit’s class, and the sum of its maps.",
        ["digit", "MLP score", "deep Taylor", "CNN score", "deep Taylor", "α2β1"],
        rows,
    )


def _checks(result: Tutorial) -> str:
    rows = [
        [
            name,
            _number(float(maps.relevance.min()), "2g"),
            "–" if maps.gap is None else _number(_largest_difference(maps), "1e"),
            "–" if maps.gap is None else _number(float(maps.gap.max()), "1e"),
            f"{1000 * maps.seconds:.1f} ms",
        ]
        for name, maps in result.maps.items()
    ]
    return _table(
        "Over all twelve maps: the smallest value; the largest difference between sum and score, relative to "
        "the largest score; how far the ledger, which also has what biases and ε absorb, is from balancing; "
        f"and the run time for all twelve maps, the shortest of {REPETITIONS} runs.",
        ["maps", "smallest value", "sum − score", "ledger", "run time"],
        rows,
    )


def _largest_difference(maps: Maps) -> float:
    """Return the largest |Σ R - max(0, score)|, relative to the largest score."""
    scores = maps.scores.clamp(min=0)
    return float((maps.sums - scores).abs().max() / scores.max().clamp(min=torch.finfo(scores.dtype).tiny))


def _number(value: float, digits: int | str) -> str:
    form = f".{digits}f" if isinstance(digits, int) else f".{digits}"
    return number(value, form)


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"<table>\n<caption>{escape(caption)}</caption>", "<thead>"]
    lines.append(_row([f'<th scope="col">{escape(cell)}</th>' for cell in head]))
    lines += ["</thead>", "<tbody>"]
    for first, *rest in rows:
        cells = [f'<th scope="row">{escape(first)}</th>', *(f"<td>{escape(cell)}</td>" for cell in rest)]
        lines.append(_row(cells))
    return "\n".join([*lines, "</tbody>", "</table>"])


def _row(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(cells)}</tr>"
