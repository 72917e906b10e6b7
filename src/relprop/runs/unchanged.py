"""Whether a model is still what it was: its modules, parameters and buffers, and what these hold."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import islice
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from relprop.calls.site import every_module
from relprop.engine.keep import version_of
from relprop.engine.modules import follow_modules
from relprop.engine.surroundings import hooks_of_all_modules
from relprop.runs.storages import place_of

_SAMPLED = 1024
"""So many values of a tensor are looked at, up to twice as many. Writing by `.data` raises no version."""

_ROW = 8
"""So many of them lie side by side."""

_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, partial)
_LOOKED_AT = (type(None), bool, int, float, complex, str, torch.dtype, *_FUNCTIONS)
"""Which attributes of modules are looked at."""


def has_lazy_modules(model: Callable[..., Any]) -> bool:
    """Whether a module has parameters whose shapes its first call decides."""
    modules = every_module(model) if isinstance(model, nn.Module) else []
    return any([isinstance(module, LazyModuleMixin) for module in modules])


def has_hooks(model: Callable[..., Any]) -> bool:
    """Whether a call of a model, or of a module that it holds, also calls hooks of the user."""
    hooks = _hooks_of_all()
    for module in modules_of(model):
        hooks += [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return not all([str(getattr(hook, "__module__", "")).startswith(_OF_LIBRARIES) for hook in hooks])


_OF_LIBRARIES = ("torch.", "transformers.")
"""Hooks of these libraries are parts of their modules, such as those that collect hidden states."""


def kept_by(model: Callable[..., Any]) -> list[Any]:
    """Return what differs if a model keeps something: attributes that it sets, lists that it lengthens."""
    attributes = [value for module in modules_of(model) for value in vars(module).values()]
    if isinstance(model, FunctionType):
        attributes += referred_to(model).values()
    held = [list(value.values()) if isinstance(value, dict) else value for value in attributes]
    contents = [[*map(id, islice(each, 1000)), len(each)] for each in held if isinstance(each, _CONTAINERS)]
    return [contents, *map(id, attributes)]


_CONTAINERS = (list, tuple, set, deque)


def modules_of(model: Callable[..., Any]) -> list[nn.Module]:
    """Return the modules of a model, also of a function that holds some."""
    roots = [each for each in _held_by(model) if isinstance(each, nn.Module)]
    return [module for root in roots for module in every_module(root)]


@cache
def _is_looked_at(kind: type) -> bool:
    """Whether attributes of a type are looked at. To ask `isinstance` for each takes longer."""
    return issubclass(kind, _LOOKED_AT)


class SameValues:
    """Knows whether tensors have been written to, or got other memory. Calling it says so.

    Writes through `.data` are found by a sample of values.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        self._state = [_of_tensor(t) for t in tensors]
        self._samples = _by_kind([_sample(t) for t in tensors if t.numel() and _has_values(t)])
        self._values = _values(self._samples)

    def also_of(self, tensors: Sequence[Tensor]) -> "SameValues":
        """Return what knows the same of more tensors, as these are now."""
        other = SameValues([*self._tensors, *tensors])
        other._state[: len(self._state)] = self._state
        return other

    def lie_as_before(self) -> bool:
        """Whether they have the memory that they had, and were not written to but by `.data`."""
        return list(map(_of_tensor, self._tensors)) == self._state

    def __call__(self) -> bool:
        """Whether all is as it was."""
        return self.lie_as_before() and _same(_values(self._samples), self._values)


class SameParts:
    """Knows whether a model has the same modules, parameters and buffers. Calling it says so."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self._parts = [(module, _parts_of(module)) for module in modules_of(model)]

    def __call__(self) -> bool:
        """Whether it has."""
        return all([_parts_of(module) == parts for module, parts in self._parts])


def _parts_of(module: nn.Module) -> tuple[Any, ...]:
    tensors = *module._parameters.values(), *module._buffers.values()
    return type(module), dict(module._modules), [*map(id, tensors)]


class Unchanged:
    """Knows whether a model has changed since this was made. Calling it says so.

    Modules are replaced, get hooks, or have numbers, texts and functions among their attributes replaced.
    Tensors are replaced, written to, or get other memory. Writes through `.data` are found by a sample of
    values. Of a function, the modules and tensors that it holds are looked at: in its closure, among its
    globals, in its arguments bound by `partial`, and in the object that a method belongs to.

    Other tensors among the attributes of modules are looked at if they are known to matter: `looking_at`.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self._model = model
        modules, tensors = self._parts()
        self._held = modules, tensors  # so that no number stands for another object
        self._state = [_hooks_of_all(), *map(_of_module, modules), *map(id, tensors)]
        self._values = SameValues(tensors)
        self._attributes: list[tuple[nn.Module, str, Tensor]] = []
        self._possible = [
            (module, name, value, _of_tensor(value))
            for module in modules
            for name, value in vars(module).items()
            if isinstance(value, Tensor)
        ]
        self._written = False

    def looking_at(self, places: Collection[int]) -> "Unchanged":
        """Also look at those tensors among the attributes of modules that lie at these places."""
        read = [each for each in self._possible if place_of(each[2]) in places]
        self._attributes = [(module, name, value) for module, name, value, _ in read]
        self._written = any([_of_tensor(value) != before for _, _, value, before in read])
        self._values = self._values.also_of([value for _, _, value in self._attributes])
        self._possible = []
        return self

    def __call__(self) -> bool:
        """Whether nothing has changed."""
        modules, tensors = self._parts()
        if any([vars(module).get(name) is not value for module, name, value in self._attributes]):
            return False
        state = [_hooks_of_all(), *map(_of_module, modules), *map(id, tensors)]
        return state == self._state and self._values() and not self._written

    def _parts(self) -> tuple[list[nn.Module], list[Tensor]]:
        """Return the modules and the tensors of the model."""
        found = list(_held_by(self._model))
        roots = [each for each in found if isinstance(each, nn.Module)]
        modules = [module for root in roots for module in every_module(root)]
        for module in modules:  # which grows by those that a module hides from torch in a list
            lists = [each for each in vars(module).values() if type(each) in (list, tuple)]
            hidden = [m for each in lists for m in _held_by(each, 2) if isinstance(m, nn.Module)]
            modules += [m for each in hidden if each not in modules for m in every_module(each)]
        tensors = [each for each in found if isinstance(each, Tensor)]
        for module in modules:
            tensors += [t for t in module._parameters.values() if t is not None]
            tensors += [t for t in module._buffers.values() if t is not None]
        return modules, tensors


