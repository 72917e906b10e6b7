"""Values that a backward pass needs.

What a model computes is never overwritten (see `relprop.engine.seen`), so that a value is kept by reference.
Constants are the model's own, such as weights that it streams through one buffer: they are copied before they
are overwritten.
"""

import threading
import weakref
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from relprop.errors import ModelError


class Kept:
    """A value as it was when it was kept, detached.

    If a linear layer is followed by a ReLU, relu(z) is kept instead of z: autograd stores it anyway, and
    negative outputs receive no relevance. Such values are marked `clippable`.

    Attributes:
        clippable: whether max(0, value) would do.
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
        """A value that was let go. `again` computes it; it is let go again after each step of a backward."""
        kept = cls.__new__(cls)
        kept._value, kept._clipped, kept._again, kept.clippable = None, False, again, False
        return kept

    @property
    def value(self) -> Tensor:
        """The value."""
        return self._there() if self._value is None else self._value

    @property
    def clipped(self) -> bool:
        """Whether the value is max(0, value) by now."""
        if self._value is None:
            self._there()
        return self._clipped

    def clip(self, y: Tensor) -> None:
        """Take y = max(0, value) in the place of the value, if y will do."""
        if self.clippable and not self._clipped:
            self._value, self._clipped = y.detach(), True

    def let_go(self) -> None:
        """Let go of a value that can be computed again."""
        self._value = None

    def _there(self) -> Tensor:
        assert self._again is not None
        found = self._again()
        self._value, self._clipped = found.value, found.clipped
        _computed.again.append(self)
        return self._value


class KeptConstant(Kept):
    """A constant as it was when it was kept. Shares memory with the model's own until that is overwritten."""

    __slots__ = ("_original", "_version")

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(_own_copy(tensor) if tensor.is_inference() else tensor)
        value = self.value
        self._original = value if tensor.requires_grad and tensor.grad_fn is not None else tensor
        self._version = _version(tensor)

    @property
    def own(self) -> Tensor:
        """The model's own tensor as long as it has its value, so that caches know it; else the value.

        Raises:
            ModelError: it was overwritten by an operation that the run did not see.
        """
        if _version(self._original) == self._version:
            # Where the model gave it other memory, by .data, the value is in the old one.
            return self._original if self._lies_where(self._original) else self.value
        raise ModelError(
            f"a constant of shape {tuple(self.value.shape)} that relevance propagation needs was overwritten "
            "while the model did not run. Overwrite it after the explanation."
        )

    def is_still(self, tensor: Tensor) -> bool:
        """Whether it is this tensor, with the value that it has now."""
        return (
            self._original is tensor
            and self._version == _version(tensor)
            and not torch._C._are_functorch_transforms_active()
            and self._lies_where(tensor)
        )

    def _lies_where(self, tensor: Tensor) -> bool:
        if self._original is self.value or tensor.is_inference() or not _has_memory(tensor):
            return True
        return memory_of(self.value) == memory_of(tensor)

    def shares_memory(self, tensor: Tensor) -> bool:
        """Whether writing to a tensor would change the value."""
        return memory_of(self._original) == memory_of(tensor)

    def copy(self) -> None:
        """Take a copy of the value, because its memory is about to be overwritten."""
        self._original = self._value = _own_copy(self.value)
        self._version = _version(self.value)


class Constants:
    """The constants that are kept, to be copied when the model overwrites them."""

    def __init__(self) -> None:
        self._kept: list[weakref.ref[KeptConstant]] = []
        self._last: KeptConstant | None = None

    def keep(self, tensor: Tensor) -> KeptConstant:
        """Keep the present value of a constant, or of what autograd saves."""
        if self._last is not None and self._last.is_still(tensor):  # often it is both, one after the other
            return self._last
        self._last = kept = KeptConstant(tensor)
        self._kept.append(weakref.ref(kept))
        return kept

    def before_write(self, tensor: Tensor) -> None:
        """Copy every kept constant that shares memory with a tensor, which is about to be overwritten."""
        if not _has_memory(tensor):
            return
        for reference in self._kept:
            kept = reference()
            if kept is not None and kept.shares_memory(tensor):
                kept.copy()


class Keeper(Protocol):
    """What keeps values for the backward in its own way."""

    def keep(self, kept: Kept) -> Kept:
        """Return what stands for a kept value."""


class _Computed(threading.local):
    """The values that the present step of a backward computed again."""

    def __init__(self) -> None:
        self.again: list[Kept] = []


_computed = _Computed()


class StepOfBackward:
    """One step of a backward: values that it computed again are let go at its end."""

    __slots__ = ("_outer",)

    def __enter__(self) -> None:
        self._outer, _computed.again = _computed.again, []

    def __exit__(self, *_error: object) -> None:
        for kept in _computed.again:
            kept.let_go()
        _computed.again = self._outer


def saved_value(kept: Kept | Tensor) -> Tensor:
    """The value of what autograd saved."""
    if type(kept) is KeptConstant:
        return kept.value
    if isinstance(kept, Tensor):
        return kept
    with StepOfBackward():
        return kept.value


def _own_copy(tensor: Tensor) -> Tensor:
    """A copy that autograd can save, also of what was made in inference mode, or where that is on."""
    with torch.inference_mode(mode=False):
        return tensor.clone()


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def memory_of(tensor: Tensor) -> int:
    """Number of the memory that a tensor lies in."""
    number: int = tensor.untyped_storage()._cdata
    return number


def _version(tensor: Tensor) -> int:
    # Tensors made in inference mode count no versions; they cannot be part of an autograd graph either.
    return 0 if tensor.is_inference() else tensor._version
