"""Values that a backward pass needs.

A value that the model computes is never overwritten (see `relprop.engine.memory`). So it is kept by
reference. A constant is the model's own tensor, such as a buffer through which the model streams weights. It
is copied before the model overwrites it.
"""

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch
from torch import Tensor

from relprop.calls.traced import computed_again
from relprop.errors import ModelError


class Kept:
    """A value as it was when it was kept, detached.

    If a linear layer is followed by a ReLU, relu(z) is kept instead of z: autograd stores it anyway, and
    negative outputs receive no relevance. Such values are marked `clippable`.

    Attributes:
        clippable: whether max(0, value) may replace the value.
    """

    __slots__ = ("__weakref__", "_again", "_clipped", "_value", "clippable")

    _value: Tensor | None
    _again: Callable[[], "Kept"] | None

    def __init__(self, tensor: Tensor, *, clippable: bool = False) -> None:
        self._value = tensor.detach()
        self._clipped = False
        self._again = None
        self.clippable = clippable

    @classmethod
    def dropped(cls, again: Callable[[], "Kept"]) -> "Kept":
        """Return a value that was dropped. `again` recomputes it, for one step of a backward at a time."""
        kept = cls.__new__(cls)
        kept._value, kept._clipped, kept._again, kept.clippable = None, False, again, False
        return kept

    @property
    def value(self) -> Tensor:
        """The value, recomputed if it was dropped."""
        return self._there() if self._value is None else self._value

    @property
    def clipped(self) -> bool:
        """Whether max(0, value) has replaced the value."""
        if self._value is None:
            self._there()
        return self._clipped

    def clip(self, y: Tensor) -> bool:
        """Replace the value by y = max(0, value), if the value is clippable, and return whether it is."""
        if self.clippable and not self._clipped:
            self._value, self._clipped = y.detach(), True
        return self.clippable

    def hold(self, tensor: Tensor) -> None:
        """Keep a value in the place of one that was of no use."""
        self._value = tensor.detach()

    def let_go(self) -> None:
        """Drop a value that can be recomputed."""
        self._value = None

    def _there(self) -> Tensor:
        assert self._again is not None
        with computed_again():
            found = self._again()
        self._value, self._clipped = found.value, found.clipped
        _present.again.append(self)
        return self._value


class KeptConstant(Kept):
    """A constant as it was when it was kept. It shares memory with the model's tensor until that changes."""

    __slots__ = ("_original", "_version")

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(_own_copy(tensor) if tensor.is_inference() else tensor)
        value = self.value
        self._original = value if tensor.requires_grad and tensor.grad_fn is not None else tensor
        self._version = version_of(tensor)

    @property
    def own(self) -> Tensor:
        """The model's own tensor while it has the kept value, so that caches find it; else the value.

        Raises:
            ModelError: the tensor was overwritten by an operation that the run did not see.
        """
        if version_of(self._original) == self._version:
            # If the model gave the tensor another storage, by .data, the value is in the old storage.
            return self._original if self._lies_where(self._original) else self.value
        raise ModelError(
            f"a constant of shape {tuple(self.value.shape)} that relevance propagation needs was overwritten "
            "while the model did not run. Overwrite it after the explanation."
        )

    def is_still(self, tensor: Tensor) -> bool:
        """Whether this is the kept constant of a tensor that has not changed since."""
        return (
            self._original is tensor
            and self._version == version_of(tensor)
            and not torch._C._are_functorch_transforms_active()
            and self._lies_where(tensor)
        )

    def _lies_where(self, tensor: Tensor) -> bool:
        if self._original is self.value or tensor.is_inference() or not _has_memory(tensor):
            return True
        return memory_of(self.value) == memory_of(tensor)

    def shares(self, memory: int) -> bool:
        """Whether the value is in a storage, or the model's tensor, which may have another one by `.data`."""
        return any([_has_memory(t) and memory_of(t) == memory for t in (self.value, self._original)])

    def copy(self) -> None:
        """Copy the value, because its storage is about to be overwritten."""
        self._original = self._value = _own_copy(self.value)
        self._version = version_of(self.value)


