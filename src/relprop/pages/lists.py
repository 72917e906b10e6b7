"""Options of pages with several elements: what users may give, and what errors say of anything else."""

from collections.abc import Mapping, Sequence
from operator import index
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from relprop.errors import Call, InputError
from relprop.view.entries import is_whole

LISTS: Mapping[str, str] = MappingProxyType(
    {
        "samples": "a list of the numbers of samples",
        "labels": "a list with a text for each sample",
        "classes": "a list with the names of all classes",
        "truth": "a list with the number of each sample's class",
        "features": "a list with the names of all features",
    }
)
"""What each of these options is."""

_LONG = 72
"""Errors repeat so many characters of an option at most."""


def called(call: Call, name: str, given: Any) -> str:
    """Return a call with an option as the user gave it, or as much of it as a line has."""
    written = repr(given)
    return call(f"{name}={written if len(written) <= _LONG else f'{written[: _LONG - 3]}...'}")


def listed(call: Call, name: str, given: Any) -> list[Any] | None:
    """Return the elements of an option; None if it is not given.

    Raises:
        InputError: it is no list, tuple, array or tensor.
    """
    if given is None:
        return None
    elements = given.tolist() if isinstance(given, Tensor | np.ndarray) else given
    if isinstance(elements, str | bytes) or not isinstance(elements, Sequence):
        raise InputError(f"{called(call, name, given)}: give {LISTS[name]}.")
    return list(elements)


def whole_numbers(call: Call, name: str, given: Sequence[Any]) -> list[int]:
    """Return the elements of an option as whole numbers.

    Raises:
        InputError: one of them is none. The error names it.
    """
    masks = [isinstance(each, bool | np.bool_) for each in given]
    if given and all(masks) and name == "samples":
        chosen = [place for place, each in enumerate(given) if each]
        raise InputError(f"{called(call, name, given)}: this is a mask; give the numbers: samples={chosen}.")
    for place, each in enumerate(given):
        if not is_whole(each):
            raise InputError(
                f"{called(call, name, given)}: {name}[{place}] is {each!r}; give {LISTS[name]}, whole "
                "numbers from 0."
            )
    return list(map(index, given))
