"""The wrapper tensor that a model computes with while it is explained."""

import sys
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from relprop.calls.nested import map_leaves
from relprop.calls.user_line import user_line
from relprop.engine.gaps import Gap, Gaps, coverage_message, reason_of
from relprop.engine.known import Operand, Origin, Tag, behind_all
from relprop.engine.levels import aside
from relprop.engine.memory import Memory, laid_out
from relprop.errors import CoverageError

_make: Callable[..., Any] = torch.Tensor._make_wrapper_subclass


class Owner(Protocol):
    """The run of a wrapper tensor, as far as the tensor needs it (see `relprop.engine.run.Run`)."""

    interception: Any
    is_over: bool
    gaps: Gaps

    def seen(self, inner: Tensor, tag: Tag | None) -> "Seen":
        """Return a wrapper tensor for the model."""

    def source(self, constant: Tensor, operation: str) -> "Seen":
        """Return a stand-in for a constant operand, which absorbs relevance."""

    def slot(self, operand: Operand) -> Tensor | None:
        """Return the slot of an operand, or None."""

    def cut(self, operation: str, reason: str) -> None:
        """Record a place where the model makes a constant of a relevant tensor."""

    def refuse(self, operation: str, reason: str, acceptable: bool = False) -> None:
        """Record what the model did that is an error wherever relevance goes."""


class _Later:
    """The inner tensor of a wrapper tensor that gets one when somebody asks for it."""

    def __get__(self, seen: "Seen", _owner: type) -> Tensor:
        later = seen._later
        if later is None:  # another thread has asked meanwhile
            return seen._recorded
        inner, attached = later
        if not seen.run.is_over:
            inner = seen.run.interception.beside_a_call(attached)
        seen._recorded, seen._later = inner, None
        return inner


