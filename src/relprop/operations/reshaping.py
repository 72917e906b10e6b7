"""Operations that rearrange elements. They are exact, and rearrange relevance as they rearrange values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.calls.call import Call
from relprop.calls.moving import BY_SHAPE, MOVING
from relprop.crossing.chains import chained, same_values
from relprop.crossing.exact import Exact, Function, as_function, relevant_in, reshaping
from relprop.crossing.folding import moved
from relprop.crossing.padding import added_in_front, joined_in_front, moved_with_zeros
from relprop.crossing.parts import with_own_value
from relprop.crossing.ruled import linear_origin
from relprop.crossing.samples import step_beside
from relprop.engine.interception import Entry
from relprop.engine.keep import Kept
from relprop.engine.known import Tag, ZeroPadding, all_nonnegative, empty_slot, gates_of
from relprop.engine.roles import Role
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen, is_relevant, number_of, value_of
from relprop.linear.numerics import times
from relprop.linear.operation import Incoming

_rearranged = Exact(keeps_sign=True, slot="same")


def rearranged(run: Run, call: Call, x: Any, *_options: Any) -> Any:
    """Rearrange elements: shapes, orders, parts.

    If all elements of a linear operation's output are rearranged, constants can still be folded into it.
    """
    result = _rearranged(run, call)
    if type(result) is not Seen:
        if gates := gates_of(x.tag):
            # Some settings of a model leave parts empty, which do not count.
            for i, part in enumerate([each for each in result if each.numel()]):
                role = Role.GATE if i in gates else part.tag.role
                part._tag = replace(part.tag, role=role, gates=())
        return result
    if not result.relevant:
        return result
    tag, all_of_x = result.tag, result.numel() == x.numel()
    if all_of_x and (before := x.tag.again) is not None:
        move = _move(run, call, result)
        tag.again = lambda: Kept(move([before().value]))
    if all_of_x and linear_origin(x) is not None:
        _still_folds(result, [x], _move(run, call, result))
    elif result.shape == x.shape and _keeps_all(call):
        tag.pointwise, tag.role, tag.origin = same_values(x), x.tag.role, x.tag.origin
    elif all_of_x and (padded := added_in_front(result, x)) is not None:
        tag.origin = padded
    elif all_of_x and isinstance(x.tag.origin, ZeroPadding):
        tag.origin = moved_with_zeros(result, x, _move(run, call, result))
    return result


def _move(run: Run, call: Call, result: Seen) -> Function:
    """Return a call that moves all elements of a tensor as a function of the tensor."""
    return reshaping(result.shape) if call.operation in BY_SHAPE else as_function(run, call)


def _still_folds(result: Seen, parts: Sequence[Seen], move: Function) -> None:
    """Record that outputs of linear operations were rearranged or joined, if the parts are such outputs."""
    origin = moved(parts, move)
    if origin is None:
        return
    result.tag.origin = origin
    for part in parts:
        if part.memory is not None:  # a fold looks at the outputs
            part.memory.is_read = True


def _keeps_all(call: Call) -> bool:
    """Whether a call returns all values in their places, if the shape stays."""
    return call.operation in BY_SHAPE or call.operation in ("alias", "expand", "slice")


def channel_shuffle(run: Run, call: Call, x: Seen, groups: int) -> Any:
    """The kernel of F.channel_shuffle, for which torch has no derivative."""
    return run.perform(torch.channel_shuffle, x, groups)


def detach(run: Run, call: Call, x: Seen) -> Any:
    """The value as a constant."""
    run.cut(call.name, "makes a constant")
    return run.seen(x.recorded.detach(), None)


def embedding(run: Run, call: Call, rows: Any, indices: Any, *_options: Any) -> Any:
    """Rows of a table. Torch's gradient leaves the row of padding out, which has values all the same."""
    return rearranged(run, Call(call.signature, [rows, indices, *call.signature.defaults[2:]]), rows)


