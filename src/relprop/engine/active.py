"""Which run is active in a thread. The compiler is off while a run is active."""

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from relprop.errors import InputError

Result = TypeVar("Result")


class ActiveRuns(threading.local):
    """The runs that are active in a thread, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[Any] = []


active_runs = ActiveRuns()


class _Uncompiled:
    """The runs in which compiled functions run uncompiled; `before` is the earlier stance."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runs: set[object] = set()
        self.before: Any = None

    def begin(self, run: object) -> None:
        """Note a run. The first one sets the stance.

        Raises:
            InputError: the run is within compiled code.
        """
        eval_frame = importlib.import_module("torch._dynamo.eval_frame")
        with self.lock:
            self.runs.add(run)
            if self.before is None:
                # Noted before it changes, so that it can be restored wherever an interrupt comes.
                self.before = eval_frame._stance
                try:
                    torch.compiler.set_stance("force_eager")
                except RuntimeError:  # which torch refuses there, before it changes anything
                    self.before = None
                    raise InputError(
                        "a function of torch.compile explains, and calls in compiled code are not seen. Put "
                        "@torch.compiler.disable before a function of your own that explains, and call it."
                    ) from None

    def end(self, run: object) -> None:
        """Forget a run. The last one restores the stance. To forget a run twice changes nothing."""
        eval_frame = importlib.import_module("torch._dynamo.eval_frame")
        with self.lock:
            self.runs.discard(run)
            if not self.runs and self.before is not None:
                eval_frame._set_stance(self.before)
                self.before = None


_uncompiled = _Uncompiled()


_COMPILERS = ("torch._dynamo", "torch.nn.attention.flex_attention")


def without_compiler(function: Callable[[], Result]) -> Result:
    """Call a function that runs a model, and once more if it fails because the model imports the compiler.

    In the first run the compiler is on then: `torch.cond` imports and uses it.
    """
    imported = any(name in sys.modules for name in _COMPILERS)
    try:
        return function()
    except Exception:
        if imported or not any(name in sys.modules for name in _COMPILERS):
            raise
    if "torch._dynamo" in sys.modules:  # what the failed run has left in it
        importlib.import_module("torch._dynamo").reset()
    return function()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run functions of torch.compile as they were written, because calls in compiled code cannot be seen.

    All threads share the compiler's stance. So the last of several runs restores it.
    """
    # Importing the compiler takes seconds. Nothing is compiled if neither the compiler nor flex attention,
    # which compiles by itself, was ever imported.
    if not {*_COMPILERS} & sys.modules.keys():
        yield
        return
    run = object()
    try:
        try:
            _uncompiled.begin(run)
            yield
        finally:
            _uncompiled.end(run)
    finally:
        _uncompiled.end(run)  # if the first was interrupted
