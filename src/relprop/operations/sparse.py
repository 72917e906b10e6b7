"""Sparse matrices whose elements depend on the input, as of weighed edges: explained as dense ones."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from relprop.calls.call import Call
from relprop.crossing.ruled import plain
from relprop.engine.interception import Entry
from relprop.engine.run import Run
from relprop.engine.seen import Seen, value_of

LARGEST = 2**27
"""The number of elements from which a dense matrix is refused."""


def of_coordinates(
    run: Run, call: Call, _sparse: int, _dense: int, size: Sequence[int], indices: Any, values: Any, *_: Any
) -> Any:
    """torch.sparse_coo_tensor: the sum of the values of each place."""
    return _dense_of(run, call, size, value_of(indices), values)


def of_rows(run: Run, call: Call, compressed: Any, others: Any, values: Any, *_options: Any) -> Any:
    """torch.sparse_csr_tensor and sparse_csc_tensor, whose rows, or columns, have their elements together."""
    ends, others = value_of(compressed), value_of(others)
    layout = call.argument("layout")
    by_columns = layout is torch.sparse_csc
    if ends.dim() > 1 or layout not in (torch.sparse_csr, torch.sparse_csc):
        run.gap(call.name, "only matrices in the layouts COO, CSR and CSC are covered")
        return plain(run, call)
    together = torch.arange(len(ends) - 1, device=ends.device).repeat_interleave(ends.diff())
    size = call.argument("size")
    if size is None:
        of_others = int(others.max()) + 1 if len(others) else 0
        size = [of_others, len(ends) - 1] if by_columns else [len(ends) - 1, of_others]
    indices = torch.stack([others, together] if by_columns else [together, others])
    return _dense_of(run, call, size, indices, values)


def _dense_of(run: Run, call: Call, size: Sequence[int], indices: Tensor, values: Seen) -> Seen:
    if prod(size) > LARGEST:
        run.refuse(
            call.name,
            "a sparse matrix that depends on the input is explained as a dense one, and "
            f"{tuple(size)} is too large; write the sum over its elements, as by "
            "torch.zeros(n, d).index_add(0, rows, values[:, None] * h[columns])",
        )
        run.gaps.require_none()
    places = tuple(indices.unbind())
    zeros = torch.zeros(tuple(size), dtype=values.dtype, device=values.device)
    matrix: Seen = run.perform(torch.index_put, zeros, places, values, accumulate=True)
    stored = torch.zeros(tuple(size), dtype=torch.bool, device=values.device)
    stored[places] = True
    matrix.stored = stored
    return matrix


def itself(run: Run, call: Call, matrix: Any, *_options: Any) -> Any:
    """The same matrix in another layout."""
    return matrix


def total(run: Run, call: Call, matrix: Any, *_options: Any) -> Any:
    """torch.sparse.sum, of all elements or over dimensions."""
    dims = call.argument("dim")
    return run.perform(torch.sum, matrix) if dims is None else run.perform(torch.sum, matrix, dims)


def softmax(run: Run, call: Call, matrix: Any, dim: int, *_options: Any) -> Any:
    """torch.sparse.softmax: over the elements that are stored."""
    stored = matrix.stored
    if stored is None:
        run.refuse(
            call.name,
            "a sparse matrix that depends on the input is explained as a dense one, which was changed since "
            "it was made, so that what it stores is no longer known; change the values that it is made of",
        )
        run.gaps.require_none()
    scores = run.perform(torch.masked_fill, matrix, ~stored & stored.any(dim, keepdim=True), -torch.inf)
    weights: Seen = run.perform(torch.masked_fill, run.perform(torch.softmax, scores, dim), ~stored, 0.0)
    weights.stored = stored
    return weights


def is_coalesced(run: Run, call: Call, matrix: Any) -> bool:
    """Whether a matrix has each place once, as a dense one has."""
    return True


def elements(run: Run, call: Call, *_args: Any) -> Any:
    """The stored elements, which a dense matrix does not have."""
    run.refuse(
        call.name,
        "a sparse matrix that depends on the input is explained as a dense one, and stores no elements; use "
        "the values that it is made of",
    )
    run.gaps.require_none()


_ELEMENTS = ("values", "indices", "crow_indices", "col_indices", "ccol_indices", "row_indices")
_LAYOUTS = ("to_dense", "to_sparse", "to_sparse_csr", "to_sparse_csc")

TABLE: Mapping[str, Entry] = {
    "_sparse_coo_tensor_with_dims_and_tensors": of_coordinates,
    "sparse_compressed_tensor": of_rows,
    **dict.fromkeys(("coalesce", "_coalesce", *_LAYOUTS, *(f"_{name}" for name in _LAYOUTS)), itself),
    "_sparse_sum": total,
    "_sparse_softmax": softmax,
    "is_coalesced": is_coalesced,
    **dict.fromkeys((*_ELEMENTS, "_values", "_indices", "_nnz"), elements),
}
