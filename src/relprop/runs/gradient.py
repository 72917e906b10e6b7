"""Explanations by the plain gradient (see `relprop.rules.gradients`)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from relprop.engine.checkpoints import Checkpoints
from relprop.engine.gaps import disconnected_message
from relprop.engine.run import Run
from relprop.errors import ModelError
from relprop.results.explanation import Explanation
from relprop.results.ledger import Ledger
from relprop.rules.gradients import Baseline, GradientTimesInput
from relprop.runs.forward import Forward, PlainGradient
from relprop.runs.warnings import warn_of_lost
from relprop.targets.scores import Target, as_told, measure_of


def explain_by_gradient(
    baseline: Baseline,
    name: str,
    model: Callable[..., Any],
    inputs: tuple[Any, ...],
    arguments: dict[str, Any],
    goals: Sequence[Target],
    progress: Callable[[int, int], None] | None = None,
) -> list[Explanation]:
    """Explain by a plain gradient: one forward, and a backward for each target.

    Raises:
        InputError: none of the inputs can be explained.
        ModelError: the scores do not depend on the inputs.
    """
    explanations, lost = _explained(baseline, name, model, inputs, arguments, goals, progress)
    warn_of_lost(lost, explanations[0].inputs)
    return explanations


def counted_by_gradient(
    model: Callable[..., Any],
    inputs: tuple[Any, ...],
    arguments: dict[str, Any],
    goals: Sequence[Target],
    blocks: Sequence[nn.Module],
) -> list[set[str]] | None:
    """Return for each target the names of the inputs whose plain gradient times input is not zero.

    None if the model has no plain gradient. The model runs once more. Afterwards torch's random generator of
    the CPU is as it was before.

    Args:
        model: the model.
        inputs: positional arguments of the model.
        arguments: keyword arguments of the model.
        goals: the targets.
        blocks: modules to checkpoint.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            explanations, _ = _explained(
                GradientTimesInput(), "", model, inputs, arguments, goals, None, blocks
            )
    except ModelError:
        return [set() for _ in goals]
    except Exception:  # as of operations without a gradient; the explanation is there already
        return None
    return [
        {
            name
            for name, R in e.inputs.items()
            if float(R.abs().max()) > _ROUNDING * float(e.score.abs().max())
        }
        for e in explanations
    ]


_ROUNDING = 1e-6
"""What is smaller, relative to the score, may be a rounding error."""


def _explained(
    baseline: Baseline,
    name: str,
    model: Callable[..., Any],
    inputs: tuple[Any, ...],
    arguments: dict[str, Any],
    goals: Sequence[Target],
    progress: Callable[[int, int], None] | None,
    blocks: Sequence[nn.Module] = (),
) -> tuple[list[Explanation], dict[str, str]]:
    """The explanations, and where integer inputs were lost that the scores depend on."""
    forward = Forward(Run(lambda site: None), PlainGradient())
    explanations, lost = [], dict[str, str]()
    with Checkpoints(forward.interception).of(blocks), forward.of(model, inputs, arguments):
        leaves = forward.inputs.leaves
        for number, goal in enumerate(goals, 1):
            scores = forward.scores(goal, forward.output)
            lost |= forward.inputs.lost_on_the_way_to(scores)
            found = forward.gradients(scores, retain=number < len(goals))
            parts = leaves.by_gradient(baseline.relevance, found)
            if parts is None:
                raise ModelError(disconnected_message([]))
            output, plain = forward.values((forward.output, scores))
            relevance = {name: parts[name] for name in forward.shapes if name in parts}
            ledger = Ledger(samples=len(scores))
            ledger.seed = ledger.per_sample(plain)
            ledger.inputs = torch.stack([forward.inputs.per_sample(n, R) for n, R in relevance.items()]).sum(
                0
            )
            ledger.absorbed["not conserved"] = ledger.seed - ledger.inputs
            explanations.append(
                Explanation(
                    inputs=relevance,
                    output=output,
                    target=as_told(goal, output, forward.samples),
                    score=plain,
                    preset=name,
                    rules=(),
                    ledger=ledger,
                    measure=measure_of(goal),
                )
            )
            if progress is not None:
                progress(number, len(goals))
    return explanations, lost
