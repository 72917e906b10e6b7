"""The tensor that a model computes with while it is explained, an envelope around the one of autograd."""

import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from relprop.calls.nested import map_leaves
from relprop.calls.user_line import user_line
from relprop.engine.gaps import Gap, Gaps, coverage_message, reason_of
from relprop.engine.known import Tag
from relprop.engine.levels import aside
from relprop.engine.memory import Memory, laid_out
from relprop.errors import CoverageError

_make: Callable[..., Any] = torch.Tensor._make_wrapper_subclass


class Owner(Protocol):
    """The run that a seen tensor belongs to, as far as the tensor needs it (see `relprop.engine.run.Run`)."""

    interception: Any
    is_over: bool
    gaps: Gaps

    def seen(self, inner: Tensor, tag: Tag | None) -> "Seen":
        """A tensor for the model."""

    def source(self, constant: Tensor, operation: str) -> "Seen":
        """A stand-in for a constant that relevance meets."""

    def cut(self, operation: str, reason: str) -> None:
        """Note where the way of relevance ends."""

    def refuse(self, operation: str, reason: str, acceptable: bool = False) -> None:
        """Note what makes every explanation doubtful."""


class Seen(Tensor):
    """A tensor made of the samples. Calls on it are the run's to cross.

    Attributes:
        run: whose.
        memory: what it shares with others, or None.
        compared: what was compared with zero, of a mask that was made so.
        of_parameters: whether it is a constant that was made of parameters.
        picked: whether its values are those of the model's own constants, put where the samples say, as the
            weights of the experts that they go to.
        detached: whether it is off the way of relevance in the memory of what is on it.
        offset: of its first element from that of the memory's base.
    """

    run: "Owner"
    memory: Memory | None = None
    offset: int = 0
    of_parameters: bool = False
    picked: bool = False
    detached: bool = False
    compared: Tensor | None = None
    _recorded: Tensor
    _tag: Tag | None
    _at: int = 0  # which version of the memory is in the envelope

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def of(inner: Tensor, tag: Tag | None, run: "Owner") -> "Seen":
        """Put a tensor into an envelope; without a tag it is a constant."""
        seen: Seen = _make(
            Seen, inner.shape, inner.stride(), 0, None, inner.dtype, torch.strided, inner.device
        )
        seen._recorded = inner
        seen._tag = tag
        seen.run = run
        return seen

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Hand a call to the run that the first of its tensors belongs to."""
        run = run_of(args) or run_of((kwargs or {}).values())
        if run is None or run.is_over:  # kept by the model: a tensor like others
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
    def tag(self) -> Tag:
        """What is known of a tensor on the way of relevance."""
        memory = self.memory
        if memory is not None and memory.version != self._at:
            self._refresh(memory)
        return self._tag or _NOTHING

    @property
    def relevant(self) -> bool:
        """Whether it depends on the explained inputs; it is a constant otherwise."""
        memory = self.memory
        if memory is None or not memory.version:
            return self._tag is not None
        return self.recorded.requires_grad

    def _refresh(self, memory: Memory) -> None:
        """Take what was written to the memory by another name."""
        since = self._at
        with aside(), torch.enable_grad():
            self._recorded, self._at = memory.part(self), memory.version
        if self._tag is not None and not memory.changed(self, since):
            return
        # Only where it came from still holds.
        depth = memory.depth if self._tag is None else max(memory.depth, self._tag.depth)
        self._tag = Tag(depth) if self._recorded.requires_grad else None

    def views(self, base: "Seen") -> None:
        """Note that it shares memory with another tensor."""
        memory = base.memory
        if memory is None:
            memory = base.memory = Memory(base._recorded)
            base.offset = base._at = 0
            memory.depth = base.tag.depth
        self.memory, self._at, self.detached = memory, memory.version, base.detached
        self.offset = base.offset + int(self._recorded.storage_offset()) - int(base.recorded.storage_offset())

    def replaces(self, other: "Seen") -> None:
        """Share memory with another tensor of the same value, which this one stands for from now on."""
        self.views(other)
        assert self.memory is not None
        self.memory.replaced.append((self.offset, self._recorded))

    def become(self, value: "Seen") -> None:
        """Take the value of another one, which was written to this one."""
        inner, tag = value.recorded, value._tag
        memory = self.memory
        if memory is None:
            if inner.stride() != self.stride() and 0 not in self.stride():  # the envelope tells the strides
                inner = laid_out(inner, self.stride())
            self._recorded, self._tag = inner, tag
            return
        if inner.requires_grad and not memory.base.requires_grad:
            # What is not written to is a constant, and absorbs what comes to it.
            memory.base, memory.is_read = self.run.source(memory.base, "copy").recorded, False
        elif memory.base.requires_grad and not inner.requires_grad:
            inner = self.run.source(inner, "copy").recorded
        memory.depth = max(memory.depth, value.tag.depth)
        self._recorded = memory.write(self, inner)
        self._at = memory.version
        self._tag = tag if tag is not None or not self._recorded.requires_grad else Tag()

    def reshape_to(self, view: "Seen") -> None:
        """Be a view of itself from now on, as the envelope is."""
        self._recorded, self._tag = view._recorded, view._tag
        if view.memory is not None:
            self.memory, self.offset, self._at = view.memory, view.offset, view._at

    # ---- what a model may ask beside aten's operations ----

    @property
    def requires_grad(self) -> bool:
        """Whether it depends on the explained inputs."""
        return self.relevant

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        """Nothing: what is explained is not the model's to say."""

    @property
    def is_leaf(self) -> bool:  # type: ignore[override]
        """Whether it does not depend on the explained inputs."""
        return not self.relevant

    def retain_grad(self) -> None:
        """Nothing: there are coefficients here, and no gradients."""

    @property
    def grad_fn(self) -> Any:  # type: ignore[override]
        """None, but for a module that hangs its hooks on gradients there: they are not called."""
        asks = sys._getframe(1).f_globals.get("__name__")
        return _NO_HOOKS if asks == "torch.utils.hooks" and self.relevant else None

    @property
    def data(self) -> Tensor:
        """The same off the way of relevance."""
        if self.relevant:
            self.run.cut("data", "cuts the way of relevance")
        seen = self.run.seen(self.values_alone(), None)
        seen.views(self)
        seen.detached = True
        return seen

    @data.setter
    def data(self, value: Tensor) -> None:
        """Take other values: not in relprop's sight."""
        self.run.refuse("data", reason_of("data"))
        with aside():
            self._recorded = self.recorded + (value_of(value) - self.recorded).detach()

    def values_alone(self) -> Tensor:
        """The values as a plain tensor (see `relprop.calls.nested.values_of`)."""
        with aside():
            return self.recorded.detach()

    def detach_(self) -> "Seen":
        """Leave the way of relevance."""
        self.run.cut("detach_", "cuts the way of relevance")
        self._recorded, self._tag = self.recorded.detach(), None
        return self

    def requires_grad_(self, requires_grad: bool = True) -> "Seen":
        """Itself: what is explained is not the model's to say."""
        return self

    def backward(self, *_arguments: Any, **_options: Any) -> None:
        """Refused: the model's own gradients would be coefficients of relevance.

        Raises:
            CoverageError: always.
        """
        raise CoverageError(
            coverage_message([Gap("", "backward", user_line(), reason_of("backward"), False)])
        )

    def numpy(self, **options: Any) -> Any:
        """The values, off the way of relevance."""
        return self._looked_at("numpy").numpy(**options)

    def __dlpack__(self, **options: Any) -> Any:
        """The values, off the way of relevance."""
        return self._looked_at("__dlpack__").__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        """Where the values are."""
        return self.values_alone().__dlpack_device__()

    def apply_(self, _function: Any) -> Tensor:
        """Refused: what Python makes of numbers is out of relprop's sight.

        Raises:
            CoverageError: always.
        """
        self.run.refuse("apply_", reason_of("apply_"))
        self.run.gaps.require_none()
        return self

    def __array__(self, *args: Any) -> Any:
        """The values, off the way of relevance."""
        return self._looked_at("numpy").__array__(*args)  # type: ignore[no-untyped-call]

    def tolist(self) -> Any:
        """The values, off the way of relevance."""
        return self._looked_at("tolist").tolist()

    def data_ptr(self) -> int:
        """Where the values are, for a kernel that computes what nobody sees."""
        if self.relevant and not self.run.is_over:
            self.run.refuse("data_ptr", reason_of("data_ptr"), acceptable=True)
        return self._looked_at("data_ptr").data_ptr()

    def untyped_storage(self) -> Any:
        """The memory of the values."""
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
            self.run.cut(by, "takes values out of torch, which cuts the way of relevance")
        return self.values_alone()


