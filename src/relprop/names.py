"""One name for an operation, whichever way torch code spells it."""

from functools import cache
from typing import Any

from torch import Tensor

_SYNONYMS = {
    "__add__": "add",
    "__radd__": "add",
    "__sub__": "sub",
    "__rsub__": "rsub",
    "__mul__": "mul",
    "__rmul__": "mul",
    "__div__": "div",
    "__truediv__": "div",
    "__rdiv__": "rdiv",
    "__rtruediv__": "rdiv",
    "__matmul__": "matmul",
    "__rmatmul__": "rmatmul",
    "__neg__": "neg",
    "__abs__": "abs",
    "__pow__": "pow",
    "__rpow__": "rpow",
    "__pos__": "positive",
    "__getitem__": "getitem",
    "__setitem__": "setitem",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "true_divide": "div",
    "negative": "neg",
    "concat": "cat",
    "concatenate": "cat",
    "mm": "matmul",
    "clip": "clamp",
    "float_power": "pow",
    "special_expit": "sigmoid",
    "swapdims": "swapaxes",
    "transpose": "swapaxes",
    "moveaxis": "movedim",
    "_threshold": "threshold",
}


_ATTRIBUTES = ("shape", "dtype", "device", "layout", "ndim", "is_cuda", "is_meta", "requires_grad", "is_leaf")
_METHODS = ("size", "dim", "numel", "stride", "is_floating_point", "is_complex", "is_contiguous", "__len__")

LOOKS = frozenset(
    [getattr(Tensor, name).__get__ for name in _ATTRIBUTES] + [getattr(Tensor, name) for name in _METHODS]
)
"""Calls that look at what a tensor is, and not at its values; models make more of them than of others."""


@cache
def canonical_name(function: Any) -> tuple[str, bool]:
    """Name of a torch function and whether it overwrites its first argument.

    `torch.relu`, `F.relu`, `Tensor.relu` are ("relu", False), `torch.relu_` is ("relu", True), `x += y` is
    ("add", True); a property goes by its own name. What is not a torch function goes by its representation,
    which is the name of no entry.
    """
    name = getattr(function, "__name__", None)
    if name is None or not _is_torch(function):
        return repr(function), False
    name = name.split(".")[0]  # without the overload
    if name in ("__get__", "__set__"):
        return str(function.__self__.__name__), name == "__set__"
    if name == "__setitem__":
        return "setitem", True
    if name.startswith("__i") and name.endswith("__") and name != "__invert__":
        plain = f"__{name[3:]}"
        return _SYNONYMS.get(plain, plain), True
    inplace = name.endswith("_") and not name.startswith("_")
    name = name.removesuffix("_") if inplace else name
    return _SYNONYMS.get(name, name.removeprefix("special_")), inplace


def _is_torch(function: Any) -> bool:
    # Methods of the C classes have no module of their own.
    module = getattr(function, "__module__", None) or type(function).__module__
    if str(module).startswith("torch._ops."):
        return module == "torch._ops.aten"  # other libraries may name theirs as they like
    return str(module).split(".")[0] in ("torch", "builtins")
