"""Products and quotients of activations: gates, statistics, and factors that share alike.

A factor that weighs the other one is a gate: a sigmoid or softmax, a statistic such as 1/√variance, or a
value that is broadcast against the other factor, as in squeeze-and-excitation. The signal takes all.
Factors of which neither is a gate get half each. A composite may decide otherwise.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from relprop.attach import attach_with_slots
from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.nonlinear_rules import SignalTakesAll, Uniform
from relprop.operations.chains import attach_to_root, chained
from relprop.operations.exact import Exact
from relprop.provenance import Applied, merge_tags

PRODUCT = "product"
"""Kind of these sites, for composites."""


def product(run: Interception, call: Call, a: Tensor, b: Tensor) -> Any:
    """a·b of relevant factors."""
    chain = chained(run, call, [a, b], begin=True)
    if chain is not None:
        return attach_to_root(run, call, chain)
    tags = run.tag(a), run.tag(b)
    rule = run.choose(run.site(call, PRODUCT, max(tag.depth for tag in tags)))
    gate = _gate(run, a, b)
    if rule is None or gate is None:
        rule = Uniform() if gate is None else SignalTakesAll()
    run.applied.append(Applied(run.modules.path, call.name, rule))
    if isinstance(rule, Uniform):
        return _uniform(run, call, a, b)
    signal, weight = (b, a) if gate is a else (a, b)
    # Out of place, so that a gate may be the tensor that is overwritten.
    return Exact(slot="pass")(run, Call(call.name, torch.mul, (signal, weight.detach()), {}, False))


def quotient(run: Interception, call: Call, a: Tensor, b: Tensor) -> Any:
    """a/b with a relevant denominator, which is a statistic as a rule, and counts as a constant."""
    chain = chained(run, call, [a, b], begin=True)
    if chain is not None:
        return attach_to_root(run, call, chain)
    run.applied.append(Applied(run.modules.path, call.name, SignalTakesAll()))
    return Exact(slot="pass")(run, Call(call.name, torch.div, (a, b.detach()), {}, False))


def _gate(run: Interception, a: Tensor, b: Tensor) -> Tensor | None:
    """Which of two factors weighs the other one; None if neither does, or both do."""
    weighs = bool(run.tag(a).gate), bool(run.tag(b).gate)
    if weighs[0] != weighs[1]:
        return a if weighs[0] else b
    if a.numel() != b.numel():
        return a if a.numel() < b.numel() else b
    return None


def _uniform(run: Interception, call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Half of the relevance to each factor."""
    slots = [run.slot(a), run.slot(b)]
    tags, shapes = (run.tag(a), run.tag(b)), (a.shape, b.shape)
    value, kept_a, kept_b = call.value(), run.keep(a), run.keep(b)

    def backward(c: Tensor | None, direct: Tensor | None = None) -> tuple[Tensor | None, ...]:
        to_factors: list[Tensor | None] = [None, None]
        if c is not None:
            to_factors = [
                (c * other.value).sum_to_size(shape) / 2
                for other, shape in zip((kept_b, kept_a), shapes, strict=True)
            ]
        to_slots = [
            None if direct is None else (direct / 2).sum_to_size(shape)
            for shape, slot in zip(shapes, slots, strict=True)
            if slot is not None
        ]
        return (*to_factors, *to_slots)

    output, slot = attach_with_slots(value, [a, b], slots, backward)
    nonnegative = all(tag.nonnegative for tag in tags)
    run.set_tag(output, merge_tags(tags, nonnegative=nonnegative, slot=slot))
    return output


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
    "addcmul": addcmul,
    "addcdiv": addcdiv,
}