def _held_by(held: Any, depth: int = 4) -> Iterator[nn.Module | Tensor]:
    """Yield the modules and tensors that a model holds, as far as they are found."""
    if isinstance(held, (nn.Module, Tensor)):
        yield held
        return
    within: list[Any] = []
    if isinstance(held, MethodType):
        within = [held.__self__, held.__func__]
    elif isinstance(held, partial):
        within = [held.func, *held.args, *held.keywords.values()]
    elif isinstance(held, FunctionType):
        within = [*referred_to(held).values(), *(held.__defaults__ or ()), getattr(held, "__wrapped__", None)]
    elif isinstance(held, (list, tuple)):
        within = list(held)
    elif isinstance(held, dict):
        within = list(held.values())
    elif callable(held) and hasattr(held, "__dict__") and not isinstance(held, (type, ModuleType)):
        within = list(vars(held).values())
    for each in within if depth > 0 else ():
        yield from _held_by(each, depth - 1)


def referred_to(function: FunctionType) -> dict[str, Any]:
    """Return what a function refers to by name: globals, variables around it, and keyword defaults."""
    codes = [function.__code__]
    for code in codes:  # which grows by the functions within
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
    found = {
        name: function.__globals__[name]
        for code in codes
        for name in code.co_names
        if name in function.__globals__
    }
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # it has no value yet
            continue
    return found | (function.__kwdefaults__ or {})


def _of_module(module: nn.Module) -> tuple[Any, ...]:
    """Return what differs if a module was replaced, or gives something else."""
    held = vars(module).items()
    attributes = [(name, value) for name, value in held if _is_looked_at(type(value))]  # type: ignore[arg-type]
    return (
        id(module),
        type(module),
        getattr(type(module), "forward", None),
        attributes,
        list(module._forward_hooks),
        list(module._forward_pre_hooks),
    )


def _hooks_of_all() -> list[Any]:
    """Return the hooks that run with each module, but for those of explanations in other threads."""
    found = [hook for hooks in hooks_of_all_modules()[:2] for hook in list(hooks.values())]
    return [hook for hook in found if getattr(hook, "__module__", "") != follow_modules.__module__]


def _of_tensor(tensor: Tensor) -> tuple[Any, ...]:
    """Return what differs if a tensor was written to, or lies elsewhere or otherwise in memory."""
    lies = (tensor.data_ptr(), tensor.shape, tensor.stride()) if _has_values(tensor) else ()
    return version_of(tensor), *lies


def _has_values(tensor: Tensor) -> bool:
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
    return plain and not (tensor.is_meta or tensor.is_quantized)


def _sample(tensor: Tensor) -> Tensor:
    """Return a view of some values, as integers of the same bits."""
    values = tensor.detach()
    if values.is_complex():
        values = torch.view_as_real(values.conj() if values.is_conj() else values)
    values = values._neg_view() if values.is_neg() else values
    count = values.numel()
    if 1 + sum([(n - 1) * stride for n, stride in zip(values.shape, values.stride(), strict=True)]) == count:
        step = count // (_SAMPLED // _ROW) | 1  # odd, so that the sample does not stay in a few columns
        if step > _ROW:  # which costs a fraction of as many values far from each other
            values = values.as_strided(((count - _ROW) // step + 1, _ROW), (step, 1))
        else:
            values = values.as_strided((count,), (1,))
    while values.numel() > 2 * _SAMPLED:  # there are gaps between the values
        longest = max(range(values.dim()), key=lambda dim: values.shape[dim])
        values = values[(slice(None),) * longest + (slice(None, None, 2),)]
    return values.view(_INTEGER[values.itemsize])


_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _by_kind(samples: Iterable[Tensor]) -> list[list[Tensor]]:
    """Return samples that can be put together."""
    kinds: dict[Any, list[Tensor]] = {}
    for sample in samples:
        side_by_side = sample.shape[1:] if sample.dim() == 2 else None
        kinds.setdefault((sample.device, sample.dtype, side_by_side), []).append(sample)
    return list(kinds.values())


def _values(samples: Sequence[list[Tensor]]) -> list[Tensor]:
    with torch.no_grad():
        return [
            torch.cat(each if each[0].dim() == 2 else [sample.reshape(-1) for sample in each])
            for each in samples
        ]


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))
