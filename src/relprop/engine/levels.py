"""The levels of torch's dispatcher at which calls are made.

- `seeing`: the model runs below autograd. Composite operations arrive undecomposed, calls on parameters are
  not recorded, and the caller's grad mode is only read. The model runs below torch's tracking of views as
  well, which takes longer with each view of a view. The run tracks views by itself.
- `tracking`: below autograd, but torch tracks views and in-place writes. Used for the model's own tensors.
- `aside`: the level at which an ordinary program runs, with autograd and without autocast. The engine and the
  rules compute here. The run does not see these calls.
"""

import threading
from contextlib import AbstractContextManager
from typing import Any

import torch

_Keys = Any


def _fresh_keys() -> tuple[_Keys, _Keys, _Keys]:
    """The dispatch keys that a fresh thread includes, that it excludes, and that it excludes below autograd.

    These are three key sets, in this order.
    """
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
    """What surrounds the run of a thread.

    Attributes:
        traced: whether another dispatch mode, such as that of a trace, is active around the run.
        nested: whether another run is active around the run.
    """

    def __init__(self) -> None:
        self.traced = False
        self.nested = False


here = _Here()


def aside() -> AbstractContextManager[None]:
    """Compute without being seen by the run, recorded by autograd where gradients are enabled.

    Dispatch modes around the run, such as that of a trace, still see the calls.
    """
    context: AbstractContextManager[None] = _guard(_WITH_MODES if here.traced else _INCLUDED, _EXCLUDED)
    return context


def seeing() -> AbstractContextManager[None]:
    """Compute below autograd, where operations arrive undecomposed."""
    context: AbstractContextManager[None] = torch._C._AutoDispatchBelowADInplaceOrView()
    return context


def tracking() -> AbstractContextManager[None]:
    """Compute below autograd without being seen by the run, while torch tracks views and in-place writes.

    Dispatch modes and other runs around the run still see the calls.
    """
    context: AbstractContextManager[None] = _guard(
        _WITH_MODES if here.traced or here.nested else _INCLUDED, _BELOW_AUTOGRAD
    )
    return context
