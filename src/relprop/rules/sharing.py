"""What the rules that share out R/denominator have in common: their parameters, and the bias's share."""

import sys
from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from relprop.errors import RuleError
from relprop.linear.numerics import divide, leftover, summed
from relprop.linear.operation import LinearOperation, Propagated
from relprop.rules.own import is_own
from relprop.rules.rule import PrintedRule

Bias = Literal["absorb", "ignore", "distribute"]
"""What happens to the bias's share: it is absorbed, there is none, or the inputs get equal parts of it."""


Send = Callable[[Tensor], Tensor]
"""From s = R/denominator to the coefficient of the input."""


def is_number(value: object) -> bool:
    """Whether a parameter is a finite number, and no truth value."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= sys.float_info.max  # also of integers that are too large for a float


def shared_with(s: Tensor, share: Tensor) -> Tensor:
    """Return s·share, summed over space or outputs: a ledger needs no more, and it saves passes."""
    if 1 < share.dim() < s.dim():  # one bias a channel
        return s.flatten(2).sum(2) * share.flatten()
    if share.dim() == 1 and len(share) == s.shape[-1] and s.dim() > 1:
        return summed(s @ share)
    return s * share


class SharingRule(PrintedRule):
    """Base of rules that share out R/denominator, where a bias may take part.

    A class that a user derives may compute anything, so it declares by itself what it does not need.
    """

    bias: Bias

    def __post_init__(self) -> None:
        """Check the parameters; rules that have more of them extend it."""
        if self.bias not in get_args(Bias):
            raise RuleError(f"{self}: bias must be one of {', '.join(map(repr, get_args(Bias)))}.")

    def require_nonnegative(self, name: str) -> None:
        """Check that a parameter is a number, 0 or larger."""
        value = getattr(self, name)
        if not (is_number(value) and value >= 0):
            raise RuleError(f"{self}: {name} must be a finite number, 0 or larger.")

    @property
    def puts_relevance(self) -> bool:
        return self.bias == "distribute"

    @property
    def looks_everywhere(self) -> bool:
        """Whether outputs without relevance matter to the rule."""
        return is_own(self)

    @property
    def needs_values(self) -> bool:
        """Whether the rule looks at the values of input or output, beside relevance and weights."""
        return True

    @property
    def needs_input(self) -> bool:
        """Whether the rule looks at the values of the input, beside those of the output."""
        return True

    def share_out(
        self, op: LinearOperation, R: Tensor, part: Tensor, share: Tensor | None, send: Send
    ) -> Propagated:
        """Share R out over a denominator.

        Args:
            op: the operation.
            R: relevance of its output.
            part: what the inputs contribute to the denominator. It is overwritten.
            share: what the bias contributes, unless it is ignored.
            send: takes s = R/denominator to the coefficient of the input.
        """
        den = part if share is None or self.bias == "ignore" else part.add_(share)
        s = divide(R, den)
        absorbed = {"no contribution": leftover(R, s, den)}
        del R, den, part
        return self.account_for_bias(op, s, share, Propagated(send(s), absorbed=absorbed))

    def account_for_bias(
        self, op: LinearOperation, s: Tensor, share: Tensor | None, result: Propagated
    ) -> Propagated:
        """Account for a bias that stands with `share` in the denominator of s."""
        if share is None or self.bias == "ignore":
            return result
        return self.give_bias(op, shared_with(s, share) if self.bias == "absorb" else s * share, result)

    def give_bias(self, op: LinearOperation, amount: Tensor, result: Propagated) -> Propagated:
        """Report what the bias got, or give it in equal parts to the connected inputs."""
        if self.bias == "distribute":
            n = op.fan_in()
            each = divide(amount, n)
            result.direct = op.map.spread(each, op.weight.detach(), op.x.shape)
            amount = leftover(amount, each, n)  # of outputs that are connected to no input
        result.absorbed["bias"] = amount
        return result
