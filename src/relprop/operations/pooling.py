"""Pooling, sums and extremes: linear, or winner takes all, or by a rule of the composite."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.attach import attach_with_slot
from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.linear.numerics import divide, leftover
from relprop.linear.operation import Incoming
from relprop.operations.exact import Exact
from relprop.operations.pointwise import clamp
from relprop.provenance import STATISTIC, Applied, merge_tags

MAX_POOL = "max-pool"
"""Kind of these sites, for composites."""

_shared = Exact(keeps_sign=True, slot="share")


def max_pool(average: Callable[..., Tensor], *, adaptive: bool = False) -> Entry:
    """Max-pooling: the winner takes all, unless a composite has it share as an average pooling does."""

    def arguments(
        input: Tensor,
        size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        return input, size, stride, padding, dilation, ceil_mode

    def entry(run: Interception, call: Call) -> Any:
        given = dict(call.kwargs)
        for name in ("kernel_size", "output_size"):
            if name in given:
                given["size"] = given.pop(name)
        if adaptive:
            given.pop("return_indices", None)
        positional = call.args[:2] if adaptive else call.args
        x, size, stride, padding, dilation, ceil_mode = arguments(*positional, **given)
        rule = run.choose(run.site(call, MAX_POOL, run.tag(x).depth))
        if rule is None:
            return _shared(run, call)
        if (set(dilation) if isinstance(dilation, (tuple, list)) else {dilation}) != {1}:
            run.gap(call.name, "a dilated window cannot be treated as an average; leave it out of the entry")
            return _shared(run, call)
        run.applied.append(Applied(run.modules.path, call.name, rule))
        result = call.value()
        values = result[0] if isinstance(result, tuple) else result
        rest = {} if adaptive else {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
        pooled = _averaged(run, call, x, values, lambda x: average(x, size, **rest))
        return (pooled, *result[1:]) if isinstance(result, tuple) else pooled

    return entry


def _averaged(
    run: Interception, call: Call, x: Tensor, value: Tensor, average: Callable[[Tensor], Tensor]
) -> Tensor:
    """Max-pooling whose relevance is shared as an average pooling would."""
    path, name, slot = run.modules.path, call.name, run.slot(x)
    kept_x, kept_z = run.keep(x), run.keep(value)

    def backward(c: Tensor | None, direct: Tensor | None) -> tuple[Tensor | None, ...]:
        R = Incoming(c, direct, kept_z.value).relevance
        with torch.enable_grad():
            leaf = kept_x.value.clone().requires_grad_()
            mean = average(leaf)
        s = divide(R, mean.detach())
        run.ledger.add("no contribution", leftover(R, s, mean.detach()), path, name)
        return torch.autograd.grad(mean, leaf, s)[0], None

    tag = run.tag(x)
    output, out_slot = attach_with_slot(value, x, slot, backward)
    run.set_tag(output, merge_tags([tag], nonnegative=tag.nonnegative, slot=out_slot))
    return output


def largest(run: Interception, call: Call) -> Any:
    """torch.max and torch.min: over a dimension, over all, or of two tensors."""
    other = call.args[1] if len(call.args) > 1 else call.kwargs.get("other")
    return larger(run, call) if isinstance(other, Tensor) else _shared(run, call)


def larger(run: Interception, call: Call) -> Any:
    """torch.maximum and torch.minimum: where a constant wins, it absorbs; one number clamps."""

    def arguments(input: Tensor, other: Tensor) -> Any:
        return input, other

    terms = arguments(*call.args, **call.kwargs)
    constants = [t for t in terms if not run.relevant(t)]
    if constants and bool((constants[0] == constants[0].flatten()[0]).all()):
        x = next(t for t in terms if run.relevant(t))
        if torch.broadcast_shapes(x.shape, constants[0].shape) == x.shape:  # type: ignore[no-untyped-call]
            bound = "min" if call.name.startswith("max") else "max"
            limits = {bound: float(constants[0].flatten()[0])}
            return clamp(run, Call(call.name, torch.clamp, (x,), limits, False))
    shape = torch.broadcast_shapes(*(t.shape for t in terms))  # type: ignore[no-untyped-call]
    terms = tuple(t if run.relevant(t) else run.source(t.expand(shape), call.name) for t in terms)
    return _shared(run, replace(call, args=terms, kwargs={}, inplace=False))


def power_average(dimensions: int) -> Entry:
    """lp_pool1d, lp_pool2d, lp_pool3d: (Σ x^p)^(1/p), of which each x gets its part of x^p in the sum."""

    def arguments(
        input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
    ) -> Any:
        return input, norm_type, kernel_size, stride, ceil_mode

    def entry(run: Interception, call: Call) -> Any:
        x, p, kernel, stride, ceil = arguments(*call.args, **call.kwargs)
        pool = getattr(F, f"avg_pool{dimensions}d")
        slot, value = run.slot(x), call.value()
        kept_x, kept_y = run.keep(x), run.keep(value)

        def backward(c: Tensor | None, direct: Tensor | None) -> tuple[Tensor | None, ...]:
            with torch.enable_grad():
                leaf = kept_x.value.clone().requires_grad_()
                powers = leaf**p
                mean = pool(powers, kernel, stride, ceil_mode=ceil)
            # Of R an element gets x^p/Σ x^p, and its coefficient is that over x.
            R = Incoming(c, direct, kept_y.value).relevance
            s = torch.autograd.grad(mean, powers, divide(R, mean.detach()))[0]
            x = leaf.detach()
            return (s * x ** (p - 1), None) if slot is None else (None, s * x**p)

        output, out_slot = attach_with_slot(value, x, slot, backward)
        run.set_tag(output, merge_tags([run.tag(x)], nonnegative=True, slot=out_slot))
        return output

    return entry


def fractional(dimensions: int) -> Entry:
    """fractional_max_pool2d and 3d, whose regions are drawn once, here."""

    def entry(run: Interception, call: Call) -> Any:
        x = call.target
        if call.kwargs.get("_random_samples") is None and len(call.args) < 6:
            samples = torch.rand(*x.shape[:2], dimensions, dtype=x.dtype, device=x.device)
            call = replace(call, kwargs={**call.kwargs, "_random_samples": samples})
        return _shared(run, call)

    return entry


def variance(run: Interception, call: Call) -> Any:
    """torch.var: homogeneous of degree two, so that the gradient counts everything twice."""
    x = call.target
    result = run.native(call)
    halved, slot = attach_with_slot(
        result.detach().clone(),
        result,
        None,
        lambda c, direct: (None if c is None else c / 2, direct),
    )
    run.set_tag(halved, replace(merge_tags([run.tag(x)], nonnegative=True, slot=slot), gate=STATISTIC))
    return halved


TABLE: Mapping[str, Entry] = {
    **dict.fromkeys(("sum", "mean", "cumsum", "norm", "linalg_norm", "linalg_vector_norm", "std"), _shared),
    "var": variance,
    **{f"avg_pool{n}d": _shared for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": _shared for n in (1, 2, 3)},
    **{
        f"max_pool{n}d{suffix}": max_pool(getattr(F, f"avg_pool{n}d"))
        for n in (1, 2, 3)
        for suffix in ("", "_with_indices")
    },
    **{
        f"adaptive_max_pool{n}d{suffix}": max_pool(getattr(F, f"adaptive_avg_pool{n}d"), adaptive=True)
        for n in (1, 2, 3)
        for suffix in ("", "_with_indices")
    },
    **{f"lp_pool{n}d": power_average(n) for n in (1, 2, 3)},
    **{f"fractional_max_pool{n}d": fractional(n) for n in (2, 3)},
    **{f"fractional_max_pool{n}d_with_indices": fractional(n) for n in (2, 3)},
    **dict.fromkeys(("amax", "amin", "topk", "sort", "median"), _shared),
    "max": largest,
    "min": largest,
    "maximum": larger,
    "minimum": larger,
}