def as_strided(run: Run, call: Call, x: Seen, *_options: Any) -> Any:
    """torch.as_strided, whose offset counts from where the model's tensor begins in memory."""
    inner = x.recorded
    if inner.storage_offset() and x.memory is None:  # as that of a copy, which is the same tensor here
        call = Call(call.signature, [run.seen(inner.clone(), x.tag), *call.args[1:]])
    return Exact(keeps_sign=True)(run, call)


def cast(run: Run, call: Call, x: Seen, *_options: Any) -> Any:
    """to: the tensor itself if it has that type and device already. Otherwise torch decomposes the call."""
    dtype, device, layout = (call.argument(name) for name in ("dtype", "device", "layout"))
    other = call.argument("other")
    same = other is None and dtype in (None, x.dtype) and device in (None, x.device) and layout is None
    told = call.argument("copy") or call.argument("memory_format") not in (None, torch.preserve_format)
    return x if same and not told else NotImplemented


def join(run: Run, call: Call, tensors: Sequence[Any], *rest: Any) -> Any:
    """cat, stack and the like. A constant among the parts absorbs the relevance that arrives at it."""
    relevant = [t for t in tensors if is_relevant(t)]
    x = relevant[0]
    if len(relevant) == 1 and call.operation == "cat" and not any([_has_values(t, x) for t in tensors]):
        return with_own_value(run, call, run.perform(F.pad, x, _border(tensors, x, *rest)))
    joined = [
        t if is_relevant(t) else run.source(t, call.name, x.dtype, step_beside(run, x, t)) for t in tensors
    ]
    joining = Call(call.signature, [joined, *rest])
    result: Seen = _rearranged(run, joining)
    if len(relevant) == len(tensors) and all([t.dtype == x.dtype for t in relevant]):
        _still_folds(result, relevant, as_function(run, joining))
        if (call.argument("dim") or 0) == 0 and (padded := joined_in_front(result, relevant)) is not None:
            result.tag.origin = padded
    return result


def _has_values(t: Any, x: Seen) -> bool:
    """Whether a part that is joined with x is more than a border of zeros."""
    return t is not x and (t.dim() != x.dim() or t.dtype != x.dtype or bool(value_of(t).any()))


def _border(tensors: Sequence[Any], x: Seen, dim: int = 0) -> list[int]:
    """The numbers of zeros around x where it is joined with zeros, in the order of `F.pad`."""
    place = next(i for i, t in enumerate(tensors) if t is x)
    sides = [sum([t.shape[dim] for t in part]) for part in (tensors[:place], tensors[place + 1 :])]
    return [0, 0] * (x.dim() - 1 - dim % x.dim()) + sides


