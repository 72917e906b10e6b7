"""Values that a backward pass still needs survive in-place operations: copy on write, by storage."""

import weakref
from collections import defaultdict

import torch
from torch import Tensor

from relprop.errors import ModelError


class Kept:
    """A value as it was when it was kept. Shares memory with the tensor until that is overwritten."""

    __slots__ = ("__weakref__", "_tensor", "_version")

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()
        self._version = _version(tensor)

    @property
    def value(self) -> Tensor:
        """The value, detached.

        Raises:
            ModelError: the memory was overwritten by an operation that interception did not see.
        """
        if not self._intact:
            raise ModelError(
                f"a value of shape {tuple(self._tensor.shape)} that relevance propagation needs was "
                "overwritten by an operation that relprop did not see (a scripted module or a custom "
                "autograd function working in place). Use its out-of-place form."
            )
        return self._tensor

    def or_value(self, tensor: Tensor) -> Tensor:
        """The tensor that was kept, itself, as long as it has its value; else the value."""
        return tensor if self._intact and self._tensor.data_ptr() == tensor.data_ptr() else self.value

    def copy(self) -> None:
        """Take a copy of the value, because its memory is about to be overwritten."""
        if self._intact:  # else it is lost already, which `value` says
            self._tensor = self._tensor.clone()
            self._version = _version(self._tensor)

    @property
    def _intact(self) -> bool:
        return _version(self._tensor) == self._version


class Keeper:
    """Knows which kept values share memory with which tensor."""

    def __init__(self) -> None:
        self._by_storage: defaultdict[int, list[weakref.ref[Kept]]] = defaultdict(list)

    def keep(self, tensor: Tensor) -> Kept:
        """Keep the present value of `tensor`."""
        kept = Kept(tensor)
        if tensor.layout == torch.strided:
            self._by_storage[_storage(tensor)].append(weakref.ref(kept))
        return kept

    def before_write(self, tensor: Tensor) -> None:
        """Copy every kept value that shares memory with `tensor`, which is about to be overwritten."""
        if tensor.layout != torch.strided:
            return
        for reference in self._by_storage.pop(_storage(tensor), ()):
            kept = reference()
            # A storage's address is used again once it is freed, but a kept value keeps its storage alive.
            if kept is not None:
                kept.copy()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _version(tensor: Tensor) -> int:
    # Tensors made in inference mode count no versions; they cannot be part of an autograd graph either.
    return 0 if tensor.is_inference() else tensor._version
