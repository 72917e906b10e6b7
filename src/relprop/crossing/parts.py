"""Operations that are written out as their parts, but keep the value that the model computed."""

from collections.abc import Callable
from typing import Any

import torch

from relprop.calls.call import Call
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen
from relprop.linear.operation import Incoming


def with_own_value(run: Run, call: Call, parts: Any) -> Any:
    """Return the result of the parts with the value of the call, which may differ in the last digit."""
    return of_value(run, run.value(call), parts)


def of_value(run: Run, value: Any, parts: Any) -> Any:
    """Return the result of the parts with this value."""
    return run.cross(value, [parts], unchanged, parts.tag) if type(parts) is Seen else parts


def plus(product: Callable[..., Any]) -> Callable[..., Any]:
    """Return the entry for beta·input + alpha·product(one, other), written out as its parts."""

    def entry(run: Run, call: Call, x: Any, one: Any, other: Any, beta: Any, alpha: Any) -> Any:
        term = run.perform(product, one, other)
        term = term if alpha == 1 else run.perform(torch.mul, term, alpha)
        if beta != 0:  # if beta is 0, the input does not count, even if it is NaN
            term = run.perform(torch.add, term, x, alpha=beta)
        return with_own_value(run, call, term)

    return entry


def unchanged(incoming: Incoming) -> list[Outgoing]:
    """The backward of a value that replaces another one: relevance passes unchanged."""
    return [(incoming.c, incoming.direct)]
