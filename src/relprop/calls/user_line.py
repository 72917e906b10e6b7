"""The user's line that called relprop. Errors name it, and warnings are shown there."""

import contextlib
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

_ROOT = str(Path(sys.modules["relprop"].__file__ or "").parent) + "/"
_LIBRARIES = (
    _ROOT,
    str(Path(torch.__file__).parent) + "/",
    contextlib.__file__,  # a run is a context manager
)


def user_line() -> str:
    """Return file and line of the innermost caller outside torch and relprop.

    "" if the command line called.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_ours(frame):
        if frame.f_code.co_filename.startswith(_ROOT + "cli/"):
            return ""
        frame = frame.f_back
    return "an unknown place" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def function_around() -> str:
    """Return the name of the autograd function whose forward is running, the innermost one, or ""."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not APPLY:
        frame = frame.f_back
    return "" if frame is None else str(frame.f_locals["cls"].__name__)


APPLY = torch.autograd.function.Function.apply.__func__.__code__  # type: ignore[attr-defined]
"""What runs around the forward of every autograd function."""


def line_of(error: BaseException) -> str:
    """Return file and line of the innermost call outside torch and relprop that led to an error."""
    places = [f for f, _ in traceback.walk_tb(error.__traceback__) if not _is_ours(f)]
    return f"{places[-1].f_code.co_filename}:{places[-1].f_lineno}" if places else "an unknown place"


class _Here(threading.local):
    """Where the warnings of a thread are collected, the innermost last."""

    def __init__(self) -> None:
        self.collected: list[list[str | Warning]] = []


_here = _Here()


@contextlib.contextmanager
def warnings_held_back() -> Iterator[list[str | Warning]]:
    """Collect the warnings of relprop while the context is open, instead of issuing them."""
    held: list[str | Warning] = []
    before = list(_here.collected)
    _here.collected = [*before, held]
    try:
        yield held
    finally:
        _here.collected = before


def warn(message: str | Warning) -> None:
    """Issue a warning at the line of the innermost caller outside torch and relprop."""
    if _here.collected:
        _here.collected[-1].append(message)
        return
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_ours(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_LIBRARIES)
