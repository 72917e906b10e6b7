"""Composites: which rule applies where. Presets are plain lists of (where, rule); the first match wins."""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from relprop.bounds import Bound
from relprop.errors import RuleError
from relprop.input_rules import Flat, ZBox
from relprop.linear_operations import Rule
from relprop.names import canonical_name
from relprop.provenance import Site, Slots
from relprop.rules import AlphaBeta, Epsilon, Gamma, ZPlus

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
    return site.kind == "convolution"


def dense(site: Site) -> bool:
    """Whether a site is a dense linear operation: nn.Linear or a product with a constant matrix."""
    return site.kind == "dense"


_FUNCTIONAL = {
    nn.Linear: "linear",
    **{getattr(nn, f"Conv{n}d"): f"conv{n}d" for n in (1, 2, 3)},
    **{getattr(nn, f"ConvTranspose{n}d"): f"conv_transpose{n}d" for n in (1, 2, 3)},
}


def _matches(where: Where, site: Site) -> bool:
    if isinstance(where, tuple):
        return all(_matches(part, site) for part in where)
    if isinstance(where, str):
        return site.first if where == "first" else fnmatchcase(site.path, where)
    if isinstance(where, type):
        return _FUNCTIONAL.get(where) == site.operation or any(isinstance(m, where) for m in site.modules)
    if _is_torch_function(where):
        return canonical_name(where)[0] == site.operation
    return bool(where(site))


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


def _parts(where: Where) -> tuple[Where, ...]:
    return where if isinstance(where, tuple) else (where,)


@dataclass(frozen=True)
class Composite:
    """An ordered list of (where, rule): the first entry that matches an operation gives its rule.

    Raises:
        RuleError: an entry is no pair of a place (see `Where`) and a rule.
    """

    entries: tuple[tuple[Where, Rule], ...]

    def __init__(self, entries: Iterable[tuple[Where, Rule]]) -> None:
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
                )
            if isinstance(rule, type) or not isinstance(rule, Rule):
                hint = f" Write {rule.__name__}()." if isinstance(rule, type) else ""
                raise RuleError(f"{rule!r} in a composite is no rule.{hint}")
        object.__setattr__(self, "entries", entries)

    def choose(self, site: Site) -> Rule | None:
        """Return the rule for an operation, or None if no entry matches."""
        return next((rule for where, rule in self.entries if _matches(where, site)), None)

    def places_without_match(self, paths: Collection[str]) -> list[str]:
        """Globs on module paths that match none of `paths`."""
        globs = [part for where, _ in self.entries for part in _parts(where) if isinstance(part, str)]
        return [
            g for g in globs if g not in ("first", "*") and not any(fnmatchcase(path, g) for path in paths)
        ]

    def with_bounds(self, low: Bound, high: Bound) -> "Composite":
        """Return the composite with these bounds in each `ZBox` that has none."""
        return Composite(
            (
                where,
                replace(rule, low=low, high=high) if isinstance(rule, ZBox) and rule.low is None else rule,
            )
            for where, rule in self.entries
        )

    @property
    def needs_bounds(self) -> bool:
        """Whether a `ZBox` has no bounds yet."""
        return any(isinstance(rule, ZBox) and rule.low is None for _, rule in self.entries)

    @property
    def slots(self) -> Slots:
        """Which tensors need a slot for relevance itself: those up to rules that put relevance on zeros."""
        places = [where for where, rule in self.entries if rule.puts_relevance]
        if not places:
            return "none"
        return "inputs" if all("first" in _parts(where) for where in places) else "all"


PRESETS: Mapping[str, Composite] = MappingProxyType(
    {
        # Montavon et al. 2017; the tutorial
        "deep-taylor": Composite([("first", ZBox()), ("*", ZPlus())]),
        "alpha2-beta1": Composite([("first", ZBox()), ("*", AlphaBeta(2, 1))]),
        # Bach et al. 2015
        "epsilon": Composite([("*", Epsilon(1e-6))]),
        # Kohlbrenner et al. 2020
        "epsilon-plus": Composite([(convolution, ZPlus()), ("*", Epsilon(1e-6))]),
        "epsilon-plus-flat": Composite(
            [(("first", convolution), Flat()), (convolution, ZPlus()), ("*", Epsilon(1e-6))]
        ),
        # Lapuschkin et al. 2019
        "epsilon-alpha2-beta1": Composite([(convolution, AlphaBeta(2, 1)), ("*", Epsilon(1e-6))]),
        "epsilon-alpha2-beta1-flat": Composite(
            [(("first", convolution), Flat()), (convolution, AlphaBeta(2, 1)), ("*", Epsilon(1e-6))]
        ),
        # Montavon et al. 2019
        "epsilon-gamma-box": Composite([("first", ZBox()), (convolution, Gamma(0.25)), ("*", Epsilon(1e-6))]),
    }
)
"""The composites of the literature, by name."""

DEFAULT = "epsilon-gamma-box"
DEFAULT_WITHOUT_BOUNDS = "epsilon-plus-flat"


def preset(name: str) -> Composite:
    """Return a preset by name.

    Raises:
        RuleError: there is none of this name; near matches are offered.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise RuleError(
        f"there is no preset {name!r}.{hint} The presets are: {', '.join(PRESETS)}. "
        "A single rule is an object, such as rules=relprop.Gamma(0.25)."
    )
