"""Chains: pointwise functions that a model writes in several calls.

A chain such as `x * sigmoid(x)` is one function of its root x. Autograd would cross its parts one by one,
among them a product of two relevant factors. Instead, relevance passes from the end of the chain to its root,
by the secant of the whole function.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from relprop.calls.call import Call
from relprop.crossing.exact import as_function
from relprop.engine.composed import Composed
from relprop.engine.keep import Kept
from relprop.engine.known import Operand, Pointwise, Tag, Watch
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen
from relprop.linear.numerics import secant
from relprop.linear.operation import Incoming


def chained(run: Run, call: Call, operands: Sequence[Seen]) -> Pointwise | None:
    """Return the result of a pointwise call as a function of one root; None if its operands have several."""
    chains = [t.tag.pointwise for t in operands]
    roots = [t if chain is None else chain for t, chain in zip(operands, chains, strict=True)]
    first = roots[0]
    if len(roots) > 1 and any([root.recorded is not first.recorded for root in roots]):
        return None
    watches: tuple[Watch, ...] = ()
    names = _single(call.operation)
    for chain in chains:
        if chain is not None:
            watches, names = watches + chain.watches, names | chain.names
    functions = tuple([None if chain is None else chain.function for chain in chains])
    return Pointwise(
        recorded=first.recorded,
        tag=first.tag,
        watches=tuple(dict.fromkeys(watches)),  # each once, though several operands may have it
        function=Composed(as_function(run, call), functions, derived=call.signature.derived),
        names=names,
    )


def same_values(x: Seen) -> Pointwise:
    """Return a tensor that holds the values of x as a function of the root of x."""
    if x.tag.pointwise is not None:
        return x.tag.pointwise
    return Pointwise(recorded=x.recorded, tag=x.tag, function=Composed(_Same(), (None,)))


class _Same:
    """The call that returns its operand."""

    def __call__(self, operands: Sequence[Tensor], /) -> Tensor:
        return operands[0]

    def written(self) -> tuple[str]:
        return ("same",)

    def has_shape(self) -> bool:
        return False


@cache
def _single(operation: str) -> frozenset[str]:
    return frozenset((operation,))


def attach_to_root(
    run: Run,
    call: Call,
    chain: Pointwise,
    *,
    nonnegative: bool = False,
) -> Seen:
    """Attach the result of a chain of pointwise calls to its root, by the secant.

    Args:
        run: the run.
        call: the chain's last call.
        chain: the chain, with that call.
        nonnegative: whether the result is known to be non-negative.
    """
    function, like = chain.function, _Like(chain.recorded.shape, chain.recorded.dtype, chain.recorded.device)
    tag = Tag(chain.tag.behind, nonnegative, pointwise=chain, step=chain.tag.step)
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
    """Attach a backward to a call's value f(x): the secant from (0, f(0)) to (x, f(x)).

    The backward computes f(x) again, which costs less than keeping it.

    Args:
        run: the run.
        call: the call that computes f(x).
        operand: x; for a chain, its `Pointwise` with the root.
        function: f.
        at_zero: returns f(0), which absorbs relevance, and f'(0).
        tag: what is known about the value.
        quotient: x ↦ f(x)/x, if it is known. Otherwise f(x) is computed again and divided by x.
    """
    name, path, step = call.name, run.modules.path, tag.step
    value, kept_x = run.value(call), run.keep(operand.recorded)
    tag.again = lambda: Kept(function(kept_x.value))
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
            # Where x is infinite, as masked scores are, x carries nothing and all of f(x) is absorbed.
            run.ledger.add("pointwise", c * torch.where(x.isinf(), y + offset, offset), path, name, step)
        # If f(0) is not 0, f(x) - f(0) loses its digits at a much larger x than f(x)/x does.
        return [((c * secant(y, x, slope, 2 if passes else 0.5)).to(x.dtype), direct)]

    return run.cross(value, [operand], back, tag, slot=None if watches else "same")


def value_at_zero(function: Composed, dtype: torch.dtype, device: torch.device) -> float:
    """Return f(0) of a pointwise function."""

    def value() -> float:
        with torch.no_grad():
            return float(function(torch.zeros(1, dtype=dtype, device=device)))

    return function.known("value at zero", dtype, value)


def is_finite_at_zero(chain: Pointwise, *, look: bool = False) -> bool:
    """Whether a chain has a finite value where its root is zero, for every element. x/|x| has none.

    Args:
        chain: the chain.
        look: whether to compute the value also if all operations of the chain are known to have one.
    """
    if not look and not chain.names & _UNDEFINED:
        return True
    root = chain.recorded
    at_zero, _ = _expanded_at_zero(chain.function, _Like(root.shape, root.dtype, root.device))
    return bool(torch.as_tensor(at_zero).isfinite().all())


_UNDEFINED = frozenset(
    (
        *("div", "reciprocal", "rsqrt", "pow", "log", "log2", "log10", "logit", "acosh"),
        *("lgamma", "mvlgamma", "digamma", "polygamma", "special_ndtri"),
    )
)
"""Operations that may be infinite, or not defined, at zero."""


class _Like(NamedTuple):
    """Shape, type and device of a root, for tensors of zeros."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


