"""Explanations by graphs: model and rules run in Python once for each kind of input."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

from torch import Tensor, fx

from relprop.calls.traced import tracing
from relprop.calls.user_line import warn
from relprop.errors import InputError
from relprop.runs.agreement import shaken_leaves, what_differs
from relprop.runs.backward import Explained
from relprop.runs.given import Given
from relprop.runs.graphs import respelled
from relprop.runs.inductor import CompileError, compilable, compiled_run, in_brief
from relprop.runs.kinds import AnyLength, Family, Graph, Kind, Recorded
from relprop.runs.lengths import DifferError, calls_of, layouts_of, of_any_length, shapes_of
from relprop.runs.pieces import MOST_PIECES, cut, joined, samples_of
from relprop.runs.replayed import Found, emptied, filled, found_by, replayed, tensors_of, told
from relprop.runs.reuse import reusing_memory
from relprop.runs.tape import TraceError
from relprop.runs.tracing import Traced, follow, record, trace
from relprop.runs.unchanged import Unchanged, has_lazy_modules
from relprop.runs.wanted import Wanted
from relprop.targets.scores import Target

Mode = Literal["replay", "inductor"]

_KINDS = 32
"""For how many kinds of inputs, and families of kinds, an explainer keeps its graphs."""

_LENGTHS = 1024
"""For how many kinds a family remembers whether its graph holds, and for how many whether batches are cut."""

_VARIANTS = 4
"""How many graphs there are for inputs of one kind, if guards differ between batches."""


Known = TypeVar("Known")

Run = Callable[..., Any]

Compute = Callable[[tuple[Any, ...], dict[str, Any], Sequence[Target], Wanted], Sequence[Explained]]
"""Computes explanations from positional and keyword arguments of the model and targets."""


class Graphs:
    """The graphs of an explainer, which it traces when they are first needed: see `Explainer.compile`.

    Args:
        model: the model.
        compute: computes explanations without a graph.
        mode: how graphs are run.
        dynamic: whether batches of any size are computed in pieces of the size of the first one, and inputs
            of any length by one graph.

    Raises:
        InputError: there is no such mode.
    """

    def __init__(
        self, model: Callable[..., Any], compute: Compute, mode: Mode, *, dynamic: bool = False
    ) -> None:
        if mode not in ("replay", "inductor"):
            raise InputError(f"compile(mode={mode!r}): give mode='replay' or mode='inductor'.")
        self.mode = mode
        self.dynamic = dynamic
        self._size = 0
        self._cut: OrderedDict[Any, bool] = OrderedDict()
        self._model = model
        self._compute = compute
        self._kinds: OrderedDict[Any, Kind] = OrderedDict()
        self._families: OrderedDict[Any, Family] = OrderedDict()
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
        if self.dynamic and self._size:
            results = self._in_pieces(given)
            if results is not None:
                return results
        results = self._at_once(given)
        count = 0 if results is None else len(results[0].explanation)
        if count == samples_of(given) and count > MOST_PIECES * self._size:
            self._size = count
        return results

    def _in_pieces(self, given: Given) -> list[Explained] | None:
        """Return explanations from those of pieces of the batch; None if the batch is to be computed at once.

        The first time, for arguments and targets of a kind, they are compared with an explanation in Python.
        """
        pieces = cut(given, self._size)
        if pieces is None or given.refused:
            return None
        kind = (pieces[0].key, len(pieces) > 1)  # in one piece, filled up with copies, samples may seem alone
        if self._cut.get(kind) is False:
            return None
        found = []
        for piece in pieces:
            results = self._at_once(piece)
            if results is None:
                return None
            found.append(results)
        try:
            whole = joined(found, given)
        except InputError:  # as of inputs without a dimension of samples
            return None
        if kind not in self._cut:
            expected = self._compute(given.inputs, given.arguments, given.goals, given.wanted)
            off = what_differs(whole, expected, partial(self._shaken, given))
            self._known(self._cut, kind, lambda: not off, _LENGTHS)
            if off:
                self._tell(
                    f"compile(dynamic=True): in pieces of {self._size} samples the batch has another {off}, "
                    "so that its samples depend on each other. Each number of samples gets a graph of its "
                    "own."
                )
                return None
        return whole

    def _at_once(self, given: Given) -> list[Explained] | None:
        """Return explanations by a graph for inputs of this size; None if no graph can compute them."""
        reason, found = given.refused, None
        if not reason and self.dynamic:
            found = self._of_any_length(given)
        if not reason and found is None:
            kind = self._asked(self._kinds, given.key)
            found = None if kind is None else kind.replay(given)
            if found is None and self.dynamic and not (kind and kind.refused):
                found = self._proven(given)
            if found is None:
                found, reason = self._by_its_own_graph(given)
        if found is not None:
            found = told(found, given.goals)
            for message in found.said:
                warn(message)
        if reason:
            self._tell(f"the explanation is computed without a graph: {reason}. The result is the same.")
        return None if found is None else found.results

    def _by_its_own_graph(self, given: Given) -> tuple[Found | None, str]:
        """Return explanations by a graph for inputs of this size, or why there are none."""
        family = self._families.get(given.family)
        if family is not None and family.refused and len({*self._kinds, given.key}) > _KINDS:
            return None, f"there are graphs for {_KINDS} lengths, and no graph for all"
        kind, found = self._known(self._kinds, given.key, Kind), None
        if not kind.refused:
            with self._lock:  # another thread may have traced meanwhile
                found = kind.replay(given) if kind.graphs else None
                if found is None and (found := self._trace(given, kind)) is not None:
                    given.require_classes(found.results)  # a replay has checked them before
        return found, kind.refused

    def _known(
        self, table: OrderedDict[Any, Known], key: Any, make: Callable[[], Known], most: int = _KINDS
    ) -> Known:
        """Return what is known by a key, and make it if nothing is.

        What was not asked for for the longest time is forgotten.
        """
        with self._lock:
            if key not in table:
                table[key] = make()
            table.move_to_end(key)
            while len(table) > most:
                table.popitem(last=False)
            return table[key]

    def _asked(self, table: OrderedDict[Any, Known], key: Any) -> Known | None:
        """Return what is known by a key, or None, and remember that it was asked for."""
        with self._lock:
            if key in table:
                table.move_to_end(key)
            return table.get(key)

    def __reduce__(self) -> tuple[Any, ...]:
        made = partial(Graphs, dynamic=self.dynamic)
        return made, (self._model, self._compute, self.mode)  # graphs are traced again

    def _trace(self, given: Given, kind: Kind) -> Found | None:
        """Trace an explanation of these inputs, and return it; None if it cannot be traced."""
        if len(kind.graphs) >= _VARIANTS:
            kind.refused = "what the model does depends on values, and differs from batch to batch"
            return None
        found = Found([], ())

        def compute(*leaves: Tensor) -> list[Tensor]:
            nonlocal found
            found = self._computed(given, leaves)
            return tensors_of(found.results)

        if has_lazy_modules(self._model):
            self._plain(given)
        for _ in range(2):  # after the first a model may have made what it keeps
            unchanged = Unchanged(self._model)
            reason = ""
            try:
                traced, tensors = trace(compute, given.leaves)
            except TraceError as error:
                reason = str(error)
            except Exception as error:
                reason = f"tracing it fails with {type(error).__name__}: {error}"
            if reason:
                # Or the user's error, without that of the trace.
                found = found if found.results else self._plain(given)
                kind.refused = reason
                return found
            if unchanged.looking_at(traced.read)() and traced.unchanged():
                break
        else:
            kind.refused = "the model writes to its own parameters, buffers or attributes"
            return None
        to_compile = self._to_compile(traced)
        run = respelled(reusing_memory(traced.graph)).forward  # it has no hooks
        graph = Graph(traced, run, unchanged, emptied(found))
        kind.refused = self._differs(graph, given)
        if kind.refused:
            return None
        example = filled(found, iter(tensors))
        if to_compile is not None:
            graph = replace(graph, run=self._compiled(graph.run, to_compile, given, example))
        if self.dynamic and not kind.graphs:
            self._learn(given)
        self._plain(given)  # so that what the model and hooks keep is of these values, and not of other ones
        kind.graphs.insert(0, graph)
        return example

    def _to_compile(self, traced: Traced) -> fx.GraphModule | None:
        return compilable(traced.graph) if self.mode == "inductor" else None

    def _compiled(
        self, run: Run, to_compile: fx.GraphModule, given: Given, example: Found, *, dynamic: bool = False
    ) -> Run:
        """Return a graph by `torch.compile`; as it is, with a warning, if that does not give the example."""
        try:
            compiled = compiled_run(to_compile, given.leaves, dynamic=dynamic)
            found = replayed(compiled, given.leaves, emptied(example))
        except CompileError as error:
            reason = f"fails with {error}"
        else:
            shaken = partial(self._shaken, given)
            off = "decision" if found is None else what_differs(found.results, example.results, shaken)
            if not off:
                return compiled
            reason = f"gives another {off}"
        self._tell(f"mode='inductor': torch.compile {reason}. Graphs are run as by mode='replay'.")
        return run

    # ---- any length ----

    def _of_any_length(self, given: Given) -> Found | None:
        """Return explanations by a graph for any length that is known to hold for inputs of this kind."""
        family = self._known(self._families, given.family, Family)
        for graph in list(family.graphs):  # other threads change it
            template = self._asked(graph.proven, given.key)
            if template is None:
                continue
            if not graph.holds():
                family.drop(graph)
                continue
            found = graph(given, template)
            if found is not None:
                return found
        return None

    def _proven(self, given: Given) -> Found | None:
        """Return explanations in Python if a graph for any length gives the same; from then on it is used.

        Equal results prove little: a text may be padded where the model takes another way. So Python must
        also make the calls that are expected for this length.
        """
        layouts = layouts_of(given.leaves)
        family = self._known(self._families, given.family, Family)
        for stale in [graph for graph in family.graphs if not graph.holds()]:
            family.drop(stale)
        graphs = [graph for graph in family.graphs if graph.shapes.fit(layouts)]
        for _ in range(2 if graphs else 0):  # after the first a rule has found what it looks for once
            expected, trail = follow(partial(self._computed, given), given.leaves)
            graph = next((graph for graph in graphs if graph.is_of(trail, layouts)), None)
            if graph is None or len(tensors_of(expected.results)) != graph.traced.results:
                continue
            found = graph(given, emptied(expected))
            if found is None:
                return None
            if not what_differs(found.results, expected.results, partial(self._shaken, given)):
                self._known(graph.proven, given.key, partial(emptied, expected), _LENGTHS)
                return expected
        return None

    def _learn(self, given: Given) -> None:
        """Record an explanation of one more length, and make a graph for any length if there are enough."""
        family = self._known(self._families, given.family, Family)
        layouts, unchanged = layouts_of(given.leaves), Unchanged(self._model)
        if not family.learns_from(layouts):
            return
        try:
            recording = record(
                lambda *leaves: tensors_of(self._computed(given, leaves).results), given.leaves
            )
            several = family.learn(Recorded(layouts, recording, unchanged.looking_at(recording.read)))
            if several:
                family.add(self._joined(several, given))
        except Exception as error:
            family.recorded.clear()
            family.refused = str(error) if isinstance(error, DifferError) else in_brief(error)
            self._tell(
                f"compile(dynamic=True): there is no graph for all lengths, because {family.refused}. Up to "
                f"{_KINDS} lengths get graphs of their own, and others are computed without one."
            )

    def _joined(self, several: Sequence[Recorded], given: Given) -> AnyLength:
        """Return the graph for any length from those of some.

        Raises:
            DifferError: they are not one computation.
        """
        recordings = [each.recording for each in several]
        shapes, lengths = shapes_of([each.layouts for each in several])
        traced = of_any_length(recordings, shapes, lengths)
        calls = calls_of([recording.trail for recording in recordings], lengths)
        to_compile, run = self._to_compile(traced), respelled(traced.graph).forward
        if to_compile is not None:
            run = self._compiled(run, to_compile, given, self._as_traced(given), dynamic=True)
        return AnyLength(traced, run, several[-1].unchanged, shapes, calls)

    def _as_traced(self, given: Given) -> Found:
        """Compute without a graph, but in the ways that rules take while they are traced."""
        with tracing():
            return self._plain(given)

    def _tell(self, message: str) -> None:
        """Warn, once."""
        if message not in self._told:
            self._told.add(message)
            warn(message)

    def _computed(self, given: Given, leaves: Sequence[Tensor]) -> Found:
        """Compute with other tensors."""
        inputs, arguments, goals = given.put(leaves)
        return self._plain(replace(given, inputs=inputs, arguments=arguments, goals=goals))

    def _plain(self, given: Given) -> Found:
        """Compute without a graph."""
        return found_by(lambda: self._compute(given.inputs, given.arguments, given.goals, given.wanted))

    def _shaken(self, given: Given) -> list[list[Explained]]:
        """Compute with values that differ by rounding, as far as they suit the model."""
        found = []
        for leaves in shaken_leaves(given.leaves):
            with suppress(Exception):
                found.append(self._computed(given, leaves).results)
        self._plain(given)  # so that what the model keeps is of these values
        return found

    def _differs(self, graph: Graph, given: Given) -> str:
        """Compute with other values, and say what is wrong if the graph does not give the same; else ""."""
        others = given.others()
        try:
            replayed = graph(others)
            if replayed is None:
                return ""
            expected = self._computed(given, others)
        except Exception:  # these values do not suit the model
            return ""
        off = what_differs(replayed.results, expected.results)
        return off and (
            f"for other values the graph gives another {off}. The model uses values that a graph cannot "
            "follow"
        )
