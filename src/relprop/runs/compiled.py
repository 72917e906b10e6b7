"""Explanations by graphs: model and rules run in Python once for each kind of input."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from relprop.calls.user_line import warn
from relprop.engine.surroundings import leaving_no_trace
from relprop.errors import InputError
from relprop.runs.backward import Explained
from relprop.runs.given import Given
from relprop.runs.tracing import Traced, TraceError, trace
from relprop.runs.unchanged import Unchanged
from relprop.runs.wanted import Wanted
from relprop.targets.scores import Target

Mode = Literal["replay", "inductor"]

_KINDS = 32
"""For how many kinds of inputs an explainer keeps its graphs."""

_VARIANTS = 4
"""How many graphs there are for inputs of one kind, if guards differ between batches."""


@dataclass(frozen=True)
class _Graph:
    """An explanation as a graph.

    Attributes:
        traced: the graph.
        run: the graph, as it is called.
        template: explanations with empty tensors.
        unchanged: knows whether the model is as it was.
    """

    traced: Traced
    run: Callable[..., Any]
    template: Sequence[Explained]
    unchanged: Unchanged

    def __call__(self, leaves: Sequence[Tensor]) -> list[Explained] | None:
        """Return the explanations of other values; None if a guard fails."""
        with torch.no_grad():
            tensors, holds = self.run(*leaves)
        if holds is not None and not bool(holds):
            return None
        return _filled(self.template, iter(tensors))


@dataclass
class _Kind:
    """The graphs for inputs of one kind.

    Attributes:
        graphs: the graphs, the last one that was used first.
        refused: why there can be none, or "".
    """

    graphs: list[_Graph] = field(default_factory=list)
    refused: str = ""

    def replay(self, given: Given) -> list[Explained] | None:
        """Return the explanations, or None if none of the graphs is for these values."""
        if self.graphs:
            given.require_classes(self.graphs[0].template)
        for graph in list(self.graphs):
            if not (graph.unchanged() and graph.traced.unchanged()):
                self.graphs.remove(graph)
                continue
            results = graph(given.leaves)
            if results is not None:
                if graph is not self.graphs[0]:
                    self.graphs.sort(key=lambda other: other is not graph)
                return results
        return None


Compute = Callable[[tuple[Any, ...], dict[str, Any], Sequence[Target], Wanted], Sequence[Explained]]
"""Computes explanations from positional and keyword arguments of the model and targets."""


class Graphs:
    """The graphs of an explainer, which it traces when they are first needed: see `Explainer.compile`.

    Args:
        model: the model.
        compute: computes explanations without a graph.
        mode: how graphs are run.

    Raises:
        InputError: there is no such mode.
    """

    def __init__(self, model: Callable[..., Any], compute: Compute, mode: Mode) -> None:
        if mode not in ("replay", "inductor"):
            raise InputError(f"compile(mode={mode!r}): give mode='replay' or mode='inductor'.")
        self.mode = mode
        self._model = model
        self._compute = compute
        self._kinds: OrderedDict[Any, _Kind] = OrderedDict()
        self._told: set[str] = set()
        self._lock = threading.RLock()

    def __call__(
        self, inputs: tuple[Any, ...], arguments: dict[str, Any], goals: Sequence[Target], wanted: Wanted
    ) -> list[Explained] | None:
        """Return explanations, or None if no graph can compute them. A warning says once why.

        Raises:
            InputError: a class is out of range.
        """
        given = Given.of(inputs, arguments, goals, wanted)
        reason, results = given.refused, None
        if not reason:
            kind = self._kind_of(given.key)
            results = kind.replay(given)
            if results is None and not kind.refused:
                with self._lock:  # another thread may have traced meanwhile
                    results = kind.replay(given) if kind.graphs else None
                    results = self._trace(given, kind) if results is None else results
            reason = kind.refused
        if results is not None:
            given.require_classes(results)
        if reason and reason not in self._told:
            self._told.add(reason)
            warn(f"the explanation is computed without a graph: {reason}. The result is the same.")
        return results

    def _kind_of(self, key: Any) -> _Kind:
        with self._lock:
            kind = self._kinds.setdefault(key, _Kind())
            self._kinds.move_to_end(key)
            while len(self._kinds) > _KINDS:
                self._kinds.popitem(last=False)
        return kind

    def _trace(self, given: Given, kind: _Kind) -> list[Explained] | None:
        """Trace an explanation of these inputs, and return it; None if it cannot be traced."""
        if len(kind.graphs) >= _VARIANTS:
            kind.refused = "what the model does depends on values, and differs from batch to batch"
            return None
        results: list[Explained] = []

        def compute(*leaves: Tensor) -> list[Tensor]:
            results[:] = self._computed(given, leaves)
            return _tensors_of(results)

        unchanged = Unchanged(self._model)
        try:
            traced, tensors = trace(compute, given.leaves)
        except TraceError as error:
            results[:] = self._computed(given, given.leaves)  # or the user's error
            kind.refused = str(error)
            return results
        except Exception:  # it is the user's, who gets it again without a graph, with what caused it
            return None
        if not unchanged():
            kind.refused = "the model writes to its own parameters or buffers"
            return None
        run: Callable[..., Any] = traced.graph
        if self.mode == "inductor":
            run = torch.compile(traced.graph, fullgraph=True, dynamic=False)
        empty = [t.new_empty(0) for t in tensors]
        graph = _Graph(traced, run, _filled(results, iter(empty)), Unchanged(self._model))
        kind.refused = self._differs(graph, given)
        if kind.refused:
            return None
        kind.graphs.insert(0, graph)
        return graph(given.leaves) if self.mode == "inductor" else _filled(results, iter(tensors))

    def _computed(self, given: Given, leaves: Sequence[Tensor]) -> list[Explained]:
        with leaving_no_trace():
            results = self._compute(*given.put(leaves), given.wanted)
        return [each._replace(goal=goal) for each, goal in zip(results, given.goals, strict=True)]

    def _differs(self, graph: _Graph, given: Given) -> str:
        """Compute with other values, and say what is wrong if the graph does not give the same; else ""."""
        others = given.others()
        try:
            replayed = graph(others)
            if replayed is None:
                return ""
            expected = self._computed(given, others)
        except Exception as error:
            return f"with other values it fails: {error}" if self.mode == "inductor" else ""
        for one, other in zip(replayed, expected, strict=True):
            for name, R in other.explanation.inputs.items():
                largest = float(R.abs().max())
                off = float((one.explanation.inputs[name] - R).abs().max())
                if not off <= 1e-3 * largest and largest > 0:
                    return (
                        f"for other values the graph gives another relevance of input {name!r}. The model "
                        "uses values that a graph cannot follow"
                    )
        return ""


def _tensors_of(results: Sequence[Explained]) -> list[Tensor]:
    tensors: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    for each in results:
        each.explanation.mapped(note)
    return tensors


def _filled(template: Sequence[Explained], tensors: Iterator[Tensor]) -> list[Explained]:
    """Return explanations with these tensors."""
    return [each._replace(explanation=each.explanation.mapped(lambda _: next(tensors))) for each in template]
