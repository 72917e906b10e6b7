"""Batches of any size in pieces of one size, so that one graph serves them all.

Samples are explained by themselves. So a batch may be cut, and its last piece filled up with copies of its
last sample. Whether this holds for a model is not assumed: see `relprop.runs.compiled`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from relprop.calls.nested import map_tensors, tensors_in
from relprop.results.explanation import Explanation
from relprop.runs.backward import Explained
from relprop.runs.given import Given
from relprop.targets.classes import OfClass
from relprop.targets.scores import Target, as_told

MOST_PIECES = 4
"""Into more pieces no batch is cut, and no smaller part of one is filled up: it would take longer."""


def samples_of(given: Given) -> int:
    """Return the size of the first dimension of all tensors among arguments; 0 if they differ in it."""
    counts = {len(t) if t.dim() else 0 for t in tensors_in((list(given.inputs), given.arguments))}
    return counts.pop() if len(counts) == 1 else 0


def cut(given: Given, size: int) -> list[Given] | None:
    """Return pieces of `size` samples, the last one filled up; None if the batch is not to be cut.

    A batch of another size, up to four times as large or as small, can be cut if all its tensors have the
    same first dimension, and if a target says nothing of single samples but their classes. Relevance of
    parameters is a sum over all samples, and is not cut.
    """
    count, wanted = samples_of(given), given.wanted.parameters
    several = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    is_like = size <= MOST_PIECES * count and count <= MOST_PIECES * size
    of_samples = any(_of_samples(goal, count) for goal in given.goals)
    if count in (0, size) or not is_like or len(several) or of_samples:
        return None
    pieces = []
    for start in range(0, count, size):
        taken = _Taken(start, size)
        inputs, arguments = tuple(map_tensors(taken, list(given.inputs))), map_tensors(taken, given.arguments)
        goals = [_goal_of(goal, taken) for goal in given.goals]
        pieces.append(Given.of(inputs, arguments, goals, given.wanted))
    return pieces


def joined(found: Sequence[Sequence[Explained]], given: Given) -> list[Explained]:
    """Return the explanations of pieces as those of the batch, an explanation for each target.

    Args:
        found: for each piece an explanation of each target.
        given: the batch.

    Raises:
        InputError: explanations of the pieces do not fit together.
    """
    whole, samples = [], samples_of(given)
    for each, goal in zip(zip(*found, strict=True), given.goals, strict=True):
        together = Explanation.concatenate([part.explanation for part in each])[:samples]
        logits = each[0].logits
        if logits is not None and len(logits) and logits[0] == each[0].samples:
            logits = torch.Size((samples, *logits[1:]))
        told = as_told(goal, together.output, samples)
        explanation = replace(together, target=told)
        whole.append(each[0]._replace(explanation=explanation, goal=goal, logits=logits, samples=samples))
    return whole


@dataclass(frozen=True)
class _Taken:
    """Takes the samples of a piece from a tensor or from a tuple of classes."""

    start: int
    size: int

    def __call__(self, whole: Tensor) -> Tensor:
        part = whole[self.start : self.start + self.size]
        missing = self.size - len(part)
        # `cat` keeps the memory format, on which a graph depends.
        return torch.cat([part, *[whole[-1:]] * missing]) if missing else part

    def of_classes(self, classes: tuple[int, ...]) -> tuple[int, ...]:
        part = classes[self.start : self.start + self.size]
        return part + classes[-1:] * (self.size - len(part))


def _goal_of(goal: Target, taken: _Taken) -> Target:
    """Return the target of a piece."""
    several = isinstance(goal, OfClass) and isinstance(goal.index, tuple)
    return goal.with_classes(taken.of_classes(goal.index)) if several else goal  # type: ignore[attr-defined]


def _of_samples(goal: Any, count: int) -> bool:
    """Whether a target holds something for each sample beside the classes of so many samples."""
    if isinstance(goal, OfClass):
        of_class = goal.index is None or isinstance(goal.index, int) or len(goal.index) == count
        others = [getattr(goal, field.name) for field in fields(goal) if field.name != "index"]
        return not of_class or any(_is_several(value) for value in others)
    return _is_several(goal)


def _is_several(value: Any) -> bool:
    """Whether a part of a target may differ between samples."""
    if is_dataclass(value):
        return any(_is_several(getattr(value, field.name)) for field in fields(value))
    return isinstance(value, (Tensor, list, tuple))
