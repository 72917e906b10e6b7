"""Pooling, sums and extrema: linear, or winner takes all, or by a rule of the composite."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.calls.call import Call
from relprop.calls.site import Kind
from relprop.crossing.chains import chained
from relprop.crossing.exact import Exact
from relprop.crossing.parts import of_value, with_own_value
from relprop.engine.interception import Entry
from relprop.engine.known import Tag, merge_tags, role_of
from relprop.engine.roles import Role
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen, is_relevant, value_of
from relprop.linear.numerics import divide, leftover
from relprop.linear.operation import Incoming
from relprop.operations.arithmetic import step
from relprop.operations.pointwise import copied
from relprop.operations.products import in_parts

_shared = Exact(keeps_sign=True, slot="share")


def max_pool(average: Callable[..., Tensor], *, adaptive: bool = False) -> Entry:
    """Return the entry for a max-pooling: the winner takes all, unless the composite has a rule for it.

    Args:
        average: the average pooling that relevance is shared by under that rule.
        adaptive: whether the pooling is adaptive.
    """

    def entry(
        run: Run,
        call: Call,
        x: Seen,
        size: Sequence[int],
        stride: Sequence[int] = (),
        padding: Any = 0,
        dilation: Sequence[int] = (1,),
        ceil_mode: bool = False,
    ) -> Any:
        rule = run.choose(run.site(call, Kind.MAX_POOL, x.tag.behind))
        if rule is None:
            return _shared(run, call)
        if set(dilation) != {1}:
            run.gap(
                call.name,
                "a dilated window cannot be treated as an average; leave it out of the composite's entry",
            )
            return _shared(run, call)
        run.apply(call, rule)
        values, indices = run.value(call)
        rest = {} if adaptive else {"stride": stride or None, "padding": padding, "ceil_mode": ceil_mode}
        pooled = _averaged(run, call, x, values, lambda x: average(x, size, **rest))
        return pooled, run.seen(indices, None)

    return entry


def _averaged(run: Run, call: Call, x: Seen, value: Tensor, average: Callable[[Tensor], Tensor]) -> Seen:
    """Max-pooling whose relevance is shared as in an average pooling."""
    path, name, kept_x = run.modules.path, call.name, run.keep(x.recorded)

    def back(incoming: Incoming) -> list[Outgoing]:
        R = incoming.relevance
        with torch.enable_grad():
            leaf = kept_x.value.clone().requires_grad_()
            mean = average(leaf)
        s = divide(R, mean.detach())
        run.ledger.add("no contribution", leftover(R, s, mean.detach()), path, name)
        return [(torch.autograd.grad(mean, leaf, s)[0], None)]

    return run.cross(value, [x], back, Tag(x.tag.behind, x.tag.nonnegative), kept=run.keep(value))


def larger(run: Run, call: Call, *terms: Any) -> Any:
    """torch.maximum and torch.minimum. With a constant that only bounds the values it is a clamp."""
    relevant = [t for t in terms if is_relevant(t)]
    constants = [t for t in terms if not is_relevant(t)]
    shape = torch.broadcast_shapes(*(t.shape for t in terms))  # type: ignore[no-untyped-call]
    if constants and relevant[0].shape == shape:
        bound, x = constants[0], relevant[0]
        low, high = (bound, None) if call.operation in ("max", "maximum", "fmax") else (None, bound)
        return run.perform(torch.clamp, x, low, high)
    chain = chained(run, call, terms) if not constants and terms[0].shape == terms[1].shape else None
    terms = tuple(t if is_relevant(t) else run.source(value_of(t).expand(shape), call.name) for t in terms)
    result = _shared(run, Call(call.signature, list(terms)))
    result.tag.pointwise = chain
    return result


def largest(run: Run, call: Call, *args: Any) -> Any:
    """torch.max and torch.min: over a dimension, over all, or of two tensors."""
    return _shared(run, call) if call.argument("other") is None else larger(run, call, *args)


def variance(run: Run, call: Call, x: Seen, *_options: Any) -> Any:
    """torch.var: homogeneous of degree two, so x times the gradient is twice the value and is halved."""

    def back(incoming: Incoming) -> list[Outgoing]:
        return [(None if incoming.c is None else incoming.c / 2, incoming.direct)]

    result = run.native(call)
    halved = run.seen(result, Tag(x.tag.behind))
    known = replace(merge_tags([x.tag], nonnegative=True), role=Role.STATISTIC)
    return run.cross(result.detach(), [halved], back, known, slot=False)


def norm(run: Run, call: Call, x: Seen, *_options: Any) -> Any:
    """Norms: homogeneous, except for the number of elements that are not zero, which is a step function."""
    order = call.argument("ord", call.argument("p"))
    return step(run, call) if order == 0 else _shared(run, call)


def multiplied(run: Run, call: Call, x: Seen, *_options: Any) -> Any:
    """torch.prod and torch.cumprod: products of n factors, each of which gets 1/n."""
    if x.dim() == 0:
        return copied(run, call, x)
    dim, value = call.argument("dim"), run.native(call)
    if call.operation == "cumprod":
        count = torch.arange(1, x.shape[dim] + 1, device=x.device).view(
            -1, *[1] * (x.dim() - 1 - dim % x.dim())
        )
        part: Any = 1 / count.to(value.dtype)
    else:
        part = 1 / (x.numel() if dim is None else x.shape[dim])
    known = Tag(x.tag.behind.after(plain=False), x.tag.nonnegative, role=role_of(x.tag))
    return in_parts(run, run.seen(value, Tag()), part, known)


def variance_and_mean(run: Run, call: Call, x: Seen, *_options: Any) -> Any:
    """torch.var_mean, as its parts."""
    dim, keep, correction = (call.argument(name) for name in ("dim", "keepdim", "correction"))
    correction = int(call.argument("unbiased", True)) if correction is None else correction
    parts = (
        run.perform(torch.var, x, dim, correction=correction, keepdim=bool(keep)),
        run.perform(torch.mean, x, dim, keepdim=bool(keep)),
    )
    return tuple(of_value(run, *pair) for pair in zip(run.value(call), parts, strict=True))


def segment_reduce(run: Run, call: Call, x: Any, kind: str, *_options: Any) -> Any:
    """torch.segment_reduce: the sum, the mean or an extreme of each segment."""
    if kind == "prod" or call.argument("initial"):
        run.gap(call.name, "products, and an initial value other than 0, are not covered")
    elif kind in ("max", "min"):
        return _extreme_of_segments(run, call, x, kind)
    result: Seen = _shared(run, call)
    result.tag.behind = result.tag.behind.after(plain=False)  # as sums over edges by `index_add`
    return result


def _extreme_of_segments(run: Run, call: Call, x: Seen, kind: str) -> Any:
    """The extreme of each segment by `scatter_reduce`: torch's own gradient counts equal elements twice."""
    axis, lengths = call.argument("axis") % x.dim(), value_of(call.argument("lengths"))
    if lengths is None:
        lengths = value_of(call.argument("offsets")).diff(dim=-1)
    count, ends = lengths.shape[-1], lengths.cumsum(-1)
    places = torch.arange(x.shape[axis], device=x.device).expand(*lengths.shape[:-1], -1).contiguous()
    segments = torch.searchsorted(ends, places, right=True)  # those behind all segments have number `count`
    index = segments.view(*segments.shape, *[1] * (x.dim() - segments.dim())).expand(x.shape)
    shape = (*x.shape[:axis], count + 1, *x.shape[axis + 1 :])
    empty = torch.zeros(shape, dtype=x.dtype, device=x.device)
    extremes = run.perform(torch.scatter_reduce, empty, axis, index, x, f"a{kind}", include_self=False)
    return with_own_value(run, call, run.perform(torch.narrow, extremes, axis, 0, count))


