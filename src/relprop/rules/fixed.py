"""Whether rules are always the same: a function or an object of the user's may look at anything."""

from inspect import isfunction
from typing import Any

import torch
from torch import Tensor, nn

from relprop.rules.composite import Composite


def are_fixed(composite: Composite) -> bool:
    """Whether the places and rules of a composite are relprop's own, without functions of the user's."""
    return all([_is_fixed(part) for entry in composite.entries for part in entry])


def _is_fixed(value: Any) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_fixed, value))
    if isinstance(value, dict):
        return all(map(_is_fixed, (*value, *value.values())))
    if value is None or isinstance(value, (bool, int, float, str, type, Tensor, nn.Module, torch.dtype)):
        return True
    slots = [getattr(value, name, None) for name in getattr(type(value), "__slots__", ())]
    held = [*getattr(value, "__dict__", {}).values(), *slots]
    return type(value).__module__.startswith("relprop.") and not isfunction(value) and _is_fixed(held)
