"""The method on one screen: run the model, take the score, go back, give the result."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Never

import torch
from torch import Tensor, nn

from relprop.engine.attach import retaining
from relprop.engine.checkpoints import Blocks, Checkpoints, chosen_blocks
from relprop.engine.inner_values import Condition, InnerValues, Selector, Start, outputs_of
from relprop.engine.parameters import ParameterRelevance
from relprop.engine.run import Run
from relprop.errors import InputError, RuleError
from relprop.inputs.arguments import (
    joined_arguments,
    only_tokens,
    require_arguments,
    require_clear,
    require_evaluation_mode,
    require_positional,
    takes,
)
from relprop.operations import TABLE
from relprop.results.explanation import Explanation
from relprop.results.inner import InnerRelevance
from relprop.rules.bounds import Bounds
from relprop.rules.choice import Rules, resolve
from relprop.rules.choosing import Choosing
from relprop.rules.composite import Composite
from relprop.rules.elsewhere import told
from relprop.rules.gradients import Baseline
from relprop.runs.forward import Forward
from relprop.runs.gradient import explain_by_gradient
from relprop.runs.propagating import Accepted, as_list, names_of
from relprop.runs.warnings import (
    require_finite,
    warn_of_books,
    warn_of_parameters,
    warn_of_places,
    warn_of_scores,
)
from relprop.targets.classes import OfClass, Target, TargetLike, as_target, as_told, measure_of, scores_of

Selectors = Collection[Selector] | Selector
"""Modules by path or glob, or modules themselves; one or several."""

Progress = Callable[[int, int], None]
"""Called with how many targets are done, and how many there are."""


def explain(
    model: Callable[..., Any],
    *inputs: Any,
    target: TargetLike = None,
    rules: Rules = None,
    bounds: Bounds | None = None,
    record: Selectors = (),
    conditions: Mapping[Selector, Condition] | None = None,
    start: Start | None = None,
    parameters: Collection[str | Tensor] | str | Tensor = (),
    accept: Accepted = (),
    per_operation: bool = False,
    checkpoint: Blocks = (),
    kwargs: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Explanation:
    """Explain which parts of the inputs made the model decide as it did, by layer-wise relevance propagation.

    The model is used as it is and left as it was. Its floating-point tensor arguments are explained, and
    integers that it looks up in an embedding, such as the tokens of a text, of which each gets one number;
    all others are passed on. `Explainer` does the same for many batches; `explain_each` explains several
    targets by one forward.

    Args:
        model: a module in evaluation mode, or any function of tensors.
        inputs: the model's arguments; samples are the first dimension, as in (samples, channels, height,
            width).
        target: what to explain, by default each sample's largest output: see `relprop.targets.as_target`.
        rules: how relevance is shared: a preset's name (`relprop.PRESETS`), a composite, one rule, or a
            TOML or JSON file of rules (`relprop.rules.files`). By default "cp-lrp" for tokens,
            "epsilon-gamma-box" where `bounds` are given, else "epsilon-plus-flat". Also
            "gradient-times-input" and "squared-gradient", to compare with.
        bounds: smallest and largest value that the input can have, for the box rule: numbers, values per
            channel, or tensors of a sample's shape. Inputs of different bounds need a `ZBox` each, by the
            path of the module that takes them first.
        record: modules whose output's relevance is kept too, by path or glob, or modules themselves:
            `explanation.inner["layer3"]`.
        conditions: which part of the relevance of modules' outputs goes on, by path or glob, or by module:
            channel numbers, a mask that broadcasts to the output, or a function from relevance to such a
            mask. The rest is in the ledger under "condition". Achtibat et al. 2023 (concept-conditional
            relevance).
        start: the module, or its path, whose output is explained instead of the model's, or (module, call)
            where it is called several times; a class then is a channel, summed over positions.
        parameters: weights whose relevance is wanted too, by name or glob, or parameters themselves:
            `explanation.parameters`.
        accept: operations without an entry in the table whose plain gradient is to be taken, by function or
            name.
        per_operation: whether the ledger also has the amounts of each operation.
        checkpoint: modules, by path or glob, whose inner values are dropped, and computed again in the
            backward: "model.layers.*", or model.layers. It saves memory, and costs a forward of them.
        kwargs: arguments of the model by name, of any name, also that of an option of `explain`.
        arguments: the model's other arguments by name.

    Raises:
        InputError: inputs, targets, paths or conditions that cannot be explained or do not exist; or an
            option with the name of an argument of the model, so that it is not clear which of them is meant.
        ModelError: a model in training mode, or whose output does not depend on the inputs.
        RuleError: rules without meaning, or an unknown preset.
        CoverageError: relevance meets operations that no entry of the table covers.
    """
    how = {"rules": rules, "bounds": bounds, "accept": accept, "checkpoint": checkpoint}
    require_clear("explain", model, len(inputs), how, kwargs)
    return Explainer(model, rules=rules, bounds=bounds, accept=accept, checkpoint=checkpoint)(
        *inputs,
        target=target,
        record=record,
        conditions=conditions,
        start=start,
        parameters=parameters,
        per_operation=per_operation,
        kwargs=kwargs,
        **arguments,
    )


def explain_each(
    model: Callable[..., Any],
    *inputs: Any,
    targets: Sequence[TargetLike],
    rules: Rules = None,
    bounds: Bounds | None = None,
    record: Selectors = (),
    conditions: Mapping[Selector, Condition] | None = None,
    start: Start | None = None,
    parameters: Collection[str | Tensor] | str | Tensor = (),
    accept: Accepted = (),
    per_operation: bool = False,
    checkpoint: Blocks = (),
    progress: Progress | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> list[Explanation]:
    """Explain several targets by one forward of the model: a list with an explanation of each.

    Args:
        model: as for `explain`, and so are the other arguments that are not described here.
        inputs: the model's arguments.
        targets: what to explain, one after the other.
        rules: how relevance is shared.
        bounds: of the input.
        record: modules whose relevance is kept too.
        conditions: which part of the relevance of modules goes on.
        start: a module that is explained instead of the model.
        parameters: weights whose relevance is wanted too.
        accept: operations whose plain gradient is to be taken.
        per_operation: whether the ledger also has the amounts of each operation.
        checkpoint: modules whose inner values are dropped and computed again.
        progress: called after each target with how many are done, and how many there are.
        kwargs: arguments of the model, of any name.
        arguments: the model's other arguments by name.

    Raises:
        InputError: `targets` is no list of at least one target; what `explain` refuses.
        ModelError: as for `explain`.
        RuleError: likewise.
        CoverageError: likewise.
    """
    how = {"rules": rules, "bounds": bounds, "accept": accept, "checkpoint": checkpoint}
    require_clear("explain_each", model, len(inputs), how, kwargs)
    return Explainer(model, rules=rules, bounds=bounds, accept=accept, checkpoint=checkpoint).each(
        *inputs,
        targets=targets,
        record=record,
        conditions=conditions,
        start=start,
        parameters=parameters,
        per_operation=per_operation,
        progress=progress,
        kwargs=kwargs,
        **arguments,
    )


class Explainer:
    """How a model is explained, checked once, for many batches.

        explainer = relprop.Explainer(model, rules="attnlrp")
        explanations = [explainer(batch, target=3) for batch in batches]

    An explainer keeps nothing of what it explains, so threads may share it. With `checkpoint`, the model has
    hooks while it runs, so that one thread at a time may use it.

    Args:
        model: a module in evaluation mode, or any function of tensors.
        rules: how relevance is shared, as for `explain`.
        bounds: smallest and largest value that the input can have, likewise.
        accept: operations whose plain gradient is to be taken, likewise.
        checkpoint: modules whose inner values are dropped and computed again, likewise.

    Raises:
        InputError: bounds, accept or checkpoint without meaning.
        ModelError: a model in training mode, or what cannot be called.
        RuleError: rules without meaning, or an unknown preset.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        rules: Rules = None,
        bounds: Bounds | None = None,
        accept: Accepted = (),
        checkpoint: Blocks = (),
        **others: Never,
    ) -> None:
        for name in others:
            of_call = name in inspect.signature(Explainer.__call__).parameters
            said = f" It is for each call: explainer(x, {name}=...)." if of_call else told(name, "arguments")
            raise InputError(f"Explainer(..., {name}=...): an explainer has no such argument.{said}")
        require_evaluation_mode(model)
        rules = list(rules) if isinstance(rules, Iterator) else rules  # which is read twice
        self.model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped
        self._of_numbers = resolve(rules, bounds)
        self._of_tokens = resolve(rules, bounds, of_tokens=True)
        self._accept = names_of(accept)
        self._blocks = chosen_blocks(self.model, checkpoint)

    def __call__(
        self,
        *inputs: Any,
        target: TargetLike = None,
        record: Selectors = (),
        conditions: Mapping[Selector, Condition] | None = None,
        start: Start | None = None,
        parameters: Collection[str | Tensor] | str | Tensor = (),
        per_operation: bool = False,
        kwargs: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> Explanation:
        """Explain a batch. The arguments, and the errors raised, are those of `explain`."""
        wanted = _Wanted(record, conditions, start, parameters, per_operation)
        options = {"target": target, **vars(wanted)}
        arguments = self._arguments(explain, len(inputs), options, kwargs, arguments)
        return self._explain(inputs, arguments, [as_target(target)], wanted, None)[0]

    def each(
        self,
        *inputs: Any,
        targets: Sequence[TargetLike],
        record: Selectors = (),
        conditions: Mapping[Selector, Condition] | None = None,
        start: Start | None = None,
        parameters: Collection[str | Tensor] | str | Tensor = (),
        per_operation: bool = False,
        progress: Progress | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> list[Explanation]:
        """Explain several targets of a batch. Arguments and errors are those of `explain_each`."""
        wanted = _Wanted(record, conditions, start, parameters, per_operation)
        options = {"targets": targets, "progress": progress, **vars(wanted)}
        arguments = self._arguments(explain_each, len(inputs), options, kwargs, arguments)
        return self._explain(inputs, arguments, _goals(targets), wanted, progress)

    @property
    def rules(self) -> Composite | Baseline:
        """The rules, with bounds in them; without rules given, those for inputs that are no tokens."""
        return self._of_numbers[1]

    def __repr__(self) -> str:
        name = type(self.model).__name__ if isinstance(self.model, nn.Module) else repr(self.model)
        return f"Explainer({name}, rules={self._of_numbers[0]!r})"

    def _arguments(
        self,
        ours: Callable[..., Any],
        positional: int,
        options: dict[str, Any],
        kwargs: Mapping[str, Any] | None,
        arguments: dict[str, Any],
    ) -> dict[str, Any]:
        """The model's keyword arguments, checked."""
        for name in ("rules", "bounds", "accept", "checkpoint"):
            if name in arguments and not takes(self.model, name):
                raise InputError(
                    f"explainer(..., {name}=...): it says how the model is explained. Give it to "
                    f"Explainer(model, {name}=...)."
                )
        require_positional(self.model, positional)
        require_arguments(ours, self.model, arguments)
        require_clear(ours.__name__, self.model, positional, options, kwargs)
        return joined_arguments(kwargs, arguments)

    def _explain(
        self,
        inputs: tuple[Any, ...],
        arguments: dict[str, Any],
        goals: Sequence[Target],
        wanted: "_Wanted",
        progress: Progress | None,
    ) -> list[Explanation]:
        """One forward, and a backward for each target."""
        model = self.model
        require_evaluation_mode(model)
        name, composite = self._of_tokens if only_tokens(inputs, arguments) else self._of_numbers
        if isinstance(composite, Baseline):
            wanted.require_nothing(name)
            return explain_by_gradient(composite, name, model, inputs, arguments, goals, progress)
        choosing = Choosing(composite)
        weights = as_list(wanted.parameters, "parameters", one=Tensor)
        collected = ParameterRelevance(model, weights) if weights else None
        run = Run(
            choosing,
            unmatched=composite.unmatched,
            slots=composite.slots,
            per_operation=wanted.per_operation,
            accept=self._accept,
            parameters=collected,
        )
        inner = InnerValues(run, as_list(wanted.record, "record"), wanted.conditions, wanted.start)
        observers = [inner] if inner.wanted else []
        forward = Forward(run, TABLE, observers if collected is None else [*observers, collected])
        with Checkpoints(forward.interception).of(self._blocks), forward.of(model, inputs, arguments):
            explanations = _explained(forward, inner, composite, name, goals, progress)
        for explanation in explanations:
            warn_of_books(run, explanation)
        warn_of_places(choosing)
        if collected is not None:
            warn_of_parameters(collected, run)
        return explanations


@dataclass(frozen=True)
class _Wanted:
    """What a user wants to know beside the relevance of the inputs: see `explain`."""

    record: Selectors = ()
    conditions: Mapping[Selector, Condition] | None = None
    start: Start | None = None
    parameters: Collection[str | Tensor] | str | Tensor = ()
    per_operation: bool = False

    def require_nothing(self, rules: str) -> None:
        """Refuse what only rules can give.

        Raises:
            RuleError: any of it is wanted.
        """
        several = [self.record, self.conditions, self.parameters]
        if self.start is not None or any(isinstance(w, (nn.Module, Tensor)) or w for w in several):
            raise RuleError(
                f"rules={rules!r} is a plain gradient: record, conditions, start and parameters need rules."
            )


def _goals(targets: Any) -> list[Target]:
    """The targets of `explain_each`."""
    if not isinstance(targets, Sequence) or isinstance(targets, str):
        raise InputError(
            f"targets={targets!r}: give a list of targets; a single one is explain(..., target=...)."
        )
    if not targets:
        raise InputError("targets=[] has no target; give at least one.")
    return [as_target(target) for target in targets]


def _explained(
    forward: Forward,
    inner: InnerValues,
    composite: Composite,
    preset: str,
    goals: Sequence[Target],
    progress: Progress | None,
) -> list[Explanation]:
    """A backward for each target."""
    run = forward.run
    # Kept here because checkpoints run parts of the model again; relevance meets what precedes its start.
    applied = tuple(run.applied if inner.start is None else run.applied[: inner.applied_before])
    output = forward.values(forward.output)
    explained, channels = (forward.output, []) if inner.start is None else inner.started()
    explanations = []
    for number, goal in enumerate(goals, 1):
        last = number == len(goals)
        forward.begin()
        of_channel = inner.start is not None and isinstance(goal, OfClass)
        values = outputs_of(explained, channels) if of_channel else explained
        scores = scores_of(goal, values, run.ledger.samples)
        plain = forward.values((values, scores))
        with forward.interception.unseen():
            require_finite(forward.model, plain[1])
            warn_of_scores(goal, values, plain[1])
        seed = torch.ones_like(plain[1]) if composite.start == "one" else None
        with retaining(not last):
            relevance = forward.propagate(scores, seed, retain=not last)
        explanations.append(
            Explanation(
                inputs={name: relevance[name] for name in forward.shapes if name in relevance},
                output=output,
                target=as_told(goal, plain[0]),
                score=plain[1],
                preset=preset,
                rules=applied,
                ledger=run.ledger,
                inner=InnerRelevance(inner.relevance(), inner.samples(), inner.paths()),
                parameters={} if run.parameters is None else run.parameters.relevance,
                measure=measure_of(goal),
            )
        )
        if progress is not None:
            progress(number, len(goals))
    return explanations
