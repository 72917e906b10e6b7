"""Composites: which rule applies where. An ordered list of (where, rule); the first match wins."""

import re
from collections.abc import Callable, Collection, Iterable
from copy import copy
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeGuard

import torch
import torch.nn.functional as F
from torch import nn

from relprop.calls.names import name_of
from relprop.calls.site import LINEAR, Kind, Site, Slots
from relprop.errors import RuleError
from relprop.rules.bounds import Bound
from relprop.rules.elsewhere import told_of
from relprop.rules.first_layer import ZBox
from relprop.rules.other import NonlinearRule
from relprop.rules.rule import Rule

Where = str | type[nn.Module] | Callable[..., Any] | tuple["Where", ...]
"""Where a rule applies:

- "first": linear operations that no other linear operation precedes, on the way from the explained inputs;
- any other string: a glob on the path of the module that runs, such as "layer4.*" ("*" is everything);
- a module class: operations inside such a module; for layers also their functional form (nn.Conv2d means
  F.conv2d);
- a torch function: that operation, however it is spelled;
- any other callable: a predicate on the `Site`;
- a tuple of these: all of them.
"""


def convolution(site: Site) -> bool:
    """Whether a site is a convolution, of any dimension, transposed or not."""
    return site.kind == Kind.CONVOLUTION


def dense(site: Site) -> bool:
    """Whether a site is a dense linear operation: nn.Linear or a product with a constant matrix."""
    return site.kind == Kind.DENSE


_FEED_FORWARD = re.compile(
    r"mlp|ffn|feed_?forward|intermediate|fc_?[12]|lin(ear)?_?[12]|dense_h_to_4h|dense_4h_to_h|w[io](_\d)?"
    r"|(gate|up|down|gate_up)_proj|experts?|output"
)
_ATTENTION = re.compile(r"att(entio)?n", re.IGNORECASE)


def feed_forward(site: Site) -> bool:
    """Whether a site is a dense operation of a transformer's feed-forward layers, by its modules' names.

    One part of the path is what such layers are called ("mlp", "ffn", "intermediate", "fc1", "output", ...),
    and none is called an attention.
    """
    parts = site.path.split(".")
    return (
        site.kind == Kind.DENSE
        and any(_FEED_FORWARD.fullmatch(part) for part in parts)
        and not any(_ATTENTION.search(part) for part in parts)
    )


_FUNCTIONAL = {
    nn.Linear: "linear",
    **{getattr(nn, f"Conv{n}d"): f"conv{n}d" for n in (1, 2, 3)},
    **{getattr(nn, f"ConvTranspose{n}d"): f"conv_transpose{n}d" for n in (1, 2, 3)},
}


@dataclass(frozen=True)
class Depth:
    """A place: operations that this many linear operations precede, `low` to `high`; without end for None."""

    low: int
    high: int | None = None

    def __call__(self, site: Site) -> bool:
        """Whether a site lies there."""
        return self.low <= site.depth and (self.high is None or site.depth <= self.high)


@dataclass(frozen=True)
class OfKind:
    """A place: operations of a kind, such as "normalisation"."""

    kind: str

    def __call__(self, site: Site) -> bool:
        """Whether a site is of the kind."""
        return site.kind == self.kind


@dataclass(frozen=True)
class Named:
    """A place: operations of a name, such as "conv2d"."""

    operation: str

    def __call__(self, site: Site) -> bool:
        """Whether a site has this operation."""
        return site.operation == self.operation


def _matches(where: Where, site: Site) -> bool:
    if isinstance(where, tuple):
        return all(_matches(part, site) for part in where)
    if isinstance(where, str):
        return where == "*" or (site.first if where == "first" else fnmatchcase(site.path, where))
    if isinstance(where, type):
        return _FUNCTIONAL.get(where) == site.operation or any(isinstance(m, where) for m in site.modules)
    if _is_torch_function(where):
        return name_of(where) == site.operation
    return bool(where(site))


def _concerns(where: Where, rule: Rule | NonlinearRule, site: Site) -> bool:
    """Whether an entry is about a site: about operations of its kind, and about its place."""
    kinds = getattr(rule, "kinds", LINEAR)
    if site.kind in kinds:
        return _matches(where, site)
    if kinds != LINEAR or site.kind != Kind.NORMALISATION:
        return False
    # A rule for linear operations serves a normalisation that an entry names.
    named = any(isinstance(part, (type, OfKind, Named)) or _is_torch_function(part) for part in _parts(where))
    return named and _matches(where, site)


def _is_place(where: Any) -> bool:
    if isinstance(where, tuple):
        return bool(where) and all(_is_place(part) for part in where)
    return isinstance(where, str) or (
        callable(where) and (not isinstance(where, type) or issubclass(where, nn.Module))
    )


def _is_torch_function(where: Any) -> bool:
    return any(
        getattr(owner, getattr(where, "__name__", ""), None) is where for owner in (F, torch, torch.Tensor)
    )


