"""The entries of relevance, such as pixels or features: which are the largest, and what they are called."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from relprop.errors import InputError
from relprop.view.arrays import as_array

Amounts = NDArray[np.float64]


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, also one of NumPy or torch, and not a boolean."""
    try:
        operator.index(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bool)


def list_of(values: Any) -> list[Any] | None:
    """Return values that can be read one by one as a list, others as None."""
    try:
        return list(values)
    except TypeError:  # also of a tensor that is a single number
        return None


def require_count(k: Any, call: str) -> int:
    """Return how many entries a user asks for.

    Raises:
        InputError: it is no whole number, or less than 1.
    """
    if not is_whole(k) or int(k) < 1:
        raise InputError(f"{call}(k={k!r}): give a whole number, 1 or more.")
    return int(k)


def require_sample(sample: Any, count: int, call: str) -> int:
    """Return the number of a sample, counted from the first one.

    Raises:
        InputError: there is no such sample.
    """
    return require_row(sample, count, call, "sample")


def require_row(number: Any, count: int, call: str, what: str) -> int:
    """Return the number of a sample or an answer, counted from the first one.

    Args:
        number: what the user gives; negative from the last one.
        count: how many there are.
        call: what was called, for errors.
        what: the name of the argument, and of what is counted.

    Raises:
        InputError: there is none of this number.
    """
    if not is_whole(number) or not -count <= int(number) < count:
        there = f"there is only {what} 0" if count == 1 else f"give a number from 0 to {count - 1}"
        raise InputError(f"{call}({what}={number!r}): there is no such {what}; {there}.")
    return int(number) % count


def kind_of_entry(dimensions: int) -> str:
    """Return what an entry is, by the dimensions of relevance with that of samples and channels."""
    return {1: "input", 2: "feature", 3: "time step", 4: "pixel"}.get(dimensions, "entry")


def place_of_entry(place: Sequence[Any]) -> str:
    """Return the place of an entry as text: "28" of a feature or time step, "(78, 68)" of a pixel."""
    where = tuple(map(int, place))
    return str(where[0]) if len(where) == 1 else str(where)


def largest(amounts: Amounts, k: int) -> NDArray[np.int64]:
    """Return the numbers of the k largest amounts (entries,) by size, of equal ones the first."""
    return np.argsort(-np.abs(amounts), kind="stable")[:k].astype(np.int64)


def feature_names(features: Sequence[str] | None, count: int, call: str) -> list[str] | None:
    """Return the names of all features or, if the user gave none, None.

    Raises:
        InputError: there are more or fewer names than features.
    """
    if features is None:
        return None
    given = list_of(features)
    if given is None:
        raise InputError(f"{call}(features={features!r}): give a list of {count} names.")
    names = [] if isinstance(features, str) else [str(name) for name in given]
    if len(names) != count:
        told = "a single text" if isinstance(features, str) else f"{len(names)} names"
        raise InputError(f"{call}(features=...) has {told} for {count} features; give a name for each.")
    return names


def values_of(
    values: torch.Tensor | NDArray[Any] | Sequence[float] | None,
    shape: tuple[int, ...],
    sample: int,
    samples: int,
    call: str,
    name: str = "values",
) -> Amounts | None:
    """Return what the input was in one sample, of the given shape, or None if the user gave nothing.

    Args:
        values: the input of all samples, (samples, ...), or of this one alone.
        shape: the shape of the input of one sample.
        sample: number of the sample.
        samples: how many there are.
        call: what was called, for errors.
        name: the name of the argument, for errors.

    Raises:
        InputError: the values have another shape, or are no numbers.
    """
    if values is None:
        return None
    try:
        given = values if isinstance(values, torch.Tensor) else np.asarray(values)
    except ValueError:
        raise InputError(f"{call}({name}=...) has rows of different lengths; give an array.") from None
    found = as_array(given, call, name)
    if found.shape == (samples, *shape):
        own: Amounts = found[sample]
        return own
    if found.shape == shape:
        return found
    either = " or ".join(map(str, dict.fromkeys([shape, (samples, *shape)])))
    raise InputError(f"{call}({name}=...) has the shape {found.shape}; the input has {either}.")


def digits_of(amount: float, digits: int = 4) -> str:
    """Return a number as text: whole ones up to nine digits whole, others with some digits.

    There is no exponent from 1e-4 to 1e6.
    """
    size = abs(amount)
    if size < 1e9 and float(amount).is_integer():
        return str(int(amount))
    return f"{amount:.0f}" if 10**digits - 0.5 <= size < 1e6 else f"{amount:.{digits}g}"


def typeset(digits: str) -> str:
    """Return a number with a true minus sign, and an exponent without zeros, for figures."""
    return digits.replace("-", "−").replace("e−0", "e−").replace("e+0", "e")


def with_value(name: str, value: float) -> str:
    """Return a name with the value of the input, for figures: "age = −0.5"."""
    return f"{name} = {typeset(digits_of(value))}"
