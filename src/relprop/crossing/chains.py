"""Pointwise functions written in several calls: relevance passes from the end of a chain to its root.

A chain such as `x * sigmoid(x)` is one function of its root x: what autograd would make of its parts, a
product of two relevant factors for one, is replaced by the secant from the root to the end of the chain.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from relprop.calls.call import Call
from relprop.crossing.exact import as_function
from relprop.engine.known import Composed, Gate, Pointwise, Tag, Watch
from relprop.engine.run import Operand, Outgoing, Run
from relprop.engine.seen import Seen
from relprop.linear.operation import Incoming


def chained(run: Run, call: Call, operands: Sequence[Seen]) -> Pointwise | None:
    """What the result of a pointwise call is as a function of one root; None if its operands have several."""
    chains = [t.tag.pointwise for t in operands]
    roots = [t if chain is None else chain for t, chain in zip(operands, chains, strict=True)]
    first = roots[0]
    if len(roots) > 1 and any([root.recorded is not first.recorded for root in roots]):
        return None
    watches: tuple[Watch, ...] = ()
    names, gates = _single(call.operation), call.operation in ("mul", "div") and len(chains) == 2
    for chain in chains:
        if chain is not None:
            watches, names, gates = watches + chain.watches, names | chain.names, gates or chain.gates_itself
    return Pointwise(
        recorded=first.recorded,
        tag=first.tag,
        watches=tuple(dict.fromkeys(watches)),  # once each, where the operands have them in common
        function=Composed(as_function(run, call), tuple([None if c is None else c.function for c in chains])),
        names=names,
        gates_itself=gates,
    )


@cache
def _single(operation: str) -> frozenset[str]:
    return frozenset((operation,))


# tanh is none: what it bounds is a signal as a rule, as in recurrent networks.
_ACTIVATIONS = frozenset(
    (
        *("relu", "leaky_relu", "_prelu_kernel", "prelu", "gelu", "silu", "mish", "elu", "selu", "celu"),
        *("hardswish", "sigmoid", "erf", "erfc", "softplus"),
    )
)


# What a root is multiplied with in activations that are written out.
_SATURATING = frozenset(("tanh", "exp", "clamp", "clamp_min", "clamp_max", "hardtanh", "hardsigmoid"))


def gate_of(chain: Pointwise | None, known: Gate = Gate.NONE) -> Gate:
    """What a pointwise function makes its result as a factor of others, if it is not known as one already."""
    if chain is None or known is not Gate.NONE:
        return known
    gated = chain.gates_itself and not chain.names.isdisjoint(_SATURATING)
    return Gate.ACTIVATION if gated or not chain.names.isdisjoint(_ACTIVATIONS) else Gate.NONE


def attach_to_root(
    run: Run,
    call: Call,
    chain: Pointwise,
    *,
    nonnegative: bool = False,
    clamps: bool = False,
    gate: Gate = Gate.NONE,
) -> Seen:
    """Give the result of a chain of pointwise calls the secant from its root.

    Args:
        run: the run.
        call: the chain's last call.
        chain: with that call.
        nonnegative: whether the result cannot be negative.
        clamps: whether the last call makes a gate of what is not 0 at 0.
        gate: what else the result is as a factor of others.
    """
    function, like = chain.function, _Like(chain.recorded.shape, chain.recorded.dtype, chain.recorded.device)
    if clamps:
        at_zero, _ = _expanded_at_zero(function, like)
        clamps = isinstance(at_zero, Tensor) or at_zero != 0
    gate = Gate.BOUNDED if clamps else gate_of(chain, gate)
    tag = Tag(chain.tag.depth, nonnegative, pointwise=chain, gate=gate, step=chain.tag.step)
    return attach_secant(run, call, chain, function, lambda: _expanded_at_zero(function, like), tag)


def attach_secant(
    run: Run,
    call: Call,
    operand: Operand,
    function: Callable[[Tensor], Tensor],
    at_zero: Callable[[], tuple[Tensor | float, Tensor | float]],
    tag: Tag,
    quotient: Callable[[Tensor], Tensor] | None = None,
) -> Seen:
    """Give a call's value f(x) the secant from (0, f(0)) to (x, f(x)) for a backward.

    For the backward f(x) is computed again, which takes less than keeping it does.

    Args:
        run: the run.
        call: that makes the value.
        operand: x, or the root of a chain.
        function: f.
        at_zero: gives f(0), which absorbs its part, and f'(0).
        tag: what is known of the value.
        quotient: f(x)/x, where it is known; without it, f(x) is computed again and divided.
    """
    name, path, step = call.name, run.modules.path, tag.step
    value, kept_x = run.value(call), run.keep(operand.recorded)
    watches = operand.watches if isinstance(operand, Pointwise) else ()

    def back(incoming: Incoming) -> list[Outgoing]:
        c, direct, x = incoming.c, incoming.direct, kept_x.value
        if quotient is not None:
            return [(None if c is None else quotient(x).mul_(c).to(x.dtype), direct)]
        with torch.no_grad():
            y = function(x)
        for watch in watches:
            c, direct = watch(c, direct, y)
        if c is None:
            return [(None, direct)]
        offset, slope = at_zero()
        passes = not isinstance(offset, Tensor) and offset == 0
        if not passes:
            y = y - offset
            # At an infinite x, as where scores are hidden, f has no part that x could carry.
            run.ledger.add("pointwise", c * torch.where(x.isinf(), y + offset, offset), path, name, step)
        # Where f(0) is not 0, the difference cancels long before the quotient does.
        tiny = x.abs() < torch.finfo(x.dtype).eps ** (2 if passes else 0.5)
        return [((c * torch.where(tiny, slope, y / x.masked_fill(tiny, 1))).to(x.dtype), direct)]

    return run.cross(value, [operand], back, tag, slot=None if watches else "same")


def value_at_zero(function: Callable[[Tensor], Tensor], dtype: torch.dtype, device: torch.device) -> float:
    """f(0) of a pointwise function."""
    with torch.no_grad():
        return float(function(torch.zeros(1, dtype=dtype, device=device)))


class _Like(NamedTuple):
    """What tensors of zeros are like."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


