"""Writing to parts of a tensor: the relevance of an element goes to the value that was written there last.

A constant that was written absorbs the relevance that arrives at it. So does the rest of a constant tensor
that was written to. An in-place write arrives as the operation that returns the whole tensor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.calls.call import Call
from relprop.calls.nested import map_tensors, tensors_in
from relprop.crossing.exact import Exact, relevant_in, total_of
from relprop.crossing.parts import with_own_value
from relprop.engine.interception import Entry
from relprop.engine.known import Tag, all_nonnegative, merge_tags
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen, is_relevant, number_of, value_of
from relprop.linear.numerics import times
from relprop.linear.operation import Incoming
from relprop.operations.reshaping import absorbing

_shared = Exact()


@dataclass(frozen=True)
class Written:
    """An operation that overwrites part of its first argument with another argument.

    Attributes:
        value: position of the argument that is written.
    """

    value: int

    def __call__(self, run: Run, call: Call, target: Any, *rest: Any) -> Any:
        value = call.args[self.value]
        constant = not is_relevant(value)
        places = None if constant else _places_written_twice(call)
        if places is not None:
            return _written_once(run, call, value, places)
        if any(is_relevant(t) for t in tensors_in(rest) if t is not value):
            run.gap(call.name, "an index that depends on the input is not covered")
        base = target if is_relevant(target) else run.source(target, call.name)
        keeps_sign = not constant or all_nonnegative(torch.as_tensor(value_of(value)))
        rearranged = Exact(keeps_sign=keeps_sign, slot="same")
        result = rearranged(run, Call(call.signature, [base, *rest]))
        return absorbing(run, result, self._mask(run, call), None, call.name) if constant else result

    def _mask(self, run: Run, call: Call) -> Tensor:
        """Return where the call writes, as a mask of the result's shape."""

        def filled(number: float) -> Tensor:
            value = value_of(call.args[self.value])
            args = [torch.zeros_like(value_of(call.args[0])), *call.args[1:]]
            args[self.value] = torch.full_like(value, number) if isinstance(value, Tensor) else number
            written: Tensor = run.value(call, args)
            return written

        return filled(1.0) != filled(0.0)


_READING: Mapping[str, Callable[..., Tensor]] = {
    **dict.fromkeys(("index_put", "_unsafe_index_put"), torch.ops.aten.index.Tensor),
    "index_copy": torch.index_select,
    "scatter": torch.gather,
}
"""Operations that may write to one place several times, and what reads the same places in the same order."""


def _places_written_twice(call: Call) -> Tensor | None:
    """Return where the call writes, as positions in the flattened target; None if no place comes twice."""
    if call.operation not in _READING:
        return None
    target, where = value_of(call.args[0]), [map_tensors(value_of, a) for a in call.args[1:3]]
    if call.operation not in ("index_copy", "scatter"):
        where = where[:1]
        if all([index is None or index.dtype == torch.bool for index in where[0]]):
            return None
    places = torch.arange(target.numel(), device=target.device).view(target.shape)
    written = _READING[call.operation](places, *where)
    return written if len(torch.unique(written)) < written.numel() else None


def _written_once(run: Run, call: Call, value: Seen, places: Tensor) -> Any:
    """Write to each place what is written there last.

    For what is overwritten torch has the gradient of the last one, too: it would be counted several times.
    """
    target = call.args[0]
    numbers = torch.arange(places.numel(), device=places.device).view(places.shape)
    last = torch.zeros(target.numel(), dtype=torch.int64, device=places.device)
    last = last.scatter_reduce(0, places.reshape(-1), numbers.view(-1), "amax")
    stays = last[places] == numbers
    if call.operation == "scatter":  # values beyond the index are not used
        value = run.perform(torch.Tensor.__getitem__, value, tuple(slice(n) for n in places.shape))
    values = run.perform(
        torch.Tensor.__getitem__, run.perform(torch.Tensor.expand, value, places.shape), stays
    )
    flat = run.perform(torch.index_put, run.perform(torch.reshape, target, (-1,)), (places[stays],), values)
    return with_own_value(run, call, run.perform(torch.reshape, flat, target.shape))


def _gathered(run: Run, call: Call) -> Seen:
    """Elements that are added where an index says, as by a matrix: no multilayer perceptron does this."""
    result: Seen = _shared(run, call)
    result.tag.behind = result.tag.behind.after(plain=False)
    return result


def index_put(
    run: Run, call: Call, target: Any, indices: Any, values: Any, accumulate: bool, *rest: Any
) -> Any:
    """Assignment to elements or, if `accumulate`, addition to the elements that are there."""
    if not accumulate:
        return Written(2)(run, call, target, indices, values, accumulate, *rest)
    terms = [t if is_relevant(t) else run.source(t, call.name) for t in (target, values)]
    result = _gathered(run, Call(call.signature, [terms[0], indices, terms[1], accumulate, *rest]))
    if not is_relevant(target):
        result.tag.total = total_of(run, call, values, result.recorded)
    return result