_NOTHING = Tag()


class _NoHooks:
    """A node of the graph as modules with full backward hooks look for it."""

    def name(self) -> str:
        """Name of the node behind the inputs and outputs of such a module."""
        return "BackwardHookFunctionBackward"

    def register_hook(self, _hook: Any) -> "_NoHooks":
        """Take a hook that is not called."""
        return self

    register_prehook = register_hook

    def remove(self) -> None:
        """Take the hook away again."""


_NO_HOOKS = _NoHooks()


def run_of(value: Iterable[Any]) -> "Owner | None":
    """The run that the first seen tensor in nested lists belongs to."""
    for v in value:
        kind = type(v)
        if kind is Seen:
            return v.run  # type: ignore[no-any-return]
        if (kind is list or kind is tuple) and (run := run_of(v)) is not None:
            return run
    return None


def is_relevant(value: Any) -> TypeGuard[Seen]:
    """Whether a value is a tensor that depends on the explained inputs."""
    return type(value) is Seen and value.relevant


def value_of(value: Any) -> Any:
    """A tensor's value, as a plain tensor; anything else is itself."""
    return value.values_alone() if type(value) is Seen else value


def within(value: Any) -> Any:
    """What is in an envelope; anything else is itself."""
    kind = type(value)
    if kind is Seen:
        return value.recorded
    return [within(v) for v in value] if kind is list or kind is tuple else value


def inner_of(value: Any) -> Any:
    """What autograd sees of a value: of an envelope what is in it, of a parameter the constant that it is."""
    kind = type(value)
    if kind is Seen:
        return value.recorded
    if kind is list or kind is tuple:
        return [inner_of(v) for v in value]
    if isinstance(value, Tensor):
        if value.is_inference():  # which autograd cannot save
            return value.detach().clone()
        return value.detach() if value.requires_grad else value
    return value
