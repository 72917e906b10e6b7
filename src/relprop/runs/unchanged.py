"""Whether a model is still what it was: its modules, parameters and buffers, and what these hold."""

import inspect
from collections.abc import Callable
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from relprop.calls.site import every_module
from relprop.runs.tracing import version_of

_SAMPLED = 64
"""How many values of each tensor are looked at. Writing to `weight.data` does not raise its version."""


class Unchanged:
    """Knows whether a model has changed since this was made. Calling it says so.

    A module has its tensors replaced, or written to. Writes through `.data` are found by a sample of values.
    Of a function, the modules that it holds are looked at: in its closure, its arguments bound by `partial`,
    and the object that a method belongs to.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self._modules = list(_modules_of(model))
        self._held = self._state()
        self._samples = [_sample(t) for t, _ in self._tensors() if t.numel() and _has_values(t)]
        self._values = _values(self._samples)

    def __call__(self) -> bool:
        """Whether nothing has changed."""
        return self._state() == self._held and _same(_values(self._samples), self._values)

    def _tensors(self) -> list[tuple[Tensor, int]]:
        return [
            (tensor, version_of(tensor))
            for root in self._modules
            for module in every_module(root)
            for held in (module._parameters, module._buffers)
            for tensor in held.values()
            if tensor is not None
        ]

    def _state(self) -> list[tuple[int, int]]:
        return [(id(tensor), version) for tensor, version in self._tensors()]


def _modules_of(held: Any, depth: int = 4) -> list[nn.Module]:
    """The modules that a model holds, as far as they are found."""
    if isinstance(held, nn.Module):
        return [held]
    within: list[Any] = []
    if isinstance(held, MethodType):
        within = [held.__self__, held.__func__]
    elif isinstance(held, partial):
        within = [held.func, *held.args, *held.keywords.values()]
    elif isinstance(held, FunctionType):
        variables = inspect.getclosurevars(held)
        within = [
            *variables.nonlocals.values(),
            *variables.globals.values(),
            getattr(held, "__wrapped__", None),
        ]
    elif isinstance(held, (list, tuple)):
        within = list(held)
    elif isinstance(held, dict):
        within = list(held.values())
    elif callable(held) and hasattr(held, "__dict__") and not isinstance(held, (type, ModuleType)):
        within = list(vars(held).values())
    return [module for each in within if depth > 0 for module in _modules_of(each, depth - 1)]


def _has_values(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided and not tensor.is_meta


def _sample(tensor: Tensor) -> Tensor:
    """Return a view of some values."""
    values = tensor.detach()
    if not values.is_contiguous():
        return values
    return values.view(-1)[:: max(1, values.numel() // _SAMPLED)]


def _values(samples: list[Tensor]) -> list[Tensor]:
    """Return one number for each sample, by device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for sample in samples:
        by_device.setdefault(sample.device, []).append(sample)
    with torch.no_grad():
        return [torch.stack([s.sum().double() for s in each]) for each in by_device.values()]


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all([torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(one, other, strict=True)])
