"""Explanations that follow a plan, from the few first ones of a kind on.

An explanation in Python takes 20 to 100 µs for each call of the model, for its rules. Where operations are
small, that is most of its time. So after a few explanations of the same kind an explainer makes a *plan*: the
calls that the model makes (`relprop.runs.recording`), and what the rules make of their results as a graph
(`relprop.runs.tracing`). From then on the model runs as it is, each of its calls is compared with the plan
(`relprop.runs.following`), and the graph takes what the model has computed.

A graph alone, as by `Explainer.compile`, must know what the model depends on. A plan need not: a model that
makes the same calls on the same tensors computes the same. If it makes another one, the explanation is
computed in Python.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from relprop.calls.traced import is_traced
from relprop.calls.user_line import warn
from relprop.engine.active import active_runs
from relprop.inputs.signature import without_cache
from relprop.runs.backward import Explained
from relprop.runs.checks import Computed, what_differs
from relprop.runs.following import Route, follow, is_same
from relprop.runs.given import Given
from relprop.runs.graphs import respelled
from relprop.runs.marks import Marks
from relprop.runs.recording import Differs, Recorded, record
from relprop.runs.replayed import Found, emptied, filled, found_by, replayed, tensors_of, told
from relprop.runs.tracing import Traced, TraceError, trace
from relprop.runs.unchanged import SameParts, SameValues, has_hooks, kept_by
from relprop.runs.wanted import Wanted
from relprop.targets.classes import OfClass
from relprop.targets.given import as_target
from relprop.targets.scores import Target
from relprop.targets.structured import At, Part

AFTER = 8
"""After so many explanations of a kind a plan is made, which takes as long as about so many."""

_KINDS = 16
"""For how many kinds of inputs an explainer keeps a plan."""

_PATIENCE = 3
"""After so many runs in a row that differ from the plan, or changes of the model, there is none any more."""

Compute = Callable[..., Computed]
"""Computes explanations of positional and keyword arguments of the model, targets, and what is wanted. Marks,
if there are any, watch the model."""


@dataclass(frozen=True, repr=False)
class _Plan:
    """A plan.

    Attributes:
        route: the calls of the model.
        traced: the graph, from the inputs and what the model computes to the results.
        run: the graph, as it is called.
        template: explanations with empty tensors, and the warnings.
        same_parts: knows whether the model has the same modules, by which rules are chosen, and parameters.
        same_values: knows whether parameters and constants are as they were.
    """

    route: Route
    traced: Traced
    run: Callable[..., Any]
    template: Found
    same_parts: SameParts
    same_values: SameValues

    def holds(self) -> bool:
        """Whether model and constants are as they were."""
        return self.same_parts() and self.traced.unchanged() and self.same_values()

    def __call__(self, model: Callable[..., Any], given: Given) -> Found | None:
        """Return the explanations, which have no target yet; None if a guard fails.

        Raises:
            Differs: the model makes other calls.
        """
        values = follow(self.route, _running(model, given), given.leaves)
        return replayed(self.run, given.leaves, self.template, *([values] if values else []))


@dataclass
class _Kind:
    """Explanations of one kind.

    Attributes:
        count: how many there were, of the model as it is.
        plan: the plan, once there is one.
        is_proven: whether the plan has given the same as an explanation in Python, of other values.
        refused: why there can be no plan, or "".
        failures: how often in a row the model differed from a plan, or changed.
    """

    count: int = 0
    plan: _Plan | None = None
    is_proven: bool = False
    refused: str = ""
    failures: int = 0

    def fail(self, reason: str) -> None:
        """Note that the plan does not hold."""
        self.failures += 1
        if self.failures >= _PATIENCE:
            self.refuse(reason)

    def refuse(self, reason: str) -> None:
        """Make no plan any more."""
        self.plan, self.refused = None, reason

    def begin_again(self) -> None:
        """Forget the plan of a model that has changed."""
        self.plan, self.is_proven, self.count = None, False, 0
        self.fail("the model changes between explanations")


class Plans:
    """The plans of an explainer.

    Args:
        model: the model.
        compute: computes explanations in Python.
    """

    def __init__(self, model: Callable[..., Any], compute: Compute) -> None:
        self._model = model
        self._compute = compute
        self._kinds: OrderedDict[Any, _Kind] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Plans, (self._model, self._compute)  # plans are made again

    def __call__(
        self, inputs: tuple[Any, ...], arguments: dict[str, Any], goals: Sequence[Target], wanted: Wanted
    ) -> list[Explained] | None:
        """Return explanations by a plan, or None if there is none for them.

        Raises:
            InputError: a class is out of range.
        """
        if _get_current_dispatch_mode_stack() or active_runs.stack or is_traced():
            return None  # something else sees the calls, such as a trace
        try:
            given = Given.of(inputs, arguments, goals, wanted)
        except Exception:  # something is wrong, of which the explanation in Python tells
            return None
        if given.refused or not all(map(_is_own, goals)):
            return None
        kind = self._kind_of(given.key)
        if kind.refused:
            return None
        if kind.plan is not None and not kind.plan.holds():
            kind.begin_again()
        kind.count += 1
        if kind.plan is None:
            found = self._made(given, kind) if kind.count > AFTER else None
        else:
            found = self._by_plan(given, kind, kind.plan)
        if found is None:
            return None
        for message in found.said:
            warn(message)
        return told(found, goals).results

    def _kind_of(self, key: Any) -> _Kind:
        with self._lock:
            kind = self._kinds.setdefault(key, _Kind())
            self._kinds.move_to_end(key)
            while len(self._kinds) > _KINDS:
                self._kinds.popitem(last=False)
        return kind

    def _by_plan(self, given: Given, kind: _Kind, plan: _Plan) -> Found | None:
        """Return explanations by a plan; None if it does not hold for them."""
        try:
            found = plan(self._model, given)
        except Differs:
            kind.fail("the model makes other calls from batch to batch")
            return None
        except Exception:  # as of wrong values
            return None
        if found is None:
            kind.fail("what the rules do depends on values, and differs from batch to batch")
            return None
        kind.failures = 0
        if kind.is_proven:
            return found
        try:
            expected = self._in_python(given)
        except Differs as error:
            kind.refuse(str(error))
            return None
        pairs = zip(found.results, expected.results, strict=True)
        off = [what_differs(one.explanation, other.explanation) for one, other in pairs]
        kind.is_proven = not any(off)
        if any(off):
            kind.refuse(f"by the plan, {next(filter(None, off))} differs")
        return expected

    def _in_python(self, given: Given, marks: Marks | None = None) -> Found:
        def compute() -> Sequence[Explained]:
            computed = self._compute(given.inputs, given.arguments, given.goals, given.wanted, marks)
            if computed.run is None or computed.unfollowed or len(computed.run.weights):
                raise Differs("it is no plain run of rules")
            return computed.results

        return found_by(compute)

    def _made(self, given: Given, kind: _Kind) -> Found | None:
        """Make a plan, and return explanations; None if they cannot be traced."""
        with self._lock:  # one thread at a time
            if kind.plan is not None or kind.refused:
                return None
            if has_hooks(self._model):
                kind.refuse("modules have hooks, which may do anything")
                return None
            found, marks, before = Found([], ()), Marks(), kept_by(self._model)

            def compute(*leaves: Tensor) -> list[Tensor]:
                nonlocal found
                inputs, arguments, goals = given.put(leaves)
                put = replace(given, inputs=inputs, arguments=arguments, goals=goals)
                found = self._in_python(put, marks)
                return tensors_of(found.results)

            try:
                traced, tensors = trace(compute, given.leaves, marks)
            except (TraceError, Differs) as error:
                kind.refuse(str(error))
                return None
            except Exception as error:  # as of wrong values, of which the explanation in Python tells more
                kind.fail(f"{type(error).__name__}: {error}")
                return None
            try:
                if kept_by(self._model) != before:
                    raise Differs("the model keeps something of each call")
                recorded = record(_running(self._model, given), given.leaves)
                route = _route(recorded, marks)
            except Exception as error:
                kind.refuse(str(error))
            else:
                run = respelled(traced.graph).forward  # a graph has no hooks
                same = SameParts(self._model), SameValues(recorded.leaves)
                kind.plan = _Plan(route, traced, run, emptied(found), *same)
            return filled(found, iter(tensors))


def _running(model: Callable[..., Any], given: Given) -> Callable[[], Any]:
    """Return what runs a model as it would run for an explanation."""
    arguments = without_cache(model, len(given.inputs), given.arguments)
    return lambda: model(*given.inputs, **arguments)


def _is_own(goal: Target) -> bool:
    """Whether a target is one of relprop's, which depends on nothing but its classes."""
    if isinstance(goal, (At, Part)):
        return _is_own(as_target(goal.target))
    return isinstance(goal, OfClass) and type(goal).__module__ == OfClass.__module__


def _route(recorded: Recorded, marks: Marks) -> Route:
    """Return the calls of a model on which what a graph takes is kept.

    Raises:
        Differs: an explanation has seen other calls, or other values.
    """
    if [step.operation for step in recorded.steps] != [each.operation for each in marks.calls]:
        raise Differs("an explanation sees other calls")
    for step, each in zip(recorded.steps, marks.calls, strict=True):
        if not all([any([is_same(leaf, t) for t in each.plain]) for leaf in step.leaves()]):
            raise Differs("the model computes with other tensors from call to call")
    kept = []
    for call, position in marks.used:
        number = recorded.results[call][position]
        differs = recorded.values[number].look.differs(marks.calls[call].looks[position])
        if differs:
            raise Differs(f"in an explanation {differs}")
        kept.append(number)
    return Route.of(recorded, kept)
