"""Parts of an input as users give them: maps of integers, masks, spans, groups of columns."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relprop.errors import InputError, did_you_mean
from relprop.view.entries import is_whole

CALL = "explanation.aggregate"


def places_of(
    segments: Any, names: Any, shape: tuple[int, ...], features: Sequence[str] | None = None
) -> tuple[tuple[str, ...], Tensor]:
    """Return the names of parts, and which part each element of the input is in.

    Args:
        segments: a map of integers, of which each is a part and negative ones are the rest; a boolean mask;
            or the parts by name, each a boolean mask, a span (start, end) of a signal, a list of spans, or a
            list of columns of a table. Without names, a list of spans or of such lists. Maps and masks have
            the shape of the input, or that without its channels, or without its samples, too.
        names: names of the parts in their order, or by the integer of the map; by default "segment 3".
        shape: the shape of the input, (N, ...).
        features: names of the columns, so that a table's columns can be given by name.

    Returns:
        The names, and the number of its part for each element, of the input's shape, int64; -1 for none.

    Raises:
        InputError: the parts have another form or shape, overlap, or are empty; or names do not fit.
    """
    if isinstance(segments, Mapping):
        if names is not None:
            raise InputError(f"{CALL}(names=...): parts by name have names already. Leave names= out.")
        return _from_masks(
            {str(name): _mask(part, f"[{name!r}]", shape, features) for name, part in segments.items()}, shape
        )
    array = _array(segments)
    if array is not None and array.dtype == torch.bool:
        given = _names(names, [0], ["the mask"])
        return _from_masks({given[0]: _spread(array, "", shape)}, shape)
    if array is not None and not array.is_floating_point() and not array.is_complex():
        return _from_integers(_spread(array, "", shape), names)
    if isinstance(segments, Sequence) and not isinstance(segments, str) and len(segments):
        default = [_told(part, number, shape) for number, part in enumerate(segments)]
        given = _names(names, list(range(len(segments))), default)
        masks = [_mask(part, f"[{n}]", shape, features) for n, part in enumerate(segments)]
        if len(set(given)) < len(given):
            raise InputError(f"{CALL}: two parts have the same name. Give each its own: names=[...].")
        return _from_masks(dict(zip(given, masks, strict=True)), shape)
    kind = f"{array.dtype}".removeprefix("torch.") if array is not None else type(segments).__name__
    raise InputError(
        f"{CALL}: the segments are {kind}. Give a map of integers, a boolean mask, masks by name, spans "
        "[(start, end), ...] or groups of columns [[0, 1], [2]]."
    )


def _told(part: Any, number: int, shape: tuple[int, ...]) -> str:
    """Return the name of a part that has none: a span's is its ends."""
    return f"{part[0]} to {part[1]}" if _is_span(part) and len(shape) > 2 else f"part {number}"


def _array(value: Any) -> Tensor | None:
    """Return a tensor or array as a tensor on the CPU, anything else as None."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        kind = {"u": np.int64, "i": np.int64}.get(value.dtype.kind, value.dtype)
        return torch.from_numpy(value.astype(kind))
    return None


def _is_span(part: Any) -> bool:
    return isinstance(part, tuple) and len(part) == 2 and all(is_whole(end) for end in part)


def _shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The shapes that maps and masks may have: those without channels first."""
    inner = shape[2:] if len(shape) > 2 else shape[1:]
    return list(dict.fromkeys([inner, (shape[0], *inner), shape]))


def _spread(given: Tensor, which: str, shape: tuple[int, ...]) -> Tensor:
    """Return a map or mask in the shape of the input.

    Raises:
        InputError: it has another shape.
    """
    allowed = _shapes(shape)
    if tuple(given.shape) not in allowed:
        told = " or ".join(map(str, allowed))
        raise InputError(
            f"{CALL}: segments{which} has the shape {tuple(given.shape)}, but the input has {tuple(shape)}. "
            f"Give {told}."
        )
    if given.shape != shape and len(shape) > 2:
        given = given.unsqueeze(-len(shape) + 1)  # channels
    return given.expand(shape)


