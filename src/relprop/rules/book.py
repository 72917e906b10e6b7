"""All rules, presets and baselines with formulas and sources, for commands and documentation."""

import inspect
from collections.abc import Iterable, Mapping
from textwrap import indent, wrap
from types import MappingProxyType, ModuleType
from typing import Any

from relprop.errors import RuleError, did_you_mean
from relprop.rules import first_layer, linear, other
from relprop.rules.composite import Composite
from relprop.rules.elsewhere import told
from relprop.rules.gradients import BASELINES, Baseline
from relprop.rules.presets import DEFAULT, DEFAULT_FOR_TOKENS, DEFAULT_WITHOUT_BOUNDS, PRESET_SOURCES, PRESETS
from relprop.rules.rule import PrintedRule
from relprop.rules.sources import REFERENCES, bibliography

WIDTH = 100
"""Characters a line of what is told at the shell."""


def _public(module: ModuleType) -> tuple[type[PrintedRule], ...]:
    """The rules that a module exports, in the order in which it defines them."""
    return tuple(rule for name, rule in vars(module).items() if name in module.__all__)


GROUPS: Mapping[str, tuple[type[PrintedRule], ...]] = MappingProxyType(
    {
        "Rules for linear operations": _public(linear),
        "Rules for the first layer": _public(first_layer),
        "Rules for other operations": _public(other),
    }
)
"""Rules by what they are for."""

RULES: Mapping[str, type[PrintedRule]] = MappingProxyType(
    {rule.__name__: rule for group in GROUPS.values() for rule in group}
)
"""Rules by name."""


def written(rule: type[PrintedRule]) -> str:
    """How a rule is written, with its defaults."""
    parameters = inspect.signature(rule).parameters.values()
    return f"{rule.__name__}({', '.join(f'{p.name}={p.default!r}' for p in parameters)})"


def signature(rule: type[PrintedRule]) -> str:
    """How a rule is written, with its defaults and what else each parameter can be."""
    arguments = str(inspect.signature(rule)).replace(" -> None", "")
    for module in ("relprop.rules.", "torch.", "typing."):
        arguments = arguments.replace(module, "")
    return rule.__name__ + arguments


def description(subject: type[PrintedRule] | Baseline) -> str:
    """All that is written about a rule or baseline: formula, source, price, parameters."""
    return inspect.cleandoc(subject.__doc__ or "")


def formula(subject: type[PrintedRule] | Baseline) -> str:
    """Formula, source and price of a rule or baseline: what stands before its parameters, as one line."""
    return " ".join(description(subject).split("\n\nArgs:")[0].split("\n\nRaises:")[0].split())


def entries(composite: Composite) -> list[tuple[str, str]]:
    """The list of a composite: place and rule."""
    listed = []
    for where, rule in composite.entries:
        kinds = ", ".join(sorted(getattr(rule, "kinds", ())))
        listed.append((str(where) + (f" ({kinds})" if kinds else ""), str(rule)))
    if composite.start != "score":
        listed.append(("relevance starts from", composite.start))
    return listed


def default_for(name: str) -> str:
    """When a preset is taken without being asked for, in words; "" for most."""
    return {
        DEFAULT: "the default if bounds of the input are given",
        DEFAULT_FOR_TOKENS: "the default for the tokens of a text",
        DEFAULT_WITHOUT_BOUNDS: "the default if no bounds of the input are given",
    }.get(name, "")


def composite_as_text(composite: Composite) -> str:
    """The list of a composite, a line for each entry."""
    listed = entries(composite)
    width = max((len(where) for where, _ in listed), default=0)
    return "\n".join(f"{where:{width}s}  {rule}" for where, rule in listed)


def letters() -> str:
    """What the letters in the formulas mean."""
    paragraphs = inspect.cleandoc(linear.__doc__ or "").split("\n\n")
    return " ".join(next(p for p in paragraphs if p.startswith("Letters")).split())


def as_text() -> str:
    """Every rule with its formula, every preset with its list, and the baselines."""
    lines = [*wrap(letters(), WIDTH), ""]
    for title, group in GROUPS.items():
        lines += [title.upper(), ""]
        for rule in group:
            lines += [*_hanging(written(rule)), _told(formula(rule)), ""]
    lines += ["PRESETS", *wrap("For each operation the first line that matches gives the rule.", WIDTH), ""]
    for name in PRESETS:
        lines += [_preset_as_text(name), ""]
    lines += ["PLAIN GRADIENTS, FOR COMPARISON", ""]
    for name, baseline in BASELINES.items():
        lines += [name, _told(formula(baseline)), ""]
    return "\n".join(lines).rstrip()


