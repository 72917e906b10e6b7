"""Quotients, products and sums of relevance that stay finite, and what counts as rounding noise."""

from functools import cache

import torch
from torch import Tensor

from relprop.calls.user_line import warn


def divide(R: Tensor, denominator: Tensor) -> Tensor:
    """R / denominator, and 0 where the denominator is 0 or so small that the quotient could overflow."""
    least = smallest(R.dtype)
    return (R / denominator).masked_fill_((denominator < least) & (denominator > -least), 0)


def times(c: Tensor, constant: Tensor | float) -> Tensor:
    """c · constant, and 0 where c is 0 even if the constant is infinite, as in a mask.

    Of complex numbers the real part of c̄ · constant, since c is a gradient by real and imaginary part.
    """
    if c.is_complex():
        return torch.where(c == 0, 0, (c.conj() * constant).real)
    return torch.where(c == 0, 0, c * constant)


def leftover(R: Tensor, s: Tensor, denominator: Tensor) -> Tensor:
    """R - s·denominator: what a quotient s = R/denominator did not take along, as `summed`."""
    return summed(torch.addcmul(R, s, denominator, value=-1))


def summed(amount: Tensor) -> Tensor:
    """Sums over all but the first dimension: a ledger needs no more, and the memory is free again."""
    dtype = wide(amount.dtype)
    return amount.flatten(1).sum(1, dtype=dtype) if amount.dim() > 1 else amount.to(dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Single precision in the place of half."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def tolerance(dtype: torch.dtype) -> float:
    """Relative size under which a difference of two sums of contributions counts as rounding noise."""
    return {torch.float64: 1e-13, torch.float32: 1e-6}.get(dtype, 2e-3)


def resolved(epsilon: float, dtype: torch.dtype) -> float:
    """ε, raised in half precision to what makes a difference to an output of one."""
    finest = torch.finfo(dtype).eps
    if finest < 1e-5 or epsilon == 0 or epsilon >= finest:
        return epsilon
    warn(
        f"ε = {epsilon:g} is below the resolution of {dtype}, where it would do nothing; ε = {finest:g} is "
        "taken instead."
    )
    return finest


@cache
def smallest(dtype: torch.dtype) -> float:
    """Size under which a denominator counts as zero, because quotients could overflow."""
    info = torch.finfo(dtype)
    # float16 ends at 65504: there even the quotient of a relevance of one has to be watched.
    return 1 / info.max if dtype == torch.float16 else info.smallest_normal / info.eps