TABLE: Mapping[str, Entry] = {
    **dict.fromkeys(("sum", "mean", "cumsum", "std"), _shared),
    **dict.fromkeys(("norm", "linalg_vector_norm"), norm),
    **dict.fromkeys(("nansum", "trace"), _shared),
    "std_mean": Exact(slot="share"),
    "prod": multiplied,
    "cumprod": multiplied,
    "var": variance,
    "var_mean": variance_and_mean,
    "segment_reduce": segment_reduce,
    **{f"avg_pool{n}d": _shared for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": _shared for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d": _shared for n in (2, 3)},
    **{f"max_pool{n}d_with_indices": max_pool(getattr(F, f"avg_pool{n}d")) for n in (2, 3)},
    **{
        f"adaptive_max_pool{n}d": max_pool(getattr(F, f"adaptive_avg_pool{n}d"), adaptive=True)
        for n in (1, 2, 3)
    },
    **{f"fractional_max_pool{n}d": _shared for n in (2, 3)},
    **dict.fromkeys(("amax", "amin", "aminmax", "topk", "sort", "median", "nanmedian"), _shared),
    **dict.fromkeys(("kthvalue", "mode", "cummax", "cummin"), _shared),
    **dict.fromkeys(("max", "min"), largest),
    **dict.fromkeys(("maximum", "minimum", "fmax", "fmin"), larger),
}
