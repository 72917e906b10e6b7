"""Products and quotients of activations: the factors share relevance by their roles.

A weight, such as a sigmoid or a softmax, gets nothing beside a signal, which takes all. Two signals, or two
weights, get half each. See `relprop.engine.roles`. A composite may decide otherwise. A statistic, such as
1/√variance, counts as a constant whatever the composite says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from relprop.calls.call import Call
from relprop.calls.site import Kind
from relprop.crossing.chains import attach_to_root, chained, is_finite_at_zero
from relprop.crossing.exact import Exact, relevant_in
from relprop.crossing.parts import with_own_value
from relprop.engine.interception import Entry
from relprop.engine.known import (
    Normalised,
    Origin,
    Tag,
    Total,
    all_nonnegative,
    as_exponential,
    behind_all,
    role_of,
    total_behind,
)
from relprop.engine.roles import Role, of_product, weighed_by
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen, is_relevant, value_of
from relprop.linear.operation import Incoming
from relprop.operations.softmax import softmax_of_groups
from relprop.rules.other import NonlinearRule, Proportional, SignalTakesAll, Uniform

_shared = Exact(slot="share")


def product(run: Run, call: Call, a: Seen, b: Seen) -> Any:
    """a·b of relevant factors, elementwise."""
    chain = chained(run, call, [a, b])
    if chain is not None and is_finite_at_zero(chain):
        return attach_to_root(run, call, chain)
    totals = [_own_total(a, b, inverted=True), _own_total(b, a, inverted=True)]
    for factor, total in zip((a, b), totals, strict=True):
        if total is not None and total.steps:  # exp(x)·(1/Σ exp(x))
            return softmax_of_groups(run, call, _exponent(factor), total)
    tags = a.tag, b.tag
    rule, sharing, roles = shared_by(run, call, [a, b], elementwise=True)
    signals = [(t, other) for i, (t, other) in enumerate(((a, b), (b, a))) if i in sharing]
    one, other = signals[0]
    # Beside the one signal the other factor is a constant, with which autograd records the product.
    alone = len(signals) == 1 and run.slots == "none"
    value: Tensor = run.native(call, _without(call.args, [other])) if alone else run.value(call)
    steps = [t.tag.step for t in (a, b) if t.shape == value.shape]
    normalises = len(signals) == 1 and roles[1 - sharing[0]] is Role.STATISTIC
    weighs = normalises and one.tag.nonnegative and totals[sharing[0]] is not None
    known = Tag(
        behind_all(tags, plain=False),
        all(tag.nonnegative for tag in tags),
        role=Role.SOFTMAX if weighs else of_product(roles),
        step=next((step for step in steps if step is not None), None),
        origin=Normalised(recorded=one.recorded, tag=one.tag) if normalises else None,
    )
    if alone:
        return run.seen(value, known)
    kept = [run.keep(other.recorded) for _, other in signals]
    shapes = [t.shape for t, _ in signals]

    def shared(whole: Tensor | None) -> Sequence[Tensor | None]:
        if whole is None:
            return [None] * len(kept)
        if isinstance(rule, Proportional):
            of_b, of_a = rule.parts(*(k.value for k in kept))
            return [whole * of_a, whole * of_b]
        return [whole * 0.5] * 2 if len(kept) == 2 else [whole]

    def back(incoming: Incoming) -> list[Outgoing]:
        given = zip(shared(incoming.c), shared(incoming.direct), kept, shapes, strict=True)
        return [
            (
                None if c is None else (c * k.value.conj()).sum_to_size(shape),
                None if direct is None else direct.sum_to_size(shape),
            )
            for c, direct, k, shape in given
        ]

    return run.cross(value, [t for t, _ in signals], back, known)


def contracted(run: Run, call: Call, operands: Sequence[Any]) -> Any:
    """A product of factors that is summed over, such as a matrix product.

    Args:
        run: the run.
        call: the product.
        operands: the factors; some may be constants.
    """
    relevant = [t for t in operands if is_relevant(t)]
    _, numbers, roles = shared_by(run, call, relevant)
    sharing = [relevant[i] for i in numbers]
    others = [t for t in relevant if not any(t is each for each in sharing)]
    crossed = Call(call.signature, _without(call.args, others))
    # Direct relevance is shared by contributions, as if the product were written out and summed.
    product = _shared(run, crossed) if run.slots != "none" else run.seen(run.native(crossed), Tag())
    nonnegative = all(t.tag.nonnegative if is_relevant(t) else all_nonnegative(value_of(t)) for t in operands)
    # A mixture of values that are no weights, if constant ones, is a signal.
    role = of_product(roles) if len(relevant) > 1 else Role.SIGNAL
    tag = Tag(behind_all([t.tag for t in relevant], plain=False), nonnegative, role=role)
    if len(sharing) == 1:
        return run.seen(product.recorded, replace(tag, slot=product.tag.slot))
    return in_parts(run, product, 1 / len(sharing), tag)


def in_parts(run: Run, product: Seen, part: float, tag: Tag) -> Seen:
    """Return a product each of whose factors gets this part of the relevance by its plain gradient."""

    def back(incoming: Incoming) -> list[Outgoing]:
        c, direct = incoming.c, incoming.direct
        return [(None if c is None else c * part, None if direct is None else direct * part)]

    return run.cross(product.recorded.detach(), [product], back, tag)


def _without(args: Sequence[Any], factors: Sequence[Seen]) -> list[Any]:
    """Return arguments with the values of these factors in their place, which get nothing."""

    def held(t: Any) -> Any:
        return value_of(t) if any(t is each for each in factors) else t

    return [[held(b) for b in a] if isinstance(a, (list, tuple)) else held(a) for a in args]


def shared_by(
    run: Run, call: Call, factors: Sequence[Seen], *, elementwise: bool = False
) -> tuple[NonlinearRule | None, list[int], list[Role]]:
    """Return the rule of a product, which factors have a share of its relevance, by number, and all roles.

    Args:
        run: the run.
        call: the product.
        factors: its relevant factors.
        elementwise: whether it is a product of elements, and not summed over.
    """
    everyone = list(range(len(factors)))
    roles = [role_of(t.tag) for t in factors]
    if len(factors) == 1:
        return None, everyone, roles
    rule = run.choose(run.site(call, Kind.PRODUCT, behind_all([t.tag for t in factors])))
    if isinstance(rule, Proportional):
        if elementwise and Role.STATISTIC not in roles:
            run.apply(call, rule)
            return rule, everyone, roles
        rule = None
    sharing = weighed_by(roles)
    if isinstance(rule, Uniform):
        sharing = [i for i in everyone if roles[i] is not Role.STATISTIC] or everyone
    elif isinstance(rule, SignalTakesAll) and rule.activations:
        sharing = [i for i in sharing if roles[i] is not Role.ACTIVATION] or sharing
    if len(sharing) == len(factors):
        rule = Uniform()
    elif rule is None or Role.STATISTIC in roles:
        rule = SignalTakesAll()
    run.apply(call, rule)
    return rule, sharing, roles


def quotient(run: Run, call: Call, a: Seen, b: Seen) -> Any:
    """a/b with a relevant denominator, which is usually a statistic, and counts as a constant."""
    chain = chained(run, call, [a, b])
    if chain is not None and is_finite_at_zero(chain):
        return attach_to_root(run, call, chain)
    total = _own_total(a, b)
    if total is not None and total.steps:
        scores = _exponent(a)
        if total.dim is not None and _is_sum(a, b, total.dim):
            scored = run.seen(scores.recorded, scores.tag)
            return with_own_value(run, call, run.perform(torch.softmax, scored, total.dim))
        return softmax_of_groups(run, call, scores, total)
    run.apply(call, SignalTakesAll())
    result = Exact(slot="pass")(run, Call(call.signature, [a, run.seen(value_of(b), None), *call.args[2:]]))
    result.tag.behind = behind_all([a.tag, b.tag], plain=False)
    result.tag.origin = Normalised(recorded=a.recorded, tag=a.tag)
    if total is not None and a.tag.nonnegative:
        result.tag.role = Role.SOFTMAX
    return result


def _own_total(a: Seen, other: Seen, *, inverted: bool = False) -> Total | None:
    """Return the total that a tensor is in proportion to, or one over which it is, if it is that of `a`.

    It has `steps` if `a` is exp(x) and if nothing watches the values in between.
    """
    total, exponential = total_behind(other.tag), as_exponential(a.tag)
    if total is None or total.inverted is not inverted:
        return None
    if exponential is not None and total.exponent is not None:
        return total if total.exponent() is exponential.recorded else None
    return replace(total, steps=()) if total.of() is a.recorded else None


def _exponent(a: Seen) -> Origin:
    """Return x of exp(x), in a chain or at its end."""
    exponential = as_exponential(a.tag)
    assert exponential is not None
    return exponential


def _is_sum(a: Seen, total: Seen, dim: int) -> bool:
    """Whether a total lies where a sum over this dimension does, next to the tensor that it is of."""
    return total.shape == (*a.shape[:dim], 1, *a.shape[dim + 1 :])


def inverse(run: Run, call: Call, matrix: Seen, *_options: Any) -> Any:
    """The inverse of a matrix: a statistic, as 1/x is. It absorbs its relevance."""
    return _absorbing(run, call, matrix)


def _absorbing(run: Run, call: Call, matrix: Seen) -> Any:
    """Return the results of a call of which the first is a statistic."""
    value = run.value(call)
    first, *others = value if isinstance(value, tuple) else (value,)
    tag = Tag(matrix.tag.behind.after(plain=False), role=Role.STATISTIC)
    made = run.sink("statistic", first, call.name, tag)
    return (made, *(run.seen(t, None) for t in others)) if isinstance(value, tuple) else made


@dataclass(frozen=True)
class Solved:
    """The solution of A X = B: linear in B, which takes all. A is a statistic, as denominators are.

    Attributes:
        right: position of B. The other tensors are A, or make A up.
    """

    right: int

    def __call__(self, run: Run, call: Call, *args: Any) -> Any:
        if not is_relevant(args[self.right]):
            return _absorbing(run, call, relevant_in(args)[0])
        others = [value_of(a) if i != self.right else a for i, a in enumerate(args)]
        result = Exact(slot="none")(run, Call(call.signature, others))
        relevant = relevant_in(args)
        if len(relevant) > 1:
            run.apply(call, SignalTakesAll())
            first = result[0] if isinstance(result, tuple) else result
            first.tag.behind = behind_all([t.tag for t in relevant], plain=False)
        return result


def polar(run: Run, call: Call, size: Any, angle: Any) -> Any:
    """torch.polar: size · (cos angle + i sin angle), as its parts."""
    parts = [run.perform(torch.mul, size, run.perform(f, angle)) for f in (torch.cos, torch.sin)]
    return with_own_value(run, call, run.perform(torch.complex, *parts))


def renorm(run: Run, call: Call, x: Seen, p: float, dim: int, largest: float) -> Any:
    """torch.renorm: parts of x that are longer than they may be, over their norm, which is a constant."""
    value, others = x.recorded.detach(), [d for d in range(x.dim()) if d != dim % x.dim()]
    norm = torch.linalg.vector_norm(value, p, others, keepdim=True)
    scale = run.seen(torch.where(norm > largest, largest / (norm + 1e-7), 1), None)
    return with_own_value(run, call, run.perform(torch.mul, x, scale))


def addcmul(run: Run, call: Call, x: Any, a: Any, b: Any, value: Any) -> Any:
    """Sum input + value·a·b, as its parts."""
    term = run.perform(torch.mul, a, b)
    return with_own_value(run, call, run.perform(torch.add, x, term, alpha=value))


def addcdiv(run: Run, call: Call, x: Any, a: Any, b: Any, value: Any) -> Any:
    """Sum input + value·a/b, as its parts."""
    term = run.perform(torch.div, a, b)
    return with_own_value(run, call, run.perform(torch.add, x, term, alpha=value))


def lerp(run: Run, call: Call, x: Any, end: Any, weight: Any) -> Any:
    """Sum (1 - weight)·x + weight·end, as its parts."""
    start = run.perform(
        torch.mul, x, run.perform(torch.rsub, weight, 1) if isinstance(weight, Tensor) else 1 - weight
    )
    return with_own_value(run, call, run.perform(torch.add, start, run.perform(torch.mul, end, weight)))


def hypot(run: Run, call: Call, a: Any, b: Any) -> Any:
    """√(a² + b²), computed as a norm, because torch's gradient of hypot is NaN where both are zero."""
    sides = [t if is_relevant(t) else run.source(t, call.name) for t in (a, b)]
    both = run.perform(torch.stack, run.perform(torch.broadcast_tensors, *sides), -1)
    return with_own_value(run, call, run.perform(torch.linalg.vector_norm, both, 2, -1))


