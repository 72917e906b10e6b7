"""Quotients, products and sums of relevance that stay finite, and bounds of rounding errors.

Masks are kernels of floating-point numbers here. On a CPU a comparison, `masked_fill` or `where` takes three
to fifteen times as long, and relevance is masked at every output of a network.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from relprop.calls.traced import is_traced
from relprop.calls.user_line import warn

_Kernel = Callable[..., Tensor]
_drop_small: _Kernel = torch.ops.aten.hardshrink_backward.default
_drop_small_to: _Kernel = torch.ops.aten.hardshrink_backward.grad_input
_keep_above: _Kernel = torch.ops.aten.threshold_backward.default
_keep_above_to: _Kernel = torch.ops.aten.threshold_backward.grad_input


def drop_small(value: Tensor, by: Tensor, least: float) -> Tensor:
    """Return a value, and 0 where |by| is no larger than `least`. The value may be overwritten."""
    if value.dtype != by.dtype or value.shape != by.shape or value.is_complex():
        return value.masked_fill_(by.abs() <= least, 0)
    if _must_stay(value):
        return _drop_small(value, by, least)
    return _drop_small_to(value, by, least, grad_input=value)


def keep_above(value: Tensor, by: Tensor, least: float = 0.0) -> Tensor:
    """Return a value where `by` is above `least`, and 0 elsewhere. The value may be overwritten."""
    if value.dtype != by.dtype or value.shape != by.shape:
        return value.masked_fill_(by <= least, 0)
    if _must_stay(value):
        return _keep_above(value, by, least)
    return _keep_above_to(value, by, least, grad_input=value)


def kept_above(value: Tensor, by: Tensor, least: float = 0.0) -> Tensor:
    """Return a value where `by` is above `least`, and 0 elsewhere, as a tensor of its own."""
    if value.dtype != by.dtype or value.shape != by.shape:
        return value.masked_fill(by <= least, 0)
    return _keep_above(value, by, least)


def next_to_nothing(dtype: torch.dtype) -> float:
    """Return a size that is no more than nothing, where subnormal numbers are flushed to 0, too."""
    info = torch.finfo(dtype)
    # On a CPU float16 is computed as float32, in which its subnormal numbers are none.
    return info.smallest_normal * (info.eps if dtype == torch.float16 else 1)


def _must_stay(value: Tensor) -> bool:
    """Whether a value must not be overwritten: neither by a graph, nor where autograd records."""
    return value.requires_grad or is_traced()


def scaled_below(value: Tensor, by: Tensor, factor: float) -> Tensor:
    """Return a value where `by` is positive, and the value times a factor elsewhere."""
    scaled: Tensor = torch.ops.aten.leaky_relu_backward(value, by, factor, self_is_result=False)
    return scaled


def negated_below(value: Tensor, by: Tensor) -> Tensor:
    """Return a value where `by` is positive, and minus the value elsewhere."""
    return scaled_below(value, by, -1.0)


def reaches_beside(c: Tensor, by: Tensor) -> bool:
    """Whether c is not 0 somewhere where `by` is not above 0."""
    return bool(torch.linalg.vector_norm(kept_above(c, by).sub_(c), 1))


def divide(R: Tensor, denominator: Tensor) -> Tensor:
    """Return R / denominator, and 0 where the denominator is so small that the quotient could overflow."""
    return drop_small(R / denominator, denominator, smallest(R.dtype))


def quotient(R: Tensor, denominator: Tensor) -> Tensor:
    """Return R / denominator, where no denominator is nearly zero. R may be overwritten."""
    return R / denominator if _must_stay(R) or denominator.requires_grad else R.div_(denominator)


def times_share(c: Tensor, part: Tensor, whole: Tensor) -> Tensor:
    """Return c · part/whole, where no whole is nearly zero. `whole` may be overwritten, and nothing else."""
    if _must_stay(whole) or c.requires_grad or part.requires_grad:
        return part / whole * c
    return torch.div(part, whole, out=whole).mul_(c)


def times(c: Tensor, constant: Tensor | float) -> Tensor:
    """Return c · constant, and 0 where c is 0, even if the constant is infinite, as in an attention mask.

    For complex numbers, return the real part of c̄ · constant, because autograd's complex gradient c holds the
    derivatives with respect to the real and the imaginary part.
    """
    if c.is_complex():
        return torch.where(c == 0, 0, (c.conj() * constant).real)
    return drop_small(c * constant, c, 0.0)


def secant(y: Tensor, x: Tensor, slope: Tensor | float, digits: float = 2.0) -> Tensor:
    """Return y/x, the slope of the line from (0, 0) to (x, y), and the slope at 0 where x is nearly 0.

    Args:
        y: the values of a function that is 0 at 0.
        x: the elements that it was computed from.
        slope: its derivative at 0.
        digits: x is nearly 0 below this power of the resolution of its type.
    """
    tiny = x.abs() < torch.finfo(x.dtype).eps ** digits
    return torch.where(tiny, slope, y / x.masked_fill(tiny, 1))


def leftover(R: Tensor, s: Tensor, denominator: Tensor) -> Tensor:
    """Return R - s·denominator, `summed`: the relevance that a quotient s = R/denominator leaves out.

    R may be overwritten.
    """
    return summed(R.addcmul_(s, denominator, value=-1))


def summed(amount: Tensor) -> Tensor:
    """Sum over all but the first dimension, half precision in single precision.

    A ledger needs no more, and the memory of the full tensor is freed.
    """
    dtype = wide(amount.dtype)
    return amount.sum(tuple(range(1, amount.dim())), dtype=dtype) if amount.dim() > 1 else amount.to(dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return single precision for a half-precision type, and any other type unchanged."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def tolerance(dtype: torch.dtype) -> float:
    """Return the relative size below which a difference of two sums of contributions is rounding noise."""
    return {torch.float64: 1e-13, torch.float32: 1e-6}.get(dtype, 2e-3)


def resolved(epsilon: float, dtype: torch.dtype) -> float:
    """Return ε. In half precision, raise it, with a warning, to the least ε that changes an output of one."""
    finest = torch.finfo(dtype).eps
    if finest < 1e-5 or epsilon == 0 or epsilon >= finest:
        return epsilon
    warn(
        f"ε = {epsilon:g} is below the resolution of {dtype} and would have no effect. ε = {finest:g} is "
        "used instead."
    )
    return finest


@cache
def smallest(dtype: torch.dtype) -> float:
    """Return the size below which a denominator counts as zero, because quotients could overflow."""
    info = torch.finfo(dtype)
    # The largest float16 is 65504: even the quotient of a relevance of one could overflow.
    return 1 / info.max if dtype == torch.float16 else info.smallest_normal / info.eps
