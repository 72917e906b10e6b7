"""The role of a tensor as a factor of a product: whether relevance goes to it, or to what it weighs.

A role is a property of the function that made the tensor, and not of how the function was written. It says
how the tensor grows if the inputs of that function grow: a signal grows with them (degree 1), a weight stays
bounded (degree 0), and a statistic only normalises. By Euler's theorem for homogeneous functions, the
relevance of a product belongs to its factors in proportion to their degrees. So a weight and a statistic get
nothing beside a signal, and two signals, or two weights, get half each.
"""

from cmath import isfinite, isnan  # a function may make complex numbers of real ones
from collections.abc import Iterable, Sequence
from enum import Enum


class Role(Enum):
    """The role of a tensor as a factor of a product.

    Each member has whether it weighs others, `is_weight`, and in words what computes such a tensor.
    """

    SIGNAL = (False, "a linear operation")
    ACTIVATION = (False, "an activation function, which gates others in gated feed-forward layers")
    WEIGHT = (True, "a sigmoid, or another bounded function that is not 0 at 0")
    SOFTMAX = (True, "softmax")
    LOG_SOFTMAX = (True, "log_softmax")
    MIXED = (True, "a linear layer on a softmax, such as one that mixes heads of attention")
    GATE = (True, "a linear layer that a rule declares to make gates, and what is computed from it alone")
    STATISTIC = (True, "a norm or a deviation, to normalise others by; it gets no relevance")
    CONSTANT = (
        False,
        "nothing: it is a constant, which leaves what it is joined with the role it has",
    )

    __hash__ = object.__hash__  # that of Enum is Python's, and slower

    def __init__(self, is_weight: bool, _made_by: str) -> None:
        self.is_weight = is_weight


def of_joined(roles: Iterable[Role]) -> Role:
    """Return the role of tensors that are joined, added or written into each other: a signal, if one is."""
    different = set(roles) - {Role.CONSTANT}
    if len(different) <= 1:
        return different.pop() if different else Role.CONSTANT
    return Role.WEIGHT if all(role.is_weight for role in different) else Role.SIGNAL


def of_product(roles: Iterable[Role]) -> Role:
    """Return the role of a product: that of the factor to which the relevance goes."""
    factors = set(roles) - {Role.CONSTANT}
    signals = {role for role in factors if not role.is_weight}
    weights = factors - signals - {Role.STATISTIC}
    return of_joined(signals or weights or factors)


def weighed_by(roles: Sequence[Role]) -> list[int]:
    """Return which factors of a product get relevance, in equal parts: those of the highest degree."""
    degrees = [0 if role is Role.STATISTIC else 1 if role.is_weight else 2 for role in roles]
    return [i for i, degree in enumerate(degrees) if degree == max(degrees)]


PROBES = (0.0, 15.0, 30.0, 1e4, -15.0, -30.0, -1e4)
"""Where a pointwise function is evaluated to see what it makes of a signal."""


def of_function(values: Sequence[float]) -> Role:
    """Return what a pointwise function makes of a signal, from its values at `PROBES`.

    A function that is not 0 at 0 makes a weight if it is bounded, as a sigmoid in any spelling, or if it
    turns sums into products, as exp. A function that grows on one side of 0 alone is an activation function.
    """
    at_zero, *rest = values
    sides = rest[:3], rest[3:]
    if not isfinite(at_zero):
        return Role.STATISTIC  # such as 1/x
    if at_zero != 0 and (_multiplies(at_zero, sides) or all(_is_bounded(at_zero, *side) for side in sides)):
        return Role.WEIGHT
    up, down = (abs(far if isfinite(far) else near) for _, near, far in sides)
    return Role.ACTIVATION if min(up, down) < max(up, down) / 2 else Role.SIGNAL


def _multiplies(at_zero: float, sides: Sequence[Sequence[float]]) -> bool:
    """Whether f(0)·f(2x) = f(x)² on both sides of 0, other than by 0 = 0 or where values overflow alone."""
    finite = [(near, middle) for near, middle, _ in sides if isfinite(middle)]
    shows = len(finite) == 1 or any(near != 0 for near, _ in finite)
    return shows and all(_near(at_zero * middle, near * near) for near, middle in finite)


def _is_bounded(at_zero: float, near: float, middle: float, far: float) -> bool:
    """Whether values on one side of 0 stay what they are. If the last one is NaN, the others decide."""
    if isnan(far):
        near, middle, far = at_zero, near, middle
    return isfinite(far) and abs(far - middle) <= 2 * max(abs(at_zero), abs(near), abs(middle))


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-3 * max(abs(a), abs(b))