def distance(run: Run, call: Call, x: Any, other: Any, p: float = 2.0, *_options: Any) -> Any:
    """torch.dist: the norm of a difference, as its parts."""
    difference = run.perform(torch.sub, x, other)
    return with_own_value(run, call, run.perform(torch.linalg.vector_norm, difference, p))


def distances(run: Run, call: Call, x: Any, other: Any, p: float, *_options: Any) -> Any:
    """torch.cdist: the norms of all differences of rows, as its parts."""
    x, other = run.perform(torch.unsqueeze, x, -2), run.perform(torch.unsqueeze, other, -3)
    difference = run.perform(torch.sub, x, other)
    return with_own_value(run, call, run.perform(torch.linalg.vector_norm, difference, p, -1))


def pairs(run: Run, call: Call, x: Seen, p: float) -> Any:
    """F.pdist: the norms of the differences of all pairs of rows, as its parts."""
    first, second = torch.triu_indices(len(x), len(x), 1, device=x.device)
    rows = [run.perform(torch.index_select, x, 0, index) for index in (first, second)]
    difference = run.perform(torch.sub, *rows)
    return with_own_value(run, call, run.perform(torch.linalg.vector_norm, difference, p, -1))


def cross(run: Run, call: Call, x: Any, other: Any, dim: int) -> Any:
    """torch.linalg.cross, as its parts."""
    rolled = [[run.perform(torch.roll, t, n, dim) for t in (x, other)] for n in (-1, -2)]
    (x1, other1), (x2, other2) = rolled
    one, two = run.perform(torch.mul, x1, other2), run.perform(torch.mul, x2, other1)
    return with_own_value(run, call, run.perform(torch.sub, one, two))


