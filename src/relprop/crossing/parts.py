"""Operations that are written out as their parts, and have the value that the model computed all the same."""

from typing import Any

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


def unchanged(incoming: Incoming) -> list[Outgoing]:
    """The backward of what only takes another value's place."""
    return [(incoming.c, incoming.direct)]
