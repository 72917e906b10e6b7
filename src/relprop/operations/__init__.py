"""The operation table: how relevance crosses each operation, one line an operation, one file a family.

An operation is in the table with a rule, or as exact under the plain gradient; anything else that touches
relevance is an error that lists it.
"""

from relprop.intercept import Entry
from relprop.operations import arithmetic, linear, pointwise, pooling, reshaping

TABLE: dict[str, Entry] = {
    "linear": linear.linear,
    "matmul": linear.matmul,
    "addmm": linear.addmm,
    **{f"conv{n}d": linear.convolution(n) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": linear.transposed_convolution(n) for n in (1, 2, 3)},
    **pointwise.TABLE,
    **arithmetic.TABLE,
    **pooling.TABLE,
    **reshaping.TABLE,
}
"""Entries by canonical name (`relprop.names.canonical_name`)."""


def register(name: str, entry: Entry) -> None:
    """Add an operation to the table, or replace its entry, for the whole process.

    Args:
        name: canonical name, as error messages print it: "cumsum" for torch.cumsum, Tensor.cumsum and
            Tensor.cumsum_.
        entry: how relevance crosses the operation, for instance `relprop.operations.entries.Exact()`.
    """
    TABLE[name] = entry
