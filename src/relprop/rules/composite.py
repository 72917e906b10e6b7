"""Composites: which rule applies where. An ordered list of (where, rule); the first match wins."""

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path as File
from typing import Any, Literal, TypeGuard

from torch import nn

from relprop.calls.site import LINEAR, Kind, Site, Slots
from relprop.errors import RuleError
from relprop.places import Path, Place, as_place
from relprop.rules.bounds import Bound
from relprop.rules.elsewhere import told_of
from relprop.rules.first_layer import ZBox
from relprop.rules.other import NonlinearRule
from relprop.rules.rule import Rule

PlaceLike = Place | str | type[nn.Module] | nn.Module | Callable[..., Any]
"""Where a rule applies: a place of `relprop.places`, or what stands for one (see `as_place` there)."""

Entry = tuple[Place, Rule | NonlinearRule]
"""A place and the rule that applies there."""

EVERYWHERE = Path("*")

_INSERTED = " Entries of a preset are inserted by *: [(where, rule), *relprop.PRESETS['epsilon'].entries]."


def concerns(where: Place, rule: Rule | NonlinearRule, site: Site) -> bool:
    """Whether an entry is about a site: about operations of its kind, and about its place."""
    kinds = getattr(rule, "kinds", LINEAR)
    if site.kind in kinds:
        return where(site)
    # A rule for linear operations serves a normalisation that an entry names.
    return kinds == LINEAR and site.kind == Kind.NORMALISATION and where.names(site)


def _place(where: Any) -> Place:
    """The place of an entry; what another library has for one is told."""
    try:
        return as_place(where)
    except RuleError as error:
        raise RuleError(f"{error}{told_of(where)}") from None


def lacks_of(rule: Any) -> str:
    """What a function or object lacks to be a rule, as the end of a message."""
    if not callable(rule) or hasattr(rule, "puts_relevance"):
        return ""
    return (
        " A rule has an attribute puts_relevance: True if it may put relevance on inputs that are zero, "
        "False if it returns only a coefficient (docs/own-rules.md)."
    )


def _lacks_bounds(rule: Rule | NonlinearRule) -> TypeGuard[ZBox]:
    return isinstance(rule, ZBox) and rule.low is None


@dataclass(frozen=True)
class Composite:
    """An ordered list of (where, rule). The first entry that matches an operation gives its rule.

    Args:
        entries: the list. `where` is a place of `relprop.places`, or a path, class, module or function that
            stands for one (`relprop.places.as_place`). Rules for products, sums and max-pooling
            (`relprop.rules.other`) apply to operations of their kind only.
        start: relevance starts from "score", the explained score itself, or from "one".
        file: the file that the entries come from, for errors.

    Raises:
        RuleError: an entry is not a pair of a place and a rule, or `start` is unknown.
    """

    entries: tuple[Entry, ...]
    start: Literal["score", "one"] = "score"
    file: File | None = field(default=None, compare=False, repr=False)

    def __init__(
        self,
        entries: Iterable[tuple[PlaceLike, Rule | NonlinearRule]],
        start: Literal["score", "one"] = "score",
        *,
        file: File | None = None,
    ) -> None:
        checked: list[Entry] = []
        if not isinstance(entries, Iterable):
            raise RuleError(
                f"Composite({entries!r}): give a list of pairs (where, rule), such as [(First(), Flat()), "
                '("*", Epsilon())].'
            )
        for entry in entries:
            if not (isinstance(entry, tuple) and len(entry) == 2):
                given = f"{entries!r}" if isinstance(entries, (str, Mapping)) else f"{entry!r}"
                raise RuleError(
                    f"a composite's entry is a pair (where, rule), such as (First(), Flat()); got {given}."
                    + (_INSERTED if isinstance(entry, str) else "")
                )
            where, rule = entry
            if isinstance(where, (Rule, NonlinearRule)) and isinstance(rule, (str, Place)):
                raise RuleError(f"{entry!r}: first comes the place, then the rule: ({rule!r}, {where!r}).")
            place = _place(where)
            if isinstance(rule, type) or not isinstance(rule, (Rule, NonlinearRule)):
                hint = f" Write {rule.__name__}()." if isinstance(rule, type) else lacks_of(rule)
                raise RuleError(f"{rule!r} in a composite is no rule.{told_of(rule) or hint}")
            checked.append((place, rule))
        if start not in ("score", "one"):
            raise RuleError(f"a composite's start={start!r}: give 'score' or 'one'.")
        object.__setattr__(self, "entries", tuple(checked))
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "file", file)

    def choose(self, site: Site) -> Rule | NonlinearRule | None:
        """Return the rule for an operation, or None if no entry matches."""
        return next((rule for where, rule in self.entries if concerns(where, rule, site)), None)

    @property
    def unmatched(self) -> str:
        """What to say of an operation that no entry matches."""
        if self.file is None:
            return "no entry of the composite matches; end it with ('*', Epsilon()) or the like"
        last = '{"rule": "Epsilon"}' if self.file.suffix == ".json" else '[[rules]] and rule = "Epsilon"'
        return f"no entry of {self.file} matches; end its rules with {last} or the like"

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
        return "inputs" if all(where.within_first for where in places) else "all"
