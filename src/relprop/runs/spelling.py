"""Torch's own functions for the operations of a graph.

`torch.ops.aten.mul.Tensor(a, b)` takes 2 µs longer than `torch.mul(a, b)`, because its arguments are
converted by its schema. Where tensors are small, that is half of its time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from relprop.calls.found import Found
from relprop.calls.nested import tensors_in
from relprop.engine.levels import seeing
from relprop.engine.mode import DispatchMode

Function = Callable[..., Any]


def spelling_of(operation: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Function:
    """Return torch's function for an operation on arguments of these types; the operation if there is none.

    Each is tried out: called with the arguments, it must arrive as this operation, on these arguments.
    """
    if getattr(operation, "namespace", "") != "aten" or torch._C._are_functorch_transforms_active():
        return operation
    if any([type(t) not in (Tensor, nn.Parameter) for t in tensors_in((args, kwargs))]):
        return operation  # its class may do anything
    types = tuple(map(_type_of, args)), tuple([(name, _type_of(value)) for name, value in kwargs.items()])
    return _KNOWN.of((operation, types), lambda: _found(operation, args, kwargs))


def _type_of(value: Any) -> Any:
    """Return the type of an argument, or the types within a list: indices may be tensors and None."""
    return frozenset(map(_type_of, value)) if isinstance(value, (list, tuple)) else type(value)


def is_method(function: Function) -> bool:
    """Whether a function is a method of tensors."""
    return getattr(torch._C.TensorBase, getattr(function, "__name__", ""), None) is function


def _found(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Function:
    fitting = (f for f in _functions_named(operation) if _arrives(f, operation, args, kwargs))
    return next(fitting, operation)


def _functions_named(operation: Any) -> Iterator[Function]:
    name = operation._schema.name.partition("::")[2]
    holders = (torch._C._VariableFunctions, torch._C._nn, torch._C.TensorBase)
    for holder in holders[2:] if name.startswith("__") else holders:  # a graph finds no such function by name
        if hasattr(holder, name):
            yield getattr(holder, name)


def _arrives(function: Function, operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function, called with arguments, first of all calls this operation on them."""
    look = _Look()  # type: ignore[no-untyped-call]
    try:
        with torch._C.DisableTorchFunction(), seeing(), look:
            function(*args, **kwargs)
    except _SeenEnough:
        called, given, named = look.call
        return called is operation and _same(given, args) and _same(named, kwargs)
    except (TypeError, ValueError, RuntimeError):  # it takes other arguments
        pass
    return False


class _SeenEnough(Exception):  # noqa: N818 - it is no error
    pass


class _Look(DispatchMode):  # type: ignore[no-untyped-call]
    """Notes the first call of an operation, and ends there."""

    call: tuple[Any, Any, Any] = (None, (), {})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.call = func, args, kwargs or {}
        raise _SeenEnough


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all([_same(one[name], other[name]) for name in one])
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return one is other
    return type(one) is type(other) and bool(one == other or one != one)


_KNOWN: Found[Function] = Found()
