"""Explanations by the plain gradient (see `relprop.rules.gradients`)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from relprop.calls.traced import is_traced
from relprop.engine.checkpoints import Checkpoints
from relprop.engine.gaps import disconnected_message
from relprop.engine.roles import Role
from relprop.engine.run import Run
from relprop.errors import ModelError
from relprop.results.explanation import Explanation
from relprop.results.ledger import Ledger
from relprop.rules.gradients import Baseline, GradientTimesInput
from relprop.runs.backward import Explained
from relprop.runs.forward import Forward, PlainGradient
from relprop.targets.scores import Target, as_told, measure_of


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
            results, _ = explained_by_gradient(
                GradientTimesInput(), "", model, inputs, arguments, goals, None, blocks
            )
    except ModelError:
        return [set() for _ in goals]
    except Exception:  # as of operations without a gradient; the explanation is there already
        return None
    return [
        {
            name
            for name, R in each.explanation.inputs.items()
            if float(R.abs().max()) > _ROUNDING * float(each.explanation.score.abs().max())
        }
        for each in results
    ]


def changes_with(
    model: Callable[..., Any],
    inputs: tuple[Any, ...],
    arguments: dict[str, Any],
    goal: Target,
    scores: torch.Tensor,
    name: str,
) -> bool:
    """Whether the scores change if the integers of an input are replaced by others.

    False if that is not known, as where the model refuses them. The model runs once more, and again if the
    scores did change, to see that it computes the same twice.

    Args:
        model: the model.
        inputs: positional arguments of the model.
        arguments: keyword arguments of the model.
        goal: the target.
        scores: the scores of the explanation.
        name: name of the input.
    """

    def differ(changed: str) -> bool:
        with torch.random.fork_rng(devices=[]):
            forward = Forward(Run(lambda site: None), PlainGradient())
            forward.inputs.changed = changed
            with forward.of(model, inputs, arguments):
                (found,) = forward.values((forward.scores(goal, forward.output),))
        largest = float(scores.abs().max())
        return found.shape == scores.shape and float((found - scores).abs().max()) > _ROUNDING * largest

    try:
        return differ(name) and not differ("")
    except Exception:  # as of an embedding without a row for them; the explanation is there already
        return False


_ROUNDING = 1e-6
"""What is smaller, relative to the score, may be a rounding error."""


def explained_by_gradient(
    baseline: Baseline,
    name: str,
    model: Callable[..., Any],
    inputs: tuple[Any, ...],
    arguments: dict[str, Any],
    goals: Sequence[Target],
    progress: Callable[[int, int], None] | None,
    blocks: Sequence[nn.Module] = (),
) -> tuple[list[Explained], dict[str, str]]:
    """Explain by a plain gradient: one forward, and a backward for each target.

    Also returns where integer inputs were lost that the scores depend on.

    Raises:
        InputError: none of the inputs can be explained.
        ModelError: the scores do not depend on the inputs.
    """
    forward = Forward(Run(lambda site: None), PlainGradient())
    results, lost = [], dict[str, str]()
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
            explanation = Explanation(
                inputs=relevance,
                output=output,
                target=goal if is_traced() else as_told(goal, output, forward.samples),
                score=plain,
                preset=name,
                rules=(),
                ledger=ledger,
                measure=measure_of(goal),
            )
            results.append(Explained(explanation, goal, Role.SIGNAL, None, forward.samples))
            if progress is not None:
                with forward.interception.unseen():
                    progress(number, len(goals))
    return results, lost
