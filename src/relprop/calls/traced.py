"""Whether calls are being traced to a graph, which must hold for other values too."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


class _Here(threading.local):
    """The traces around the calls of a thread, by their number, and how many of them record every call.

    Attributes:
        traces: the number of traces.
        recordings: how many of them record every call.
        again: within how many values that were dropped, and are computed again, the calls are.
    """

    def __init__(self) -> None:
        self.traces = 0
        self.recordings = 0
        self.again = 0


_here = _Here()


@contextmanager
def tracing(*, every: bool = False) -> Iterator[None]:
    """Note that calls are traced while the context is open, those that depend on the inputs or every one."""
    _here.traces += 1
    _here.recordings += every
    try:
        yield
    finally:
        _here.traces -= 1
        _here.recordings -= every


def is_traced() -> bool:
    """Whether calls of this thread are traced."""
    return _here.traces > 0


def is_recorded() -> bool:
    """Whether every call of this thread is recorded, so that nothing may be known from an earlier one."""
    return _here.recordings > 0


@contextmanager
def computed_again() -> Iterator[None]:
    """Note that a value that was dropped is computed again while the context is open."""
    _here.again += 1
    try:
        yield
    finally:
        _here.again -= 1


def is_again() -> bool:
    """Whether calls compute again what was dropped, so that a graph may not have it from before."""
    return _here.again > 0


def listed(tensor: Tensor) -> list[int]:
    """Return the elements of a vector of integers. A trace sees a look at each."""
    return [int(element) for element in tensor] if _here.traces else tensor.tolist()


def found(condition: Tensor, *, if_traced: bool) -> bool:
    """Whether a condition holds anywhere.

    A graph has no branches: while one is traced, the answer is `if_traced`, by which nothing is lost.
    """
    return if_traced if _here.traces else bool(condition.any())
