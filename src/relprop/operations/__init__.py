"""The operation table: how relevance crosses each operation, one line an operation, one file a family.

An operation has a rule in the table, or is declared exact under the plain gradient. The keys are the names of
operations in aten. A composite operation without an entry is decomposed by torch. Any other operation on
relevant tensors is an error that lists it.
"""

from collections.abc import Mapping

import torch

from relprop.calls.names import aten_names
from relprop.calls.site import Kind
from relprop.crossing.exact import Exact
from relprop.crossing.ruled import start
from relprop.engine.interception import Entry
from relprop.errors import InputError, did_you_mean
from relprop.linear.maps import LinearMap
from relprop.operations import (
    arithmetic,
    attention,
    bags,
    contractions,
    deformable,
    linear,
    normalisation,
    pointwise,
    pooling,
    products,
    recurrent,
    resampling,
    reshaping,
    softmax,
    sparse,
    writing,
)
from relprop.operations.declared import WORDS, Gate
from relprop.operations.pointwise import Homogeneous, Secant
from relprop.operations.whole import declare, is_whole

__all__ = [
    "FAMILIES",
    "TABLE",
    "WORDS",
    "Exact",
    "Gate",
    "Homogeneous",
    "Kind",
    "LinearMap",
    "Secant",
    "register",
    "start",
]

FAMILIES: dict[str, Mapping[str, Entry]] = {
    "linear, by a rule of the composite": {**linear.TABLE, **contractions.TABLE, **deformable.TABLE},
    "pointwise": pointwise.TABLE,
    "sums, products with constants": arithmetic.TABLE,
    "products of activations, by a rule of their own": products.TABLE,
    "attention, as the products in it": attention.TABLE,
    "normalisation": normalisation.TABLE,
    "softmax": softmax.TABLE,
    "pooling": pooling.TABLE,
    "recurrent layers and cells, step by step": recurrent.TABLE,
    "embedding bags, as the lookup and the pooling in them": bags.TABLE,
    "resampling": resampling.TABLE,
    "rearranging": reshaping.TABLE,
    "writing to parts of a tensor": writing.TABLE,
    "sparse matrices that depend on the input, as dense ones": sparse.TABLE,
}

TABLE: dict[str, Entry] = {name: entry for family in FAMILIES.values() for name, entry in family.items()}
"""Entries by the name of the operation in aten."""


def register(name: str | type, entry: Entry | str) -> None:
    """Say how relevance crosses an operation, for the whole process.

    Args:
        name: as error messages print it: "cumsum" for torch.cumsum, Tensor.cumsum and Tensor.cumsum_, or
            "mylib::op" for an operation of another library. If no operation of the library is loaded, the
            name is taken as it is, because the library may be loaded later. Or the class of an autograd
            function or of a module, which then counts as one operation.
        entry: "pointwise", "linear", "identity", "product", "constant", or an entry such as `Gate("mask")`
            or `Exact()`: see docs/own-rules.md.

    Raises:
        InputError: the name is empty, has an overload, or is that of no operation, of torch or of a library
            that is loaded; the word is unknown, or the entry cannot be called.
    """
    _registered.append(name)
    if is_whole(name):
        declare(name, _entry_of(name.__name__, entry))  # type: ignore[arg-type, union-attr]
        return
    if not isinstance(name, str) or not name or "." in name:
        raise InputError(
            f"register({name!r}, ...): give the name of an operation as errors print it, without an "
            "overload: 'cumsum', or 'mylib::op' for one of another library. Or give the class of an autograd "
            "function or of a module."
        )
    name = name.removeprefix("aten::")  # torch's own operations have no other library
    names = aten_names(name)
    if "::" not in name and not any(each in TABLE or hasattr(torch.ops.aten, each) for each in names):
        raise InputError(
            f"register({name!r}, ...): torch has no operation of this name; give it as errors print it."
            f"{did_you_mean(name, TABLE)}"
        )
    library, _, operation = name.rpartition("::")
    loaded = _operations_of(library) if library else []
    if loaded and operation not in loaded:
        raise InputError(
            f"register({name!r}, ...): the library {library!r} has no operation of this name, only "
            f"{', '.join(loaded[:4])}{', ...' if len(loaded) > 4 else ''}. If the operation is loaded later, "
            f"register it then.{did_you_mean(operation, loaded)}"
        )
    found = _entry_of(repr(name), entry)
    for each in names:
        TABLE[each] = found


_registered: list[str | type] = []


def registrations() -> int:
    """Return how often something was registered."""
    return len(_registered)


def _entry_of(name: str, entry: Entry | str) -> Entry:
    """Return the entry that a user gives.

    Raises:
        InputError: the word is unknown, or the entry cannot be called.
    """
    if isinstance(entry, str):
        if entry not in WORDS:
            raise InputError(
                f"register({name}, {entry!r}): say {', '.join(map(repr, WORDS))}, or give an entry."
                f"{did_you_mean(entry, WORDS)}"
            )
        return WORDS[entry]
    if isinstance(entry, type) or not callable(entry):
        hint = f"; write {entry.__name__}(...)" if isinstance(entry, type) else ""
        raise InputError(
            f"register({name}, {entry!r}): an entry is called as entry(run, call, *arguments){hint}."
        )
    return entry


def _operations_of(library: str) -> list[str]:
    """The names of a library's operations that are loaded, without library and overload."""
    full = [name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()]
    return sorted({name.removeprefix(f"{library}::") for name in full if name.startswith(f"{library}::")})
