"""The places: by the position of an operation in the model, and by the operation itself."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType, UnionType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from torch._ops import OpOverload, OpOverloadPacket

from relprop.calls import site as sites
from relprop.calls.names import name_of
from relprop.calls.site import Site
from relprop.errors import RuleError
from relprop.places.place import Place


@dataclass(frozen=True)
class First(Place):
    """Operations that no linear operation precedes on the way from the explained inputs."""

    @property
    def within_first(self) -> bool:
        return True

    def __call__(self, site: Site) -> bool:
        return site.depth == 0

    def __str__(self) -> str:
        return "first"


@dataclass(frozen=True)
class Path(Place):
    """Operations in modules whose path matches a glob, such as "layer4.*". "*" matches everywhere.

    The path is that of the innermost module that runs, as in `named_modules` of the explained model.

    Raises:
        RuleError: the glob is not a text.
    """

    glob: str

    def __post_init__(self) -> None:
        if not isinstance(self.glob, str):
            raise RuleError(f"Path({self.glob!r}): give a glob on module paths, such as 'layer4.*'.")

    def __call__(self, site: Site) -> bool:
        return self.glob == "*" or fnmatchcase(site.path, self.glob)

    def __str__(self) -> str:
        return f'"{self.glob}"'


@dataclass(frozen=True, eq=False)
class Layer(Place):
    """Operations within modules of a class, or within one module.

    A class of torch's linear layers matches their functions too: `Layer(nn.Conv2d)` matches every call of
    `F.conv2d`.

    Raises:
        RuleError: neither a class of modules nor a module is given.
    """

    layer: type[nn.Module] | nn.Module
    is_about_operations: ClassVar[bool] = True

    def __post_init__(self) -> None:
        layer: Any = self.layer
        if not isinstance(layer, nn.Module) and not (
            isinstance(layer, type) and issubclass(layer, nn.Module)
        ):
            raise RuleError(
                f"Layer({layer!r}): give a class of modules, such as nn.Conv2d, or a module of the model."
            )

    def __call__(self, site: Site) -> bool:
        if isinstance(self.layer, nn.Module):
            layer = sites.original(self.layer)
            return any([module is layer for module in site.modules])
        named = _FUNCTIONS.get(self.layer) == site.operation
        return named or any([isinstance(module, self.layer) for module in site.modules])

    def names(self, site: Site) -> bool:
        # One module is a part of the model, as a path is.
        return not isinstance(self.layer, nn.Module) and self(site)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layer) and self.layer is other.layer

    def __hash__(self) -> int:
        return hash((Layer, id(self.layer)))

    def __str__(self) -> str:
        if isinstance(self.layer, type):
            return self.layer.__name__
        return f"this {type(self.layer).__name__}"


@dataclass(frozen=True)
class Operation(Place):
    """Operations of one name, in every spelling: `Operation("conv2d")` or `Operation(F.conv2d)`.

    Attributes:
        operation: the name in torch's documentation, also if a function is given.

    Raises:
        RuleError: neither a name nor a function of torch is given.
    """

    operation: str
    is_about_operations: ClassVar[bool] = True

    def __init__(self, operation: str | Callable[..., Any]) -> None:
        if not isinstance(operation, str) and not is_of_torch(operation):
            raise RuleError(
                f"Operation({operation!r}): give a function of torch, such as F.conv2d, or a name."
            )
        name = operation if isinstance(operation, str) else name_of(operation)
        object.__setattr__(self, "operation", name)

    def __call__(self, site: Site) -> bool:
        return site.operation == self.operation

    def __str__(self) -> str:
        return f"the operation {self.operation}"


@dataclass(frozen=True)
class Kind(Place):
    """Operations of a kind: "convolution", "dense", "product", "sum", "max-pool", "normalisation".

    A dense operation is `nn.Linear` or another product with a constant matrix. A convolution may have any
    dimension, and may be transposed. Entries that users register can have a kind of their own.

    Raises:
        RuleError: the kind is not a text.
    """

    kind: str
    is_about_operations: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str):
            raise RuleError(f"Kind({self.kind!r}): give one of {', '.join(map(repr, map(str, sites.Kind)))}.")

    def __call__(self, site: Site) -> bool:
        return site.kind == self.kind

    def __str__(self) -> str:
        return f"of the kind {self.kind}"


@dataclass(frozen=True)
class Depth(Place):
    """Operations that `low` to `high` linear operations precede. Without `high` there is no upper limit.

    Raises:
        RuleError: the numbers are not integers with 0 ≤ low ≤ high.
    """

    low: int
    high: int | None = None

    def __post_init__(self) -> None:
        low, high = self.low, self.high
        if type(low) is not int or low < 0 or (high is not None and (type(high) is not int or high < low)):
            raise RuleError(
                f"Depth({low!r}, {high!r}): give the smallest number of linear operations before it, 0 or "
                "more, and the largest."
            )

    @property
    def within_first(self) -> bool:
        return self.high == 0

    def __call__(self, site: Site) -> bool:
        return self.low <= site.depth and (self.high is None or site.depth <= self.high)

    def __str__(self) -> str:
        if self == Depth(1):
            return "not first"
        if self.high is None:
            return f"depth {self.low} or more"
        return f"depth {self.low}" if self.low == self.high else f"depth {self.low} to {self.high}"


@dataclass(frozen=True)
class Perceptron(Place):
    """The dense operations of a multilayer perceptron.

    Nothing but dense operations, pointwise functions, sums, batch norm and what moves values lies between
    them and the explained inputs: no convolution, attention, product, or normalisation of a sample.
    """

    is_about_operations: ClassVar[bool] = True

    def __call__(self, site: Site) -> bool:
        return site.kind == sites.Kind.DENSE and site.plain

    def __str__(self) -> str:
        return "of a multilayer perceptron"


@dataclass(frozen=True)
class FeedForward(Place):
    """Dense operations of a transformer's feed-forward layers, by the names of their modules.

    One part of the path is a usual name of such layers ("mlp", "ffn", "intermediate", "fc1", "output", ...),
    and no part is a name of attention.
    """

    is_about_operations: ClassVar[bool] = True

    def __call__(self, site: Site) -> bool:
        parts = site.path.split(".")
        return (
            site.kind == sites.Kind.DENSE
            and any(_FEED_FORWARD.fullmatch(part) for part in parts)
            and not any(_ATTENTION.search(part) for part in parts)
        )

    def __str__(self) -> str:
        return "feed-forward"


@dataclass(frozen=True)
class Where(Place):
    """Operations whose `Site` a function accepts: `Where(lambda site: site.depth % 2 == 0)`.

    Raises:
        RuleError: the function cannot be called.
    """

    function: Callable[[Site], bool]
    is_about_operations: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise RuleError(
                f"Where({self.function!r}): give a function that takes a site (relprop.places.Site)."
            )

    def __call__(self, site: Site) -> bool:
        return bool(self.function(site))

    def __str__(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


def as_place(where: Any) -> Place:
    """Return the place that a user gives in a composite.

    A text is a `Path`, a class of modules or a module is a `Layer`, a function of torch an `Operation`, and
    any other function a `Where`.

    Raises:
        RuleError: the value is of another kind.
    """
    if isinstance(where, Place):
        return where
    if isinstance(where, str):
        return Path(where)
    if isinstance(where, nn.Module) or (isinstance(where, type) and issubclass(where, nn.Module)):
        return Layer(where)
    if isinstance(where, type) and issubclass(where, Place):
        raise RuleError(f"{where.__name__} in a composite is a class of places. Write {where.__name__}(...).")
    if is_of_torch(where):
        return Operation(where)
    if callable(where) and not isinstance(where, type):
        return Where(where)
    joined = ""
    if isinstance(where, (tuple, list, UnionType)):
        joined = (
            " Places are joined by & (both) and | (either): First() & Kind('convolution'), "
            "Layer(nn.Conv1d) | Layer(nn.Conv2d)."
        )
    raise RuleError(
        f"{where!r} in a composite is no place.{joined} Give a path such as 'layer4.*', a class of modules "
        "such as nn.Conv2d, a module of the model, a function of torch, or a place of relprop.places, such "
        "as First()."
    )


def is_of_torch(function: Any) -> bool:
    """Whether an object is a function of torch, by which an operation can be named."""
    if isinstance(function, (OpOverload, OpOverloadPacket)):
        return True
    name = getattr(function, "__name__", "")
    for prefix, owner in (("linalg_", torch.linalg), ("special_", torch.special), ("fft_", torch.fft)):
        if getattr(owner, name.removeprefix(prefix), None) is function:
            return True
    return any([getattr(owner, name, None) is function for owner in (F, torch, torch.Tensor, operator)])


_FUNCTIONS: Mapping[type[nn.Module], str] = MappingProxyType(
    {
        nn.Linear: "linear",
        **{getattr(nn, f"Conv{n}d"): f"conv{n}d" for n in (1, 2, 3)},
        **{getattr(nn, f"ConvTranspose{n}d"): f"conv_transpose{n}d" for n in (1, 2, 3)},
    }
)

_FEED_FORWARD = re.compile(
    r"mlp|ffn|feed_?forward|intermediate|fc_?[12]|lin(ear)?_?[12]|dense_h_to_4h|dense_4h_to_h|w[io](_\d)?"
    r"|(gate|up|down|gate_up)_proj|experts?|output"
)
_ATTENTION = re.compile(r"att(entio)?n", re.IGNORECASE)
