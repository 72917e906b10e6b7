"""Values that a backward pass still needs survive in-place operations: copy on write, by storage.

The output z of a linear operation is an exception. Behind a ReLU no relevance comes to z < 0, so that
max(0, z), which autograd keeps anyway, does in its place: a `Kept` that is `clippable` takes it, and z can
go.
"""

import threading
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from relprop.errors import ModelError


class Kept:
    """A value as it was when it was kept. Shares memory with the tensor until that is overwritten.

    Attributes:
        clippable: whether max(0, value) would do.
        clipped: whether it is that by now.
    """

    __slots__ = ("__weakref__", "_tensor", "_version", "clippable", "clipped")

    def __init__(self, tensor: Tensor, *, clippable: bool = False) -> None:
        self.clippable = clippable
        self.clipped = False
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

    def could_clip(self, x: Tensor) -> bool:
        """Whether x is what was kept, element by element and still unwritten, and max(0, x) would do."""
        return self.clippable and self._intact and self._is(x)

    def clip(self, x: Tensor, y: Tensor) -> bool:
        """Take y = max(0, x) in the place of x, if x is what was kept and y will do."""
        # In place, what x was is written over by now; `before_write` found it as it was kept.
        if not (self.clippable and self._is(x) if x is y else self.could_clip(x)):
            return False
        self._tensor, self.clipped = y.detach(), True
        self._version = _version(self._tensor)
        return True

    def _is(self, x: Tensor) -> bool:
        mine = self._tensor
        return (mine.data_ptr(), mine.shape, mine.stride()) == (x.data_ptr(), x.shape, x.stride())

    @property
    def _intact(self) -> bool:
        return _version(self._tensor) == self._version


class Dropped(Protocol):
    """Where values are that were let go, to be computed again."""

    def take(self, number: int) -> Kept:
        """Give back the value of a place, once in a backward."""


class Place(Kept):
    """Stands for a kept value that was let go. It is asked for where it is needed, and let go after that."""

    __slots__ = ("_found", "_number", "_owner")

    def __init__(self, owner: Dropped, number: int) -> None:
        self.clippable = False
        self._owner, self._number = owner, number
        self._found: Kept | None = None

    @property
    def value(self) -> Tensor:
        return self._there().value

    @property
    def clipped(self) -> bool:  # type: ignore[override]
        return self._there().clipped

    def or_value(self, tensor: Tensor) -> Tensor:
        return self._there().or_value(tensor)

    def _there(self) -> Kept:
        if self._found is None:
            self._found = self._owner.take(self._number)
            _asked_for.places.append(self)
        return self._found


class _AskedFor(threading.local):
    """The places that the present step of a backward has asked for."""

    def __init__(self) -> None:
        self.places: list[Place] = []


_asked_for = _AskedFor()


@contextmanager
def a_step() -> Iterator[None]:
    """One step of a backward: what it asked for is let go at its end."""
    outer, _asked_for.places = _asked_for.places, []
    try:
        yield
    finally:
        for place in _asked_for.places:
            place._found = None
        _asked_for.places = outer


def saved_value(kept: Kept) -> Tensor:
    """The value of what autograd saved."""
    with a_step():
        return kept.value


class Keeper:
    """Knows which kept values share memory with which tensor."""

    def __init__(self) -> None:
        self._by_storage: defaultdict[int, list[weakref.ref[Kept]]] = defaultdict(list)

    def keep(self, tensor: Tensor, *, clippable: bool = False) -> Kept:
        """Keep the present value of `tensor`; clippable: or max(0, value), where a ReLU makes that of it."""
        kept = Kept(tensor, clippable=clippable)
        self._note(kept, tensor)
        return kept

    def before_write(self, tensor: Tensor, *, clipping: bool = False) -> None:
        """Copy every kept value that shares memory with `tensor`, which is about to be overwritten.

        Clipping: by a ReLU, so that clippable values need no copy; `clip` follows.
        """
        if not _has_storage(tensor):
            return
        waiting = []
        for reference in self._by_storage.pop(_storage(tensor), ()):
            kept = reference()
            # A storage's address is used again once it is freed, but a kept value keeps its storage alive.
            if kept is not None and clipping and kept.could_clip(tensor):
                waiting.append(reference)
            elif kept is not None:
                kept.copy()
        if waiting:
            self._by_storage[_storage(tensor)] = waiting

    def clip(self, x: Tensor, y: Tensor) -> None:
        """Let kept clippable values of x be y = max(0, x), which may be the same memory."""
        if not _has_storage(x):
            return
        for reference in list(self._by_storage.get(_storage(x), ())):
            kept = reference()
            if kept is not None and kept.clip(x, y) and x is not y:
                self._note(kept, y)

    def _note(self, kept: Kept, tensor: Tensor) -> None:
        if _has_storage(tensor):
            self._by_storage[_storage(tensor)].append(weakref.ref(kept))


def _has_storage(tensor: Tensor) -> bool:
    # Tensors within a vmap, by which masks are made, have none of their own; nor have those of a trace.
    return not (
        tensor.layout != torch.strided
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        or isinstance(tensor, FakeTensor)
    )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _version(tensor: Tensor) -> int:
    # Tensors made in inference mode count no versions; they cannot be part of an autograd graph either.
    return 0 if tensor.is_inference() else tensor._version