def put(run: Run, call: Call, target: Any, index: Any, source: Any, accumulate: bool) -> Any:
    """torch.put: index_put at positions in the flattened tensor."""
    flat = run.perform(torch.flatten, target)
    values = run.perform(torch.reshape, source, index.shape)
    written = run.perform(torch.index_put, flat, (index,), values, accumulate)
    return with_own_value(run, call, run.perform(torch.reshape, written, target.shape))


def copy(run: Run, call: Call, target: Tensor, source: Any, *_options: Any) -> Any:
    """A copy over the whole of another tensor: the source in the target's type, device and shape."""
    if not is_relevant(source):
        value = value_of(torch.as_tensor(source))
        return run.source(value.to(target.dtype).expand(target.shape), call.name)
    if source.shape == target.shape and source.dtype == target.dtype and source.device == target.device:
        return run.seen(source.recorded, source.tag)
    moved = source
    if source.dtype != target.dtype or source.device != target.device:
        moved = run.perform(torch.Tensor.to, moved, target.device, target.dtype)
    return moved if moved.shape == target.shape else run.perform(torch.Tensor.expand, moved, target.shape)


def fill(run: Run, call: Call, target: Tensor, value: Any = 0) -> Any:
    """A tensor of the target's shape with one number everywhere."""
    if is_relevant(value):
        return run.perform(torch.Tensor.expand, value, target.shape)
    return run.source(torch.full_like(value_of(target), number_of(value)), call.name)


def scatter(run: Run, call: Call, *args: Any) -> Any:
    """scatter with values or a number, which overwrite the elements that are there."""
    if call.argument("reduce") is not None:
        run.refuse(call.name, "torch has no gradient for it with reduce=...; use scatter_reduce")
        return run.seen(run.value(call), None)
    return Written(3)(run, call, *args)


def added(run: Run, call: Call, target: Any, *rest: Any) -> Any:
    """index_add, scatter_add and scatter_reduce. Constants among the terms absorb their part."""
    args: list[Any] = [target, *rest]
    index, source = (call.argument(name) for name in ("index", "src"))
    if source is not None and source.shape != index.shape:  # elements beyond the index are not used
        args[3] = run.perform(torch.Tensor.__getitem__, source, tuple(slice(n) for n in index.shape))
    if call.argument("reduce") == "prod":
        return _multiplied(run, Call(call.signature, args), target)
    floats = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.is_floating_point()]
    terms = [
        run.source(a, call.name) if i in floats and not is_relevant(a) else a for i, a in enumerate(args)
    ]
    extreme = call.argument("reduce") in ("amax", "amin")
    result = (_shared if extreme else _gathered)(run, Call(call.signature, terms))
    added = args[floats[-1]]
    if not is_relevant(target) and not extreme:
        result.tag.total = total_of(run, Call(call.signature, args), added, result.recorded)
    return result


def _multiplied(run: Run, call: Call, target: Any) -> Any:
    """scatter_reduce and index_reduce of products: each of n factors that depend on the input gets 1/n."""
    dim, index = call.argument("dim"), value_of(call.argument("index"))
    source = call.argument("src", call.argument("source"))
    counts = torch.zeros(target.shape, dtype=target.dtype, device=target.device)
    if call.operation == "scatter_reduce":
        factors = counts.scatter_add(dim, index, counts.new_ones(index.shape))
    else:
        factors = counts.index_add(dim, index, counts.new_ones(source.shape))
    if is_relevant(source):
        counts = counts + factors
    if is_relevant(target):
        counts = counts + (torch.ones_like(factors) if call.argument("include_self") else factors == 0)
    value = run.native(call)
    product, path, name = run.seen(value, Tag()), run.modules.path, call.name
    constant = run.keep((value * (counts == 0)).detach())

    def back(incoming: Incoming) -> list[Outgoing]:
        c, direct = incoming.c, incoming.direct
        if c is not None:
            run.ledger.add("constant", times(c, constant.value), path, name)
        if direct is not None:
            run.ledger.add("constant", direct * (counts == 0), path, name)
        n = counts.clamp(min=1)
        return [(None if c is None else c / n, None if direct is None else direct / n)]

    relevant = relevant_in([target, source])
    known = merge_tags([t.tag for t in relevant])
    known.behind = known.behind.after(plain=False)
    return run.cross(value.detach(), [product], back, known)


TABLE: Mapping[str, Entry] = {
    "copy": copy,
    "fill": fill,
    "zero": fill,
    **dict.fromkeys(("index_put", "_unsafe_index_put"), index_put),
    "index_copy": Written(3),
    "index_fill": Written(3),
    "scatter": scatter,
    "masked_scatter": Written(2),
    "put": put,
    **dict.fromkeys(("slice_scatter", "select_scatter", "diagonal_scatter"), Written(1)),
    **dict.fromkeys(("index_add", "scatter_add", "scatter_reduce", "index_reduce"), added),
}
