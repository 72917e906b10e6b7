"""Signals that end the program: each unwinds it first, so that no temporary file is left behind."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Ended(BaseException):
    """A signal other than Ctrl-C has asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def signals_end() -> Iterator[list[int]]:
    """Raise `Ended` on SIGTERM and SIGHUP, and KeyboardInterrupt on Ctrl-C, while the context is open.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored.

    Yields:
        A list that has an element as soon as Ctrl-C was pressed.
    """
    pressed: list[int] = []

    def interrupt(number: int, _frame: Any) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    def end(number: int, _frame: Any) -> None:
        raise Ended(number)

    handlers: dict[int, tuple[Any, Any]] = {
        signal.SIGINT: (signal.default_int_handler, interrupt),
        signal.SIGTERM: (signal.SIG_DFL, end),
    }
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = (signal.SIG_DFL, end)
    # Only the main thread may set handlers.
    here = threading.current_thread() is threading.main_thread()
    taken = [
        number for number, (before, _) in handlers.items() if here and signal.getsignal(number) == before
    ]
    unraisable = sys.unraisablehook

    def hook(found: Any) -> None:
        # A Ctrl-C where Python can raise nothing, as in a destructor. It is not told twice.
        if not isinstance(found.exc_value, KeyboardInterrupt):
            unraisable(found)

    try:
        sys.unraisablehook = hook
        for number in taken:
            signal.signal(number, handlers[number][1])
        yield pressed
    finally:
        sys.unraisablehook = unraisable
        for number in taken:
            signal.signal(number, handlers[number][0])


def end_by(number: int) -> None:
    """End the program as the signal ends programs that do nothing about it."""
    with suppress(OSError, AttributeError):
        sys.stdout.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