class Seen(Tensor):
    """A wrapper around a tensor that was computed from the samples. The run handles the calls on it.

    Attributes:
        run: the run that it belongs to.
        memory: the storage that it shares with its base or its views, or None.
        above: for a mask, the tensor that is above zero where the mask is true; otherwise None.
        below: likewise, the tensor that is below zero.
        stored: for a dense matrix that stands for a sparse one, which elements this stores; otherwise None.
        stepped: for a constant that is a step function of each element of a relevant tensor, such as its
            rounded values, the tensor that it is a function of, as autograd sees it; otherwise None.
        of_parameters: whether it is a constant that was made of parameters.
        picked: whether its values are the model's own constants, picked by the samples, such as the weights
            of the experts that were chosen.
        detached: whether it was detached from a tensor and shares its storage.
        lost: where integer inputs that it was computed from were lost, by name (see `relprop.inputs.tokens`).
        offset: position of its first element after that of the memory's base, in elements.
    """

    run: "Owner"
    memory: Memory | None = None
    offset: int = 0
    of_parameters: bool = False
    picked: bool = False
    detached: bool = False
    above: Tensor | None = None
    below: Tensor | None = None
    stored: Tensor | None = None
    stepped: Tensor | None = None
    lost: Mapping[str, str] = MappingProxyType({})
    _recorded: Tensor = _Later()  # type: ignore[assignment]
    _tag: Tag | None
    _at: int = 0  # the version of the memory that `_recorded` has
    # While nobody has asked for `_recorded`: the value, and what attaches it.
    _later: tuple[Tensor, Callable[[], Tensor]] | None = None

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def of(inner: Tensor, tag: Tag | None, run: "Owner") -> "Seen":
        """Wrap a tensor. With a tag the result is relevant, without one it is a constant."""
        strides = inner.stride() if inner.layout is torch.strided else (0,) * inner.dim()  # sparse has none
        seen: Seen = _make(Seen, inner.shape, strides, 0, None, inner.dtype, torch.strided, inner.device)
        seen._recorded = inner
        seen._tag = tag
        seen.run = run
        return seen

    @staticmethod
    def later(value: Tensor, tag: Tag, run: "Owner", attached: Callable[[], Tensor]) -> "Seen":
        """Wrap a value whose inner tensor, as autograd sees it, is `attached()` once it is needed."""
        seen = Seen.of(value, tag, run)
        del seen._recorded
        seen._later = value, attached
        return seen

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Pass a call to the run of the first wrapper tensor among its arguments."""
        run = run_of(args) or run_of((kwargs or {}).values())
        if run is None or run.is_over:  # the model kept it after the run: an ordinary tensor
            return func(*map_leaves(value_of, list(args)), **map_leaves(value_of, kwargs or {}))
        return run.interception.see(func, args, kwargs or {})

    # ---- what the engine sees ----

    @property
    def recorded(self) -> Tensor:
        """The tensor as autograd sees it."""
        memory = self.memory
        if memory is not None and memory.version != self._at:
            self._refresh(memory)
        return self._recorded

    @property
    def known(self) -> Tensor:
        """The value right after a call that made it, by which nothing is attached or computed."""
        return self._recorded if self._later is None else self._later[0]

    @property
    def tag(self) -> Tag:
        """What is known about the tensor; an empty tag if it is a constant."""
        memory = self.memory
        if memory is not None and memory.version != self._at:
            self._refresh(memory)
        return self._tag or _NOTHING

    @property
    def relevant(self) -> bool:
        """Whether the tensor depends on the explained inputs. Otherwise it is a constant."""
        memory = self.memory
        if memory is None or not memory.version:
            return self._tag is not None
        return self.recorded.requires_grad

    def _refresh(self, memory: Memory) -> None:
        """Read the value after a write through another tensor of the same memory."""
        since = self._at
        with aside(), torch.enable_grad():
            self._recorded, self._at = memory.part(self), memory.version
            if self._tag is None or memory.changed(self, since):
                self.learn(memory)

    def learn(self, memory: Memory) -> None:
        """Replace the tag by what is still known after a write through another tensor of the same memory."""
        before, self._tag = self._tag, memory.known(self) if self._recorded.requires_grad else None
        if before is not None and self._tag is not None:
            self._tag.behind = behind_all([before, self._tag])

    def views(self, base: "Seen") -> None:
        """Record that this tensor is a view of another one and shares its memory."""
        memory = base.memory
        if memory is None:
            memory = base.memory = Memory(base._recorded, base._tag)
            base.offset = base._at = 0
        self.memory, self._at, self.detached = memory, memory.version, base.detached
        self.offset = base.offset + int(self._recorded.storage_offset()) - int(base.recorded.storage_offset())

    def replaces(self, other: "Seen") -> None:
        """Share memory with another tensor of the same value, which this tensor replaces."""
        self.views(other)
        assert self.memory is not None
        self.memory.replaced.append((self.offset, self._recorded, self.tag.slot))

    def become(self, value: "Seen") -> None:
        """Take the value of another tensor, which the model wrote to this tensor in place."""
        inner, tag = value.recorded, value._tag
        memory, self._later = self.memory, None
        if memory is None:
            if inner.stride() != self.stride() and 0 not in self.stride():  # as the wrapper reports them
                inner = laid_out(inner, self.stride())
            self._recorded, self._tag = inner, tag
            return
        memory.note_island(self, inner, tag)
        written: Operand = value
        if inner.requires_grad and not memory.base.requires_grad:
            # The rest of the base is a constant, which absorbs relevance.
            rest = self.run.source(memory.base, "copy")
            memory.base, memory.slot, memory.is_read = rest.recorded, rest.tag.slot, False
        elif memory.base.requires_grad and not inner.requires_grad:
            written = self.run.source(inner, "copy")
        if memory.before is not None:  # this is the first write to a relevant base
            memory.slot = self.run.slot(Origin(recorded=memory.base, tag=memory.before))
        slot = self.run.slot(written) if memory.base.requires_grad else None
        memory.learn(tag)
        self._recorded = memory.write(self, written.recorded, slot, tag)
        self._at = memory.version
        self._tag = tag if tag is not None or not self._recorded.requires_grad else Tag()

    def reshape_to(self, view: "Seen") -> None:
        """Become a view of itself, after an in-place call has changed the wrapper's shape in the same way."""
        self._recorded, self._tag = view._recorded, view._tag
        if view.memory is not None:
            self.memory, self.offset, self._at = view.memory, view.offset, view._at

    # ---- attributes and methods that do not arrive as aten operations ----

    @property
    def requires_grad(self) -> bool:
        """Whether the tensor depends on the explained inputs."""
        return self.relevant

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        """Do nothing: the model does not decide what is explained."""

    @property
    def is_leaf(self) -> bool:  # type: ignore[override]
        """Whether the tensor does not depend on the explained inputs."""
        return not self.relevant

    def retain_grad(self) -> None:
        """Do nothing: autograd's gradients are coefficients here."""

    @property
    def grad_fn(self) -> Any:  # type: ignore[override]
        """None; for who puts hooks on it, a node that never calls them."""
        asks = sys._getframe(1).f_globals.get("__name__")
        return _NO_HOOKS if asks in _HOOKING and self.relevant else None

    @property
    def data(self) -> Tensor:
        """The values as a constant, which shares memory with this tensor."""
        if self.relevant:
            self.run.cut("data", "makes a constant")
        seen = self.run.seen(self.values_alone(), None)
        seen.views(self)
        seen.detached = True
        return seen

    @data.setter
    def data(self, value: Tensor) -> None:
        """Take other values. This is recorded as an error, because relprop does not see such writes."""
        self.run.refuse("data", reason_of("data"))
        with aside():
            self._recorded = self.recorded + (value_of(value) - self.recorded).detach()

    def values_alone(self) -> Tensor:
        """Return the values as a plain tensor (see `relprop.calls.nested.values_of`)."""
        with aside():
            return self.recorded.detach()

    def detach_(self) -> "Seen":
        """Become a constant."""
        self.run.cut("detach_", "makes a constant")
        self._recorded, self._tag = self.recorded.detach(), None
        return self

    def requires_grad_(self, requires_grad: bool = True) -> "Seen":
        """Return the tensor unchanged: the model does not decide what is explained."""
        return self

    def backward(self, *_arguments: Any, **_options: Any) -> None:
        """Refuse, because the model's own gradients would be coefficients of relevance.

        Raises:
            CoverageError: always.
        """
        raise CoverageError(
            coverage_message([Gap("", "backward", user_line(), reason_of("backward"), False)])
        )

    def numpy(self, **options: Any) -> Any:
        """Return the values, which are constants for relevance."""
        return self._looked_at("numpy").numpy(**options)

    def __dlpack__(self, **options: Any) -> Any:
        """Return the values, which are constants for relevance."""
        return self._looked_at("__dlpack__").__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        """Return the device of the values."""
        return self.values_alone().__dlpack_device__()

    def apply_(self, _function: Any) -> Tensor:
        """Refuse, because relprop does not see what Python computes with numbers.

        Raises:
            CoverageError: always.
        """
        self.run.refuse("apply_", reason_of("apply_"))
        self.run.gaps.require_none()
        return self

    def __array__(self, *args: Any) -> Any:
        """Return the values, which are constants for relevance."""
        return self._looked_at("numpy").__array__(*args)  # type: ignore[no-untyped-call]

    def tolist(self) -> Any:
        """Return the values, which are constants for relevance."""
        return self._looked_at("tolist").tolist()

    def data_ptr(self) -> int:
        """Return the address of the values.

        For a relevant tensor this is recorded as an error, because relprop does not see what is computed with
        the address.
        """
        if self.relevant and not self.run.is_over:
            self.run.refuse("data_ptr", reason_of("data_ptr"), acceptable=True)
        return self._looked_at("data_ptr").data_ptr()

    def untyped_storage(self) -> Any:
        """Return the storage of the values."""
        return self._looked_at("untyped_storage").untyped_storage()

    def __repr__(self, **_options: Any) -> str:  # type: ignore[override]
        return repr(value_of(self))

    def __format__(self, spec: str) -> str:
        return format(value_of(self), spec)

    def __deepcopy__(self, memo: Any) -> Tensor:
        copy: Tensor = value_of(self).clone()
        return copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        return value_of(self).__reduce_ex__(protocol)

    def _looked_at(self, by: str) -> Tensor:
        if self.relevant and not self.run.is_over:
            self.run.cut(by, "takes values out of torch, and so makes a constant")
        return self.values_alone()


