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
from torch._ops import OpOverload
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from relprop.calls.traced import is_traced
from relprop.calls.user_line import warn
from relprop.engine.active import active_runs
from relprop.inputs.signature import without_cache
from relprop.operations import registrations
from relprop.runs.agreement import what_differs
from relprop.runs.backward import Explained
from relprop.runs.checks import Computed
from relprop.runs.following import LIFT, Route, follow, same_numbers
from relprop.runs.given import Given
from relprop.runs.graphs import runnable
from relprop.runs.marks import Look, Marks
from relprop.runs.recording import Differs, Recorded, Step, record
from relprop.runs.replayed import Found, emptied, filled, found_by, replayed, tensors_of, told
from relprop.runs.reuse import reusing_memory
from relprop.runs.storages import place_of
from relprop.runs.tape import TraceError
from relprop.runs.tracing import trace
from relprop.runs.unchanged import SameParts, SameValues, has_hooks, kept_by, modules_of
from relprop.runs.wanted import Wanted
from relprop.targets.classes import OfClass
from relprop.targets.given import as_target
from relprop.targets.scores import Target
from relprop.targets.structured import At, Part

AFTER = 8
"""After so many explanations of a kind a plan is made, which takes as long as about so many."""

_KINDS = 16
"""For how many kinds of inputs an explainer keeps a plan."""

_PATIENCE, _RARE = 3, 0.1
"""After so many runs that differ from the plan, or changes of the model, there is none any more, unless these
are a small part of all runs: in each of them the model runs twice."""

Compute = Callable[..., Computed]
"""Computes explanations of positional and keyword arguments of the model, targets, and what is wanted. Marks,
if there are any, watch the model."""


@dataclass(frozen=True, repr=False)
class _Plan:
    """A plan.

    Attributes:
        route: the calls of the model.
        run: the graph, from the inputs and what the model computes to the results.
        template: explanations with empty tensors, and the warnings.
        same_parts: knows whether the model has the same modules, by which rules are chosen, and parameters.
        same_values: knows whether parameters and constants are as they were.
        seen: looks at the inputs that it was made of.
    """

    route: Route
    run: Callable[..., Any]
    template: Found
    same_parts: SameParts
    same_values: SameValues
    seen: Sequence[Look]

    def holds(self) -> bool:
        """Whether model and constants are as they were."""
        return self.same_parts() and self.same_values()

    def __call__(self, model: Callable[..., Any], given: Given) -> Found | None:
        """Return the explanations, which have no target yet; None if a guard fails.

        Raises:
            Differs: the model makes other calls, or has changed.
        """
        leaves = _leaves_of(given)
        values = follow(self.route, _running(model, given, leaves), leaves)
        if not self.holds():  # now, because the model has computed with what it has now
            raise Differs
        return replayed(self.run, leaves, self.template, *([values] if values else []))


