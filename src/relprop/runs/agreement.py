"""Whether explanations are the same but for rounding."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from relprop.results.explanation import Explanation
from relprop.runs.backward import Explained

Several = Sequence[Explained]

_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}
"""How far explanations that are the same but for rounding may differ, relative to the largest value."""

_SHAKEN = 8
"""By how many units in the last place inputs are shaken."""

_CARRIED = 4
"""How many times as far as shaken inputs another order of sums may move an explanation."""


def what_differs(found: Several, expected: Several, shaken: Callable[[], Sequence[Several]] = tuple) -> str:
    """Name what differs between explanations by more than rounding; "" if nothing does.

    Deep networks of ReLUs may carry rounding far: in a ResNet-50 with random weights a change of the last
    digit of the input changes its gradient by some per cent of the largest value. How far a network does is
    seen by explanations of shaken inputs, which are computed only if it matters.

    Args:
        found: explanations.
        expected: what they should be.
        shaken: computes what is expected for each of `shaken_leaves`.
    """
    pairs = [(a.explanation, b.explanation) for a, b in zip(found, expected, strict=True)]
    if not any([_off(one, other, ()) for one, other in pairs]):
        return ""
    others = [[each.explanation for each in several] for several in shaken()]
    off = [_off(one, other, alike) for (one, other), *alike in zip(pairs, *others, strict=True)]
    return next(filter(None, off), "")


def shaken_leaves(leaves: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield values that differ by rounding, and not beyond the bounds of what they are: they are smaller."""
    for phase in (0.0, 1.0):
        yield [_shaken(t, phase) if t.is_floating_point() else t for t in leaves]


def _shaken(values: Tensor, phase: float) -> Tensor:
    steps = torch.arange(values.numel(), dtype=torch.float32, device=values.device)
    parts = (steps + phase).sin().abs().view(values.shape) * (_SHAKEN * torch.finfo(values.dtype).eps)
    return values - values * parts.to(values.dtype)


def _off(found: Explanation, expected: Explanation, shaken: Sequence[Explanation]) -> str:
    """Name what differs by more than rounding, or than shaken inputs explain."""
    tensors = [expected.score, *expected.inputs.values()]
    coarsest = max([t.dtype for t in tensors], key=lambda dtype: torch.finfo(dtype).eps)
    for name in (*expected.inputs, None):
        one, other, *alike = [_named(each, name) for each in (found, expected, *shaken)]
        largest, off = float(other.abs().max()), float((one - other).abs().max())
        carried = max([float((each - other).abs().max()) for each in alike], default=0.0)
        if largest > 0 and not off <= max(_ROUNDING.get(coarsest, 0.1) * largest, _CARRIED * carried):
            return "score" if name is None else f"relevance of input {name!r}"
    return ""


def _named(explanation: Explanation, name: str | None) -> Tensor:
    return explanation.score if name is None else explanation.inputs[name]