def _expanded_at_zero(function: Composed, like: _Like) -> tuple[Tensor | float, Tensor | float]:
    """Return f(0) and f'(0) of a chain: numbers, or tensors if its constants differ between elements."""
    return function.known("line at zero", like.dtype, lambda: _found_at_zero(function, like))


def _found_at_zero(function: Composed, like: _Like) -> tuple[Tensor | float, Tensor | float]:
    # Without hooks: a checkpoint counts saved tensors, and those saved here are not the model's.
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        if function.at_zero is None:
            for call in function.calls()[0]:
                if call.at_zero is None:
                    call.at_zero = _last_at_zero(call, like)
    assert function.at_zero is not None
    y, slope = function.at_zero
    slope = slope.nan_to_num(0, 0, 0)  # √ has no slope at 0; the relevance of a zero is 0 whatever the slope
    if y.numel() == 1:
        value = float(y)
        # An f(0) that differs from zero by rounding counts as zero.
        return (0.0 if abs(value) < 4 * torch.finfo(like.dtype).eps else value), float(slope)
    return y, slope


def _last_at_zero(call: Composed, like: _Like) -> tuple[Tensor, Tensor]:
    """Return value and slope of a chain's call at zero, from those of its operands."""
    _, dtype, device = like
    root = torch.zeros(1, dtype=dtype, device=device), torch.ones(1, dtype=dtype, device=device)
    before = [root if o is None else o.at_zero for o in call.operands]
    known = [b for b in before if b is not None]
    for shape in (torch.Size([1]), torch.Size([1, *like.shape[1:]]), like.shape):
        try:
            expanded = [(y.expand(shape), slope) for y, slope in known]
            leaves = [y.clone().requires_grad_(call.derived) for y, _ in expanded]
            value = call.last(leaves)
        except RuntimeError:  # a constant in the call, or before it, does not broadcast with this shape
            if shape == like.shape:
                raise
            continue
        if value.shape == shape:
            break
    if call.derived and not value.requires_grad:
        return value, torch.zeros_like(value)
    slopes: Sequence[Tensor | None] | None = None
    if call.derived:
        with suppress(RuntimeError):  # a kernel without a derivative
            slopes = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    if slopes is None:
        slopes = [_difference(call.last, leaves, i) for i in range(len(leaves))]
    parts = [own * slope for own, (_, slope) in zip(slopes, known, strict=True) if own is not None]
    return value.detach(), torch.stack(parts).sum(0)


def _difference(function: Callable[[Sequence[Tensor]], Tensor], at: Sequence[Tensor], which: int) -> Tensor:
    """Return the derivative with respect to one operand, as a difference quotient."""
    step = torch.finfo(at[which].dtype).eps ** (1 / 3)
    with torch.no_grad():
        above, below = (function([x + h * (i == which) for i, x in enumerate(at)]) for h in (step, -step))
    slope: Tensor = (above - below) / (2 * step)
    return slope