@dataclass(repr=False)
class _Kind:
    """Explanations of one kind.

    Attributes:
        count: how many there were, of the model as it is.
        plan: the plan, once there is one.
        is_proven: whether the plan has given the same as an explanation in Python, of other values.
        refused: why there can be no plan, or "".
        failures: how often the model differed from a plan, or changed.
        successes: how often it did not.
    """

    count: int = 0
    plan: _Plan | None = None
    is_proven: bool = False
    refused: str = ""
    failures: int = 0
    successes: int = 0

    def fail(self, reason: str) -> None:
        """Note that the plan does not hold."""
        self.failures += 1
        if self.failures >= _PATIENCE and self.failures > self.successes * _RARE:
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
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self._model = model
        self._kinds: OrderedDict[Any, _Kind] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Plans, (self._model,)  # plans are made again

    def __call__(
        self,
        compute: Compute,
        inputs: tuple[Any, ...],
        arguments: dict[str, Any],
        goals: Sequence[Target],
        wanted: Wanted,
    ) -> list[Explained] | None:
        """Return explanations by a plan, or None if there is none for them.

        Args:
            compute: computes explanations in Python.
            inputs: positional arguments of the model.
            arguments: keyword arguments of the model.
            goals: the targets.
            wanted: what the user wants beside the relevance of the inputs.
        """
        if _get_current_dispatch_mode_stack() or active_runs.stack or is_traced():
            return None  # something else sees the calls, such as a trace
        try:
            given = Given.of(inputs, arguments, goals, wanted)
        except Exception:  # something is wrong, of which the explanation in Python tells
            return None
        if given.refused or not all(map(_is_own, goals)):
            return None
        kind = self._kind_of((given.key, registrations()))
        if kind.refused:
            return None
        kind.count += 1
        plan = kind.plan
        if plan is None:
            found = self._made(given, kind, compute) if kind.count > AFTER else None
        else:
            found = self._by_plan(given, kind, plan, compute)
        if found is None:
            return None
        for message in found.said:
            warn(message)
        return told(found, goals).results

    def _kind_of(self, key: Any) -> _Kind:
        with self._lock:
            if key not in self._kinds:
                self._kinds[key] = _Kind()
                for other in self._kinds.values():  # or what the model was, as before `double()`, stays alive
                    if (plan := other.plan) is not None and not plan.same_values.lie_as_before():
                        other.begin_again()
            self._kinds.move_to_end(key)
            while len(self._kinds) > _KINDS:
                self._kinds.popitem(last=False)
            return self._kinds[key]

    def _by_plan(self, given: Given, kind: _Kind, plan: _Plan, compute: Compute) -> Found | None:
        """Return explanations by a plan; None if it does not hold for them."""
        try:
            found = plan(self._model, given)
        except Differs:
            if plan.holds():
                kind.fail("the model makes other calls from batch to batch")
            else:
                kind.begin_again()
            return None
        except Exception as error:  # as of wrong values
            kind.fail(f"by the plan, {type(error).__name__}: {error}")
            return None
        if found is None:
            kind.fail("what the rules do depends on values, and differs from batch to batch")
            return None
        kind.successes += 1
        return found if kind.is_proven else self._proven(found, given, kind, plan, compute)

    def _proven(self, found: Found, given: Given, kind: _Kind, plan: _Plan, compute: Compute) -> Found | None:
        """Compare the explanations with those in Python, and return these; None if there are none.

        Values that are those of which the plan was made prove nothing. Then it is done for others.
        """
        try:
            pairs = [(found, _in_python(compute, given))]
            looks = zip(map(Look.at, given.leaves), plan.seen, strict=True)
            if not any([one.differs(other) for one, other in looks]):
                others = tuple(given.others())
                inputs, arguments, _ = given.put(others)
                put = replace(given, inputs=inputs, arguments=arguments, leaves=others)
                by_plan = plan(self._model, put)
                pairs += [] if by_plan is None else [(by_plan, _in_python(compute, put))]
        except Differs as error:
            kind.refuse(str(error) or "the model makes other calls from batch to batch")
            return None
        except Exception as error:
            kind.fail(f"with other values, {type(error).__name__}: {error}")
            return None
        off = next(filter(None, [what_differs(one.results, other.results) for one, other in pairs]), "")
        if off:
            kind.refuse(f"by the plan, {off} differs")
        # A comparison of nothing but zeros tells nothing.
        results = [each.explanation for _, expected in pairs for each in expected.results]
        tells = all([any([bool(R.any()) for R in each.inputs.values()]) for each in results])
        kind.is_proven = tells and not off
        if not tells:
            kind.fail("there is no relevance to compare")
        return pairs[0][1]

    def _made(self, given: Given, kind: _Kind, compute: Compute) -> Found | None:
        """Make a plan, and return explanations; None if there are none."""
        with self._lock:  # one thread at a time
            if kind.plan is not None or kind.refused:
                return None
            if has_hooks(self._model):
                kind.refuse("modules have hooks, which may do anything")
                return None
            found, marks, before = Found([], ()), Marks(), kept_by(self._model)

            def explain(*leaves: Tensor) -> list[Tensor]:
                nonlocal found
                inputs, arguments, goals = given.put(leaves)
                put = replace(given, inputs=inputs, arguments=arguments, goals=goals)
                found = _in_python(compute, put, marks)
                return tensors_of(found.results)

            try:
                traced, tensors = trace(explain, given.leaves, marks)
            except (TraceError, Differs) as error:
                kind.refuse(str(error))
                return found if found.results else None
            except Exception as error:  # as of wrong values, of which the explanation in Python tells more
                kind.fail(f"{type(error).__name__}: {error}")
                return None
            try:
                if kept_by(self._model) != before:
                    raise Differs("the model keeps something of each call")
                if any([type(each.operation) is not OpOverload for each in marks.calls]):
                    raise Differs("the model gives torch its control flow")
                leaves = _leaves_of(given)
                modules = frozenset(modules_of(self._model))
                recorded = record(_running(self._model, given, leaves), leaves, modules)
                route = _route(recorded, marks)
            except Exception as error:
                kind.refuse(str(error))
            else:
                # Constants that the trace has made are nobody else's.
                others = [t for t, _ in traced.constants if place_of(t) in traced.read]
                values = {id(t): t for t in (*recorded.leaves, *others)}.values()
                same = SameParts(self._model), SameValues([*values])
                seen = [Look.at(leaf) for leaf in given.leaves]
                run = runnable(reusing_memory(traced.graph))
                kind.plan = _Plan(route, run, emptied(found), *same, seen)
            return filled(found, iter(tensors))


