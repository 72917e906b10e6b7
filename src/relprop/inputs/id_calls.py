"""Which inputs are ids, by their names, and which calls move ids, replace them, or only read them."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from relprop.calls.call import Call
from relprop.calls.moving import COPYING, MOVING, WRITTEN_OUT
from relprop.calls.nested import tensors_in
from relprop.operations import bags

_NO_IDS = re.compile(
    r"position|token_type|type_id|segment|mask|label|length|index|indices|offset"
    r"|(^|[_.])(lens?|batch|ptr)$",
    re.IGNORECASE,
)
"""Names of integer arguments that are not ids: positions, types, masks, labels, lengths, indices, offsets,
and the graph of each node."""

FOLLOWED = frozenset(
    (
        *(*MOVING, *COPYING, *WRITTEN_OUT),
        *("cat", "stack", "pad", "constant_pad_nd", "clamp", "clamp_min", "clamp_max", "masked_fill"),
        *("where", "copy", "fill", "zero", "index_put", "slice_scatter", "select_scatter"),
    )
)
"""Operations through which ids are followed."""

VALUES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "where": (1, 2),
        "masked_fill": (0, 2),
        "constant_pad_nd": (0, 2),
        "pad": (0, 3),
        "copy": (0, 1),
        "fill": (0, 1),
        "index_put": (0, 2),
        "slice_scatter": (0, 1),
        "select_scatter": (0, 1),
    }
)
"""Numbers of the arguments that have values, if it is not only the first one. Others select elements."""

CONVERTING = frozenset(("to", "_to_copy", "clamp", "clamp_min", "clamp_max"))
"""Operations that leave every element at its place."""

REPLACING = frozenset(
    (
        *("add", "sub", "rsub", "mul", "div", "floor_divide", "remainder", "fmod", "neg", "abs"),
        *("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift"),
        *("__lshift__", "__rshift__", "__and__", "__or__", "__xor__"),
    )
)
"""Operations of ids and constants that replace each id by another integer."""

STEPPING = frozenset(
    (
        *("round", "floor", "ceil", "trunc", "sign", "heaviside", "floor_divide", "div", "bucketize"),
        *("searchsorted", "gt", "ge", "lt", "le", "eq", "ne", "isnan", "isfinite", "isinf"),
    )
)
"""Operations without a gradient that compute each element of their result of one element alone."""

PROMOTING = frozenset(("cat", "concat", "hstack", "stack", "mul", "add", "sub", "div", "where"))
"""Operations in which integers become numbers beside floating-point numbers."""

LOOKING = frozenset(
    (
        *("eq", "ne", "lt", "gt", "le", "ge", "equal", "any", "all", "max", "min", "amax", "amin", "isin"),
        *("_unique2", "unique_dim", "embedding", "item", "_local_scalar_dense", "sum", "argmax"),
        *("is_nonzero", "nonzero", "sym_size", "is_same_size", "sparse_coo_tensor"),
    )
)
"""Operations that read ids for other purposes. Their result is not followed, and nothing is reported."""

SPARSE = (
    *("sparse_coo_tensor", "_sparse_coo_tensor_with_dims_and_tensors", "_sparse_coo_tensor_unsafe"),
    *("sparse_compressed_tensor", "sparse_csr_tensor", "sparse_csc_tensor"),
)
"""Operations that put elements of a sparse matrix where integers say."""

COMPARING = ("eq", "ne", "lt", "gt", "le", "ge", "isin")
"""Operations that make a mask of ids."""

INDEXING = frozenset(("index", "_unsafe_index", "index_select", "gather", "take", "embedding"))
"""Operations that pick elements of their first argument by integers."""

LOOKING_UP = frozenset(("embedding", "index", "index_select", *bags.TABLE))
"""Operations that may look up integers in a table, see `index_of`."""

PLACING = frozenset(
    (
        *INDEXING,
        "index_add",
        "scatter_add",
        "scatter_reduce",
        "index_reduce",
        "index_put",
        "_index_put_impl_",
    )
)
"""Operations that read or add elements of other tensors where integers say."""

ARITHMETIC = frozenset(("add", "sub", "rsub", "mul", "div", "pow"))
"""Operations that take integers as numbers beside floating-point numbers."""

INTEGERS = (torch.int64, torch.int32, torch.int16)
FOLLOWED_TYPES = (*INTEGERS, torch.bool)
"""Types of what ids are followed to: one-hot vectors may be true and false."""


def may_be_ids(name: str, value: Any) -> bool:
    """Whether an argument is an integer tensor of 16 to 64 bits that may be explained, by its name."""
    return (
        isinstance(value, Tensor) and value.dtype in INTEGERS and value.dim() > 0 and not _NO_IDS.search(name)
    )


def are_pixels(name: str, value: Tensor) -> bool:
    """Whether an argument may be a picture of whole numbers, by its name."""
    return value.dtype == torch.uint8 and value.dim() > 2 and not _NO_IDS.search(name)


def valued(call: Call) -> list[Any]:
    """Return the arguments of a call whose values go into its result. Others only select elements."""
    if call.operation not in FOLLOWED:
        return call.args
    return [call.args[i] for i in VALUES.get(call.operation, (0,)) if i < len(call.args)]


def only_looks(call: Call, result: Any) -> bool:
    """Whether a call reads integers for other purposes than to compute with their values."""
    return call.operation in LOOKING and not any(t.is_floating_point() for t in tensors_in(result))


def index_of(call: Call) -> Any:
    """Return the integers by which a call picks rows of a table; None for other calls."""
    if call.operation == "embedding" or call.operation in bags.TABLE:
        return call.args[1]
    if call.operation == "index" and _is_table(call.args[0]) and len(call.args[1]) == 1:
        index = call.args[1][0]
        return None if isinstance(index, Tensor) and index.dtype is torch.bool else index
    if call.operation == "index_select" and _is_table(call.args[0]) and call.args[1] == 0:
        return call.args[2]
    return None


def _is_table(value: Any) -> bool:
    """Whether a tensor may be an embedding: numbers of the model's own, and none made of the samples.

    Others are read where integers say, as the degrees of a graph's nodes are by its edges.
    """
    return isinstance(value, Tensor) and value.is_floating_point() and getattr(value, "picked", True)
