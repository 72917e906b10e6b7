"""Autograd functions and modules that users declare as a whole: one operation, into which nobody looks.

A class that is declared gets another `apply`, or another `forward`. It calls the class's own, and, while a
model is explained, crosses what this computes by the entry that was declared.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from torch.autograd import Function

from relprop.calls.call import Call, Signature
from relprop.calls.nested import tensors_in
from relprop.engine.active import active_runs
from relprop.engine.interception import Entry, Interception
from relprop.engine.levels import aside
from relprop.engine.seen import is_relevant
from relprop.errors import InputError


class _ClassName(str):
    """Name of a class. In what a user may type, the class itself stands without quotation marks."""

    def __repr__(self) -> str:
        return str(self)


_declared: WeakKeyDictionary[type, Entry] = WeakKeyDictionary()


def is_whole(value: Any) -> bool:
    """Whether a value is a class that can be declared as a whole."""
    return isinstance(value, type) and issubclass(value, (Function, nn.Module))


def is_declared(name: str) -> bool:
    """Whether a class of this name was declared, whose calls have the name as operation."""
    return any(kind.__name__ == name for kind in _declared)


def declare(kind: type, entry: Entry) -> None:
    """Let relevance cross all calls of an autograd function, or of a class of modules, by this entry."""
    is_new = kind not in _declared
    _declared[kind] = entry
    if not is_new:
        return
    if issubclass(kind, Function):
        _replace_apply(kind)
    else:
        _replace_forward(kind)


def _replace_apply(kind: Any) -> None:
    own = kind.apply.__func__
    with_context = kind.setup_context is Function.setup_context
    parameters = list(inspect.signature(kind.forward).parameters.values())[int(with_context) :]

    @wraps(own)
    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        function = partial(own, cls)
        return _called(kind, function, parameters, args, kwargs) if cls is kind else function(*args, **kwargs)

    kind.apply = classmethod(apply)


def _replace_forward(kind: Any) -> None:
    own = kind.forward
    parameters = list(inspect.signature(own).parameters.values())[1:]

    @wraps(own)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _called(kind, partial(own, self), parameters, args, kwargs)

    kind.forward = forward


def _called(
    kind: type,
    function: Callable[..., Any],
    parameters: Sequence[inspect.Parameter],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """Call a function that was declared, as one operation if a run sees its arguments."""
    runs: list[Interception] = active_runs.stack
    if not runs or not any(is_relevant(t) for t in tensors_in([*args, *kwargs.values()])):
        return function(*args, **kwargs)
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    places = {name: i for i, name in enumerate(names[: len(args)])}
    places |= {name: len(args) + i for i, name in enumerate(kwargs)}
    call = Call(_signature_of(kind, function, len(args), tuple(kwargs), places), [*args, *kwargs.values()])
    if any(is_relevant(t) for a in call.args if isinstance(a, Mapping) for t in tensors_in(a)):
        raise InputError(
            f"register({kind.__name__}, ...): {kind.__name__} takes tensors in a dictionary, and what is "
            "declared takes them as arguments, or in lists. Leave it undeclared, so that its operations are "
            "seen, or give it each tensor as an argument."
        )
    # A tensor among the arguments shows that no other call with these has the same values.
    call.args.append(torch.tensor(0))
    return runs[-1].see_whole(call, _declared[kind], lambda: function(*args, **kwargs))


def _signature_of(
    kind: type,
    function: Callable[..., Any],
    positional: int,
    keywords: Sequence[str],
    places: Mapping[str, int],
) -> Signature:
    def operation(*values: Any) -> Any:
        *values, _ = values  # type: ignore[assignment]
        given = [t for t in tensors_in(values) if not t.is_inference()]
        versions = [t._version for t in given]
        named = dict(zip(keywords, values[positional:], strict=True))
        recorded = torch.is_grad_enabled() and _is_recorded()
        # Rules evaluate functions at other values than the model's, of which NumPy need not warn.
        with torch.set_grad_enabled(recorded), aside(), np.errstate(all="ignore"):
            result = function(*values[:positional], **named)
        if versions != [t._version for t in given]:
            raise InputError(
                f"register({kind.__name__}, ...): {kind.__name__} writes to its input, and only what "
                "computes a new tensor can be declared. Leave it undeclared, so that its operations are "
                "seen, or let it compute with a copy."
            )
        return result

    name, count = _ClassName(kind.__name__), positional + len(keywords) + 1
    return Signature(
        operation=operation,
        name=name,
        positional=count,
        defaults=(None,) * count,
        keywords=places,
        by_name=(),
        writes=False,
        is_functional=True,
        moves_view=False,
        writes_others=False,
        without_out=None,
        views=False,
        composite=False,
        tracked=False,
        derived=not _lacks_backward(kind),
        documented=name,
    )


def _lacks_backward(kind: type) -> bool:
    """Whether a class is an autograd function without a backward."""
    return issubclass(kind, Function) and kind.backward is Function.backward and kind.vjp is Function.vjp


def _is_recorded() -> bool:
    """Whether autograd records calls here. A function of autograd records itself wherever it is called."""
    return not torch._C._dispatch_tls_local_exclude_set().has(torch._C.DispatchKey.AutogradCPU)
