"""What a composite chooses in one run, and which of its entries match nothing there."""

import difflib
from collections.abc import Iterator
from typing import Any

from relprop.calls.site import LINEAR, Site
from relprop.places import Kind, Operation, Path, Place
from relprop.rules.composite import EVERYWHERE, Composite, concerns
from relprop.rules.other import NonlinearRule
from relprop.rules.presets import PLACES_OF_PRESETS
from relprop.rules.rule import Rule


class Choosing:
    """What a composite chooses in one run: a rule for each site, for which its places are asked once.

    It remembers where, to report entries that match nothing.

    Args:
        composite: it gives the rules.
    """

    def __init__(self, composite: Composite) -> None:
        self.composite = composite
        self._chosen: dict[tuple[Any, ...], tuple[Site, Rule | NonlinearRule | None]] = {}

    def __call__(self, site: Site) -> Rule | NonlinearRule | None:
        """The rule for an operation, or None if no entry matches."""
        key = (site.path, site.operation, site.kind, site.depth, site.plain, site.modules)
        if key not in self._chosen:
            self._chosen[key] = site, self.composite.choose(site)
        return self._chosen[key][1]

    @property
    def depth(self) -> int:
        """The number of linear operations on the longest way through the model."""
        return max([site.depth + 1 for site, _ in self._chosen.values() if site.kind in LINEAR], default=0)

    def idle(self) -> Iterator[str]:
        """Say of each entry that has no effect why, with what is near to it.

        An entry for everything is none of them, unless another one precedes it.
        """
        sites = [site for site, _ in self._chosen.values()]
        taken: set[frozenset[str]] = set()
        for where, rule in self.composite.entries:
            kinds = frozenset(getattr(rule, "kinds", LINEAR))
            if any(where is place for place in PLACES_OF_PRESETS):  # which are for any model
                pass
            elif kinds in taken:
                yield f"({where}, {rule}) stands behind an entry for everything, which matches first."
            elif where != EVERYWHERE and not any(concerns(where, rule, site) for site in sites):
                yield f"({where}, {rule}) {_nothing(where, rule, sites)}"
            if where == EVERYWHERE:
                taken.add(kinds)


def _nothing(where: Place, rule: Rule | NonlinearRule, sites: list[Site]) -> str:
    kinds = getattr(rule, "kinds", LINEAR)
    of_rule = [site for site in sites if site.kind in kinds]
    if isinstance(where, Path):
        paths = sorted({site.path for site in of_rule})
        if any(path.startswith(f"{where.glob}.") for path in paths):
            return f"matches the module alone, and not what is in it. Write '{where.glob}.*'."
        return (
            f"matches no module with an operation that {type(rule).__name__} is for{_near(where.glob, paths)}"
        )
    if isinstance(where, Operation):
        names = sorted({site.operation for site in sites})
        folded = " (one that is folded into a linear operation has no rule of its own)"
        return (
            f"matches no operation that got a rule{folded if where.operation.endswith('_norm') else ''}"
            f"{_near(where.operation, names)}"
        )
    matched = sorted({str(site.kind) for site in sites if where(site)})
    if matched:
        return f"matches {' and '.join(matched)} operations alone, which {type(rule).__name__} is not for."
    if isinstance(where, Kind):
        return f"matches no operation of this model{_near(where.kind, sorted({str(s.kind) for s in sites}))}"
    return (
        "matches no operation of this model (what is folded into a linear operation has no rule of its own)."
    )


def _near(name: str, known: list[str]) -> str:
    if name == "first":
        return ". The first layer is relprop.places.First()."
    near = [each for each in difflib.get_close_matches(name, known, n=3, cutoff=0.3) if each]
    if near:
        return f"; near it are {', '.join(map(repr, near))}."
    listed = [repr(each) for each in known if each][:6]
    return f"; there are {', '.join(listed)}." if listed else "."
