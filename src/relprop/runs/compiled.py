"""Explanations by graphs: model and rules run in Python once for each kind of input."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from torch import Tensor, fx

from relprop.calls.user_line import warn
from relprop.errors import InputError
from relprop.runs.agreement import shaken_leaves, what_differs
from relprop.runs.backward import Explained
from relprop.runs.given import Given
from relprop.runs.graphs import respelled
from relprop.runs.inductor import compilable, compiled_run, in_brief
from relprop.runs.pieces import cut, joined, samples_of
from relprop.runs.replayed import Found, emptied, filled, found_by, replayed, tensors_of, told
from relprop.runs.tracing import Traced, TraceError, trace
from relprop.runs.unchanged import Unchanged, has_lazy_modules
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
class _Kind:
    """The graphs for inputs of one kind.

    Attributes:
        graphs: the graphs, the last one that was used first.
        refused: why there can be none, or "".
    """

    graphs: list[_Graph] = field(default_factory=list)
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


Compute = Callable[[tuple[Any, ...], dict[str, Any], Sequence[Target], Wanted], Sequence[Explained]]
"""Computes explanations from positional and keyword arguments of the model and targets."""


class Graphs:
    """The graphs of an explainer, which it traces when they are first needed: see `Explainer.compile`.

    Args:
        model: the model.
        compute: computes explanations without a graph.
        mode: how graphs are run.
        dynamic: whether batches of any size are computed in pieces of the size of the first one.

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
        self._cut: dict[Any, bool] = {}
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
        if self.dynamic and self._size:
            results = self._in_pieces(given)
            if results is not None:
                return results
        results = self._at_once(given)
        if results is not None and not self._size and len(results[0].explanation) == samples_of(given):
            self._size = len(results[0].explanation)
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
            self._cut[kind] = not off
            if off:
                warn(
                    f"compile(dynamic=True): in pieces of {self._size} samples the batch has another {off}, "
                    "so that its samples depend on each other. Each number of samples gets a graph of its "
                    "own."
                )
                return None
        return whole

    def _at_once(self, given: Given) -> list[Explained] | None:
        """Return explanations by a graph for inputs of this size; None if no graph can compute them."""
        reason, found = given.refused, None
        if not reason:
            kind = self._kind_of(given.key)
            found = kind.replay(given)
            if found is None and not kind.refused:
                with self._lock:  # another thread may have traced meanwhile
                    found = kind.replay(given) if kind.graphs else None
                    if found is None and (found := self._trace(given, kind)) is not None:
                        given.require_classes(found.results)  # a replay has checked them before
            reason = kind.refused
        if found is not None:
            found = told(found, given.goals)
            for message in found.said:
                warn(message)
        if reason:
            self._tell(f"the explanation is computed without a graph: {reason}. The result is the same.")
        return None if found is None else found.results

    def _kind_of(self, key: Any) -> _Kind:
        with self._lock:
            kind = self._kinds.setdefault(key, _Kind())
            self._kinds.move_to_end(key)
            while len(self._kinds) > _KINDS:
                self._kinds.popitem(last=False)
        return kind

    def __reduce__(self) -> tuple[Any, ...]:
        made = partial(Graphs, dynamic=self.dynamic)
        return made, (self._model, self._compute, self.mode)  # graphs are traced again

    def _trace(self, given: Given, kind: _Kind) -> Found | None:
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
        to_compile = compilable(traced.graph) if self.mode == "inductor" else None
        graph = _Graph(traced, respelled(traced.graph).forward, emptied(found), unchanged)  # it has no hooks
        kind.refused = self._differs(graph, given)
        if kind.refused:
            return None
        example = filled(found, iter(tensors))
        if to_compile is not None:
            graph = self._compiled(graph, to_compile, given, example)
        self._plain(given)  # so that what the model and hooks keep is of these values, and not of other ones
        kind.graphs.insert(0, graph)
        return example

    def _compiled(self, graph: _Graph, to_compile: fx.GraphModule, given: Given, example: Found) -> _Graph:
        """Return a graph by `torch.compile`; as it is, with a warning, if that does not give the example."""
        try:
            compiled = replace(graph, run=compiled_run(to_compile, given.leaves))
            found = compiled(given.leaves)
        except Exception as error:
            reason = f"fails with {in_brief(error)}"
        else:
            shaken = partial(self._shaken, given)
            off = "decision" if found is None else what_differs(found.results, example.results, shaken)
            if not off:
                return compiled
            reason = f"gives another {off}"
        self._tell(f"mode='inductor': torch.compile {reason}. Graphs are run as by mode='replay'.")
        return graph

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

    def _differs(self, graph: _Graph, given: Given) -> str:
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