class Constants:
    """The constants that a run keeps. They are copied before the model overwrites them."""

    def __init__(self) -> None:
        self._kept: list[weakref.ref[KeptConstant]] = []
        self._last: KeptConstant | None = None
        self._refused: dict[tuple[Any, ...], weakref.ref[Tensor]] = {}

    def refuse(self, constant: Tensor, for_what: Hashable) -> None:
        """Record that a constant was found not to be fit for something, so that nobody looks again."""
        # Of neither is known when its values change.
        if not constant.is_inference() and _has_memory(constant):
            base, place = _place_of(constant)
            self._refused[for_what, *place] = weakref.ref(base)

    def is_refused(self, constant: Tensor, for_what: Hashable) -> bool:
        """Whether a constant was found not to be fit for something, and has the same values still."""
        if not self._refused or not _has_memory(constant):
            return False
        base, place = _place_of(constant)
        known = self._refused.get((for_what, *place))
        return known is not None and known() is base

    def keep(self, tensor: Tensor) -> KeptConstant:
        """Keep the present value of a constant, or of a tensor that autograd saves."""
        if self._last is not None and self._last.is_still(tensor):  # often autograd saves it right afterwards
            return self._last
        self._last = kept = KeptConstant(tensor)
        self._kept.append(weakref.ref(kept))
        return kept

    def before_write(self, tensor: Tensor) -> None:
        """Copy every kept constant that shares its storage with a tensor that is about to be overwritten."""
        if not _has_memory(tensor):
            return
        memory = memory_of(tensor)
        for reference in self._kept:
            kept = reference()
            if kept is not None and kept.shares(memory):
                kept.copy()


class Keeper(Protocol):
    """Keeps values for the backward in another way, as checkpointing does."""

    def keep(self, kept: Kept) -> Kept:
        """Return the kept value to use in place of `kept`."""


class _Present(threading.local):
    """The present step of a backward.

    Attributes:
        again: the values that it has recomputed.
        through_relus: whether all relevance that arrives in it has come through ReLUs.
    """

    def __init__(self) -> None:
        self.again: list[Kept] = []
        self.through_relus = False


_present = _Present()


class StepOfBackward:
    """One step of a backward. Values that it recomputes are dropped at its end.

    Args:
        through_relus: whether all relevance that arrives in it is known to have come through ReLUs.
    """

    __slots__ = ("_outer", "_through_relus")

    def __init__(self, *, through_relus: bool = False) -> None:
        self._through_relus = through_relus

    def __enter__(self) -> None:
        self._outer = _present.again, _present.through_relus
        _present.again, _present.through_relus = [], self._through_relus

    def __exit__(self, *_error: object) -> None:
        for kept in _present.again:
            kept.let_go()
        _present.again, _present.through_relus = self._outer


def comes_through_relus() -> bool:
    """Whether all relevance that arrives in the present step of a backward is known to come through ReLUs."""
    return _present.through_relus


def saved_value(kept: Kept | Tensor) -> Tensor:
    """Return the value of a tensor that autograd saved by `Run.keep_saved`."""
    if type(kept) is KeptConstant:
        return kept.value
    if isinstance(kept, Tensor):
        return kept
    with StepOfBackward():
        return kept.value


def _own_copy(tensor: Tensor) -> Tensor:
    """Return a copy that autograd can save, even of a tensor that was made in inference mode."""
    with torch.inference_mode(mode=False):
        return tensor.clone()


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def memory_of(tensor: Tensor) -> int:
    """Return a number that identifies the storage of a tensor."""
    number: int = tensor.untyped_storage()._cdata
    return number


def _place_of(tensor: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
    """Return the tensor that a tensor is a view of, and a key of the part and its values."""
    base = tensor if tensor._base is None else tensor._base
    values = memory_of(base), version_of(base)
    return base, (id(base), *values, tensor.shape, tensor.stride(), tensor.storage_offset())


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written to."""
    # A tensor made in inference mode has no version counter. It cannot be part of an autograd graph either.
    return 0 if tensor.is_inference() else tensor._version
