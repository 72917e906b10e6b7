"""Checks of explanations that depend on the values of a batch: scores, relevance and ledger."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from relprop.engine.run import Run
from relprop.results.explanation import Explanation
from relprop.rules.choosing import Choosing
from relprop.runs.backward import Explained
from relprop.runs.gradient import counted_by_gradient
from relprop.runs.wanted import Wanted
from relprop.runs.warnings import (
    require_finite,
    warn_of_books,
    warn_of_nonfinite,
    warn_of_nothing,
    warn_of_padding,
    warn_of_scores,
)


@dataclass(frozen=True)
class Computed:
    """Explanations that were computed, and not checked yet.

    Attributes:
        results: an explanation for each target.
        lost: where integer inputs were lost on their way to an embedding, by name.
        unfollowed: names of integer inputs that have no relevance, and of which nothing is told.
        run: the run, or None for a plain gradient.
        choosing: what the composite has chosen, or None for a plain gradient.
    """

    results: Sequence[Explained]
    lost: Mapping[str, str]
    unfollowed: Sequence[str] = ()
    run: Run | None = None
    choosing: Choosing | None = None


def check_values(
    model: Callable[..., Any],
    inputs: tuple[Any, ...],
    arguments: Mapping[str, Any],
    results: Sequence[Explained],
    wanted: Wanted,
    blocks: Sequence[nn.Module] = (),
    *,
    by_rules: bool = True,
) -> list[Explanation]:
    """Check explanations, warn of what makes them doubtful, and return them.

    Args:
        model: the model.
        inputs: positional arguments of the model.
        arguments: keyword arguments of the model.
        results: the explanations.
        wanted: what the user wanted to know.
        blocks: modules to checkpoint, should the model have to run again.
        by_rules: whether they are no plain gradients, of which less is expected.

    Raises:
        ModelError: a score is NaN or infinite, or relevance is because a parameter is.
    """
    explanations = [each.explanation for each in results]
    for explanation, goal, role, logits, _ in results if by_rules else ():
        require_finite(model, explanation.score)
        warn_of_scores(goal, explanation.score, role, logits)
        explanation.ledger.find_mixture(torch.finfo(explanation.score.dtype).eps ** 0.5)
        warn_of_padding(goal, arguments)
    finite = warn_of_nonfinite(model, explanations)
    if not by_rules:
        return explanations
    for explanation in explanations if finite else ():
        warn_of_books(explanation)
    if wanted.start is None and not wanted.conditions:
        _tell_what_gets_nothing(model, inputs, arguments, results, blocks)
    return explanations


def _tell_what_gets_nothing(
    model: Callable[..., Any],
    inputs: tuple[Any, ...],
    arguments: Mapping[str, Any],
    results: Sequence[Explained],
    blocks: Sequence[nn.Module],
) -> None:
    """Warn of inputs that the score depends on, and that get exactly nothing.

    Only if there is nothing for an input, which is rare, the model runs again for a plain gradient.
    """
    explanations = [each.explanation for each in results]
    nothing = [
        {name for name, R in e.inputs.items() if not bool(R.any())} if bool(e.score.any()) else set()
        for e in explanations
    ]
    if not any(nothing):
        return
    counted = counted_by_gradient(model, inputs, dict(arguments), [each.goal for each in results], blocks)
    for name in explanations[0].inputs:
        some = nothing if counted is None else [a & b for a, b in zip(nothing, counted, strict=True)]
        if any(name in names for names in some):
            warn_of_nothing(name, explanations[0], is_sure=counted is not None)
