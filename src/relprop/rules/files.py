"""Rules can be written as text, `Gamma(0.25)`, or as a TOML or JSON file with a list of places and rules.

A file is data: nothing in it is executed.

    start = "score"

    [[rules]]
    first = true
    rule = "ZBox"

    [[rules]]
    path = "layer4.*"
    kind = "convolution"
    rule = "Gamma"
    gamma = 0.25

    [[rules]]
    rule = "Epsilon"

An entry applies where all of its conditions hold. The conditions are `first` (true, or false for all but the
first), `path` (a glob on module paths), `layer` (a class of torch.nn), `operation` (such as "conv2d"), `kind`
("convolution", "dense", "product", "sum", "max-pool", "normalisation") and `depth` (a pair: the smallest and
the largest number of linear operations before it). An entry without a condition applies everywhere. All other
keys of an entry are the rule's parameters. `preset` names a preset whose entries follow those of the file.
"""

import ast
import inspect
import json
import tomllib
from collections.abc import Mapping
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

from torch import nn

from relprop.calls.site import LINEAR, Kind
from relprop.errors import FileError, RuleError, did_you_mean
from relprop.places import Depth, First, Layer, Operation, Place
from relprop.places import Kind as OfKind
from relprop.places import Path as AtPath
from relprop.rules.book import RULES, signature
from relprop.rules.composite import EVERYWHERE, Composite
from relprop.rules.elsewhere import told
from relprop.rules.presets import preset
from relprop.rules.rule import PrintedRule

_KINDS = tuple(Kind)
LONGEST, LONGEST_RULE = 1_000_000, 1000
"""The most letters of a file of rules, and of a rule as text."""

_CONDITIONS = ("first", "path", "layer", "operation", "kind", "depth")


def is_rule_file(name: str) -> bool:
    """Whether a text names a file of rules."""
    return name.endswith((".toml", ".json"))


def read_rules(path: Path | str) -> Composite:
    """Read a composite from a TOML or JSON file (see the module's documentation for the form).

    Raises:
        FileError: the file is missing or neither TOML nor JSON.
        RuleError: an entry has no rule, an unknown one, or parameters or conditions without meaning.
    """
    path = Path(path)
    try:
        content = path.read_text(encoding="utf-8")
        if len(content) > LONGEST:
            raise ValueError(f"it has {len(content):,} letters, more than the {LONGEST:,} that are read")
        data = json.loads(content) if path.suffix == ".json" else tomllib.loads(content)
    except OSError as error:
        raise FileError(f"cannot read the rules in {path}: {error.strerror}.") from error
    except RecursionError:
        raise FileError(f"{path} is no file of rules: its lists are too deep within each other.") from None
    except ValueError as error:  # of either parser, and of what is no UTF-8
        raise FileError(f"{path} is no {path.suffix[1:].upper()} file: {error}.") from error
    if not isinstance(data, dict) or not isinstance(data.get("rules", []), list):
        raise RuleError(f'{path}: write a list of [[rules]], each with rule = "...".')
    unknown = sorted(data.keys() - {"rules", "preset", "start"})
    if unknown:
        raise RuleError(
            f"{path}: unknown key {', '.join(map(repr, unknown))}. The keys are rules, preset, start."
        )
    if not data.get("rules") and "preset" not in data:
        raise RuleError(
            f'{path} has no rules. Add [[rules]] with rule = "Epsilon" or another rule, or preset = "..." '
            "for the entries of a preset."
        )
    if not isinstance(data.get("preset", ""), str):
        raise RuleError(f"{path}: preset = {data['preset']!r}: give a preset's name.")
    following = preset(data["preset"]) if "preset" in data else Composite([])
    entries = []
    for number, entry in enumerate(data.get("rules", []), 1):
        try:
            entries.append(_entry(entry))
        except RuleError as error:
            raise RuleError(f"{path}, entry {number}: {error}") from None
    try:
        return Composite([*entries, *following.entries], data.get("start", following.start), file=path)
    except RuleError as error:
        raise RuleError(f"{path}: {error}") from None


