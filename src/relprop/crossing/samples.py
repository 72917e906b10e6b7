"""The place of the samples in a tensor, for the ledger, in models that put another dimension first."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch

from relprop.calls.call import Call
from relprop.calls.found import Found
from relprop.calls.nested import map_leaves, tensors_in
from relprop.engine.run import Run
from relprop.engine.seen import Seen, value_of

_REORDERING = frozenset(
    (
        *("permute", "transpose", "t", "movedim", "swapaxes", "unsqueeze"),
        *("permute_copy", "transpose_copy", "t_copy", "unsqueeze_copy"),
    )
)
"""Operations that may put another dimension first."""

_BROADCASTING = frozenset(("add", "sub", "rsub", "mul", "div", "where", "expand"))
"""Operations that may put new dimensions first, if another operand has more dimensions."""


_STAYING = frozenset(
    (
        *("masked_fill", "masked_scatter", "index_put", "_unsafe_index_put", "index_copy", "index_fill"),
        *("scatter", "slice_scatter", "select_scatter", "diagonal_scatter"),
    )
)
"""Operations that write constants to a part of a tensor. All other elements stay where they are."""


def step_after(run: Run, call: Call, operands: Sequence[Seen], output: Tensor, slot: str) -> int | None:
    """Return the step between samples in a result (see `Tag.step`); None if they are first, or unknown."""
    if run.ledger.samples == 1:
        return None
    x = operands[0]
    if call.operation == "stack":
        return step_beside(run, x, output) if call.args[1] in (0, -output.dim()) else None
    if all([t.tag.step is None for t in operands]):
        if call.operation in _BROADCASTING:
            widest = max(operands, key=Tensor.dim)
            return step_beside(run, widest, output) if output.dim() > widest.dim() else None
        if call.operation not in _REORDERING or _keeps_first(call, x):
            return None
    elif call.operation in _STAYING and len(operands) == 1:
        return x.tag.step if x.shape == output.shape else step_beside(run, x, output)
    elif slot != "same":
        same = [t for t in operands if t.tag.step is not None and t.shape == output.shape]
        return same[0].tag.step if same else None
    if len(operands) > 1 or isinstance(call.args[0], (list, tuple)):
        known = next(t for t in operands if t.tag.step is not None)
        return step_beside(run, known, output)
    return _found(run, call, x)


def step_of_rows(step: int | None, width: int, new: int) -> int | None:
    """Return the step between samples where the last dimension has another width, as behind a layer."""
    return step if step is None else step // width * new


def step_beside(run: Run, x: Seen, other: Tensor) -> int | None:
    """Return the step between samples in a tensor that has x's dimensions, or more in front of them.

    None if the samples are first, or if their step is not known.
    """
    samples, more, rest = run.ledger.samples, other.dim() - x.dim(), 1
    step = x.shape[1:].numel() if x.tag.step is None else x.tag.step
    if more < 0 or (more == 0 and x.tag.step is None):
        return None
    for dimension in reversed(range(x.dim())):
        if rest == step and x.shape[dimension] == other.shape[dimension + more] == samples:
            return other.shape[dimension + more + 1 :].numel() if dimension + more else None
        rest *= x.shape[dimension]
    return None


def _keeps_first(call: Call, x: Tensor) -> bool:
    operation = call.operation.removesuffix("_copy")
    if operation == "permute":
        return bool(call.args[1][0] in (0, -x.dim()))
    if operation == "unsqueeze":
        return call.args[1] not in (0, -1 - x.dim())
    if operation in ("transpose", "swapaxes", "movedim"):
        return all(isinstance(d, int) and d % max(1, x.dim()) != 0 for d in call.args[1:3])
    return False


def _found(run: Run, call: Call, x: Seen) -> int | None:
    """Find the step between samples: run the call on the numbers of the samples instead of the values."""
    samples = run.ledger.samples

    def search() -> int | None:
        with no_dispatch():
            numbers = _numbers(x, samples)
            if numbers is None:
                return None

            def placed(value: Any) -> Any:
                return numbers if value is x else value_of(value)

            moved = next(tensors_in(call.on([map_leaves(placed, a) for a in call.args])))
            return step_of(moved, samples)

    written = call.written(x)
    # The same call comes in each layer.
    return search() if written is None else _FOUND.of((written, x.shape, x.tag.step, samples), search)


_FOUND: Found[int | None] = Found()
"""Steps between samples, by a call, the shape that it gets and the step there."""


def _numbers(x: Seen, samples: int) -> Tensor | None:
    """Return for each element the number of its sample; None if that is not known."""
    count = x.numel()
    step = count // samples if x.tag.step is None else x.tag.step
    if step == 0 or count % (samples * step):
        return None
    return _in_turn(samples, step, count, x.device).reshape(x.shape).contiguous()


def _in_turn(samples: int, step: int, count: int, device: torch.device) -> Tensor:
    """Return the numbers of the samples of `count` elements, if samples change after each step."""
    numbers = torch.arange(samples, device=device).unsqueeze(1)
    return numbers.expand(count // (samples * step), samples, step)


def step_of(numbers: Tensor, samples: int) -> int | None:
    """Return the step between samples, from the number of each element's sample.

    None if the samples are first, or not at regular steps.
    """
    flat = numbers.reshape(-1)
    changes = (flat != flat[:1]).nonzero()
    if len(changes) == 0:
        return None
    step = int(changes[0])
    first = step * samples == len(flat) and len(numbers) % samples == 0
    if first or len(flat) % (samples * step):
        return None
    expected = _in_turn(samples, step, len(flat), flat.device)
    return step if torch.equal(flat.reshape(expected.shape), expected) else None
