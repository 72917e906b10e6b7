"""The engine alone, for programs that run the model and the backward themselves."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from relprop.calls.names import name_of
from relprop.engine.interception import intercepting
from relprop.engine.run import Run
from relprop.errors import InputError, RuleError
from relprop.operations import TABLE
from relprop.rules.bounds import Bounds
from relprop.rules.choice import Rules, resolve
from relprop.rules.gradients import Baseline
from relprop.runs.forward import Forward, GradientsOfSeen

Accepted = Collection[str | Callable[..., Any]] | str | Callable[..., Any]
"""Operations that are not covered, and whose plain gradient is accepted, by function or name."""


@contextmanager
def propagating(rules: Rules, bounds: Bounds | None = None, accept: Accepted = ()) -> Iterator[Run]:
    """Within this context, gradients of computed tensors are relevance coefficients c = R/x.

    Every leaf tensor that requires a gradient and is not a parameter is an explained input. If a rule puts
    relevance on an input that is zero, no coefficient can express it, and the ledger has it under "zero
    input". `explain` has no such limit. The context returns a run with the applied rules, `applied`, and the
    `ledger`.

    Args:
        rules: as for `relprop.explain`.
        bounds: as for `relprop.explain`.
        accept: as for `relprop.explain`.

    Raises:
        RuleError: rules without meaning, or a plain gradient.
        CoverageError: at the end, if relevance reached operations that are not covered.
    """
    name, composite = resolve(rules, bounds)
    if isinstance(composite, Baseline):
        raise RuleError(
            f"rules={name!r} is a plain gradient: use torch.autograd.grad alone, or give other rules."
        )
    run = Run(composite.choose, unmatched=composite.unmatched, accept=names_of(accept))
    forward = Forward(run, TABLE, any_leaf=True)
    gradients = GradientsOfSeen()
    try:
        with intercepting(forward.interception):
            # Taken off by what restores the state around the run.
            torch._C._push_on_torch_function_stack(gradients)
            yield run
    finally:
        gradients.is_over = True
    run.gaps.require_none()


def names_of(accept: Accepted) -> list[str]:
    """The names of the operations that a user accepts without an entry.

    Raises:
        InputError: it is no operation.
    """
    given = as_list(accept, "accept")
    for each in given:
        module = isinstance(each, nn.Module)  # which prints as many lines
        if module or isinstance(each, type) or not (callable(each) or (isinstance(each, str) and each)):
            raise InputError(
                f"accept={type(each).__name__ + '(...)' if module else repr(each)}: give the name of an "
                "operation as errors print it, or a function of torch, such as accept=torch.atan2."
            )
    return [each if isinstance(each, str) else name_of(each) for each in given]


def as_list(value: Any, argument: str, *, one: type = str) -> Collection[Any]:
    """One name, or several of them, as several.

    Args:
        value: which; a function, a module, or what is `one`, stands for itself.
        argument: what it was given for.
        one: what else is a single thing.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, (str, one)) or callable(value):
        return [value]
    if not isinstance(value, Collection) or isinstance(value, bytes):
        raise InputError(f"{argument}={value!r}: give a name, or a list of them.")
    return value
