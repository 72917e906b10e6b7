"""Smallest and largest values of a model's input: the box of the zB rule."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from relprop.errors import InputError

Bound = float | tuple[float, ...] | Tensor
"""A bound of the inputs: one number, one per channel, or a tensor with one per element of a sample."""

Bounds = tuple[Bound, Bound]
"""The low and the high bound."""


def checked_bounds(bounds: Any) -> Bounds:
    """Return the user's bounds as a pair.

    Raises:
        InputError: they are not a pair.
    """
    if isinstance(bounds, Mapping):
        raise InputError(
            f"bounds={bounds!r}: bounds are one pair, (low, high), for all inputs. If the inputs differ, "
            "give each a box rule, by the path of the first module that takes it: "
            'rules=[("stem", relprop.rules.ZBox(0, 1)), ..., ("*", relprop.rules.Epsilon())].'
        )
    try:
        low, high = (None, None) if isinstance(bounds, (str, bytes)) else bounds
    except (TypeError, ValueError):
        low = high = None
    if low is None or high is None:
        raise InputError(f"bounds={bounds!r}: give a pair, bounds=(low, high).")
    return low, high
