"""Explanations that a graph computes: what it gives are tensors, and all else is as it was in the trace."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from relprop.calls.user_line import warnings_held_back
from relprop.engine.surroundings import leaving_no_trace
from relprop.results.explanation import Explanation
from relprop.runs.backward import Explained
from relprop.runs.graphs import as_graphs_run
from relprop.runs.storages import copied
from relprop.targets.scores import Target, as_told


@dataclass(frozen=True)
class Found:
    """Explanations, and the warnings about how they were computed."""

    results: list[Explained]
    said: Sequence[str | Warning]


def found_by(compute: Callable[[], Sequence[Explained]]) -> Found:
    """Compute explanations, and hold back the warnings."""
    with leaving_no_trace(), warnings_held_back() as said:
        results = compute()
    return Found(list(results), tuple(said))


def replayed(
    run: Callable[..., Any], leaves: Sequence[Tensor], template: Found, *others: Any
) -> Found | None:
    """Return the explanations that a graph computes, which have no target yet; None if a guard fails.

    Args:
        run: the graph.
        leaves: its inputs.
        template: explanations of the same shapes.
        others: its other arguments.
    """
    # The model of the trace saw memory that begins with the input.
    leaves = [copied(t) if t.storage_offset() else t for t in leaves]
    with as_graphs_run():
        tensors, holds = run(*leaves, *others)
    if holds is not None and not bool(holds):
        return None
    return filled(template, iter(tensors))


def tensors_of(results: Sequence[Explained]) -> list[Tensor]:
    """Return the tensors in explanations."""
    return [tensor for each in results for tensor in tensors_within(each.explanation)]


def tensors_within(explanation: Explanation) -> list[Tensor]:
    """Return the tensors in an explanation."""
    tensors: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    explanation.mapped(note)
    return tensors


def filled(template: Found, tensors: Iterator[Tensor]) -> Found:
    """Return explanations with these tensors."""
    filled = [
        each._replace(explanation=each.explanation.mapped(lambda _: next(tensors)))
        for each in template.results
    ]
    return Found(filled, template.said)


def emptied(found: Found) -> Found:
    """Return explanations without values, as a template."""
    return filled(found, iter([t.new_empty(0) for t in tensors_of(found.results)]))


def told(found: Found, goals: Sequence[Target]) -> Found:
    """Return explanations of these targets, as they are stored. What a trace saw of a target is a tensor."""
    results = []
    for each, goal in zip(found.results, goals, strict=True):
        target = as_told(goal, each.explanation.output, each.samples)
        results.append(each._replace(goal=goal, explanation=replace(each.explanation, target=target)))
    return replace(found, results=results)
