"""A backward for each target, after the forward."""

from collections.abc import Callable, Sequence

import torch

from relprop.engine.attach import retaining
from relprop.engine.inner_values import InnerValues, outputs_of
from relprop.results.explanation import Explanation
from relprop.results.inner import InnerRelevance
from relprop.rules.composite import Composite
from relprop.runs.forward import Forward
from relprop.runs.warnings import require_finite, warn_of_scores
from relprop.targets.classes import OfClass
from relprop.targets.scores import Target, as_told, measure_of

Progress = Callable[[int, int], None]
"""Called with how many targets are done, and how many there are."""


def explained_targets(
    forward: Forward,
    inner: InnerValues,
    composite: Composite,
    preset: str,
    goals: Sequence[Target],
    progress: Progress | None,
) -> tuple[list[Explanation], dict[str, str]]:
    """A backward for each target. Also returns where integer inputs were lost that the scores depend on."""
    run = forward.run
    # Kept here because checkpoints run parts of the model again; relevance meets what precedes its start.
    applied = tuple(run.applied if inner.start is None else run.applied[: inner.applied_before])
    output = forward.values(forward.output)
    explained, channels = (forward.output, []) if inner.start is None else inner.started()
    explanations, lost = [], dict[str, str]()
    for number, goal in enumerate(goals, 1):
        last = number == len(goals)
        forward.begin()
        of_channel = inner.start is not None and isinstance(goal, OfClass)
        values = outputs_of(explained, channels) if of_channel else explained
        scores = forward.scores(goal, values)
        lost |= forward.inputs.lost_on_the_way_to(scores)
        plain = forward.values((values, scores))
        with forward.interception.unseen():
            require_finite(forward.model, plain[1])
            warn_of_scores(goal, scores, values, plain[0])
        seed = torch.ones_like(plain[1]) if composite.start == "one" else None
        with retaining(not last):
            relevance = forward.propagate(scores, seed, retain=not last)
        explanations.append(
            Explanation(
                inputs={name: relevance[name] for name in forward.shapes if name in relevance},
                output=output,
                target=as_told(goal, plain[0], forward.samples),
                score=plain[1],
                preset=preset,
                rules=applied,
                ledger=run.ledger,
                inner=InnerRelevance(inner.relevance(), inner.samples(), inner.paths()),
                parameters={} if run.parameters is None else run.parameters.relevance,
                measure=measure_of(goal),
            )
        )
        if progress is not None:
            progress(number, len(goals))
    return explanations, lost