def _expanded_at_zero(function: Composed, like: _Like) -> tuple[Tensor | float, Tensor | float]:
    """f(0) and f'(0) of a chain: numbers, or tensors where constants in it differ between elements."""
    # What is saved here is no part of the model's forward, which a checkpoint counts.
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        if function.at_zero is None:
            for call in function.calls()[0]:
                if call.at_zero is None:
                    call.at_zero = _last_at_zero(call, like)
    assert function.at_zero is not None
    y, slope = function.at_zero
    slope = slope.nan_to_num(0, 0, 0)  # √ has none; relevance of zero is zero whatever the slope
    if y.numel() == 1:
        value = float(y)
        # A difference of f(0) from zero by rounding is none.
        return (0.0 if abs(value) < 4 * torch.finfo(like.dtype).eps else value), float(slope)
    return y, slope


def _last_at_zero(call: Composed, like: _Like) -> tuple[Tensor, Tensor]:
    """Value and slope after a call of a chain, from those before it."""
    _, dtype, device = like
    root = torch.zeros(1, dtype=dtype, device=device), torch.ones(1, dtype=dtype, device=device)
    before = [root if o is None else o.at_zero for o in call.operands]
    known = [b for b in before if b is not None]
    for shape in (torch.Size([1]), torch.Size([1, *like.shape[1:]]), like.shape):
        try:
            expanded = [(y.expand(shape), slope) for y, slope in known]
            leaves = [y.clone().requires_grad_() for y, _ in expanded]
            value = call.last(leaves)
        except RuntimeError:  # a constant in the call, or before it, does not broadcast with this shape
            if shape == like.shape:
                raise
            continue
        if value.shape == shape:
            break
    if not value.requires_grad:
        return value, torch.zeros_like(value)
    try:
        slopes = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    except RuntimeError:  # a kernel that knows no derivative
        slopes = tuple(_difference(call.last, leaves, i) for i in range(len(leaves)))
    parts = [own * slope for own, (_, slope) in zip(slopes, known, strict=True) if own is not None]
    return value.detach(), torch.stack(parts).sum(0)


def _difference(function: Callable[[Sequence[Tensor]], Tensor], at: Sequence[Tensor], which: int) -> Tensor:
    """The derivative by one operand, as a quotient of differences."""
    step = torch.finfo(at[which].dtype).eps ** (1 / 3)
    with torch.no_grad():
        above, below = (function([x + h * (i == which) for i, x in enumerate(at)]) for h in (step, -step))
    slope: Tensor = (above - below) / (2 * step)
    return slope
