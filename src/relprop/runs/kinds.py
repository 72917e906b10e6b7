"""The graphs of an explainer: of inputs of one kind, and of those that differ in their length alone."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from relprop.runs.given import Given
from relprop.runs.lengths import NEEDED, DifferError, Lying, Shapes, lying, of_any_length, shapes_of
from relprop.runs.replayed import Found, replayed
from relprop.runs.tracing import Recording, Traced
from relprop.runs.unchanged import Unchanged

_LENGTHS = 1024
"""For how many lengths a family remembers that its graph holds."""


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
            except (RuntimeError, IndexError):  # values do not suit an operation: the model would branch
                continue
            if found is not None:
                self.graphs = sorted(self.graphs, key=lambda other: other is not graph)
                return found
        return None


@dataclass(frozen=True)
class Recorded:
    """A recording of one length.

    Attributes:
        key: the kind of its inputs.
        lie: how its inputs lie in memory.
        recording: the recording.
        unchanged: knows whether the model has changed since.
    """

    key: Any
    lie: Lying
    recording: Recording
    unchanged: Unchanged


@dataclass
class Family:
    """What differs in shapes alone, and the graph that serves every length of it: see `relprop.runs.lengths`.

    Attributes:
        recorded: the lengths that were recorded.
        graph: the graph for any length, without a template.
        shapes: how its inputs lie.
        proven: explanations without values, for each kind for which the graph gave what Python gives.
        refused: why there is no such graph, or "".
    """

    recorded: list[Recorded] = field(default_factory=list)
    graph: Graph | None = None
    shapes: Shapes | None = None
    proven: OrderedDict[Any, Found] = field(default_factory=OrderedDict)
    refused: str = ""
    _first: Lying | None = None

    def learns_from(self, lie: Lying) -> bool:
        """Whether a recording of inputs that lie so in memory helps. The first may be the only one."""
        first, self._first = self._first, self._first or lie
        known = [first, *[each.lie for each in self.recorded]]
        if first is None or lie in known or self.refused or self.graph:
            return False
        # Where one size is 1, operations broadcast that do not elsewhere.
        pairs = zip(sum(first, ()), sum(lie, ()), strict=True)
        return not any([1 in pair and pair != (1, 1) for pair in pairs])

    def learn(self, recorded: Recorded) -> Traced | None:
        """Return a graph for any length if there are recordings enough for one."""
        self.recorded = [each for each in self.recorded if each.unchanged()]
        self.recorded.append(recorded)
        if len(self.recorded) < NEEDED:
            return None
        several, self.recorded = self.recorded, []
        try:
            self.shapes, lengths = shapes_of([each.lie for each in several])
            return of_any_length([each.recording for each in several], self.shapes.place, lengths)
        except DifferError as error:
            self.refused = str(error)
            return None

    def graph_for(self, given: Given) -> Graph | None:
        """Return the graph if the model is as it was, and inputs lie as they must."""
        graph, shapes = self.graph, self.shapes
        if graph is None or shapes is None or not shapes.fit(lying(given.leaves)):
            return None
        if not graph.holds():
            self.graph = None
            self.proven.clear()
            return None
        return graph

    def prove(self, key: Any, template: Found) -> None:
        """Remember that the graph holds for a kind."""
        self.proven[key] = template
        while len(self.proven) > _LENGTHS:
            self.proven.popitem(last=False)