def _in_python(compute: Compute, given: Given, marks: Marks | None = None) -> Found:
    """Compute explanations in Python.

    Raises:
        Differs: they are of a kind of which there are no plans.
    """

    def explain() -> Sequence[Explained]:
        computed = compute(given.inputs, given.arguments, given.goals, given.wanted, marks)
        if computed.run is None or computed.unfollowed or len(computed.run.weights):
            raise Differs("it is no plain run of rules")
        return computed.results

    return found_by(explain)


def _leaves_of(given: Given) -> list[Tensor]:
    """Return the inputs as other tensors of the same values, of which the model may change the attributes."""
    return [leaf.detach() for leaf in given.leaves]


def _running(model: Callable[..., Any], given: Given, leaves: Sequence[Tensor]) -> Callable[[], Any]:
    """Return what runs a model as it would run for an explanation, in containers of its own."""
    inputs, arguments, _ = given.put(leaves)
    arguments = without_cache(model, len(inputs), arguments)
    return lambda: model(*inputs, **arguments)


def _is_own(goal: Target) -> bool:
    """Whether a target is one of relprop's, which depends on nothing but its classes."""
    if type(goal) in (At, Part):
        named: Any = goal
        return type(getattr(goal, "name", "")) in (str, int) and _is_own(as_target(named.target))
    return isinstance(goal, OfClass) and type(goal).__module__ == OfClass.__module__


def _route(recorded: Recorded, marks: Marks) -> Route:
    """Return the calls of a model on which what a graph takes is kept.

    Raises:
        Differs: an explanation has seen other calls, or other values.
    """
    if [step.operation for step in recorded.steps] != [each.operation for each in marks.calls]:
        raise Differs("an explanation sees other calls")
    for step, each in zip(recorded.steps, marks.calls, strict=True):
        if not all([any([_is_same(leaf, t, step) for t in each.plain]) for leaf in step.leaves()]):
            raise Differs("the model computes with other tensors from call to call")
    kept = []
    for call, position in marks.used:
        number = recorded.results[call][position]
        looks = marks.calls[call].looks
        # Of what a kernel returns besides, an explanation has shown nothing to look at.
        differs = recorded.values[number].look.differs(looks[position]) if position < len(looks) else ""
        if differs:
            raise Differs(f"in an explanation {differs}")
        kept.append(number)
    return Route.of(recorded, kept)


def _is_same(leaf: Tensor, other: Tensor, step: Step) -> bool:
    return leaf is other or (step.operation is LIFT and same_numbers(leaf, other))
