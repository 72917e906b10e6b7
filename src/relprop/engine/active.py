"""Which run is active in a thread. The compiler is off while a run is active."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class ActiveRuns(threading.local):
    """The runs that are active in a thread, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[Any] = []


active_runs = ActiveRuns()


class _Uncompiled:
    """Counts the runs in which compiled functions run uncompiled; `before` restores the earlier stance."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.before: Any = None


_uncompiled = _Uncompiled()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run functions of torch.compile as they were written, because calls in compiled code cannot be seen.

    All threads share the compiler's stance. So the last of several runs restores it.
    """
    # Importing the compiler takes seconds. Nothing is compiled if neither the compiler nor flex attention,
    # which compiles by itself, was ever imported.
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
