"""The method: run the model, compute the score, propagate relevance, return the result."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, Literal, Never

from torch import Tensor, nn

from relprop.calls.site import original
from relprop.engine.active import without_compiler
from relprop.engine.checkpoints import Blocks, Checkpoints, chosen_blocks
from relprop.engine.conditions import Condition
from relprop.engine.inner_values import InnerValues, Selector, Start
from relprop.engine.parameters import ParameterRelevance
from relprop.engine.run import Run
from relprop.engine.surroundings import leaving_no_trace
from relprop.errors import InputError
from relprop.inputs.arguments import only_tokens
from relprop.inputs.evaluation import require_evaluation_mode
from relprop.inputs.signature import (
    joined_arguments,
    require_arguments,
    require_clear,
    require_positional,
    takes,
)
from relprop.operations import TABLE
from relprop.results.explanation import Explanation
from relprop.rules.bounds import Bounds
from relprop.rules.choice import Rules, may_have_bounds, require_no_rule_on, resolve
from relprop.rules.choosing import Choosing
from relprop.rules.composite import Composite
from relprop.rules.elsewhere import told
from relprop.rules.fixed import are_fixed
from relprop.rules.gradients import Baseline
from relprop.runs.backward import Explained, Progress, explained_targets
from relprop.runs.checks import Computed, check_values
from relprop.runs.compiled import Graphs
from relprop.runs.forward import Forward
from relprop.runs.gradient import changes_with, explained_by_gradient
from relprop.runs.planned import Plans
from relprop.runs.propagating import Accepted, as_list, names_of
from relprop.runs.wanted import Selectors, Wanted, Weights
from relprop.runs.warnings import (
    NOT_SEEN,
    warn_of_accepted,
    warn_of_bounds,
    warn_of_depth,
    warn_of_lost,
    warn_of_parameters,
    warn_of_places,
)
from relprop.targets.given import TargetLike, as_target
from relprop.targets.scores import Target

_HOW = ("rules", "bounds", "accept", "checkpoint", "plan")
"""What an explainer is made with. All else is said for each call."""


class Explainer:
    """Explains many batches of a model. Rules and options are checked once.

        explainer = relprop.Explainer(model, rules="attnlrp")
        explanations = [explainer(batch, target=3) for batch in batches]

    An explainer stores nothing of the batches that it explains. So threads may share it. With `checkpoint`,
    the model has hooks while it runs, so that one thread at a time may use it.

    After eight explanations of inputs of the same shapes it makes a *plan*. From then on it takes a half to
    an eighth of the time where operations are small: the model runs as it is, each of its calls is compared
    with the plan, and a graph makes relevance of what the model has computed. Results are the same to
    rounding. If the model makes another call, or has changed, the explanation is computed without the plan;
    so it is for targets and rules that are functions of the user's. To make a plan, the model runs two to
    four times more. There is none for a model with hooks, one that draws random numbers, or one that keeps
    something of each call.

    Args:
        model: a module in evaluation mode, or any function of tensors.
        rules: the rules, as for `explain`.
        bounds: smallest and largest value that the input can have, as for `explain`.
        accept: operations that are not covered, and whose plain gradient is accepted, as for `explain`.
        checkpoint: modules whose inner values are dropped, and recomputed in the backward, as for `explain`.
        plan: whether plans are made.

    Raises:
        InputError: bounds that are no pair, accept, checkpoint or plan without meaning.
        ModelError: a model in training mode, or an object that cannot be called.
        RuleError: rules or bounds without meaning, or an unknown preset.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        rules: Rules = None,
        bounds: Bounds | None = None,
        accept: Accepted = (),
        checkpoint: Blocks = (),
        plan: bool = True,
        **others: Never,
    ) -> None:
        if not isinstance(plan, bool):
            raise InputError(f"Explainer(..., plan={plan!r}): give True or False.")
        for name in others:
            of_call = name in inspect.signature(Explainer.__call__).parameters
            said = f" It is for each call: explainer(x, {name}=...)." if of_call else told(name, "arguments")
            raise InputError(f"Explainer(..., {name}=...): an explainer has no such argument.{said}")
        require_evaluation_mode(model)
        rules = list(rules) if isinstance(rules, Iterator) else rules  # which is read twice
        self.model = original(model)
        require_no_rule_on(model)
        self._of_numbers = resolve(rules, bounds)
        # Only the default depends on what is explained.
        self._of_tokens = self._of_numbers if rules is not None else resolve(rules, bounds, of_tokens=True)
        self._accept = names_of(accept)
        self._bounds, self._has_bounds = bounds, bounds is None or may_have_bounds(rules)
        self._blocks = chosen_blocks(self.model, checkpoint)
        self._graphs: Graphs | None = None
        composites = [composite for _, composite in (self._of_numbers, self._of_tokens)]
        fixed = all([isinstance(each, Composite) and are_fixed(each) for each in composites])
        self._plans = Plans(self.model) if plan and fixed and not self._blocks else None

    def __call__(
        self,
        *inputs: Any,
        target: TargetLike = None,
        record: Selectors = (),
        conditions: Mapping[Selector, Condition] | None = None,
        start: Start | None = None,
        parameters: Weights = (),
        per_operation: bool = False,
        kwargs: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> Explanation:
        """Explain a batch. The arguments, and the errors raised, are those of `explain`."""
        wanted = Wanted(record, conditions, start, parameters, per_operation)
        options = {"target": target, **vars(wanted)}
        arguments = self._arguments("explain", len(inputs), options, kwargs, arguments)
        return self._explain(inputs, arguments, [as_target(target)], wanted, None)[0]

    def each(
        self,
        *inputs: Any,
        targets: Sequence[TargetLike],
        record: Selectors = (),
        conditions: Mapping[Selector, Condition] | None = None,
        start: Start | None = None,
        parameters: Weights = (),
        per_operation: bool = False,
        progress: Progress | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> list[Explanation]:
        """Explain several targets of a batch. Arguments and errors are those of `explain_each`."""
        if progress is not None and not callable(progress):
            raise InputError(
                f"progress={progress!r}: give a function that takes the number of targets that are done, and "
                "that of all, such as progress=print."
            )
        wanted = Wanted(record, conditions, start, parameters, per_operation)
        options = {"targets": targets, "progress": progress, **vars(wanted)}
        arguments = self._arguments("explain_each", len(inputs), options, kwargs, arguments)
        return self._explain(inputs, arguments, _goals(targets), wanted, progress)

    def compile(
        self,
        *example: Any,
        target: TargetLike = None,
        mode: Literal["replay", "inductor"] = "replay",
        dynamic: bool = False,
        kwargs: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> "Explainer":
        """Return an explainer that computes by graphs, which gives the same results in less time.

        A graph is a list of torch's operations, forward and backward. The model and the rules run in Python
        only to trace it: for each new shape or dtype of an argument, each new value of an argument that is no
        tensor, each new kind of target, and each setting of autocast. Classes are free, as values are. An
        example is traced at once.

        If a graph cannot compute what is asked for, the explanation is computed without one, and a warning
        says why, once: start and conditions; random numbers; operations whose result has a shape that depends
        on values; values that leave torch; a mode for torch's functions; a model that writes to what it
        keeps. If the model branches on values, the graph looks at them too, and is used only where it would
        branch alike. A change of modules, parameters, buffers, hooks, and of numbers and texts among the
        attributes of modules is noticed, and a new graph is traced. What else the model looks at, such as a
        configuration, must stay as it is.

        Args:
            example: arguments of the model, as for a call; by default the first call is one.
            target: a target of the example, as for a call.
            mode: "replay" runs the operations as they are. "inductor" compiles them by `torch.compile`, which
                takes up to minutes and needs a C++ compiler; results are the same to rounding. If it cannot
                compile one, or gives something else, a warning says so, and that graph is run as it is.
            dynamic: whether one graph serves every number of samples, and every length. Batches are cut into
                pieces as large as the example, and the last piece is filled up. After four lengths, as of
                texts, one graph serves all. The first explanation for each number of samples and each length
                is compared with one in Python. Where samples depend on each other, or lengths are not alike,
                a warning says so, and each has a graph of its own, up to 32.
            kwargs: arguments of the model by name.
            arguments: the model's other arguments by name.

        Raises:
            InputError: there is a target without an example, there is no such mode, `dynamic` is no bool, the
                explainer has `checkpoint`, or as for a call.
            ModelError: as for a call.
            RuleError: as for a call.
            CoverageError: as for a call.
        """
        has_example = bool(example or kwargs or arguments)
        if target is not None and not has_example:
            raise InputError(
                f"explainer.compile(target={target!r}): give an example of the model's arguments with the "
                "target, or neither; then graphs are traced when they are needed."
            )
        if self._blocks:
            raise InputError(
                "explainer.compile(): this explainer has checkpoint=, which saves memory by computing again, "
                "and a graph computes once. Leave checkpoint out."
            )
        compiled = copy(self)
        if not isinstance(dynamic, bool):
            raise InputError(
                f"compile(dynamic={dynamic!r}): give True, for one graph for every number of samples and "
                "every length, or False."
            )
        compiled._graphs = Graphs(self.model, self._results, mode, dynamic=dynamic)
        if has_example:
            compiled(*example, target=target, kwargs=kwargs, **arguments)
        return compiled

    @property
    def rules(self) -> Composite | Baseline:
        """The rules, with their bounds. If none were given, the default for inputs other than tokens."""
        return self._of_numbers[1]

    def __repr__(self) -> str:
        name = type(self.model).__name__ if isinstance(self.model, nn.Module) else repr(self.model)
        compiled = (
            ""
            if self._graphs is None
            else f".compile(..., mode={self._graphs.mode!r}{', dynamic=True' * self._graphs.dynamic})"
        )
        return f"Explainer({name}, rules={self._of_numbers[0]!r}){compiled}"

    def _arguments(
        self,
        call: str,
        positional: int,
        options: dict[str, Any],
        kwargs: Mapping[str, Any] | None,
        arguments: dict[str, Any],
    ) -> dict[str, Any]:
        """The model's keyword arguments, checked."""
        for name in _HOW:
            if name in arguments and not takes(self.model, name):
                raise InputError(
                    f"explainer(..., {name}=...): it says how the model is explained. Give it to "
                    f"Explainer(model, {name}=...)."
                )
        require_positional(self.model, positional)
        require_arguments([*_HOW, *options, "kwargs"], self.model, arguments)
        require_clear(call, self.model, positional, options, kwargs)
        return joined_arguments(kwargs, arguments)

    @leaving_no_trace()
    def _explain(
        self,
        inputs: tuple[Any, ...],
        arguments: dict[str, Any],
        goals: Sequence[Target],
        wanted: Wanted,
        progress: Progress | None,
    ) -> list[Explanation]:
        """One forward, and a backward for each target."""
        require_evaluation_mode(self.model)
        results = None
        if self._graphs is not None:
            results = self._graphs(inputs, arguments, goals, wanted)
        elif self._plans is not None:
            results = self._plans(self._unchecked, inputs, arguments, goals, wanted)
        if results is not None:
            for number in range(len(goals) if progress is not None else 0):
                progress(number + 1, len(goals))  # type: ignore[misc]
            return check_values(self.model, inputs, arguments, results, wanted)
        computed = without_compiler(lambda: self._compute(inputs, arguments, goals, wanted, progress))
        explanations = check_values(
            self.model,
            inputs,
            arguments,
            computed.results,
            wanted,
            self._blocks,
            by_rules=computed.run is not None,
        )
        if computed.unfollowed and wanted.start is None and not wanted.conditions:
            goal, score = goals[0], explanations[0].score
            for each in computed.unfollowed:
                if changes_with(self.model, inputs, arguments, goal, score, each):
                    warn_of_lost({each: NOT_SEEN}, explanations[0].inputs)
        self._check_options(computed)
        return explanations

    def _results(
        self, inputs: tuple[Any, ...], arguments: dict[str, Any], goals: Sequence[Target], wanted: Wanted
    ) -> Sequence[Explained]:
        """Compute the explanations, whose values are not checked yet."""
        return self._unchecked(inputs, arguments, goals, wanted).results

    def _unchecked(
        self,
        inputs: tuple[Any, ...],
        arguments: dict[str, Any],
        goals: Sequence[Target],
        wanted: Wanted,
        watch: Any = None,
    ) -> Computed:
        """Compute the explanations, whose values are not checked yet, and what is known of them."""
        computed = self._compute(inputs, arguments, goals, wanted, None, watch)
        self._check_options(computed)
        return computed

    def _compute(
        self,
        inputs: tuple[Any, ...],
        arguments: dict[str, Any],
        goals: Sequence[Target],
        wanted: Wanted,
        progress: Progress | None,
        watch: Any = None,
    ) -> Computed:
        """Compute the explanations, and what is needed to check them."""
        of_tokens = only_tokens(inputs, arguments)
        name, composite = self._of_tokens if of_tokens else self._of_numbers
        if isinstance(composite, Baseline):
            wanted.require_nothing(name)
            results, lost = explained_by_gradient(
                composite, name, self.model, inputs, arguments, goals, progress
            )
            return Computed(results, lost)
        choosing = Choosing(composite)
        weights = as_list(wanted.parameters, "parameters", one=Tensor)
        collected = ParameterRelevance(self.model, weights) if weights else None
        run = Run(
            choosing,
            unmatched=composite.unmatched,
            slots=composite.slots,
            per_operation=wanted.per_operation,
            accept=self._accept,
            parameters=collected,
        )
        inner = InnerValues(run, wanted.modules(), wanted.conditions, wanted.start)
        observers = [inner] if inner.wanted else []
        forward = Forward(
            run, TABLE, observers if collected is None else [*observers, collected], watch=watch
        )
        with Checkpoints(forward.interception).of(self._blocks), forward.of(self.model, inputs, arguments):
            results, lost = explained_targets(forward, inner, composite, name, goals, progress)
        unfollowed = forward.inputs.unfollowed({*lost, *results[0].explanation.inputs})
        return Computed(results, lost, unfollowed, run, choosing)

    def _check_options(self, computed: Computed) -> None:
        """Warn of options that have no effect, and of rules for other networks."""
        explanation, run, choosing = computed.results[0].explanation, computed.run, computed.choosing
        warn_of_lost(computed.lost, explanation.inputs)
        if run is None or choosing is None:  # the plain gradient
            return
        of_tokens = self._bounds is not None and choosing.composite is not self._of_numbers[1]
        if of_tokens or not self._has_bounds:
            warn_of_bounds(self._bounds, of_tokens=of_tokens)
        warn_of_accepted(self._accept, run.gaps.accepted)
        warn_of_places(choosing)
        warn_of_depth(explanation.preset, choosing)
        if run.parameters is not None:
            warn_of_parameters(run.parameters, run)


def _goals(targets: Any) -> list[Target]:
    """The targets of `explain_each`."""
    if not isinstance(targets, Sequence) or isinstance(targets, (str, bytes)):
        raise InputError(
            f"targets={targets!r}: give a list of targets; a single one is explain(..., target=...)."
        )
    if not targets:
        raise InputError("targets=[] has no target; give at least one.")
    return [as_target(target) for target in targets]