def pad(run: Run, call: Call, x: Seen, pads: Sequence[int], mode: str = "constant", value: Any = None) -> Any:
    """F.pad in every mode. A constant border absorbs the relevance that arrives at it."""
    value, pads = value or 0.0, tuple(pads)
    result: Seen = Exact(keeps_sign=value >= 0, slot="same")(run, call)
    if mode != "constant":
        return result
    if value != 0 or result.tag.slot is not None:
        border = F.pad(empty_slot(x.recorded.detach()), pads, value=1.0) != 0
        result = absorbing(run, result, border, value, "pad")
    if value == 0:
        before = x.tag.origin
        if isinstance(before, ZeroPadding):
            result.tag.origin = replace(before, pads=_added(before.pads, pads))
        else:
            result.tag.origin = ZeroPadding(recorded=x.recorded, tag=x.tag, pads=pads)
    return result


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers of zeros of two borders."""
    return tuple(a + b for a, b in zip_longest(one, other, fillvalue=0))


def constant_pad(run: Run, call: Call, x: Seen, pads: Sequence[int], value: Any = None) -> Any:
    """The kernel of F.pad with a constant."""
    return pad(run, call, x, pads, "constant", value)


def masked_fill(run: Run, call: Call, x: Any, mask: Tensor, value: Any) -> Any:
    """masked_fill with a number, which absorbs the relevance that arrives at it."""
    if is_relevant(value):
        run.gap("masked_fill", "the value depends on the input")
        return Exact(slot="share")(run, call)
    number = number_of(value)
    if number == 0 and leaves_positive(mask, x, inverted=True):
        return with_own_value(run, call, run.perform(torch.relu, x))
    result = Exact(keeps_sign=number >= 0, slot="same")(run, call)
    return absorbing(run, result, value_of(mask).expand(result.shape), number, "masked_fill")


def where(run: Run, call: Call, condition: Any, a: Any, b: Any) -> Any:
    """torch.where. A constant absorbs the relevance that arrives at it."""
    relevant, mask = [t for t in (a, b) if is_relevant(t)], value_of(condition)
    one = len(relevant) == 1 and _is_zero(b if is_relevant(a) else a)
    if one and leaves_positive(condition, relevant[0], inverted=is_relevant(b)):
        return with_own_value(run, call, run.perform(torch.relu, relevant[0]))
    keeps_sign = all(is_relevant(v) or all_nonnegative(torch.as_tensor(value_of(v))) for v in (a, b))
    result = Exact(keeps_sign=keeps_sign, slot="same")(run, call)
    chain = chained(run, call, relevant) if all(t.shape == result.shape for t in relevant) else None
    for constant, chosen in ((a, mask), (b, ~mask)):
        if not is_relevant(constant):
            result = absorbing(run, result, chosen.expand(result.shape), None, "where")
    result.tag.pointwise = chain
    return result


def leaves_positive(mask: Any, x: Seen, *, inverted: bool = False) -> bool:
    """Whether a mask is x > 0 or, if `inverted`, its opposite: what it leaves of x is a ReLU."""
    name = "below" if inverted else "above"
    return type(mask) is Seen and getattr(mask, name) is x.recorded


def _is_zero(constant: Any) -> bool:
    value = value_of(constant)
    return value == 0 if isinstance(value, (int, float)) else not bool(value.any())


def compared(run: Run, call: Call, x: Any, other: Any) -> Any:
    """A comparison, whose result is a constant."""
    run.look(call.name)
    mask = run.seen(run.value(call), None)
    if is_relevant(x) and isinstance(other, (int, float)) and other == 0:
        if call.operation in ("gt", "ge"):
            mask.above = x.recorded
        else:
            mask.below = x.recorded
    return mask


def with_zeros(run: Run, call: Call, *_args: Any, entry: Exact = _rearranged) -> Any:
    """Rearrange elements, and fill other places with zeros. The zeros absorb direct relevance."""
    operands = relevant_in(call.args)
    function: Callable[..., Tensor] = as_function(run, call)
    result: Seen = entry(run, call)
    if result.tag.slot is None:
        return result
    with torch.no_grad():
        filled = function([torch.ones_like(t.recorded) for t in operands]) == 0
    return absorbing(run, result, filled, 0.0, call.name)


def max_unpool(run: Run, call: Call, x: Seen, indices: Any, *_options: Any) -> Any:
    """max_unpool. Windows that overlap may have the same maximum, which then gets a part from each."""
    dims = call.signature.name.removesuffix("d")[-1]
    places = value_of(indices).flatten(-int(dims))
    counts = torch.zeros(*places.shape[:-1], int(places.max()) + 1, dtype=x.dtype, device=x.device)
    counts = counts.scatter_add(-1, places, torch.ones_like(places, dtype=x.dtype))
    if bool((counts <= 1).all()):
        return with_zeros(run, call)
    part = 1 / counts.gather(-1, places).view_as(x)

    def back(incoming: Incoming) -> list[Outgoing]:
        c, direct = incoming.c, incoming.direct
        return [(None if c is None else c * part, None if direct is None else direct * part)]

    shared = run.cross(x.recorded.detach(), [x], back, replace(x.tag, slot=None, origin=None, pointwise=None))
    return with_zeros(run, Call(call.signature, [shared, *call.args[1:]]))


def absorbing(run: Run, result: Seen, mask: Tensor, value: float | None, operation: str) -> Seen:
    """Record the relevance that arrives where `mask` is true as absorbed by a constant.

    Args:
        run: the run.
        result: the result of the operation.
        mask: where the result is constant, of its shape.
        value: the constant; None for the result's own values.
        operation: name of the operation, for the ledger.
    """
    path, tag, kept = run.modules.path, result.tag, run.keep_constant(mask)
    step = tag.step  # and not the tag, of which the backward would hold the origin
    kept_value = run.keep(result.recorded) if value is None else None

    def back(incoming: Incoming) -> list[Outgoing]:
        c, direct, on_constant = incoming.c, incoming.direct, None
        if c is not None and value != 0:
            on_constant = times(c, value if kept_value is None else kept_value.value)  # type: ignore[arg-type]
        for amount in (on_constant, direct):
            if amount is not None:
                run.ledger.add("constant", amount.masked_fill(~kept.value, 0), path, operation, step)
        return [(c, direct)]

    # Detached: otherwise the output of the autograd function would itself count as a view.
    return run.cross(
        result.recorded.detach(),
        [result],
        back,
        Tag(tag.behind, tag.nonnegative, role=tag.role, step=step),
    )


def block_diagonal(run: Run, call: Call, tensors: Sequence[Any]) -> Any:
    """torch.block_diag. A constant among the blocks absorbs the relevance that arrives at it."""
    blocks = [t if is_relevant(t) else run.source(t, call.name) for t in tensors]
    return with_zeros(run, Call(call.signature, [blocks]))


def complex_of(run: Run, call: Call, real: Any, imaginary: Any) -> Any:
    """torch.complex. A constant part absorbs the relevance that arrives at it."""
    parts = [t if is_relevant(t) else run.source(t, call.name) for t in (real, imaginary)]
    return Exact(slot="none")(run, Call(call.signature, parts))


_COMPLEX = ("view_as_complex", "view_as_real", "_conj", "_conj_physical", "conj_physical")

_COPIED = (
    *("unfold", "lift_fresh", "view_as_real", "view", "squeeze", "unsqueeze", "expand", "permute"),
    *("transpose", "t", "slice", "select", "alias", "split", "split_with_sizes", "unbind", "diagonal"),
)

TABLE: Mapping[str, Entry] = {
    **dict.fromkeys(MOVING, rearranged),
    # what export writes for views
    **{f"{name}_copy": rearranged for name in _COPIED},
    "detach": detach,
    "to": cast,
    "native_channel_shuffle": channel_shuffle,
    # Their coefficients are autograd's gradients: derivatives with respect to real and imaginary parts.
    **dict.fromkeys(_COMPLEX, Exact(slot="none")),
    "complex": complex_of,
    **dict.fromkeys(("_fft_r2c", "_fft_c2r", "_fft_c2c"), Exact(slot="none")),
    **dict.fromkeys(("as_strided", "as_strided_copy"), as_strided),
    "frexp": Exact(keeps_sign=True),
    "embedding": embedding,
    **dict.fromkeys(("cat", "stack"), join),
    **dict.fromkeys(("unfold", "im2col", "tril", "triu", "diag_embed"), with_zeros),
    **dict.fromkeys(("max_unpool2d", "max_unpool3d"), max_unpool),
    "block_diag": block_diagonal,
    # sums of overlapping parts, as in istft
    "unfold_backward": Exact(keeps_sign=True),
    "where": where,
    **dict.fromkeys(("gt", "ge", "lt", "le"), compared),
    "pad": pad,
    "constant_pad_nd": constant_pad,
    **{
        f"{kind}_pad{n}d": Exact(keeps_sign=True, slot="same")
        for kind in ("reflection", "replication")
        for n in (1, 2, 3)
    },
    "masked_fill": masked_fill,
}
