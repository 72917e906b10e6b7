"""The graphs of an explainer: of inputs of one kind, and of those that differ in their length alone."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from relprop.runs.given import Given
from relprop.runs.lengths import NEEDED, SHORTEST, Layouts, Shapes, of_any_length, shapes_of
from relprop.runs.replayed import Found, replayed
from relprop.runs.tracing import Recording, Traced
from relprop.runs.unchanged import Unchanged

UNSUITED = (RuntimeError, IndexError, ZeroDivisionError)
"""What a graph raises if values or sizes do not suit an operation: the model would branch."""


@dataclass(frozen=True)
class Graph:
    """An explanation as a graph.

    Attributes:
        traced: the graph.
        run: the graph, as it is called.
        template: explanations with empty tensors, and the warnings.
        unchanged: knows whether the model is as it was.
    """

    traced: Traced
    run: Callable[..., Any]
    template: Found
    unchanged: Unchanged

    def __call__(self, leaves: Sequence[Tensor]) -> Found | None:
        """Return the explanations of other values, which have no target yet; None if a guard fails."""
        return replayed(self.run, leaves, self.template)

    def holds(self) -> bool:
        """Whether model and constants are as they were."""
        return self.unchanged() and self.traced.unchanged()


@dataclass
class Kind:
    """The graphs for inputs of one kind.

    Attributes:
        graphs: the graphs, the last one that was used first.
        refused: why there can be none, or "".
    """

    graphs: list[Graph] = field(default_factory=list)
    refused: str = ""

    def replay(self, given: Given) -> Found | None:
        """Return the explanations, or None if none of the graphs is for these values."""
        graphs = list(self.graphs)  # other threads change it
        if graphs:
            given.require_classes(graphs[0].template.results)
        for graph in graphs:
            if not graph.holds():
                self.graphs = [other for other in self.graphs if other is not graph]
                continue
            try:
                found = graph(given.leaves)
            except UNSUITED:
                continue
            if found is not None:
                self.graphs = sorted(self.graphs, key=lambda other: other is not graph)
                return found
        return None


@dataclass(frozen=True)
class Recorded:
    """An explanation of one length.

    Attributes:
        layouts: how its inputs lie in memory.
        recording: its operations.
        unchanged: knows whether the model has changed since.
    """

    layouts: Layouts
    recording: Recording
    unchanged: Unchanged


@dataclass(frozen=True)
class AnyLength:
    """A graph for inputs of any length.

    Attributes:
        traced: the graph.
        run: the graph, as it is called.
        shapes: how its inputs lie in memory.
        unchanged: knows whether the model is as it was.
        proven: explanations without values, for each kind for which it gave what Python gives.
        differing: kinds for which it did not.
    """

    traced: Traced
    run: Callable[..., Any]
    shapes: Shapes
    unchanged: Unchanged
    proven: OrderedDict[Any, Found] = field(default_factory=OrderedDict)
    differing: OrderedDict[Any, None] = field(default_factory=OrderedDict)

    def __call__(self, given: Given, template: Found) -> Found | None:
        """Return explanations, which have no target yet; None if a guard fails."""
        given.require_classes(template.results)
        return replayed(self.run, given.leaves, template)

    def holds(self) -> bool:
        """Whether model and constants are as they were."""
        return self.unchanged() and self.traced.unchanged()


@dataclass
class Family:
    """Inputs that differ in their shapes alone.

    Attributes:
        recorded: explanations of several lengths, as long as there is no graph.
        graph: the graph for any length.
        refused: why there can be none, or "".
    """

    recorded: list[Recorded] = field(default_factory=list)
    graph: AnyLength | None = None
    refused: str = ""
    _first: Layouts | None = None

    def learns_from(self, layouts: Layouts) -> bool:
        """Whether a recording of such inputs helps. The first may be the only one, and is not recorded."""
        first, self._first = self._first, self._first or layouts
        known = [first, *[each.layouts for each in self.recorded]]
        if first is None or layouts in known or self.refused or self.graph:
            return False
        # Where one size is 1, operations broadcast that do not elsewhere.
        pairs = zip(sum(first, ()), sum(layouts, ()), strict=True)
        return not any([min(pair) < SHORTEST and len(set(pair)) > 1 for pair in pairs])

    def learn(self, recorded: Recorded) -> tuple[Traced, Shapes] | None:
        """Return a graph for any length, and how its inputs lie, if there are recordings enough.

        Raises:
            DifferError: the recordings are not one computation.
        """
        self.recorded = [*[each for each in self.recorded if each.unchanged()], recorded]
        if len(self.recorded) < NEEDED:
            return None
        several, self.recorded = self.recorded, []
        shapes, lengths = shapes_of([each.layouts for each in several])
        return of_any_length([each.recording for each in several], shapes.place, lengths), shapes
