"""In-place writes of a model: to wrapper tensors, through views, and to plain tensors."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils.weak import WeakTensorKeyDictionary

from relprop.calls.call import Call
from relprop.calls.nested import tensors_in
from relprop.engine.gaps import reason_of
from relprop.engine.keep import memory_of
from relprop.engine.levels import aside
from relprop.engine.memory import Memory, copy_of
from relprop.engine.run import Run
from relprop.engine.seen import Seen, inner_of, value_of


class Beginnings(Protocol):
    """Finds the tensors at which relevance begins, while the model runs."""

    any_leaf: bool
    """Whether relevance begins at every leaf that requires a gradient and is no parameter."""
    any_passed_on: bool
    """Whether the model gets integers as they are, of which a call without wrapper tensors may tell."""

    def follow(self, call: Call) -> Any:
        """Run a call on constants, and record for its results what is known about its operands."""

    def in_plain(self, call: Call, result: Any) -> Any:
        """Return what replaces the result of a call without wrapper tensors."""

    def carry_lost(self, call: Call, seen: Sequence[Seen], result: Any) -> None:
        """Record for a call's results which integer inputs they were computed from without being followed."""

    def become_numbers(self, call: Call) -> list[Seen]:
        """Return the integers at which relevance begins, because a call makes numbers of them."""

    def may_begin_within(self, call: Call) -> bool:
        """Whether a call on constants has an entry in whose parts relevance may begin."""

    def looked_up(self, call: Call, value: Any, off: str) -> Seen | None:
        """Return the wrapper tensor that replaces a call's value if relevance begins there, or None."""

    def note_written(self, target: Seen, value: Seen) -> None:
        """Record that a value is about to be written to a tensor."""

    def note_cast(self, x: Seen, result: Seen) -> None:
        """Record that a relevant tensor was cast to a type that carries no relevance."""

    def carry_step(self, call: Call, seen: Sequence[Seen], result: Any) -> None:
        """Record what a call made of constants that are step functions of relevant tensors."""

    def note_step(self, call: Call, seen: Sequence[Seen], result: Seen) -> None:
        """Record that a call on relevant tensors gave a constant."""

    def leaf(self, tensor: Tensor) -> Seen | None:
        """Return the wrapper tensor that replaces a plain tensor if relevance begins there, or None."""