def all_about(name: str) -> str:
    """Everything about one rule, preset or baseline, by its name in upper or lower case.

    Raises:
        RuleError: nothing has this name. The error offers near matches, or the rule that another library's
            name means.
    """
    every = [*RULES, *PRESETS, *BASELINES]
    wanted = name.strip().partition("(")[0]  # of a rule as it is written
    known = {each.lower(): each for each in reversed(every)}
    found = wanted if wanted in every else known.get(wanted.lower())
    if found is None:
        said = told(wanted)
        if said:
            raise RuleError(f"there is no rule, preset or baseline {name!r}.{said}")
        hint = did_you_mean(wanted.lower(), known, most=3, written=lambda near: known[near])
        raise RuleError(
            f"there is no rule, preset or baseline {name!r}.{hint} There are the rules {', '.join(RULES)}; "
            f"the presets {', '.join(PRESETS)}; the baselines {', '.join(BASELINES)}."
        )
    if found in PRESETS:
        about = f"{_preset_as_text(found)}\n\n{_used(repr(found), found)}"
        return about + _titles(PRESET_SOURCES.get(found, ""))
    if found in BASELINES:
        text = description(BASELINES[found])
        return f"{found}\n{indent(text, '    ')}\n\n{_used(repr(found), found)}{_titles(text)}"
    rule, text = RULES[found], description(RULES[found])
    users = [preset for preset, composite in PRESETS.items() if _has(composite, rule)]
    about = "\n".join([*_hanging(signature(rule)), indent(text, "    ")])
    about += "\n\n" + "\n".join(_hanging(f"Presets with it: {', '.join(users) or 'none'}.")) + "\n"
    call, others = f"relprop.rules.{found}()", '("*", relprop.rules.Epsilon())'
    if rule in GROUPS["Rules for linear operations"]:
        about += f"Everywhere: {_used(call, found)}"
    elif rule in GROUPS["Rules for the first layer"]:
        listed = f"[(relprop.places.First(), {call}), {others}]"
        about += f"In a list: {_used(listed)}"
    else:
        kinds = ", ".join(sorted(getattr(rule, "kinds", ())))
        listed = f'[("*", {call}), {others}]'
        about += f"In a list, for operations of the kind {kinds} only: {_used(listed)}"
    return about + _titles(text)


def cited(preset: str, rules: Iterable[Any]) -> str:
    """BibTeX entries of the sources of a preset, or baseline, and of rules.

    Args:
        preset: its name, or that of something else, which has no source.
        rules: as they are, or as they print.
    """
    texts = [PRESET_SOURCES.get(preset, "")]
    texts += [formula(BASELINES[preset])] if preset in BASELINES else []
    names = dict.fromkeys(str(rule).partition("(")[0] for rule in rules)
    texts += [formula(RULES[name]) for name in names if name in RULES]
    return bibliography(texts)


def _preset_as_text(name: str) -> str:
    default = default_for(name)
    head = f"{name}: {PRESET_SOURCES[name]}" + (f"; {default}" if default else "")
    return "\n".join([*_hanging(head), indent(composite_as_text(PRESETS[name]), "    ")])


def _used(choice: str, at_the_shell: str = "") -> str:
    call = f"explain(..., rules={choice})"
    return f"{call}; at the shell --rules {at_the_shell}" if at_the_shell else call


def _has(composite: Composite, rule: type[PrintedRule]) -> bool:
    return any(isinstance(chosen, rule) for _, chosen in composite.entries)


def _titles(text: str) -> str:
    """The titles of the sources that a text names, each on a line."""
    named = [f"{name}: {title}" for name, title in REFERENCES.items() if name in " ".join(text.split())]
    return "\n\n" + "\n".join("\n".join(_hanging(line)) for line in named) if named else ""


def _told(text: str) -> str:
    return "\n".join(wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    "))


def _hanging(text: str) -> list[str]:
    return wrap(text, WIDTH, subsequent_indent="        ", break_on_hyphens=False)