def ldexp(run: Run, call: Call, x: Any, exponent: Any) -> Any:
    """x·2^exponent, as its parts."""
    return with_own_value(run, call, run.perform(torch.mul, x, run.perform(torch.exp2, exponent)))


def glu(run: Run, call: Call, x: Seen, dim: int) -> Any:
    """F.glu: one half of a dimension times the sigmoid of the other half, as its parts."""
    signal, gate = run.perform(torch.chunk, x, 2, dim)
    return with_own_value(run, call, run.perform(torch.mul, signal, run.perform(torch.sigmoid, gate)))


TABLE: Mapping[str, Entry] = {
    "glu": glu,
    "ldexp": ldexp,
    **dict.fromkeys(("linalg_solve_triangular", "_linalg_solve_ex"), Solved(1)),
    "cholesky_solve": Solved(0),
    "linalg_lu_solve": Solved(2),
    **dict.fromkeys(("linalg_inv_ex", "linalg_pinv"), inverse),
    "polar": polar,
    "renorm": renorm,
    "lerp": lerp,
    "hypot": hypot,
    "dist": distance,
    "_cdist_forward": distances,
    "_pdist_forward": pairs,
    "linalg_cross": cross,
    "addcmul": addcmul,
    "addcdiv": addcdiv,
}
