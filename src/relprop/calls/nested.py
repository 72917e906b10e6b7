"""Find and replace tensors in nested tuples, lists and dictionaries."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import copy
from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        yield from tensors_in(tuple(value.values()))


def values_of(tensor: Tensor) -> Tensor:
    """Return the values of a tensor as a plain tensor without a graph."""
    values: Tensor = getattr(tensor, "values_alone", tensor.detach)()
    return values


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """Replace each leaf of nested tuples, lists and dictionaries by `function(leaf)`.

    A leaf is anything but a tuple, a list or a mutable mapping.
    """
    if isinstance(value, Tensor):  # first, since to ask for a mapping takes longer
        return function(value)
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
    """Replace each tensor in nested tuples, lists and dictionaries by `function(tensor)`."""
    return map_leaves(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, value)