def _entry(entry: Any) -> tuple[Place, Any]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("rule"), str):
        raise RuleError(f'{entry!r} has no rule: add rule = "Epsilon" or the like.')
    parameters = {key: value for key, value in entry.items() if key not in ("rule", *_CONDITIONS)}
    if "(" in entry["rule"] and not parameters:
        rule = rule_from_text(entry["rule"])
    else:
        _require_keys(entry["rule"], parameters)
        rule = _made(entry["rule"], [], parameters)
    places = [_place(name, entry[name]) for name in _CONDITIONS if name in entry]
    kinds = getattr(rule, "kinds", LINEAR | {Kind.NORMALISATION})
    if entry.get("kind", next(iter(kinds))) not in kinds:
        raise RuleError(f"{entry['rule']} is no rule for operations of the kind {entry['kind']}.")
    return reduce(and_, places) if places else EVERYWHERE, rule


def _require_keys(rule: str, parameters: Mapping[str, Any]) -> None:
    """Refuse keys that are neither a condition nor a parameter of the rule.

    Raises:
        RuleError: there is one; the conditions and the rule's parameters are listed.
    """
    known = [] if rule not in RULES else list(inspect.signature(RULES[rule]).parameters)
    for key in parameters:
        if known and key not in known and not told(key, "parameters"):
            near = did_you_mean(key, [*_CONDITIONS, *known], most=1)
            raise RuleError(
                f"unknown key {key!r}.{near} Where a rule applies is said by {', '.join(_CONDITIONS)}; "
                f"{rule} has {', '.join(known) or 'no parameters'}."
            )


def _place(name: str, value: Any) -> Place:
    if name == "first" and isinstance(value, bool):
        return First() if value else Depth(1)
    if name == "path" and isinstance(value, str):
        return AtPath(value)
    if name == "operation" and isinstance(value, str):
        return Operation(value)
    if name == "layer":
        layer = getattr(nn, value, None) if isinstance(value, str) else None
        if isinstance(layer, type) and issubclass(layer, nn.Module):
            return Layer(layer)
        raise RuleError(f'layer = {value!r} is no class of torch.nn, such as "Conv2d".')
    if name == "kind" and value in _KINDS:
        return OfKind(value)
    if name == "depth" and isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value):
        return Depth(*value)
    hints = {
        "first": "true or false",
        "path": 'a glob such as "layer4.*"',
        "operation": 'a name such as "conv2d"',
        "kind": f"one of {', '.join(_KINDS)}",
        "depth": "a pair such as [1, 6]",
    }
    raise RuleError(f"{name} = {value!r}: give {hints[name]}.")


def rule_from_text(text: str) -> PrintedRule:
    """Read a rule as it is printed, `Gamma(0.25)`, `Epsilon(epsilon=0.01)`, `ZPlus()` or `ZPlus`, or in full.

    In full it is `relprop.rules.Gamma(0.25)`, as errors write it.

    Raises:
        RuleError: the rule is unknown, or its parameters are not constants or have no meaning.
    """
    if len(text) > LONGEST_RULE:
        raise RuleError(
            f"{text[:40]!r}... is no rule: it has {len(text):,} letters. Write it as Gamma(0.25)."
        )
    try:
        call = ast.parse(text.strip().removeprefix("relprop.").removeprefix("rules."), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _no_rule(text) from None
    if isinstance(call, ast.Name):
        return _made(call.id, [], {})
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise _no_rule(text)
    try:
        positional = [ast.literal_eval(argument) for argument in call.args]
        keywords = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (TypeError, ValueError, RecursionError, MemoryError):
        raise RuleError(f"{text!r}: give plain numbers and words as the rule's parameters.") from None
    return _made(call.func.id, positional, keywords)


def _no_rule(text: str) -> RuleError:
    """The error about a text that does not have the form of a rule."""
    name = text.partition("(")[0]
    said = "" if name in RULES else told(name)
    return RuleError(f"{text!r} is no rule" + (f".{said}" if said else "; write it as Gamma(0.25)."))


def _made(name: str, positional: list[Any], keywords: Mapping[str, Any]) -> PrintedRule:
    if name not in RULES:
        said = told(name)
        if said:
            raise RuleError(f"there is no rule {name!r}.{said}")
        hint = did_you_mean(name, RULES, written=str)
        raise RuleError(f"there is no rule {name!r}.{hint} The rules are: {', '.join(RULES)}.")
    try:
        return RULES[name](*positional, **keywords)
    except RuleError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        problem = str(error).replace(f"{name}.__init__() ", "")
        raise RuleError(f"{name}: {problem.rstrip('.')}. Write it as {signature(RULES[name])}.") from None
