"""Selecting samples of results, and joining the results of several batches."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from relprop.calls.nested import map_tensors, tensors_in
from relprop.errors import InputError

Index = int | slice | Sequence[int] | Tensor
"""A selection of samples: a number, a slice, numbers, or a boolean mask (samples,)."""


def chosen(index: Index, samples: int) -> Tensor:
    """Return the numbers of the samples that an index selects, (chosen,) int64.

    Raises:
        InputError: there are no such samples, or the index is of another type.
    """
    every = torch.arange(samples)
    refused = InputError(
        f"explanation[{index!r}]: give the number of a sample, a slice, or a list of numbers; there are "
        f"{samples} samples. Relevance of inner modules is in explanation.inner, that of inputs in "
        "explanation.inputs."
    )
    try:
        if isinstance(index, str):
            raise refused
        return every[index].reshape(-1) if isinstance(index, (int, slice)) else every[torch.as_tensor(index)]
    except (IndexError, TypeError, ValueError, RuntimeError):
        raise refused from None


def taken(value: Any, numbers: Tensor, samples: int) -> Any:
    """The samples of every tensor in a value whose first dimension they are; other tensors as they are."""

    def of(tensor: Tensor) -> Tensor:
        has_samples = tensor.dim() > 0 and len(tensor) == samples
        return tensor[numbers.to(tensor.device)] if has_samples else tensor

    return map_tensors(of, value)


def joined(values: Sequence[Any], samples: Sequence[int]) -> Any:
    """Join the tensors in values of one form whose first dimension are the samples.

    Args:
        values: one of each batch.
        samples: how many each batch has.
    """
    parts = [list(tensors_in(value)) for value in values]
    if len({len(part) for part in parts}) > 1:
        return list(values)
    columns = iter(list(zip(*parts, strict=True)))

    def of(tensor: Tensor) -> Tensor:
        column = next(columns)
        with_samples = all(t.dim() > 0 and len(t) == n for t, n in zip(column, samples, strict=True))
        return torch.cat([t.to(tensor.device) for t in column]) if with_samples else tensor

    return map_tensors(of, values[0])


def same(what: str, values: Sequence[Any], written: Callable[[Any], str] = repr) -> Any:
    """The value that all batches share.

    Raises:
        InputError: they differ in it.
    """
    others = [value for value in values[1:] if written(value) != written(values[0])]
    if others:
        raise InputError(
            f"explanations of different {what} cannot be concatenated: {written(values[0])} and "
            f"{written(others[0])}."
        )
    return values[0]
