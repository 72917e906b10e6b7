"""Operations that are written out as their parts, and have the value that the model computed all the same."""

from collections.abc import Callable
from typing import Any

import torch

from relprop.calls.call import Call
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen
from relprop.linear.operation import Incoming


def with_own_value(run: Run, call: Call, parts: Any) -> Any:
    """What the parts give, with the value of the call, which may differ in the last digit."""
    return of_value(run, run.value(call), parts)


def of_value(run: Run, value: Any, parts: Any) -> Any:
    """What the parts give, with this value."""
    return run.cross(value, [parts], unchanged, parts.tag) if type(parts) is Seen else parts


def plus(product: Callable[..., Any]) -> Callable[..., Any]:
    """The entry of beta·input + alpha·product(one, other), as its parts."""

    def entry(run: Run, call: Call, x: Any, one: Any, other: Any, beta: Any, alpha: Any) -> Any:
        term = run.perform(product, one, other)
        term = term if alpha == 1 else run.perform(torch.mul, term, alpha)
        if beta != 0:  # else whatever lies in the input, NaN included, does not count
            term = run.perform(torch.add, term, x, alpha=beta)
        return with_own_value(run, call, term)

    return entry


def unchanged(incoming: Incoming) -> list[Outgoing]:
    """The backward of what only takes another value's place."""
    return [(incoming.c, incoming.direct)]