def _mask(part: Any, which: str, shape: tuple[int, ...], features: Sequence[str] | None) -> Tensor:
    """Return a part as a boolean mask of the input's shape.

    Raises:
        InputError: it is of another form or shape, or beyond the input.
    """
    array = _array(part)
    if array is not None and array.dtype == torch.bool:
        return _spread(array, which, shape)
    last = shape[-1]
    mask = torch.zeros(last, dtype=torch.bool)
    columns = list(part) if isinstance(part, Sequence | np.ndarray) and not isinstance(part, str) else None
    if columns is None and array is not None and array.dim() == 1 and not array.is_floating_point():
        columns = array.tolist()
    if len(shape) > 3 or columns is None or not columns:
        raise InputError(
            f"{CALL}: segments{which} is {_form(part)}. "
            + (
                "Give a boolean mask."
                if len(shape) > 3
                else "Give a boolean mask, a span (start, end), or a list of numbers."
            )
        )
    spans = [part] if _is_span(part) else columns
    if len(shape) > 2 and all(map(_is_span, spans)):
        for start, end in spans:
            if not 0 <= start < end <= last:
                raise InputError(
                    f"{CALL}: segments{which} has the span {(start, end)}, but the input has {last} steps. "
                    f"Give 0 <= start < end <= {last}."
                )
            mask[start:end] = True
        return _spread(mask, which, shape)
    for column in columns:
        mask[_column(column, which, last, features)] = True
    return _spread(mask, which, shape)


def _column(column: Any, which: str, count: int, features: Sequence[str] | None) -> int:
    if isinstance(column, str) and features is not None:
        if column not in features:
            hint = did_you_mean(column, features)
            raise InputError(f"{CALL}: segments{which} has {column!r}, which is no name of features=.{hint}")
        return list(features).index(column)
    if isinstance(column, str):
        raise InputError(
            f"{CALL}: segments{which} has the name {column!r}. Give the names of all columns: features=[...]."
        )
    if not is_whole(column) or not 0 <= column < count:
        raise InputError(f"{CALL}: segments{which} has {column!r}. Give whole numbers from 0 to {count - 1}.")
    return int(column)


def _form(part: Any) -> str:
    array = _array(part)
    if array is None:
        return f"{type(part).__name__}" if not isinstance(part, Sequence) or len(part) else "empty"
    return f"{str(array.dtype).removeprefix('torch.')} of shape {tuple(array.shape)}"


def _from_integers(given: Tensor, names: Any) -> tuple[tuple[str, ...], Tensor]:
    numbers, places = torch.unique(given.long(), return_inverse=True)
    below = int((numbers < 0).sum())
    found = numbers[below:].tolist()
    if not found:
        raise InputError(f"{CALL}: the map has negative integers only, which are no parts.")
    return tuple(_names(names, found, [f"segment {n}" for n in found])), (places - below).clamp(min=-1)


def _from_masks(masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> tuple[tuple[str, ...], Tensor]:
    if not masks:
        raise InputError(f"{CALL}: there are no parts. Give one or more.")
    places = torch.full(shape, -1)
    for number, (name, mask) in enumerate(masks.items()):
        if not mask.any():
            raise InputError(f"{CALL}: the part {name!r} is empty. Leave it out.")
        shared = mask & (places >= 0)
        if shared.any():
            other = list(masks)[int(places[shared][0])]
            raise InputError(
                f"{CALL}: the parts {other!r} and {name!r} share {int(shared.sum())} elements, whose "
                "relevance would be counted twice. Give parts that do not overlap."
            )
        places[mask] = number
    return tuple(masks), places


def _names(names: Any, numbers: Sequence[int], default: Sequence[str]) -> list[str]:
    """Return the name of each part.

    Raises:
        InputError: there are more or fewer names than parts, or two are equal.
    """
    if names is None:
        return list(default)
    if isinstance(names, Mapping):
        missing = [number for number in numbers if number not in names]
        if missing:
            raise InputError(f"{CALL}(names=...) has no name for segment {missing[0]}. Give a name for each.")
        found = [str(names[number]) for number in numbers]
    else:
        found = [str(n) for n in names] if isinstance(names, Iterable) and not isinstance(names, str) else []
    if len(found) != len(numbers) or len(set(found)) < len(found):
        given = f"{len(set(found))} different names" if found else repr(names)
        raise InputError(f"{CALL}(names=...) has {given} for {len(numbers)} parts. Give a name for each.")
    return found
