"""What other libraries and papers call rules, composites and arguments, and what it is called here.

An error about a name that is not known here asks `told` first, and offers near matches only where nobody else
has the name. No other library is imported.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from relprop.rules.elsewhere_names import Here

Kind = Literal["names", "arguments", "parameters"]
"""Names of rules, composites, classes and functions; keyword arguments of what explains; those of rules."""

ALSO_OF_MODELS = frozenset(
    {"alpha", "beta", "efficient", "epsilon", "gamma", "high", "inputs", "layer", "low", "verbose"}
)
"""Arguments that a model may well have itself: where it takes any keyword, they are its own."""

_LETTERS = str.maketrans(
    {
        "ε": "epsilon",
        "γ": "gamma",
        "α": "alpha",
        "β": "beta",
        "⁺": "plus",
        "+": "plus",
        "²": "square",
        "ᴮ": "b",
    }
)


def told(name: str, kind: Kind = "names", library: str = "") -> str:
    """Say what a name of another library is here: " captum's EpsilonRule is ... here.", or nothing.

    Case, hyphens, underscores and dots do not matter. Who spells it as it was given goes first, then papers.

    Args:
        name: as it was given.
        kind: what it is a name of.
        library: whose name it is, where that is known.
    """
    plain = plainly(name)
    found = [entry for entry in _entries(kind, library) if plainly(entry[1]) == plain]
    as_given = [entry for entry in found if entry[1] == name]
    of_papers = [(owner, name, here) for owner, _, here in found if owner == "literature"]
    owners: dict[Here, dict[str, str]] = {}
    for owner, spelled, here in as_given or of_papers or found:
        owners.setdefault(here, {}).setdefault(owner, spelled)
    return "".join(f" {_sentence(whose, here, kind)}" for here, whose in owners.items())


def told_of(value: Any) -> str:
    """Say what an object or class of another library is here, as `told`; nothing of all others."""
    for cls in (value if isinstance(value, type) else type(value)).__mro__:
        library = _BY_MODULE.get(cls.__module__.partition(".")[0])
        if library is not None:
            said = told(cls.__name__, library=library) or told(cls.__name__, library="literature")
            return said or f" It is of {library}: docs/coming-from.md has what its names are here."
    return ""


def no_attribute(module: str, name: str) -> AttributeError | ImportError:
    """The error about an attribute that a module does not have, for that module's `__getattr__` to raise.

    `from module import name` asks whether there is such an attribute, and lets the text of an AttributeError
    fall. There the answer is an ImportError.
    """
    from importlib.util import find_spec

    said = told(name) if name.isidentifier() else ""
    if not said or find_spec(f"{module}.{name}") is not None:  # or a module that is yet to be imported
        # From these two tracebacks find near matches.
        return AttributeError(
            f"module {module!r} has no attribute {name!r}", name=name, obj=sys.modules.get(module)
        )
    asking = sys._getframe(2)  # who asked the module's `__getattr__`
    if asking.f_code.co_name == "_handle_fromlist":
        return ImportError(f"cannot import name {name!r} from {module!r}.{said}", name=module)
    return AttributeError(f"module {module!r} has no attribute {name!r}.{said}")


def plainly(name: str) -> str:
    """A name without case, hyphens, underscores and dots, with letters written out."""
    return re.sub(r"[\W_]", "", name.lower().translate(_LETTERS))


def _entries(kind: Kind, library: str = "") -> Iterator[tuple[str, str, "Here"]]:
    """Library, name and what it is here."""
    from relprop.rules.elsewhere_names import LIBRARIES  # which only errors need

    for owner, lists in LIBRARIES.items():
        if library in ("", owner):
            listed: Mapping[str, Here] = getattr(lists, kind)
            yield from ((owner, name, here) for names, here in listed.items() for name in names.split())


def _sentence(spelled: Mapping[str, str], here: "Here", kind: Kind) -> str:
    """What the owners' spellings of a name are here."""
    name = next(iter(spelled.values()))
    whose = " and ".join(f"{owner}'s" for owner in spelled if owner != "literature")
    named = f"{whose} {name}".strip() + ("" if kind == "names" else "=")
    ending = f": {here.note}." if here.note else "."
    return (
        f"{named} is {here.typed} here{ending}" if here.typed else f"{named} has no counterpart here{ending}"
    )


_BY_MODULE = {"zennit": "zennit", "captum": "captum", "innvestigate": "innvestigate", "lxt": "LXT"}
