"""Which run is active in a thread, and what is off while one is."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class ActiveRuns(threading.local):
    """The runs of a thread, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[Any] = []


active_runs = ActiveRuns()


class _Uncompiled:
    """How many runs want compiled functions to run as they were written, and what was before the first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.before: Any = None


_uncompiled = _Uncompiled()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run what torch.compile compiled as it was written, because compiled calls cannot be seen.

    The compiler's stance is one for all threads: the last of several runs gives it back.
    """
    # Nothing is compiled where neither the compiler nor what compiles by itself was ever imported, and
    # importing it takes seconds.
    if not {"torch._dynamo", "torch.nn.attention.flex_attention"} & sys.modules.keys():
        yield
        return
    state = _uncompiled
    with state.lock:
        state.count += 1
        if state.count == 1:
            state.before = torch.compiler.set_stance("force_eager")
    try:
        yield
    finally:
        with state.lock:
            state.count -= 1
            if state.count == 0:
                state.before.__exit__(None, None, None)
                state.before = None
