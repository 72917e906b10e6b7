"""The graphs of an explainer: of inputs of one kind, and of those that differ in their length alone."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from relprop.runs.given import Given
from relprop.runs.lengths import NEEDED, SHORTEST, Calls, DifferError, Layouts, Shapes, orders_of, sizes_of
from relprop.runs.replayed import Found, replayed
from relprop.runs.tracing import Recording, Traced
from relprop.runs.trail import Trail
from relprop.runs.unchanged import Unchanged

_PROGRAMS = 4
"""How many programs are recorded at a time. If there are more, each length may have its own."""

_UNSUITED = (RuntimeError, IndexError, ZeroDivisionError)
"""What a graph raises if values or sizes do not suit an operation: the model would branch."""


@dataclass(frozen=True)
class _Runnable:
    """A graph that gives the numbers of explanations.

    Attributes:
        traced: the graph.
        run: the graph, as it is called.
        unchanged: knows whether the model is as it was.
    """

    traced: Traced
    run: Callable[..., Any]
    unchanged: Unchanged

    def fill(self, template: Found, leaves: Sequence[Tensor]) -> Found | None:
        """Return explanations, which have no target yet; None if they are not for these values."""
        try:
            return replayed(self.run, leaves, template)
        except _UNSUITED:
            return None

    def holds(self) -> bool:
        """Whether model and constants are as they were."""
        return self.unchanged() and self.traced.unchanged()


@dataclass(frozen=True)
class Graph(_Runnable):
    """A graph for inputs of one kind.

    Attributes:
        template: explanations with empty tensors, and the warnings.
    """

    template: Found

    def __call__(self, leaves: Sequence[Tensor]) -> Found | None:
        """Return the explanations of other values, as `fill` does."""
        return self.fill(self.template, leaves)


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
            found = graph(given.leaves)
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
class AnyLength(_Runnable):
    """A graph for inputs of any length.

    Attributes:
        shapes: how its inputs lie in memory.
        calls: what is called in Python for any length.
        proven: explanations without values, for each kind for which Python makes these calls.
    """

    shapes: Shapes
    calls: Calls
    proven: OrderedDict[Any, Found] = field(default_factory=OrderedDict)

    def __call__(self, given: Given, template: Found) -> Found | None:
        """Return explanations, as `fill` does.

        Raises:
            InputError: a class is out of range.
        """
        given.require_classes(template.results)
        return self.fill(template, given.leaves)

    def is_of(self, trail: Trail, layouts: Layouts) -> bool:
        """Whether inputs lie in memory and were explained as for any length."""
        return self.shapes.fit(layouts) and self.calls.are(trail, self.shapes.length_of(layouts))


@dataclass
class Family:
    """Inputs that differ in their shapes alone.

    A model may compute some in another way, as texts with padding. So there is a graph for each *program*,
    which is the list of the operations that are called, and for each order of dimensions in memory.

    Attributes:
        recorded: explanations of several lengths, by their program and the order of dimensions.
        graphs: the graphs for any length.
        refused: why there can be no more, or "".
    """

    recorded: dict[Any, list[Recorded]] = field(default_factory=dict)
    graphs: list[AnyLength] = field(default_factory=list)
    refused: str = ""
    _first: Layouts | None = None

    def learns_from(self, layouts: Layouts) -> bool:
        """Whether a recording of such inputs helps. The first may be the only one, and is not recorded."""
        first, self._first = self._first, self._first or layouts
        if first is None or layouts == first or self.refused:
            return False
        # Where one size is 1, operations broadcast that do not elsewhere.
        pairs = zip(sizes_of(first), sizes_of(layouts), strict=True)
        return not any([min(pair) < SHORTEST and len(set(pair)) > 1 for pair in pairs])

    def learn(self, recorded: Recorded) -> list[Recorded]:
        """Note one more recording, and return those of its program if they are enough for a graph.

        Raises:
            DifferError: each length has another program.
        """
        key = (tuple(recorded.recording.trail.program), orders_of(recorded.layouts))
        several = [each for each in self.recorded.get(key, ()) if each.unchanged()]
        self.recorded[key] = several = [
            *[each for each in several if each.layouts != recorded.layouts],
            recorded,
        ]
        if len(several) == NEEDED:
            del self.recorded[key]
            return several
        if len(self.recorded) > _PROGRAMS:
            counts = sorted({len(program) for program, _ in self.recorded})
            raise DifferError(f"explanations have {', '.join(map(str, counts))} operations")
        return []

    def add(self, graph: AnyLength) -> None:
        """Note a graph, in place of one for the same calls that has not given what Python gives."""
        same = (graph.calls.program, graph.shapes)
        others = [other for other in self.graphs if (other.calls.program, other.shapes) != same]
        self.graphs = [*others, graph]

    def drop(self, graph: AnyLength) -> None:
        """Forget a graph of a model that has changed."""
        self.graphs = [other for other in self.graphs if other is not graph]
