"""Pointwise functions written in several calls: relevance passes from the end of a chain to its root.

A chain such as `x * sigmoid(x)` is one function of its root x: what autograd would make of its parts, a
product of two relevant factors for one, is replaced by the secant from the root to the end of the chain.
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from relprop.calls.call import Call
from relprop.crossing.exact import as_function
from relprop.engine.known import ACTIVATION, Pointwise, Tag
from relprop.engine.run import Operand, Outgoing, Run
from relprop.engine.seen import Seen
from relprop.linear.operation import Incoming


def chained(run: Run, call: Call, operands: Sequence[Seen]) -> Pointwise | None:
    """What the result of a pointwise call is as a function of one root; None if its operands have several."""
    if len(operands) == 1:
        (x,) = operands
        before = x.tag.pointwise
        function = as_function(run, call)
        if before is None:
            names = _single(call.operation)
            return Pointwise(recorded=x.recorded, tag=x.tag, function=lambda x: function([x]), names=names)
        of_root = before.function
        return Pointwise(
            recorded=before.recorded,
            tag=before.tag,
            watches=before.watches,
            function=lambda x: function([of_root(x)]),
            names=before.names | {call.operation},
            gates_itself=before.gates_itself,
        )
    chains = [t.tag.pointwise or _identity(t) for t in operands]
    first = chains[0]
    if any([chain.recorded is not first.recorded for chain in chains]):
        return None
    function, inner = as_function(run, call), [chain.function for chain in chains]
    return Pointwise(
        recorded=first.recorded,
        tag=first.tag,
        # Once each, where the operands have them in common.
        watches=tuple(dict.fromkeys(watch for chain in chains for watch in chain.watches)),
        function=lambda x: function([f(x) for f in inner]),
        names=frozenset({call.operation}).union(*(chain.names for chain in chains)),
        gates_itself=any(chain.gates_itself for chain in chains)
        or (call.operation in ("mul", "div") and len(chains) == 2),
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


def gate_of(chain: Pointwise | None) -> str:
    """What a pointwise function makes its result as a factor of others."""
    if chain is None:
        return ""
    gated = chain.gates_itself and not chain.names.isdisjoint(_SATURATING)
    return ACTIVATION if gated or not chain.names.isdisjoint(_ACTIVATIONS) else ""


def _identity(x: Seen) -> Pointwise:
    return Pointwise(recorded=x.recorded, tag=x.tag, function=lambda x: x)


def attach_to_root(
    run: Run, call: Call, chain: Pointwise, *, nonnegative: bool = False, clamps: bool = False, gate: str = ""
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
    at_zero, slope = _expanded_at_zero(chain)
    shifted = isinstance(at_zero, Tensor) or at_zero != 0
    gate = call.operation if clamps and shifted else gate or gate_of(chain)
    tag = Tag(chain.tag.depth, nonnegative, pointwise=chain, gate=gate, step=chain.tag.step)
    return attach_secant(run, call, chain, chain.function, at_zero, slope, tag)


def attach_secant(
    run: Run,
    call: Call,
    operand: Operand,
    function: Callable[[Tensor], Tensor],
    at_zero: Tensor | float,
    slope: Tensor | float,
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
        at_zero: f(0), which absorbs its part.
        slope: f'(0).
        tag: what is known of the value.
        quotient: f(x)/x, where it is known; without it, f(x) is computed again and divided.
    """
    name, path, step = call.name, run.modules.path, tag.step
    value, kept_x = run.value(call), run.keep(operand.recorded)
    passes = not isinstance(at_zero, Tensor) and at_zero == 0
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
        if not passes:
            y = y - at_zero
            # At an infinite x, as where scores are hidden, f has no part that x could carry.
            run.ledger.add("pointwise", c * torch.where(x.isinf(), y + at_zero, at_zero), path, name, step)
        # Where f(0) is not 0, the difference cancels long before the quotient does.
        tiny = x.abs() < torch.finfo(x.dtype).eps ** (2 if passes else 0.5)
        return [((c * torch.where(tiny, slope, y / x.masked_fill(tiny, 1))).to(x.dtype), direct)]

    return run.cross(value, [operand], back, tag, slot=None if watches else "same")


def value_at_zero(call: Call, x: Tensor) -> float:
    """f(0) of a pointwise call on x."""
    zero = torch.zeros(1, dtype=x.dtype, device=x.device)
    with torch.no_grad():
        return float(call.on([zero, *call.args[1:]]))


def _expanded_at_zero(chain: Pointwise) -> tuple[Tensor | float, Tensor | float]:
    """f(0) and f'(0) of a chain: numbers, or tensors where constants in it differ between elements."""
    # What is saved here is no part of the model's forward, which a checkpoint counts.
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        x = chain.recorded
        for shape in ((1,), (1, *x.shape[1:]), tuple(x.shape)):
            zero = torch.zeros(shape, dtype=x.dtype, device=x.device, requires_grad=True)
            try:
                y = chain.function(zero)
            except RuntimeError:  # a constant in the chain does not broadcast with this shape
                continue
            if y.shape == zero.shape:
                break
        slope = torch.autograd.grad(y.sum(), zero)[0] if y.requires_grad else torch.zeros_like(zero)
    slope = slope.nan_to_num(0, 0, 0)  # √ has none; relevance of zero is zero whatever the slope
    if y.numel() == 1:
        value = float(y.detach())
        # A difference of f(0) from zero by rounding is none.
        return (0.0 if abs(value) < 4 * torch.finfo(x.dtype).eps else value), float(slope)
    return y.detach(), slope
