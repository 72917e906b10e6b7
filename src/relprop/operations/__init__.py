"""The operation table: how relevance crosses each operation, one line an operation, one file a family.

An operation has a rule in the table, or is declared exact under the plain gradient. The keys are the names of
operations in aten. A composite operation without an entry is decomposed by torch. Any other operation on
relevant tensors is an error that lists it.
"""

from collections.abc import Mapping

from relprop.calls.names import aten_names
from relprop.calls.site import Kind
from relprop.crossing.exact import Exact
from relprop.crossing.ruled import start
from relprop.engine.interception import Entry
from relprop.errors import InputError
from relprop.linear.maps import LinearMap
from relprop.operations import (
    arithmetic,
    attention,
    bags,
    contractions,
    linear,
    normalisation,
    pointwise,
    pooling,
    products,
    recurrent,
    resampling,
    reshaping,
    softmax,
    writing,
)
from relprop.operations.pointwise import Homogeneous, Secant

__all__ = ["FAMILIES", "TABLE", "Exact", "Homogeneous", "Kind", "LinearMap", "Secant", "register", "start"]

FAMILIES: dict[str, Mapping[str, Entry]] = {
    "linear, by a rule of the composite": {**linear.TABLE, **contractions.TABLE},
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
}

TABLE: dict[str, Entry] = {name: entry for family in FAMILIES.values() for name, entry in family.items()}
"""Entries by the name of the operation in aten."""


def register(name: str, entry: Entry) -> None:
    """Add an operation to the table, or replace its entry, for the whole process.

    Args:
        name: as error messages print it: "cumsum" for torch.cumsum, Tensor.cumsum and Tensor.cumsum_.
        entry: how relevance crosses the operation, for instance `Exact()`: see docs/own-rules.md.

    Raises:
        InputError: the name is empty or has an overload, or the entry cannot be called.
    """
    if not isinstance(name, str) or not name or "." in name:
        raise InputError(
            f"register({name!r}, ...): give the name of an operation as errors print it, without an "
            "overload: 'cumsum', or 'mylib::op' for one of another library."
        )
    if isinstance(entry, type) or not callable(entry):
        hint = f"; write {entry.__name__}(...)" if isinstance(entry, type) else ""
        raise InputError(
            f"register({name!r}, {entry!r}): an entry is called as entry(run, call, *arguments){hint}."
        )
    for each in aten_names(name):
        TABLE[each] = entry
