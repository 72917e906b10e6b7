"""Rules for the first layer. They use the bounds of its inputs, or nothing of the inputs at all.

They put relevance on inputs that are zero too. So they return relevance itself, and no coefficient. Letters
as in `relprop.rules.linear`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from relprop.calls.user_line import warn
from relprop.errors import RuleError
from relprop.linear import weights
from relprop.linear.numerics import divide, leftover, tolerance
from relprop.linear.operation import Incoming, LinearOperation, Propagated
from relprop.rules.bounds import Bound
from relprop.rules.rule import PrintedRule, tells_names

__all__ = ["Flat", "WSquare", "ZBox"]


class _InputRule(PrintedRule):
    """Base of rules that put relevance on inputs whatever their value, zeros too."""

    @property
    def puts_relevance(self) -> bool:
        return True

    @property
    def looks_everywhere(self) -> bool:
        """Whether outputs without relevance matter to the rule."""
        return False


@tells_names
@dataclass(frozen=True, eq=False, repr=False)
class ZBox(_InputRule):
    """R_i = Σ_j (x_i w_ij - l_i w_ij^+ - h_i w_ij^-) / Σ_i (same) · R_j for inputs l ≤ x ≤ h.

    Montavon et al. 2017, eq. 14. With m = (l+h)/2 and r = (h-l)/2 the bracket is (x-m)w + r|w|. Three
    products, and two more for the first input of a shape.

    Args:
        low: l: one number, a sequence with one number per channel, or a tensor of a sample's shape.
        high: h, in the same forms. Without `low` and `high`, the rule takes the bounds given to `explain`.

    Raises:
        RuleError: a low bound is above the high one or not finite, or only one of the bounds is given. In the
            backward: there are no bounds, or their shape does not fit.
        UserWarning: an input is outside of the bounds.
    """

    low: Bound | None = None
    high: Bound | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                value = value.detach().clone()  # what the caller does to it later is not meant here
            elif value is not None and not isinstance(value, (int, float)):
                try:
                    value = tuple(float(v) for v in value)
                except (TypeError, ValueError, OverflowError):
                    value = ()
                if not value:
                    raise RuleError(
                        f"ZBox({name}={getattr(self, name)!r}): give a number, a sequence with a number "
                        "for each channel, or a tensor of a sample's shape."
                    )
            object.__setattr__(self, name, value)
        if (self.low is None) != (self.high is None):
            raise RuleError(f"{self}: give both bounds, low and high, or neither.")
        if self.low is None or self.high is None:
            return
        low, high = torch.as_tensor(self.low), torch.as_tensor(self.high)
        if not (low.isfinite().all() and high.isfinite().all()):
            raise RuleError(f"{self}: the bounds must be finite.")
        try:
            crossed = bool((low > high).any())
        except RuntimeError:
            raise RuleError(
                f"{self}: low has shape {tuple(low.shape)} and high {tuple(high.shape)}; give them the same "
                "shape."
            ) from None
        if crossed:
            raise RuleError(f"{self}: low is above high; exchange them.")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ZBox):
            return NotImplemented
        return _same_bound(self.low, other.low) and _same_bound(self.high, other.high)

    def __hash__(self) -> int:
        # Equal rules hash equally; tensors are only told apart by ==.
        return hash(tuple(b if not isinstance(b, Tensor) else b.shape for b in (self.low, self.high)))

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        if self.low is None or self.high is None:
            raise RuleError(
                f"{self} has no bounds: use ZBox(low, high), or explain(..., bounds=(low, high))."
            )
        low, high, absolute_w = self.low, self.high, weights.absolute(op.weight)
        m, r, limit, L_r, reach = op.constant("box", lambda: self._box(op, low, high), self)
        above = op.x - m
        if bool((above.abs() > limit).any()):
            warn(
                f"{self}: the inputs have values outside of the bounds, from {float(op.x.min()):g} to "
                f"{float(op.x.max()):g}. The rule is for values within the bounds. Check that the input is "
                "normalised as the model expects, and that the bounds are those of normalised values."
            )
        R = incoming.relevance
        den, largest = (op.z + reach, L_r) if op.b is None else (op.z + (reach - op.b), L_r + op.b.abs())
        # Of an output that nothing reaches, a bias leaves rounding errors of its own size.
        den = den.masked_fill_(den.abs() <= tolerance(den.dtype) * largest, 0)
        s = divide(R, den)
        by_w, by_absolute = op.transpose_both(s, op.weight, absolute_w)
        direct = torch.addcmul(above * by_w, r, by_absolute)
        return Propagated(direct=direct, absorbed={"no contribution": leftover(R, s, den)})

    def _box(self, op: LinearOperation, low: Bound, high: Bound) -> tuple[Tensor, ...]:
        """m, r, how far from m an input may be, L_|w|(r), and L_|w|(r) - L_w(m)."""
        lowest, highest = self._aligned(op, low), self._aligned(op, high)
        m, r = (lowest + highest) / 2, (highest - lowest) / 2
        L_m, L_r = op.map.apply(m, op.weight.detach()), op.map.apply(r, weights.absolute(op.weight))
        return m, r, r + tolerance(op.x.dtype) * (1 + m.abs()), L_r, L_r - L_m

    def _aligned(self, op: LinearOperation, bound: Bound) -> Tensor:
        value = torch.as_tensor(bound, dtype=op.x.dtype, device=op.x.device)
        try:
            return op.map.align_input(value, op.x.shape)
        except ValueError as error:
            raise RuleError(f"{self}: the bound's shape {error}.") from None


@dataclass(frozen=True, repr=False)
class WSquare(_InputRule):
    """R_i = Σ_j w_ij² / Σ_i w_ij² · R_j, for unbounded inputs. Montavon et al. 2017, eq. 12. Two products."""

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        w2 = weights.square(op.weight)
        ones = torch.ones_like(op.x[:1] if op.map.alike else op.x)
        den = op.constant("square sum", lambda: op.map.apply(ones, w2), None)
        R = incoming.relevance
        s = divide(R, den)
        return Propagated(direct=op.transpose(s, w2), absorbed={"no contribution": leftover(R, s, den)})


@dataclass(frozen=True, repr=False)
class Flat(_InputRule):
    """R_i = Σ_j R_j / n_j over the n_j inputs that are connected to j. Lapuschkin et al. 2019.

    Less than two products.
    """

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        R, n = incoming.relevance, op.fan_in()
        s = divide(R, n)
        return Propagated(direct=op.spread(s), absorbed={"no contribution": leftover(R, s, n)})


def _same_bound(a: Bound | None, b: Bound | None) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool((a == b).all())
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b
