"""What a rule must keep to, checked where a rule of a user's own is first used."""

import torch
from torch import Tensor

from relprop.errors import RuleError
from relprop.linear.numerics import wide
from relprop.linear.operation import Incoming, LinearOperation, Propagated
from relprop.rules.rule import Rule

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How much of all relevance may be missing by rounding; of half precision more."""

_checked: set[tuple[Rule, type, bool, bool]] = set()
"""Rules that kept to it, on which kind of operation, with a bias or without, on inputs of which signs."""


def applied(rule: Rule, op: LinearOperation, incoming: Incoming) -> Propagated:
    """What a rule makes of relevance that arrives.

    Raises:
        RuleError: a rule of a user's own does not keep to what rules promise (see `require_promises`).
    """
    propagated = rule(op, incoming)
    if not is_own(rule):
        return propagated
    key = (rule, type(op.map), op.b is None, op.nonnegative) if _is_hashable(rule) else None
    if key is None or key not in _checked:
        require_promises(rule, op, incoming, propagated)
        # Of no relevance, and where a rule needs no values, there is nothing to balance.
        if key is not None and bool(incoming.relevance.any()):
            _checked.add(key)
    return propagated


def is_own(rule: object) -> bool:
    """Whether a rule is a user's own."""
    return not isinstance(rule, str) and not type(rule).__module__.startswith("relprop.rules.")


def require_promises(rule: Rule, op: LinearOperation, incoming: Incoming, propagated: Propagated) -> None:
    """Refuse what a rule returned, if it is of another form than it should be or loses relevance.

    Raises:
        RuleError: it is no `Propagated`; of another shape than the input; not finite; relevance itself of a
            rule that says it puts none; or relevance is lost that is not in `absorbed`.
    """
    if not isinstance(propagated, Propagated):
        raise RuleError(
            f"{rule}: it returned {type(propagated).__name__}; return a relprop.rules.Propagated."
        )
    x, R = op.x, incoming.relevance.detach()
    for name in ("coefficient", "direct"):
        part = getattr(propagated, name)
        if part is None:
            continue
        if not isinstance(part, Tensor) or part.shape != x.shape:
            got = f"shape {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
            raise RuleError(
                f"{rule}: Propagated.{name} has {got}; give a number for each element of op.x, which has "
                f"shape {tuple(x.shape)}."
            )
        if not bool(part.isfinite().all()) and bool(R.isfinite().all()):
            raise RuleError(
                f"{rule}: Propagated.{name} is NaN or infinite at {int((~part.isfinite()).sum())} of "
                f"{part.numel()} elements. Where a denominator is zero, let the quotient be zero, and report "
                "the relevance that is lost in Propagated.absorbed."
            )
    if propagated.coefficient is None and propagated.direct is None:
        raise RuleError(f"{rule}: it returned no relevance; give Propagated a coefficient or direct.")
    if propagated.direct is not None and not rule.puts_relevance:
        raise RuleError(
            f"{rule}: it returns Propagated.direct, relevance put on the input directly, but its "
            "puts_relevance is False. Let it be True."
        )
    for name, amount in propagated.absorbed.items():
        if not isinstance(amount, Tensor) or amount.shape[:1] != R.shape[:1]:
            got = f"shape {tuple(amount.shape)}" if isinstance(amount, Tensor) else type(amount).__name__
            raise RuleError(
                f"{rule}: Propagated.absorbed[{name!r}] has {got}; give a tensor of the output's shape, "
                f"{tuple(R.shape)}, or summed over all but the first dimension."
            )
    _require_balance(rule, x, R, propagated)


def _require_balance(rule: Rule, x: Tensor, R: Tensor, propagated: Propagated) -> None:
    c = propagated.coefficient
    parts = [part for part in (None if c is None else x * c, propagated.direct) if part is not None]
    onward = [part.detach().to(wide(part.dtype)) for part in parts]
    absorbed = {name: float(amount.double().sum()) for name, amount in propagated.absorbed.items()}
    arrived, went_on = float(R.double().sum()), sum(float(part.double().sum()) for part in onward)
    missing = arrived - went_on - sum(absorbed.values())
    size = float(R.abs().double().sum()) + sum(float(part.abs().double().sum()) for part in onward)
    if abs(missing) <= _TOLERANCE.get(x.dtype, 5e-2) * (size + sum(map(abs, absorbed.values()))):
        return
    told = ", ".join(f"{name} {amount:.4g}" for name, amount in absorbed.items()) or "nothing"
    raise RuleError(
        f"{rule} loses relevance: {arrived:.4g} arrived, {went_on:.4g} went to the input, absorbed was "
        f"{told}. So {missing:.4g} is missing. Report relevance that is not passed on in "
        "Propagated.absorbed, by the name of its sink."
    )


def _is_hashable(rule: Rule) -> bool:
    try:
        hash(rule)
    except TypeError:
        return False
    return True
