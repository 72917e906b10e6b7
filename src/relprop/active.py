"""Which run is active in a thread, and what must stay out of its sight."""

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


class ActiveRuns(threading.local):
    """The runs of a thread, the innermost last; a mode that is not on top lets calls pass."""

    def __init__(self) -> None:
        self.stack: list[Any] = []


active_runs = ActiveRuns()


def unseen(method: Callable[P, T]) -> Callable[P, T]:
    """Keep the mode from seeing the calls of a method of its own that runs outside of a handler."""

    @wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch._C.DisableTorchFunction():
            return method(*args, **kwargs)

    return wrapped


def uncompiled() -> AbstractContextManager[object]:
    """Run what torch.compile compiled as it was written, because compiled calls cannot be seen."""
    # Nothing is compiled where neither the compiler nor what compiles by itself was ever imported, and
    # importing it takes seconds.
    if not {"torch._dynamo", "torch.nn.attention.flex_attention"} & sys.modules.keys():
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance
