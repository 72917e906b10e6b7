"""How figures are written: names of rules and ways, ratios, tables."""

from collections.abc import Mapping, Sequence

from benchmarks.case import Row
from benchmarks.results import Found

NAMES: Mapping[str, str] = {
    "epsilon": "ε",
    "w2-epsilon": "w² first, then ε",
    "z+": "z⁺",
    "gamma": "γ",
    "alpha2-beta1": "αβ",
    "epsilon-gamma-flat": "`epsilon-gamma-flat`",
    "epsilon-gamma-box": "`epsilon-gamma-box`",
    "deep-taylor": "`deep-taylor`",
    "attnlrp": "`attnlrp`",
    "cp-lrp": "`cp-lrp`",
    "attnlrp-vit": "`attnlrp-vit`",
    "": "",
}
"""Of rules, as the page writes them."""

DIGIT_NAMES = {"alpha2-beta1": "`alpha2-beta1`"}
"""Where the preset is meant, and not the rule in all layers."""

HEADS: Mapping[str, str] = {
    "relprop": "relprop",
    "plan": "planned",
    "graph": "as a graph",
    "inductor": "compiled",
    "zennit": "zennit",
    "captum": "captum",
    "autolrp": "autolrp",
    "LXT": "LXT",
    "checkpointed gradient": "gradient with checkpoints",
    "checkpointed relprop": "relprop with checkpoints",
    "NumPy": "NumPy",
    "NumPy of 2017": "NumPy as in 2017",
}
"""Of ways, as columns and lines are named."""


_SHORT = {"plan": "planned", "graph": "graph", "checkpointed relprop": "checkpoints"}


def named(row: Row) -> str:
    """A row in words: the way only where it is not relprop in Python."""
    name = NAMES.get(row.rules, row.rules)
    if row.way == "relprop":
        return name
    if row.way in _SHORT:
        return f"{name}, {_SHORT[row.way]}"
    return f"{HEADS[row.way]}, {name}" if name else HEADS[row.way]


def cell(found: Found, row: Row) -> str:
    """Time relative to the gradient, with half the distance of the quartiles."""
    time, quartiles = found.time(row), found.quartiles(row)
    if time is None:
        return ""
    if quartiles is None:
        return ratio(time)
    half = (quartiles[1] - quartiles[0]) / 2
    return f"{ratio(time)} ± {half:.2f}" if time < 9.995 else f"{ratio(time)} ± {half:.1f}"


def ratio(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"


def duration(seconds: float) -> str:
    """In milliseconds, with two or three digits."""
    amount = 1e3 * seconds
    return f"{amount:,.0f} ms" if amount >= 10 else f"{amount:.1f} ms"


def as_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of markdown, without columns that have no figure."""
    kept = [i for i in range(len(head)) if i < 1 or any(row[i] for row in rows)]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line[i] for i in kept) + " |" for line in lines)
