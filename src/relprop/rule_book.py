"""All rules and presets, as the command line and the documentation print them."""

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from relprop.baselines import BASELINES
from relprop.composites import Composite
from relprop.input_rules import Flat, WSquare, ZBox
from relprop.linear_operations import PrintedRule
from relprop.nonlinear_rules import AveragePooling, BySize, EqualShares, SignalTakesAll, Uniform
from relprop.presets import DEFAULT, DEFAULT_WITHOUT_BOUNDS, PRESETS
from relprop.rules import Absolute, AlphaBeta, Epsilon, Gamma, ZPlus

RULES: Mapping[str, type[PrintedRule]] = MappingProxyType(
    {
        rule.__name__: rule
        for rule in (
            *(Epsilon, Gamma, AlphaBeta, ZPlus, Absolute),
            *(ZBox, WSquare, Flat),
            *(Uniform, SignalTakesAll, BySize, EqualShares, AveragePooling),
        )
    }
)
"""Rules by name."""


def signature(rule: type[PrintedRule]) -> str:
    """How a rule is written, with its defaults."""
    arguments = str(inspect.signature(rule)).replace(" -> None", "")
    for module in ("relprop.rules.", "torch.", "typing."):
        arguments = arguments.replace(module, "")
    return rule.__name__ + arguments


def formula(rule: type[PrintedRule]) -> str:
    """A rule's formula, source and price: the first paragraph of its docstring, as one line."""
    return " ".join(inspect.cleandoc(rule.__doc__ or "").split("\n\n")[0].split())


def place(where: Any) -> str:
    """Where an entry of a composite applies, in words."""
    if isinstance(where, tuple):
        return " and ".join(map(place, where))
    return f'"{where}"' if isinstance(where, str) else getattr(where, "__name__", repr(where))


def entries(composite: Composite) -> list[tuple[str, str]]:
    """The list of a composite: place and rule."""
    listed = [(place(where), str(rule)) for where, rule in composite.entries]
    if composite.start != "score":
        listed.append(("relevance starts from", composite.start))
    return listed


def as_text() -> str:
    """Every rule with its formula, and every preset with its list."""
    lines = ["RULES", ""]
    for rule in RULES.values():
        lines += [signature(rule), f"    {formula(rule)}", ""]
    lines += ["PRESETS: for each operation the first line that matches gives the rule", ""]
    for name, composite in PRESETS.items():
        default = {DEFAULT: " (default)", DEFAULT_WITHOUT_BOUNDS: " (default where bounds are not known)"}
        lines.append(name + default.get(name, ""))
        listed = entries(composite)
        width = max(len(where) for where, _ in listed)
        lines += [f"    {where:{width}s}  {rule}" for where, rule in listed]
        lines.append("")
    lines += ["WITHOUT RULES, to compare with", ""]
    for name, baseline in BASELINES.items():
        lines += [name, f"    {' '.join(inspect.cleandoc(baseline.__doc__ or '').split())}", ""]
    return "\n".join(lines).rstrip()