def lacks_of(rule: Any) -> str:
    """What a function or object lacks to be a rule, as the end of a message."""
    if not callable(rule) or hasattr(rule, "puts_relevance"):
        return ""
    return (
        " A rule says by an attribute puts_relevance whether it puts relevance on inputs that may be zero; "
        "False where it returns a coefficient alone (docs/own-rules.md)."
    )


def _lacks_bounds(rule: Rule | NonlinearRule) -> TypeGuard[ZBox]:
    return isinstance(rule, ZBox) and rule.low is None


def _parts(where: Where) -> tuple[Where, ...]:
    return where if isinstance(where, tuple) else (where,)


@dataclass(frozen=True)
class Composite:
    """An ordered list of (where, rule): the first entry that matches an operation gives its rule.

    Args:
        entries: the list. Rules for other than linear operations (`relprop.rules.other`) concern
            operations of their kind only.
        start: what relevance starts from: "score", the explained score itself, or "one".
        file: where the entries stand, for errors.

    Raises:
        RuleError: an entry is no pair of a place (see `Where`) and a rule.
    """

    entries: tuple[tuple[Where, Rule | NonlinearRule], ...]
    start: Literal["score", "one"] = "score"
    file: Path | None = field(default=None, compare=False, repr=False)

    def __init__(
        self,
        entries: Iterable[tuple[Where, Rule | NonlinearRule]],
        start: Literal["score", "one"] = "score",
        *,
        file: Path | None = None,
    ) -> None:
        entries = tuple(entries)
        for entry in entries:
            if not (isinstance(entry, tuple) and len(entry) == 2):
                raise RuleError(
                    f"a composite's entry is a pair (where, rule), such as ('first', Flat()); got {entry!r}."
                )
            where, rule = entry
            if not _is_place(where):
                raise RuleError(
                    f"{where!r} in a composite is no place: give 'first', a glob on module paths, a module "
                    "class, a torch function, a predicate on the site, or a tuple of these."
                    + "".join(told_of(part) for part in _parts(where))
                )
            if isinstance(rule, type) or not isinstance(rule, (Rule, NonlinearRule)):
                hint = f" Write {rule.__name__}()." if isinstance(rule, type) else lacks_of(rule)
                raise RuleError(f"{rule!r} in a composite is no rule.{told_of(rule) or hint}")
        if start not in ("score", "one"):
            raise RuleError(f"a composite's start={start!r}: give 'score' or 'one'.")
        object.__setattr__(self, "entries", entries)
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "file", file)

    def choose(self, site: Site) -> Rule | NonlinearRule | None:
        """Return the rule for an operation, or None if no entry matches."""
        return next((rule for where, rule in self.entries if _concerns(where, rule, site)), None)

    @property
    def unmatched(self) -> str:
        """What to say of an operation that no entry matches."""
        if self.file is None:
            return "no entry of the composite matches; end it with ('*', Epsilon()) or the like"
        last = '{"rule": "Epsilon"}' if self.file.suffix == ".json" else '[[rules]] and rule = "Epsilon"'
        return f"no entry of {self.file} matches; end its rules with {last} or the like"

    def places_without_match(self, paths: Collection[str]) -> list[str]:
        """Globs on module paths that match none of `paths`."""
        globs = [part for where, _ in self.entries for part in _parts(where) if isinstance(part, str)]
        return [
            g for g in globs if g not in ("first", "*") and not any(fnmatchcase(path, g) for path in paths)
        ]

    def operations_without_match(self, operations: Collection[str]) -> list[str]:
        """Names of operations, from files or as torch functions, that are none of `operations`."""
        parts = [part for where, _ in self.entries for part in _parts(where)]
        named = [
            part.operation if isinstance(part, Named) else name_of(part)
            for part in parts
            if not isinstance(part, (str, type, tuple))
            and (isinstance(part, Named) or _is_torch_function(part))
        ]
        return [name for name in dict.fromkeys(named) if name not in operations]

    def with_bounds(self, low: Bound, high: Bound) -> "Composite":
        """Return the composite with these bounds in each `ZBox` that has none."""
        entries = tuple(
            [
                (where, replace(rule, low=low, high=high) if _lacks_bounds(rule) else rule)
                for where, rule in self.entries
            ]
        )
        bounded = copy(self)  # whose entries were checked already
        object.__setattr__(bounded, "entries", entries)
        return bounded

    @property
    def needs_bounds(self) -> bool:
        """Whether a `ZBox` has no bounds yet."""
        return any([_lacks_bounds(rule) for _, rule in self.entries])

    @property
    def slots(self) -> Slots:
        """Which tensors need a slot for relevance itself: those up to rules that put relevance on zeros."""
        places = [where for where, rule in self.entries if rule.puts_relevance]
        if not places:
            return "none"
        return "inputs" if all("first" in _parts(where) for where in places) else "all"
