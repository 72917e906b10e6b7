"""Torch calls as values: looked into, run, and run again with other operands."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class Call:
    """One torch call on tensors of the way of relevance.

    Attributes:
        name: of the operation, the same for its functional, method, operator and in-place spellings.
        inplace: whether the call overwrites its first argument.
        constants: arguments that are parameters are detached in `args` and `kwargs`; this finds them again.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inplace: bool
    constants: dict[int, Tensor] = field(default_factory=dict)

    @property
    def target(self) -> Tensor:
        """The first argument, which an in-place call overwrites."""
        tensor: Tensor = self.args[0] if self.args else self.kwargs["input"]
        return tensor

    def on_a_copy(self) -> "Call":
        """The same call, overwriting a copy."""
        copy = self.target.detach().clone()
        args, kwargs = map_tensors(lambda t: copy if t is self.target else t, (self.args, self.kwargs))
        return replace(self, args=args, kwargs=kwargs)

    def run(self) -> Any:
        """Run it as it is, recorded by autograd."""
        return self.function(*self.args, **self.kwargs)

    def value(self) -> Any:
        """Run it unrecorded, and out of place."""
        with torch.no_grad():
            if self.inplace:
                return self.on_a_copy().run()
            return self.function(*self.args, **self.kwargs)

    def own(self, value: Any) -> Any:
        """Return the model's own tensor where `value` is its detached stand-in."""
        return self.constants.get(id(value), value)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        yield from tensors_in(tuple(value.values()))


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


def without_parameters(call: Call, parameters: list[Tensor]) -> Call:
    """Detach parameters, so that no gradient is computed for them."""
    stand_ins = {id(p): p.detach().clone() if p.is_inference() else p.detach() for p in parameters}
    found = {id(stand_ins[id(p)]): p for p in parameters}

    def swap(tensor: Tensor) -> Tensor:
        return stand_ins.get(id(tensor), tensor)

    return replace(
        call, args=map_tensors(swap, call.args), kwargs=map_tensors(swap, call.kwargs), constants=found
    )
