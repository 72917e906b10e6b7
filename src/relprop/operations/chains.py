"""Pointwise functions written in several calls: relevance passes from the end of a chain to its root.

A chain such as `x * sigmoid(x)` is one function of its root x: what autograd would make of its parts, a
product of two relevant factors for one, is replaced by the secant from the root to the end of the chain.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from relprop.attach import attach, attach_with_slot
from relprop.calls import Call
from relprop.intercept import Interception
from relprop.operations.exact import as_function
from relprop.provenance import ACTIVATION, Pointwise, Watch, merge_tags


def chained(
    run: Interception, call: Call, operands: list[Tensor], *, begin: bool = False
) -> Pointwise | None:
    """What the result of a pointwise call is as a function of one root; None if its operands have several.

    An in-place call on the root overwrites it, and continues no chain, unless it is to `begin` one: then what
    was there before is the root. That takes a copy, and makes a difference where f(0) is not 0 only.
    """
    chains = [run.tag(t).pointwise or _identity(t) for t in operands]
    first = chains[0]
    if not all(chain.intact and chain.same_root(first) for chain in chains):
        return None
    if call.inplace and first.x is call.target:
        if not begin:
            return None
        root = value_before(run, first.x)
        first = replace(first, x=root, version=root._version)
    function, inner = as_function(run, call), [chain.function for chain in chains]
    # Once each, where the operands have them in common.
    watches = tuple(dict.fromkeys(watch for chain in chains for watch in chain.watches))
    names = frozenset({call.name}).union(*(chain.names for chain in chains))
    gates_itself = any(chain.gates_itself for chain in chains) or (
        call.name in ("mul", "div") and len(chains) == 2
    )
    return replace(
        first,
        function=lambda x: function([f(x) for f in inner]),
        watches=watches,
        names=names,
        gates_itself=gates_itself,
    )


# tanh is none: what it bounds is a signal as a rule, as in recurrent networks.
_ACTIVATIONS = frozenset(
    (
        *("relu", "leaky_relu", "prelu", "relu6", "gelu", "silu", "mish", "elu", "selu", "celu"),
        *("hardswish", "sigmoid", "erf", "softplus"),
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


def value_before(run: Interception, x: Tensor) -> Tensor:
    """A tensor that is about to be overwritten, as it is now."""
    slot = run.slot(x)
    (before,) = attach([x.detach().clone()], [x], lambda c: (c,))
    run.set_tag(before, replace(run.tag(x), slot=slot, pointwise=None, origin=None))
    return before


def _identity(x: Tensor) -> Pointwise:
    return Pointwise(x=x, version=x._version, function=lambda x: x)


def attach_to_root(
    run: Interception, call: Call, chain: Pointwise, *, nonnegative: bool = False, clamps: bool = False
) -> Tensor:
    """Give the result of a chain of pointwise calls the secant from its root.

    Args:
        run: the run.
        call: the chain's last call.
        chain: with that call.
        nonnegative: whether the result cannot be negative.
        clamps: whether the last call makes a gate of what is not 0 at 0.
    """
    at_zero, slope = _expanded_at_zero(chain, dtype=chain.x.dtype)
    output, slot = attach_secant(run, call, chain.x, chain.function, at_zero, slope, chain.watches)
    merged = merge_tags([run.tag(chain.x)], nonnegative=nonnegative, slot=slot)
    shifted = isinstance(at_zero, Tensor) or at_zero != 0
    gate = call.name if clamps and shifted else gate_of(chain)
    run.set_tag(output, replace(merged, pointwise=chain, gate=gate))
    return output


def attach_secant(
    run: Interception,
    call: Call,
    x: Tensor,
    function: Callable[[Tensor], Tensor],
    at_zero: Tensor | float,
    slope: Tensor | float,
    watches: tuple[Watch, ...] = (),
    quotient: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Give a call's value f(x) the secant from (0, f(0)) to (x, f(x)) for a backward; return also its slot.

    For the backward f(x) is computed again, which takes less than keeping it does.

    Args:
        run: the run.
        call: that makes the value.
        x: the operand, or the root of a chain.
        function: f.
        at_zero: f(0), which absorbs its part.
        slope: f'(0).
        watches: of values that are passed by.
        quotient: f(x)/x, where it is known; without it, f(x) is computed again and divided.
    """
    name, path = call.name, run.modules.path
    value, kept_x = call.value(), run.keep(x)
    passes = not isinstance(at_zero, Tensor) and at_zero == 0

    def backward(c: Tensor | None, direct: Tensor | None = None) -> tuple[Tensor | None, ...]:
        x = kept_x.value
        if quotient is not None:
            return None if c is None else (quotient(x).mul_(c)).to(x.dtype), direct
        with torch.no_grad():
            y = function(x)
        for watch in watches:
            c, direct = watch(c, direct, y)
        if c is None:
            return None, direct
        if not passes:
            y = y - at_zero
            # At an infinite x, as where scores are hidden, f has no part that x could carry.
            run.ledger.add("pointwise", c * torch.where(x.isinf(), y + at_zero, at_zero), path, name)
        # Where f(0) is not 0, the difference cancels long before the quotient does.
        tiny = x.abs() < torch.finfo(x.dtype).eps ** (2 if passes else 0.5)
        return (c * torch.where(tiny, slope, y / x.masked_fill(tiny, 1))).to(x.dtype), direct

    slot = run.slot(x)
    if watches:
        return attach_with_slot(value, x, slot, backward)
    (output,) = attach([value], [x], lambda c: backward(c)[:1])
    return output, slot  # relevance itself stays on its element


def value_at_zero(call: Call, x: Tensor) -> float:
    """f(0) of a pointwise call on x."""
    zero = torch.zeros(1, dtype=x.dtype, device=x.device)
    rest = {key: value for key, value in call.kwargs.items() if key not in ("input", "inplace")}
    with torch.no_grad():
        return float(call.function(zero, *call.args[1:], **rest))


def _expanded_at_zero(chain: Pointwise, dtype: torch.dtype) -> tuple[Tensor | float, Tensor | float]:
    """f(0) and f'(0) of a chain: numbers, or tensors where constants in it differ between elements."""
    # What is saved here is no part of the model's forward, which a checkpoint counts.
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        for shape in ((1,), (1, *chain.x.shape[1:]), tuple(chain.x.shape)):
            zero = torch.zeros(shape, dtype=dtype, device=chain.x.device, requires_grad=True)
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
        return (0.0 if abs(value) < 4 * torch.finfo(dtype).eps else value), float(slope)
    return y.detach(), slope
