"""A backward for each target, after the forward."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Size, Tensor

from relprop.calls.traced import is_traced
from relprop.engine.attach import retaining
from relprop.engine.inner_values import InnerValues, outputs_of
from relprop.engine.roles import Role
from relprop.results.explanation import Explanation
from relprop.results.inner import InnerRelevance
from relprop.rules.composite import Composite
from relprop.runs.forward import Forward
from relprop.runs.warnings import role_of_score
from relprop.targets.classes import OfClass
from relprop.targets.scores import Target, as_told, logits_of, measure_of

Progress = Callable[[int, int], None]
"""Called with how many targets are done, and how many there are."""


class Explained(NamedTuple):
    """An explanation, and what is known of its score.

    Attributes:
        explanation: the explanation.
        goal: the target.
        role: the role of the score as a factor, such as that of a softmax.
        logits: the shape of the output that the target takes, or None if that is no tensor.
        samples: the number of samples that the target takes.
    """

    explanation: Explanation
    goal: Target
    role: Role
    logits: Size | None
    samples: int


def explained_targets(
    forward: Forward,
    inner: InnerValues,
    composite: Composite,
    preset: str,
    goals: Sequence[Target],
    progress: Progress | None,
) -> tuple[list[Explained], dict[str, str]]:
    """A backward for each target. Also returns where integer inputs were lost that the scores depend on."""
    run = forward.run
    # Kept here because checkpoints run parts of the model again; relevance meets what precedes its start.
    applied = tuple(run.applied if inner.start is None else run.applied[: inner.applied_before])
    output = forward.values(forward.output)
    explained, channels = (forward.output, []) if inner.start is None else inner.started()
    results, lost = [], dict[str, str]()
    for number, goal in enumerate(goals, 1):
        last = number == len(goals)
        forward.begin()
        of_channel = inner.start is not None and isinstance(goal, OfClass)
        values = outputs_of(explained, channels) if of_channel else explained
        scores = forward.scores(goal, values)
        lost |= forward.inputs.lost_on_the_way_to(scores)
        with forward.interception.unseen():
            score, explained_output = forward.plain(scores), forward.plain(values)
            # A graph has no target of its own.
            told = goal if is_traced() else as_told(goal, explained_output, forward.samples)
            role = role_of_score(goal, scores, values)
            seed = torch.ones_like(score) if composite.start == "one" else None
        with retaining(not last):
            relevance = forward.propagate(scores, seed, retain=not last)
        explanation = Explanation(
            inputs={name: relevance[name] for name in forward.shapes if name in relevance},
            output=output,
            target=told,
            score=score,
            preset=preset,
            rules=applied,
            ledger=run.ledger,
            inner=InnerRelevance(inner.relevance(), inner.samples(), inner.paths()),
            parameters={} if run.parameters is None else run.parameters.relevance,
            measure=measure_of(goal),
        )
        logits = logits_of(explained_output)
        shape = logits.shape if isinstance(logits, Tensor) else None
        results.append(Explained(explanation, goal, role, shape, forward.samples))
        if progress is not None:
            with forward.interception.unseen():
                progress(number, len(goals))
    return results, lost