_NOTHING = Tag()

_HOOKING = ("torch.utils.hooks", "torch.autograd.graph")
"""Modules of torch that put hooks on the nodes of tensors, as full backward hooks and FLOP counters do."""


class _NoHooks:
    """A graph node for modules with full backward hooks. It accepts hooks and never calls them."""

    def name(self) -> str:
        """Return the name of the node that such a module expects behind its inputs and outputs."""
        return "BackwardHookFunctionBackward"

    def register_hook(self, _hook: Any) -> "_NoHooks":
        """Accept a hook, which is not called."""
        return self

    register_prehook = register_hook

    def remove(self) -> None:
        """Remove the hook."""


_NO_HOOKS = _NoHooks()


def run_of(value: Iterable[Any]) -> "Owner | None":
    """Return the run of the first wrapper tensor in nested lists, or None."""
    for v in value:
        kind = type(v)
        if kind is Seen:
            return v.run  # type: ignore[no-any-return]
        if (kind is list or kind is tuple) and (run := run_of(v)) is not None:
            return run
    return None


def is_relevant(value: Any) -> TypeGuard[Seen]:
    """Whether a value is a wrapper tensor that depends on the explained inputs."""
    return type(value) is Seen and value.relevant


def value_of(value: Any) -> Any:
    """Return the values of a wrapper tensor as a plain tensor, and anything else unchanged."""
    return value.values_alone() if type(value) is Seen else value


def number_of(value: Any) -> float:
    """Return a number, or a constant tensor of one number such as a parameter, as a Python number."""
    value = value_of(value)
    return float(value.detach() if isinstance(value, Tensor) else value)


def within(value: Any) -> Any:
    """Return the values of wrapper tensors, also in lists, and anything else unchanged."""
    kind = type(value)
    if kind is Seen:
        return value.recorded if value._later is None else value._later[0]
    return [within(v) for v in value] if kind is list or kind is tuple else value


def inner_of(value: Any) -> Any:
    """Return the tensor that autograd should see: an inner tensor, or a parameter detached as a constant."""
    kind = type(value)
    if kind is Seen:
        return value.recorded
    if kind is list or kind is tuple:
        return [inner_of(v) for v in value]
    if isinstance(value, Tensor):
        if value.is_inference():  # autograd cannot save such a tensor
            return value.detach().clone()
        return value.detach() if value.requires_grad else value
    return value
