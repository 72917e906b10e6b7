"""Tensors in nested tuples, lists and dictionaries: found, and put in the place of others."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import copy
from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        yield from tensors_in(tuple(value.values()))


def values_of(tensor: Tensor) -> Tensor:
    """The values of a tensor alone, of which nothing is recorded."""
    values: Tensor = getattr(tensor, "values_alone", tensor.detach)()
    return values


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """Put `function(leaf)` in the place of whatever is no container in nested tuples, lists, dictionaries."""
    if isinstance(value, (list, tuple)):
        items = [map_leaves(function, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, MutableMapping):
        result = copy(value)
        for key, item in value.items():
            result[key] = map_leaves(function, item)
        return result
    return function(value)


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Put `function(tensor)` in the place of each tensor in nested tuples, lists and dictionaries."""
    return map_leaves(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, value)
