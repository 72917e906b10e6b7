"""Products and quotients of activations: gates, statistics, and factors that share alike.

A factor that weighs the other one is a gate: a sigmoid or softmax, a value that is broadcast against the
other factor, as in squeeze-and-excitation, or what an activation function made against what none did, as in
gated feed-forward layers. The signal takes all. Factors of which neither is a gate get half each. A composite
may decide otherwise. A statistic, such as 1/√variance, is a constant whatever it decides.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from relprop.attach import attach, attach_with_slot
from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.operations.chains import attach_to_root, chained
from relprop.operations.exact import Exact
from relprop.provenance import ACTIVATION, STATISTIC, Applied, empty_slot, merge_tags
from relprop.rules.other import SignalTakesAll, Uniform

PRODUCT = "product"
"""Kind of these sites, for composites."""


def product(run: Interception, call: Call, a: Tensor, b: Tensor) -> Any:
    """a·b of relevant factors, element by element."""
    chain = chained(run, call, [a, b], begin=True)
    if chain is not None:
        return attach_to_root(run, call, chain)
    tags = run.tag(a), run.tag(b)
    factors = weighed(run, call, [a, b], _gate(run, a, b))
    output, slots = torch.mul(*factors), [run.slot(t) for t in factors if run.relevant(t)]
    slot = None
    if slots and all(slot is not None for slot in slots):
        shapes = [t.shape for t in factors if run.relevant(t)]
        (slot,) = attach(
            [empty_slot(output)],
            [slot for slot in slots if slot is not None],
            lambda direct: tuple(direct.sum_to_size(shape) for shape in shapes),
        )
    nonnegative = all(tag.nonnegative for tag in tags)
    run.set_tag(output, merge_tags(tags, nonnegative=nonnegative, slot=slot))
    return output


def contracted(
    run: Interception, call: Call, operands: Sequence[Tensor], multiply: Callable[..., Any]
) -> Any:
    """A product of relevant factors that is summed over, as of matrices. A gate is known by its tag.

    Args:
        run: the run.
        call: of the product.
        operands: the factors; some may be constants.
        multiply: from the factors to the product.
    """
    relevant = [t for t in operands if run.relevant(t)]
    gate = _gate_by_tag(run, *relevant) if len(relevant) == 2 else None
    tags = [run.tag(t) for t in relevant]
    factors = iter(weighed(run, call, relevant, gate))
    output = multiply(*(next(factors) if run.relevant(t) else t for t in operands))
    run.set_tag(output, replace(merge_tags(tags, nonnegative=_nonnegative(run, operands)), gate=""))
    return output


def weighed(run: Interception, call: Call, factors: Sequence[Tensor], gate: Tensor | None) -> list[Tensor]:
    """What stands for the factors of a product, so that its plain gradient is as the rule says.

    A gate of which the signal takes all is a constant; n factors that share alike get 1/n of the coefficient.
    """
    if len(factors) == 1:
        return list(factors)
    rule = run.choose(run.site(call, PRODUCT, max(run.tag(t).depth for t in factors)))
    statistic = gate is not None and run.tag(gate).gate == STATISTIC
    if gate is None:
        rule = Uniform()
    elif rule is None or statistic:
        rule = SignalTakesAll()
    run.applied.append(Applied(run.modules.path, call.name, rule))
    if isinstance(rule, Uniform):
        return [part_of(run, t, 1 / len(factors)) for t in factors]
    return [t.detach() if t is gate else t for t in factors]


def part_of(run: Interception, tensor: Tensor, part: float) -> Tensor:
    """The tensor, with this part of the relevance that comes to it."""
    tag, slot = run.tag(tensor), run.slot(tensor)

    def backward(c: Tensor | None, direct: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if arrived is None else arrived * part for arrived in (c, direct))

    output, slot = attach_with_slot(tensor.detach(), tensor, slot, backward)
    run.set_tag(output, replace(tag, slot=slot, origin=None, pointwise=None))
    return output


def quotient(run: Interception, call: Call, a: Tensor, b: Tensor) -> Any:
    """a/b with a relevant denominator, which is a statistic as a rule, and counts as a constant."""
    chain = chained(run, call, [a, b], begin=True)
    if chain is not None:
        return attach_to_root(run, call, chain)
    run.applied.append(Applied(run.modules.path, call.name, SignalTakesAll()))
    return Exact(slot="pass")(run, Call(call.name, torch.div, (a, b.detach()), {}, False))


def _gate(run: Interception, a: Tensor, b: Tensor) -> Tensor | None:
    """Which of two factors weighs the other one; None if neither does, or both do."""
    if ACTIVATION not in (run.tag(a).gate, run.tag(b).gate) or a.numel() == b.numel():
        gate = _gate_by_tag(run, a, b)
        if gate is not None:
            return gate
    if a.numel() != b.numel():
        return a if a.numel() < b.numel() else b
    return None


def _gate_by_tag(run: Interception, a: Tensor, b: Tensor) -> Tensor | None:
    """Which of two factors weighs the other one, by what made them."""
    weights = [_GATES.get(run.tag(t).gate, 2) for t in (a, b)]
    if weights[0] == weights[1]:
        return None
    return a if weights[0] > weights[1] else b


_GATES = {"": 0, ACTIVATION: 1, STATISTIC: 3}
"""How much the gates weigh; the others lie between."""


def _nonnegative(run: Interception, operands: Sequence[Tensor]) -> bool:
    return all(run.tag(t).nonnegative if run.relevant(t) else bool((t >= 0).all()) for t in operands)


def solve_triangular(run: Interception, call: Call) -> Any:
    """torch.linalg.solve_triangular(A, B): linear in B, which takes all; A is a constant, as denominators."""

    def arguments(A: Tensor, B: Tensor, **options: Any) -> Any:
        return A, B, options

    A, B, options = arguments(*call.args, **call.kwargs)
    if not run.relevant(B):
        run.gap(call.name, "only the matrix depends on the input, and it gets no relevance")
        return Exact(slot="none")(run, call)
    if run.relevant(A):
        run.applied.append(Applied(run.modules.path, call.name, SignalTakesAll()))
    solved = Call(call.name, torch.linalg.solve_triangular, (A.detach(), B), options, False)
    return Exact(slot="none")(run, solved)


def addcmul(run: Interception, call: Call) -> Any:
    """Sum input + value·a·b, as its parts."""
    return _added(run, call, torch.mul)


def addcdiv(run: Interception, call: Call) -> Any:
    """Sum input + value·a/b, as its parts."""
    return _added(run, call, torch.div)


def _added(run: Interception, call: Call, combine: Any) -> Any:
    def arguments(input: Tensor, tensor1: Tensor, tensor2: Tensor, value: float = 1.0) -> Any:
        return input, tensor1, tensor2, value

    x, a, b, value = arguments(*call.args, **call.kwargs)
    term = run.perform(combine, a, b)
    return run.perform(torch.add, x, term, alpha=value)


def glu(run: Interception, call: Call) -> Any:
    """F.glu: one half of a dimension weighed by the sigmoid of the other one, as its parts."""

    def arguments(input: Tensor, dim: int = -1) -> Any:
        return input, dim

    x, dim = arguments(*call.args, **call.kwargs)
    signal, gate = run.perform(torch.chunk, x, 2, dim)
    return run.perform(torch.mul, signal, run.perform(torch.sigmoid, gate))


TABLE: Mapping[str, Entry] = {
    "glu": glu,
    "linalg_solve_triangular": solve_triangular,
    "addcmul": addcmul,
    "addcdiv": addcdiv,
}