class Writing:
    """The in-place writes of a run.

    An in-place call is run out of place, and its result becomes the target's value. If a value of a wrapper
    tensor is written to a plain tensor, a wrapper tensor stands for the plain tensor from then on.

    Args:
        run: the run, as entries see it.
        beginnings: finds the tensors at which relevance begins.
    """

    def __init__(self, run: Run, beginnings: Beginnings) -> None:
        self.run = run
        self.beginnings = beginnings
        # By storage: plain tensors that were written to, and the wrapper tensors that stand for them.
        self._written: dict[int, tuple[Tensor, Seen]] = {}
        self._stand_ins: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    @property
    def looks_at_plain(self) -> bool:
        """Whether plain tensors may have stand-ins."""
        return bool(self._written) or self.beginnings.any_leaf

    def stand_in(self, value: Any) -> Any:
        """Return the wrapper tensor that stands for a plain tensor, or the value itself if none does.

        A wrapper tensor of another run becomes a constant of this run.
        """
        if type(value) is Seen:
            return value if value.run is self.run else self.run.seen(value_of(value), None)
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            return value
        if self.beginnings.any_leaf and value.requires_grad and value.is_leaf:
            begun = self.beginnings.leaf(value)
            return value if begun is None else begun
        known = self._written.get(memory_of(value)) if self._written else None
        return value if known is None else self._view(value, *known)

    def _view(self, plain: Tensor, base: Tensor, written: Seen) -> Seen:
        """Return the one wrapper tensor that stands for a plain tensor, a part of `base`."""
        known: Seen | None = self._stand_ins.get(plain)  # type: ignore[no-untyped-call]
        if known is not None:
            return known
        memory = written.memory
        assert memory is not None
        offset = memory.base.storage_offset() + plain.storage_offset() - base.storage_offset()
        with aside(), torch.enable_grad():
            part = memory.base.as_strided(plain.size(), plain.stride(), offset)
            view = self.run.seen(part, None)
            view.views(written)
            if part.requires_grad:
                view.learn(memory)
        self._stand_ins[plain] = view
        return view

    def open_target(self, call: Call) -> None:
        """Let a wrapper tensor stand for the tensor that a call overwrites, if that is a plain tensor.

        Raises:
            CoverageError: the call overwrites several tensors at once, or gives a tensor another storage.
        """
        s, target = call.signature, call.args[0]
        if not isinstance(target, Tensor):  # several tensors at once
            self.run.refuse(call.name, "it overwrites several tensors at once; overwrite one after the other")
            self.run.gaps.require_none()
        if s.name == "set":  # two memories would have to become one
            self.run.refuse("set_", reason_of("set_"))
            self.run.gaps.require_none()
        if type(target) is Seen:
            if not s.is_functional:
                with aside(), torch.enable_grad():
                    call.args[0] = self.run.seen(target.recorded.clone(), target._tag)
            return
        if target.requires_grad:
            self.run.refuse(
                call.name, "it writes to a parameter, or to a tensor computed from one before the run"
            )
            return
        with aside(), torch.no_grad():
            base = _whole(target)
            self.run.constants.before_write(base)
            written = self.run.seen(copy_of(base.detach()), None)
        written.memory, written.offset = Memory(written.recorded), 0
        self._written[memory_of(base)] = base, written
        call.args[0] = self._view(target, base, written)

    def written_to(
        self, operation: Any, args: Sequence[Any], kwargs: dict[str, Any], call: Call, result: Any
    ) -> Any:
        """Return what the model gets from a call that writes in place or returns a view.

        Args:
            operation: the operation that the model called.
            args: arguments as the model gave them.
            kwargs: keyword arguments as the model gave them.
            call: the call out of place.
            result: the result of `call`.
        """
        s, target = call.signature, args[0] if type(args[0]) is Seen else call.args[0]
        if s.writes and not s.moves_view:
            for t in tensors_in(call.args):
                looked_at = t is not call.args[0] or call.operation not in _OVERWRITING
                if type(t) is Seen and t.memory is not None and looked_at:
                    t.memory.is_read = True
            if type(target) is Seen:
                with aside(), torch.enable_grad():
                    value = self._fitting(result, target)
                    if target.detached and not value.relevant and target.memory.base.requires_grad:  # type: ignore[union-attr]
                        self.run.refuse("data", reason_of("data"))
                    self.beginnings.note_written(target, value)
                    target.become(value)
            return args[0]
        if type(target) is Seen:
            detaches = s.name == "detach"
            for t in (result,) if type(result) is Seen else tensors_in(result):
                if type(t) is Seen and t is not target and (detaches or t._recorded._is_view()):
                    t.views(target)
                    if detaches and target.relevant:
                        t.detached = True
        if s.moves_view:
            with no_dispatch():  # change the wrapper's own shape
                operation(*args, **kwargs)
            target.reshape_to(result)
            return args[0]
        return result

    def _fitting(self, result: Any, target: Seen) -> Seen:
        """Return a result in the type, shape and device of the tensor that it overwrites."""
        value: Seen = result if type(result) is Seen else self.run.seen(inner_of(result), None)
        inner = value.recorded
        if inner.dtype == target.dtype and inner.shape == target.shape and inner.device == target.device:
            return value
        inner = inner.to(target.device, target.dtype).expand(target.shape)
        return self.run.seen(inner, value._tag)

    def write_back(self) -> None:
        """Copy to the model's plain tensors the values that the model wrote to them."""
        with torch.no_grad(), aside():
            for base, written in self._written.values():
                base.copy_(written.memory.base.detach())  # type: ignore[union-attr]


_OVERWRITING = frozenset(("copy", "fill", "zero"))
"""Operations that do not read the values that they overwrite."""


def _whole(tensor: Tensor) -> Tensor:
    """Return the tensor that a plain tensor is a view of, or a tensor of its whole storage."""
    if tensor._base is not None:
        return tensor._base
    count = tensor.untyped_storage().nbytes() // tensor.element_size()
    return tensor if tensor.numel() == count else tensor.as_strided((count,), (1,), 0)
