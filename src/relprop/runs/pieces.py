"""Batches of any size in pieces of one size, so that one graph serves them all.

Samples are explained by themselves. So a batch may be cut, and its last piece filled up with copies of its
last sample. Whether this holds for a model is not assumed: see `relprop.runs.compiled`.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from relprop.calls.nested import map_tensors, tensors_in
from relprop.errors import InputError
from relprop.results.explanation import Explanation
from relprop.runs.backward import Explained
from relprop.runs.wanted import Wanted
from relprop.targets.classes import OfClass
from relprop.targets.scores import Target, as_told


@dataclass(frozen=True)
class Piece:
    """Some of the samples of a batch.

    Attributes:
        inputs: positional arguments of the model.
        arguments: keyword arguments of the model.
        goals: the targets.
    """

    inputs: tuple[Any, ...]
    arguments: dict[str, Any]
    goals: Sequence[Target]


def cut(
    size: int, inputs: tuple[Any, ...], arguments: dict[str, Any], goals: Sequence[Target], wanted: Wanted
) -> list[Piece] | None:
    """Return pieces of `size` samples, the last one filled up; None if the batch is not to be cut.

    A batch of another size can be cut if all its tensors have the same first dimension, and if a target says
    nothing of single samples but their classes. Relevance of parameters is a sum over all samples, and is not
    cut.
    """
    count = samples_of(inputs, arguments)
    several = wanted.parameters if isinstance(wanted.parameters, (list, tuple)) else [wanted.parameters]
    if count in (0, size) or len(several) or any(_of_samples(goal, count) for goal in goals):
        return None
    pieces = []
    for start in range(0, count, size):
        taken = _Taken(start, size, count)
        piece = Piece(
            tuple(map_tensors(taken, list(inputs))),
            map_tensors(taken, arguments),
            [_goal_of(goal, taken) for goal in goals],
        )
        pieces.append(piece)
    return pieces


def samples_of(inputs: tuple[Any, ...], arguments: dict[str, Any]) -> int:
    """Return the size of the first dimension of all tensors among arguments; 0 if they differ in it."""
    counts = {len(t) if t.dim() else 0 for t in tensors_in((list(inputs), arguments))}
    return counts.pop() if len(counts) == 1 else 0


def joined(found: Sequence[Sequence[Explained]], goals: Sequence[Target], samples: int) -> list[Explained]:
    """Return the explanations of pieces as those of the batch, an explanation for each target.

    Args:
        found: for each piece an explanation of each target.
        goals: the targets of the batch.
        samples: number of samples of the batch.

    Raises:
        InputError: explanations of the pieces do not fit together.
    """
    whole = []
    for each, goal in zip(zip(*found, strict=True), goals, strict=True):
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
    count: int

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
    if not isinstance(goal, OfClass) or not isinstance(goal.index, tuple) or len(goal.index) != taken.count:
        return goal
    made = copy(goal)
    object.__setattr__(made, "index", taken.of_classes(goal.index))
    return made


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


def by_pieces(
    pieces: Sequence[Piece],
    goals: Sequence[Target],
    samples: int,
    compute: Callable[[Piece], Sequence[Explained] | None],
) -> list[Explained] | None:
    """Return the explanations of a batch from those of its pieces; None if one of them has none."""
    found = []
    for piece in pieces:
        results = compute(piece)
        if results is None:
            return None
        found.append(results)
    try:
        return joined(found, goals, samples)
    except InputError:
        return None
