"""Selecting samples of results, and joining the results of several batches."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex, TypeGuard

import torch
from torch import Tensor

from relprop.calls.nested import map_tensors, tensors_in
from relprop.errors import InputError

Index = SupportsIndex | slice | Sequence[int] | Tensor
"""A selection of samples: a number, a slice, numbers, or a boolean mask (samples,); also NumPy arrays."""


def chosen(index: Index, samples: int) -> Tensor:
    """Return the numbers of the samples that an index selects, (chosen,) int64.

    Raises:
        InputError: there are no such samples, a list or mask selects none, or the index is of another type.
    """
    every = torch.arange(samples)
    refused = InputError(
        f"explanation[{index!r}]: give the number of a sample, a slice, or a list of numbers; there are "
        f"{samples} samples. Relevance of inner modules is in explanation.inner, that of inputs in "
        "explanation.inputs."
    )
    try:
        if isinstance(index, slice):
            return every[index]
        if not isinstance(index, Tensor) and hasattr(index, "tolist"):  # of NumPy
            index = index.tolist()
        numbers = torch.as_tensor(index).cpu()
        if numbers.dim() == 0 and not numbers.is_floating_point() and numbers.dtype != torch.bool:
            return every[int(numbers)].reshape(1)
        if numbers.dim() == 1 and not numbers.is_floating_point() and bool(every[numbers].numel()):
            return every[numbers]
        if numbers.dim() == 1 and (not numbers.numel() or numbers.dtype == torch.bool):
            refused = InputError(
                f"explanation[{index!r}] selects none of the {samples} samples. Ask before, as by "
                "if len(numbers): or if mask.any():"
            )
    except (IndexError, TypeError, ValueError, RuntimeError):
        raise refused from None
    raise refused


def taken(value: Any, numbers: Tensor, samples: int) -> Any:
    """The samples of every tensor in a value whose first dimension they are; other tensors as they are."""

    def of(tensor: Tensor) -> Tensor:
        has_samples = tensor.dim() > 0 and len(tensor) == samples
        return tensor[numbers.to(tensor.device)] if has_samples else tensor

    return map_tensors(of, value)


def of_target(target: Any, numbers: Tensor, samples: int) -> Any:
    """What a target says of some samples.

    Integers for each sample, as a tensor or a tuple, are taken, and so are weights (samples, classes) and
    masks (samples, height, width).
    """
    if isinstance(target, Tensor):
        return target[numbers.to(target.device)] if _has_samples(target, samples) else target
    if _numbers_each(target, samples):
        return tuple(target[number] for number in numbers.tolist())
    if _is_record(target):
        fields = {f.name: getattr(target, f.name) for f in dataclasses.fields(target)}
        parts = {name: of_target(value, numbers, samples) for name, value in fields.items()}
        changed = {name: part for name, part in parts.items() if part is not fields[name]}
        return dataclasses.replace(target, **changed) if changed else target
    return target


def _is_record(value: Any) -> TypeGuard[Any]:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _has_samples(tensor: Tensor, samples: int) -> bool:
    """Whether a target's tensor has something for each sample."""
    least = 3 if tensor.dtype == torch.bool else 2 if tensor.is_floating_point() else 1
    return tensor.dim() >= least and len(tensor) == samples


def _numbers_each(value: Any, samples: int) -> bool:
    return isinstance(value, tuple) and len(value) == samples and all(type(v) is int for v in value)


def joined_targets(targets: Sequence[Any], samples: Sequence[int]) -> Any:
    """The target of several batches.

    Raises:
        InputError: they are different ones.
    """
    first = targets[0]
    if all(isinstance(t, Tensor) for t in targets):
        if all(_has_samples(t, n) for t, n in zip(targets, samples, strict=True)):
            return torch.cat([t.to(first.device) for t in targets])
        if all(t.shape == first.shape and torch.equal(t.to(first.device), first) for t in targets):
            return first
    elif all(_numbers_each(t, n) for t, n in zip(targets, samples, strict=True)):
        return tuple(number for target in targets for number in target)
    elif _is_record(first) and all(type(t) is type(first) for t in targets):
        names = [f.name for f in dataclasses.fields(first)]
        return dataclasses.replace(
            first, **{n: joined_targets([getattr(t, n) for t in targets], samples) for n in names}
        )
    elif all(type(t) is type(first) and (t is first or (not callable(t) and t == first)) for t in targets):
        return first
    raise InputError(f"explanations of different targets cannot be concatenated: {targets[0]!r} and others.")


def joined(what: str, values: Sequence[Any], samples: Sequence[int]) -> Any:
    """Join the tensors in values of one form whose first dimension are the samples.

    Args:
        what: the values are, for errors.
        values: one of each batch.
        samples: how many each batch has.

    Raises:
        InputError: they have different forms or shapes.
    """
    forms = [_form(value) for value in values]
    if any(form != forms[0] for form in forms):
        raise InputError(f"explanations with {what} of different forms cannot be concatenated.")
    columns = iter(list(zip(*[tensors_in(value) for value in values], strict=True)))

    def of(tensor: Tensor) -> Tensor:
        column = next(columns)
        with_samples = all(t.dim() > 0 and len(t) == n for t, n in zip(column, samples, strict=True))
        if not with_samples and all(t.shape == tensor.shape for t in column):
            return tensor
        if not with_samples or any(t.shape[1:] != tensor.shape[1:] for t in column):
            shapes = " and ".join(str(tuple(t.shape)) for t in column[:2])
            raise InputError(f"explanations with {what} of the shapes {shapes} cannot be concatenated.")
        return torch.cat([t.to(tensor.device) for t in column])

    return map_tensors(of, values[0])


def _form(value: Any) -> Any:
    """The containers of a value, with their names, without what is in them."""
    if isinstance(value, Mapping):
        return {key: _form(item) for key, item in value.items()}, list(value)
    if isinstance(value, (list, tuple)):
        return [_form(item) for item in value]
    return type(value)


def same(what: str, values: Sequence[Any]) -> Any:
    """The value that all batches share.

    Raises:
        InputError: they differ in it.
    """
    others = [value for value in values[1:] if value != values[0]]
    if others:
        raise InputError(
            f"explanations of different {what} cannot be concatenated: {values[0]!r} and {others[0]!r}."
        )
    return values[0]
