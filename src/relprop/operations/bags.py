"""Embedding bags, which look up rows of a table and pool those of each bag.

They are written out as a lookup and a sum, a mean or a maximum. So relevance can begin at the rows, between
the two.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.calls.call import Call
from relprop.crossing.parts import of_value
from relprop.engine.interception import Entry
from relprop.engine.run import Run
from relprop.engine.seen import is_relevant, value_of

_SUM, _MEAN, _MAX = 0, 1, 2


def embedding_bag(
    run: Run,
    call: Call,
    weight: Any,
    indices: Any,
    offsets: Any,
    _scale_grad_by_freq: bool,
    mode: int,
    _sparse: bool,
    factors: Any,
    ends_given: bool,
    padding: int | None = None,
) -> Any:
    """F.embedding_bag in every mode. Rows of the padding index take no part."""
    value, *others = run.value(call)
    bag, counts = bags(value_of(offsets), indices.numel(), ends_given=ends_given)
    padding = _row(call, padding, weight.shape[0])
    if padding is not None:
        counted = value_of(indices) != padding
        if not bool(counted.all()):
            indices = run.perform(torch.Tensor.__getitem__, indices, counted)
            factors = factors if factors is None else run.perform(torch.Tensor.__getitem__, factors, counted)
            bag = bag[counted]
            counts = torch.bincount(bag, minlength=len(counts))
    rows = run.perform(F.embedding, indices, weight)
    if factors is not None:
        rows = run.perform(torch.mul, rows, run.perform(torch.unsqueeze, factors, -1))
    pooled = _pooled(run, rows, mode, bag, counts)
    result = of_value(run, value, pooled) if is_relevant(pooled) else run.seen(value, None)
    return result, *(run.seen(other, None) for other in others)


def bags(offsets: Tensor, rows: int, *, ends_given: bool) -> tuple[Tensor, Tensor]:
    """Return the number of each row's bag, (rows,), and how many rows each bag has, (bags,)."""
    ends = offsets if ends_given else torch.cat([offsets, offsets.new_tensor([rows])])
    counts = ends.diff()
    return torch.arange(len(counts), device=offsets.device).repeat_interleave(counts), counts


def _row(call: Call, padding: int | None, rows: int) -> int | None:
    """Return the number of the row that takes no part; None if there is none."""
    if padding is None or padding >= 0:
        return padding
    # The kernel's -1 says that there is none. The function counts from the last row, as an index does.
    return padding + rows if call.operation == "embedding_bag" else None


def _pooled(run: Run, rows: Any, mode: int, bag: Tensor, counts: Tensor) -> Any:
    """Pool the rows of each bag."""
    size = int(counts[0]) if len(counts) else 0
    if size and bool((counts == size).all()):
        rows = run.perform(torch.unflatten, rows, 0, (len(counts), size))
        if mode == _MAX:
            return run.perform(torch.max, rows, 1)[0]
        return run.perform(torch.mean if mode == _MEAN else torch.sum, rows, 1)
    if mode != _MAX:
        zeros = torch.zeros(len(counts), rows.shape[1], dtype=rows.dtype, device=rows.device)
        total = run.perform(torch.index_add, zeros, 0, bag, rows)
        return run.perform(torch.div, total, counts.clamp(min=1)[:, None]) if mode == _MEAN else total
    place = torch.arange(int(counts.max()) if len(counts) else 0, device=bag.device)
    missing = place >= counts[:, None]
    first = counts.cumsum(0) - counts
    filled = run.perform(torch.Tensor.__getitem__, rows, (first[:, None] + place).masked_fill(missing, 0))
    filled = run.perform(torch.masked_fill, filled, missing[..., None], -torch.inf)
    winners = run.perform(torch.max, filled, 1)[0]
    return run.perform(torch.masked_fill, winners, (counts == 0)[:, None], 0.0)


TABLE: Mapping[str, Entry] = dict.fromkeys(
    ("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"), embedding_bag
)
