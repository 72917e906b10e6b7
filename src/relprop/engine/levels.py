"""At which level of torch's dispatcher calls are made: seen by a run, or aside from it.

A model runs below autograd (`seeing`): composite operations arrive as themselves, nothing of parameters is
recorded, and the caller's grad mode is only looked at. It runs below torch's tracking of views as well, which
takes longer with each view of a view; what a run needs to know of views it knows (see `relprop.engine.seen`).
For the model's own tensors views and writes are tracked (`tracking`). What the engine, a rule or a target's
bookkeeping computes is made where every program computes (`aside`): by autograd, unseen, without autocast.
"""

import threading
from contextlib import AbstractContextManager
from typing import Any

import torch

_Keys = Any


def _fresh_keys() -> tuple[_Keys, _Keys, _Keys]:
    """What a thread that has not done anything includes and excludes, and what it excludes below autograd."""
    found: list[_Keys] = []

    def look() -> None:
        found.extend((torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()))
        with torch._C._AutoDispatchBelowAutograd():
            found.append(torch._C._dispatch_tls_local_exclude_set())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    include, exclude, below = found
    return include, exclude, below


_INCLUDED, _EXCLUDED, _BELOW_AUTOGRAD = _fresh_keys()
_WITH_MODES = _INCLUDED | torch._C.DispatchKeySet(torch._C.DispatchKey.Python)
_WITH_MODES = _WITH_MODES | torch._C.DispatchKeySet(torch._C.DispatchKey.PythonTLSSnapshot)

_guard: Any = torch._C._ForceDispatchKeyGuard


class _Here(threading.local):
    """What is around the run of a thread.

    Attributes:
        traced: whether modes around it, such as that of a trace, see what is computed.
        nested: whether another run is, which sees what this one does to the model's own tensors.
    """

    def __init__(self) -> None:
        self.traced = False
        self.nested = False


here = _Here()


def aside() -> AbstractContextManager[None]:
    """Compute unseen, recorded by autograd where gradients are enabled.

    Modes around the run, such as that of a trace, still see it.
    """
    context: AbstractContextManager[None] = _guard(_WITH_MODES if here.traced else _INCLUDED, _EXCLUDED)
    return context


def seeing() -> AbstractContextManager[None]:
    """Compute below autograd, where calls arrive as they were made."""
    context: AbstractContextManager[None] = torch._C._AutoDispatchBelowADInplaceOrView()
    return context


def tracking() -> AbstractContextManager[None]:
    """Compute unseen below autograd, where views know what they are views of, and writes are counted."""
    context: AbstractContextManager[None] = _guard(
        _WITH_MODES if here.traced or here.nested else _INCLUDED, _BELOW_AUTOGRAD
    )
    return context
