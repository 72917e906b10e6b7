"""Control flow that a model gives torch as an operation: it runs as the Python that it stands for.

`torch.cond` and its like are operations whose arguments are functions. Torch would trace these functions, and
what is computed in them could not be seen.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map


def cond(condition: Any, then: Callable[..., Any], otherwise: Callable[..., Any], operands: Any = ()) -> Any:
    """torch.cond: one of two functions."""
    return (then if bool(condition) else otherwise)(*operands)


def while_loop(goes_on: Callable[..., Any], body: Callable[..., Any], carried: Any, others: Any = ()) -> Any:
    """while_loop: a function of its own results, as long as a condition holds."""
    carried = tuple(carried)
    while bool(goes_on(*carried, *others)):
        carried = tuple(body(*carried, *others))
    return carried


def map_impl(function: Callable[..., Any], rows: Sequence[Any], others: Any = ()) -> Any:
    """map: a function of each row."""
    results = [function(*[x[i] for x in rows], *others) for i in range(len(rows[0]))]
    return tree_map(lambda *parts: torch.stack(parts), *results)


def scan(combine: Callable[..., Any], carried: Sequence[Any], rows: Sequence[Any], others: Any = ()) -> Any:
    """scan: a function of its own results and of each row, one after the other."""
    count, results = len(carried), list[Any]()
    for i in range(len(rows[0])):
        found = [*combine(*carried, *[x[i] for x in rows], *others)]
        carried = found[:count]
        results.append(found[count:])
    return [*carried, *(torch.stack(parts) for parts in zip(*results, strict=True))]


CONTROL_FLOW: Mapping[str, Callable[..., Any]] = {
    "cond": cond,
    "while_loop": while_loop,
    "map_impl": map_impl,
    "scan": scan,
}
"""By the names of torch's higher-order operators: the same in Python."""
