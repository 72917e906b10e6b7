"""Tensors within the arguments of a model: in dictionaries, lists, tuples, dataclasses and other objects.

Each has a name as one writes it in Python: `obs.image` is an entry or an attribute called "image" of the
argument `obs`, `xs[0]` the first element of `xs`. Keys that are no names are in brackets, as
`obs['left eye']`.
"""

import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from copy import copy
from enum import Enum
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Named = Sequence[tuple[str, Any]]
"""Values with their names, in order."""


def tensors_by_name(
    given: Named, is_input: Callable[[str, Any], bool]
) -> tuple[Named, list[list[tuple[str, Any]]]]:
    """Return arguments, and the tensors to choose from in each of them by name.

    Dictionaries and dataclasses are always opened. Lists, tuples and other objects are opened only if there
    is nothing to explain otherwise: beside another input they may be the state of the model, such as (h, c).
    NumPy arrays of floating-point numbers become tensors only if there is still nothing.

    Args:
        given: the arguments.
        is_input: whether a tensor of this name may be explained.

    Returns:
        The arguments, in which tensors may have taken the place of arrays; and for each of them the tensors,
        none if it is not opened.
    """
    if all([isinstance(value, Tensor) for _, value in given]):
        return given, [[each] for each in given]
    for opens in (_by_names, _by_anything):
        found = [_found(*each, opens) for each in given]
        if any(is_input(*tensor) for tensors in found for tensor in tensors):
            return given, found
    given = [(name, _with_tensors(value)) for name, value in given]
    return given, [_found(*each, _by_anything) for each in given]


def integers_beside(given: Named, found: Sequence[Named]) -> list[tuple[str, Tensor, str]]:
    """Return the integers that are passed on as they are: arrays, and tensors in what is not opened.

    Args:
        given: the arguments.
        found: the tensors that were found in each of them.

    Returns:
        For each its name, its values, and why it is passed on.
    """
    beside = []
    for (argument, value), tensors in zip(given, found, strict=True):
        known = {id(tensor) for _, tensor in tensors}
        for name, leaf in _leaves(argument, value, _is_integers, {}):
            if isinstance(leaf, Tensor):
                if id(leaf) not in known:
                    beside.append(
                        (name, leaf, "it is in a list or an object beside other inputs; give it by itself")
                    )
            else:
                values = torch.from_numpy(leaf if leaf.flags.writeable else leaf.copy())
                beside.append((name, values, f"it is a NumPy array; give a tensor: torch.as_tensor({name})"))
    return beside


def rebuilt(value: Any, put: Iterator[Any]) -> Any:
    """Return an argument with other values for its tensors. A container is copied, and never changed.

    Args:
        value: the argument.
        put: what takes the place of each tensor, in the order in which `tensors_by_name` has them.
    """
    return _rebuilt(value, lambda _: next(put), _is_tensor, {})


def copied(value: Any) -> Any:
    """Return an argument with copies of its tensors, and of the arrays that could be explained."""
    value = _rebuilt(value, torch.clone, _is_tensor, {})
    return _rebuilt(value, lambda array: array.copy(), _is_array, {})


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _is_array(value: Any) -> bool:
    """Whether a value is a NumPy array of floating-point numbers that torch knows."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray) and value.dtype.name in _KNOWN


def _is_integers(value: Any) -> bool:
    """Whether a value is a tensor, or a NumPy array, of integers that may be ids."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return value.dtype.name in _INTEGERS and value.dtype.isnative and min((1, *value.strides)) >= 0
    return isinstance(value, Tensor)


_INTEGERS = ("int16", "int32", "int64")
_KNOWN = ("float16", "float32", "float64")


def _with_tensors(value: Any) -> Any:
    return _rebuilt(value, _as_tensor, _is_array, {})


def _as_tensor(array: Any) -> Tensor:
    # A copy, since torch takes neither arrays that cannot be written nor those with negative strides.
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=True))


_PLAIN = (Tensor, str, bytes, int, float, complex, type(None), Enum, type, torch.dtype, torch.device)
_CLOSED = (nn.Module, FunctionType, MethodType, ModuleType)


def _by_names(value: Any) -> bool:
    return isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _by_anything(value: Any) -> bool:
    return not isinstance(value, (*_PLAIN, *_CLOSED))


def _found(argument: str, value: Any, opens: Callable[[Any], bool]) -> list[tuple[str, Any]]:
    """Return the tensors of an argument by name. What is within an opened argument is opened, too."""
    if isinstance(value, Tensor):
        return [(argument, value)]
    if not _by_anything(value) or not opens(value):
        return []
    found: dict[str, Tensor] = {}
    for long, tensor in _leaves(argument, value, _is_tensor, {}):
        short = _PRIVATE.sub("", long)
        name = long if short in found else short
        while name in found:  # keys may be written alike
            name += "'"
        found[name] = tensor
    return [*found.items()]


_PRIVATE = re.compile(r"\._\w+(?=[.\[])")
"""Private attributes on the way, as a graph's store, which names leave out."""


def _leaves(
    name: str, value: Any, is_leaf: Callable[[Any], bool], seen: dict[int, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield the leaves in a value with their names. A container that comes twice is opened once."""
    if is_leaf(value):
        yield name, value
    elif _by_anything(value) and id(value) not in seen:
        seen[id(value)] = value
        for key, item in _parts(value):
            is_name = isinstance(key, str) and key.isidentifier()
            yield from _leaves(f"{name}.{key}" if is_name else f"{name}[{key!r}]", item, is_leaf, seen)


def _parts(value: Any) -> list[tuple[Any, Any]]:
    """Return what a container has directly, by key, position or attribute; nothing for other values."""
    if isinstance(value, Mapping):
        return [*value.items()]
    if isinstance(value, (list, tuple)):
        return [*zip(getattr(value, "_fields", range(len(value))), value, strict=False)]
    if dataclasses.is_dataclass(value):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if hasattr(value, f.name)]
    return [*getattr(value, "__dict__", {}).items()]


def _rebuilt(
    value: Any, function: Callable[[Any], Any], is_leaf: Callable[[Any], bool], seen: dict[int, Any]
) -> Any:
    """Return a value with a function of each leaf in its place, in the order of `_leaves`."""
    if is_leaf(value):
        return function(value)
    if not _by_anything(value):
        return value
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = value  # for values that contain themselves
    parts = _parts(value)
    items = [_rebuilt(item, function, is_leaf, seen) for _, item in parts]
    if any(new is not old for new, (_, old) in zip(items, parts, strict=True)):
        seen[id(value)] = _with_items(value, [key for key, _ in parts], items)
    return seen[id(value)]


def _with_items(value: Any, keys: Sequence[Any], items: Sequence[Any]) -> Any:
    """Return a copy of a container with other items."""
    if isinstance(value, (list, tuple)):
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, Mapping) and not isinstance(value, MutableMapping):
        make: Any = type(value)
        return make(dict(zip(keys, items, strict=True)))
    result: Any = copy(value)
    for key, item in zip(keys, items, strict=True):
        if isinstance(value, Mapping):
            result[key] = item
        else:
            object.__setattr__(result, key, item)  # also of a frozen dataclass
    return result
