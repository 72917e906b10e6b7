"""The base class of places, and their combinations."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from relprop.calls.site import Site
from relprop.errors import RuleError


class Place(ABC):
    """A place in a model: a condition on the `Site` of an operation. `&`, `|` and `~` combine places.

    Attributes:
        is_about_operations: whether the place selects by the operation itself, and not only by its position.
    """

    is_about_operations: ClassVar[bool] = False

    @property
    def within_first(self) -> bool:
        """Whether the place matches first operations only, which no linear operation precedes."""
        return False

    @abstractmethod
    def __call__(self, site: Site) -> bool:
        """Whether the place matches a site."""

    def names(self, site: Site) -> bool:
        """Whether the place matches a site by its operation.

        A rule for linear operations applies to a normalisation that is not folded, such as a batch norm
        before a ReLU, only if its place names the normalisation.
        """
        return self.is_about_operations and self(site)

    def __bool__(self) -> bool:
        raise RuleError("a place is no yes or no: join places by & (and), | (or) and ~ (not), not by words.")

    def __and__(self, other: object) -> "Place":
        return And(self, _operand(other, "&"))

    def __or__(self, other: object) -> "Place":
        return Or(self, _operand(other, "|"))

    def __rand__(self, other: object) -> "Place":
        return And(_operand(other, "&"), self)

    def __ror__(self, other: object) -> "Place":
        return Or(_operand(other, "|"), self)

    def __invert__(self) -> "Place":
        return Not(self)


def _operand(other: object, sign: str) -> Place:
    if isinstance(other, Place):
        return other
    raise RuleError(
        f"{other!r} is no place, and {sign} joins places: write Path('layer4.*'), Layer(nn.Conv2d), "
        "Operation(F.conv2d), Kind('sum'), Depth(1, 6), First() or Where(function), of relprop.places."
    )


@dataclass(frozen=True)
class And(Place):
    """Both of two places."""

    one: Place
    other: Place

    @property
    def within_first(self) -> bool:
        return self.one.within_first or self.other.within_first

    def __call__(self, site: Site) -> bool:
        return self.one(site) and self.other(site)

    def names(self, site: Site) -> bool:
        return self(site) and (self.one.names(site) or self.other.names(site))

    def __str__(self) -> str:
        return f"{_in_brackets(self.one, Or)} and {_in_brackets(self.other, Or)}"


@dataclass(frozen=True)
class Or(Place):
    """One of two places, or both."""

    one: Place
    other: Place

    @property
    def within_first(self) -> bool:
        return self.one.within_first and self.other.within_first

    def __call__(self, site: Site) -> bool:
        return self.one(site) or self.other(site)

    def names(self, site: Site) -> bool:
        return self.one.names(site) or self.other.names(site)

    def __str__(self) -> str:
        return f"{self.one} or {self.other}"


@dataclass(frozen=True)
class Not(Place):
    """Everywhere but in a place."""

    place: Place

    def __call__(self, site: Site) -> bool:
        return not self.place(site)

    def __str__(self) -> str:
        return f"not {_in_brackets(self.place, (And, Or))}"


def _in_brackets(place: Place, kinds: type | tuple[type, ...]) -> str:
    return f"({place})" if isinstance(place, kinds) else str(place)
