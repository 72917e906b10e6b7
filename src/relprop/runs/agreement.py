"""Whether explanations are the same but for rounding."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from relprop.results.explanation import Explanation
from relprop.runs.backward import Explained
from relprop.runs.replayed import tensors_within

_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}
"""How far explanations that are the same but for rounding may differ, relative to the largest value."""

_SHAKEN = 8
"""By up to how many eps, relative to the value, inputs are shaken."""

_CARRIED, _MOST = 4, 0.25
"""How many times as far as shaken inputs another order of sums may move an explanation, but no farther than a
part of the largest value: a model may see another class in a value that is shaken."""

Several = Sequence[Explained]


def what_differs(found: Several, expected: Several, shaken: Callable[[], Sequence[Several]] = tuple) -> str:
    """Name what differs between explanations by more than rounding; "" if nothing does.

    Deep networks of ReLUs may carry rounding far: in a ResNet-50 with random weights a change of the last
    digit of the input changes its gradient by some per cent of the largest value. How far a network does is
    seen by explanations of shaken inputs, which are computed only if it matters.

    Args:
        found: explanations.
        expected: what they should be.
        shaken: computes what is expected for `shaken_leaves`.
    """
    pairs = [(a.explanation, b.explanation) for a, b in zip(found, expected, strict=True)]
    if not any([_off(one, other, ()) for one, other in pairs]):
        return ""
    others = [[each.explanation for each in several] for several in shaken()]
    off = [_off(one, other, alike) for (one, other), *alike in zip(pairs, *others, strict=True)]
    return next(filter(None, off), "")


def shaken_leaves(leaves: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield values that differ by rounding. They are smaller, and so within bounds; whole numbers stay."""
    for phase in (0.0, 1.0):
        yield [_shaken(t, phase) if t.is_floating_point() else t for t in leaves]


def _shaken(values: Tensor, phase: float) -> Tensor:
    steps = torch.arange(values.numel(), dtype=torch.float32, device=values.device)
    parts = (steps + phase).sin().abs().view(values.shape) * (_SHAKEN * torch.finfo(values.dtype).eps)
    return torch.where(values == values.round(), values, values - values * parts.to(values.dtype))


def _off(found: Explanation, expected: Explanation, shaken: Sequence[Explanation]) -> str:
    """Name what differs by more than rounding, or than shaken inputs explain."""
    tensors = [expected.score, *expected.inputs.values()]
    coarsest = max([t.dtype for t in tensors], key=lambda dtype: torch.finfo(dtype).eps)
    rounding = _ROUNDING.get(coarsest, 0.1)
    for name in (*expected.inputs, None):
        one, other, *alike = [_named(each, name) for each in (found, expected, *shaken)]
        if _differ(one, other, alike, rounding, _largest(other) or _largest(expected.score)):
            return "score" if name is None else f"relevance of input {name!r}"
    least = max(map(_largest, tensors))
    ones, others, *several = [_within(each) for each in (found, expected, *shaken)]
    if [t.shape for t in ones] != [t.shape for t in others]:
        return "ledger, or other values within the model"
    for i, (one, other) in enumerate(zip(ones, others, strict=True)):
        alike = [each[i] for each in several if len(each) == len(others)]
        if _differ(one, other, alike, rounding, max(least, _largest(other))):
            return "ledger, or other values within the model"
    return ""


def _differ(one: Tensor, other: Tensor, alike: Sequence[Tensor], rounding: float, scale: float) -> bool:
    """Whether two tensors differ by more than a part of a scale, or than others that should be alike."""
    carried = max([_largest(each - other) for each in alike], default=0.0)
    allowed = max(rounding * scale, min(_CARRIED * carried, _MOST * _largest(other)))
    # Where both are no numbers, they agree.
    return not torch.equal(one.isfinite(), other.isfinite()) or _largest(one - other) > allowed


def _within(explanation: Explanation) -> list[Tensor]:
    """Return the numbers in an explanation but its inputs. A ledger of mixed samples holds for the batch."""
    ledger = explanation.ledger
    ledger = ledger.mapped(lambda amount: amount.sum(0, keepdim=True)) if ledger.mixed else ledger
    tensors = tensors_within(replace(explanation, inputs={}, ledger=ledger))
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def _largest(values: Tensor) -> float:
    """Return the largest number, regardless of its sign."""
    finite = values[values.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _named(explanation: Explanation, name: str | None) -> Tensor:
    return explanation.score if name is None else explanation.inputs[name]
