"""The method on one screen: run the model, take the score, go back, give the result."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, overload

import torch

from relprop.calls.names import name_of
from relprop.engine.attach import retaining
from relprop.engine.checkpoints import Blocks, Checkpoints, chosen_blocks
from relprop.engine.inner_values import Condition, InnerValues, Start, outputs_of
from relprop.engine.interception import intercepting
from relprop.engine.parameters import ParameterRelevance
from relprop.engine.run import Run
from relprop.errors import InputError, RuleError
from relprop.inputs.arguments import only_tokens, require_arguments, require_evaluation_mode
from relprop.operations import TABLE
from relprop.results.explanation import Explanation, alone
from relprop.rules.bounds import Bounds
from relprop.rules.choice import Rules, resolve
from relprop.rules.composite import Composite
from relprop.rules.gradients import Baseline
from relprop.runs.forward import Forward, GradientsOfSeen
from relprop.runs.gradient import explain_by_gradient
from relprop.runs.warnings import (
    require_finite,
    warn_of_books,
    warn_of_parameters,
    warn_of_places,
    warn_of_scores,
)
from relprop.targets.classes import OfClass, Target, TargetLike, as_target, as_told, measure_of, scores_of

Accepted = Collection[str | Callable[..., Any]] | str | Callable[..., Any]


@overload
def explain(
    model: Callable[..., Any], *inputs: Any, targets: Sequence[TargetLike], **options: Any
) -> list[Explanation]: ...


@overload
def explain(model: Callable[..., Any], *inputs: Any, targets: None = None, **options: Any) -> Explanation: ...


def explain(
    model: Callable[..., Any],
    *inputs: Any,
    target: TargetLike = None,
    targets: Sequence[TargetLike] | None = None,
    rules: Rules = None,
    bounds: Bounds | None = None,
    record: Collection[str] | str = (),
    conditions: Mapping[str, Condition] | None = None,
    start: Start | None = None,
    parameters: Collection[str] | str = (),
    accept: Accepted = (),
    per_operation: bool = False,
    checkpoint: Blocks = (),
    progress: Callable[[int, int], None] | None = None,
    **arguments: Any,
) -> Explanation | list[Explanation]:
    """Explain which parts of the inputs made the model decide as it did, by layer-wise relevance propagation.

    The model is used as it is and left as it was. Its floating-point tensor arguments are explained, and
    integers that it looks up in an embedding, such as the tokens of a text, of which each gets one number;
    all others are passed on.

    Args:
        model: a module in evaluation mode, or any function of tensors.
        inputs: the model's arguments; samples are the first dimension, as in (samples, channels, height,
            width).
        target: what to explain, by default each sample's largest output: see `relprop.targets.as_target`.
        targets: several targets, which share one forward; the result is a list with an explanation of each.
        rules: how relevance is shared: a preset's name (`relprop.PRESETS`), a composite, one rule, or a
            TOML or JSON file of rules (`relprop.rules.files`). By default "cp-lrp" for tokens,
            "epsilon-gamma-box" where the bounds of the input are known, else "epsilon-plus-flat". Also
            "gradient-times-input" and "squared-gradient", to compare with.
        bounds: smallest and largest value that the input can have, for the box rule: numbers, values per
            channel, or tensors of a sample's shape. Inputs of different bounds need a `ZBox` each, by the
            path of the module that takes them first. Models from `relprop.load` know theirs.
        record: modules whose output's relevance is kept too, by path or glob: `explanation["layer3"]`.
        conditions: which part of the relevance of modules' outputs goes on, by path or glob: channel
            numbers, a mask that broadcasts to the output, or a function from relevance to such a mask. The
            rest is in the ledger under "condition". Achtibat et al. 2023 (concept-conditional relevance).
        start: the path of a module whose output is explained instead of the model's, or (path, call) where
            it is called several times; a class then is a channel, summed over positions.
        parameters: names or globs of weights whose relevance is wanted too: `explanation.parameters`.
        accept: operations without an entry in the table whose plain gradient is to be taken, by function or
            name.
        per_operation: whether the ledger also keeps books for each operation.
        checkpoint: modules, by path or glob, whose inner values are let go, and computed again in the
            backward: "model.layers.*", or model.layers. It saves memory, and costs a forward of them.
        progress: called after each of several targets with how many are done, and how many there are.
        arguments: the model's keyword arguments. One with the name of an argument above cannot be given this
            way; wrap the model in a function.

    Raises:
        InputError: inputs, targets, paths or conditions that cannot be explained or do not exist.
        ModelError: a model in training mode, or whose output does not depend on the inputs.
        RuleError: rules without meaning, or an unknown preset.
        CoverageError: relevance meets operations that no entry of the table covers.
    """
    require_evaluation_mode(model)
    model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped
    name, composite = resolve(model, rules, bounds, of_tokens=only_tokens(inputs, arguments))
    goals = _goals(target, targets)
    require_arguments(explain, model, arguments)
    if isinstance(composite, Baseline):
        if record or conditions or start or parameters:
            raise RuleError(
                f"rules={name!r} is a plain gradient: record, conditions, start and parameters need rules."
            )
        explanations = explain_by_gradient(composite, name, model, inputs, arguments, goals)
    else:
        wanted = _as_list(parameters, "parameters")
        collected = ParameterRelevance(model, wanted) if wanted else None
        run = _run(composite, accept, per_operation, parameters=collected)
        inner = InnerValues(run, _as_list(record, "record"), conditions or {}, start)
        observers = [inner] if inner.wanted else []
        forward = Forward(run, TABLE, observers if collected is None else [*observers, collected])
        blocks = chosen_blocks(model, checkpoint)
        with Checkpoints(forward.interception).of(blocks), forward.of(model, inputs, arguments):
            explanations = _explained(forward, inner, composite, name, goals, progress)
        for explanation in explanations:
            warn_of_books(run, explanation)
        warn_of_places(composite, run)
        if collected is not None:
            warn_of_parameters(collected, run)
    return explanations[0] if targets is None else explanations


def _goals(target: TargetLike, targets: Sequence[TargetLike] | None) -> list[Target]:
    """The targets, one or several."""
    if targets is not None and target is not None:
        raise InputError("give target=... or targets=[...], not both.")
    if not isinstance(targets, Sequence | None) or isinstance(targets, str):
        raise InputError(f"targets={targets!r}: give a list of targets; a single one is target=...")
    goals = [as_target(goal) for goal in ([target] if targets is None else targets)]
    if not goals:
        raise InputError("targets=[] has no target; give at least one.")
    return goals


def _explained(
    forward: Forward,
    inner: InnerValues,
    composite: Composite,
    preset: str,
    goals: Sequence[Target],
    progress: Callable[[int, int], None] | None,
) -> list[Explanation]:
    """A backward for each target."""
    run = forward.run
    applied = tuple(run.applied)  # kept here because checkpoints run parts of the model again
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
                relevance=alone({name: relevance[name] for name in forward.shapes if name in relevance}),
                output=output,
                target=as_told(goal, plain[0]),
                score=plain[1],
                preset=preset,
                rules=applied,
                ledger=run.ledger,
                inner=inner.relevance(),
                parameters={} if run.parameters is None else run.parameters.relevance,
                measure=measure_of(goal),
            )
        )
        if progress is not None:
            progress(number, len(goals))
    return explanations


@contextmanager
def propagating(rules: Rules, bounds: Bounds | None = None, accept: Accepted = ()) -> Iterator[Run]:
    """The engine itself: inside, gradients of what is computed are relevance coefficients c = R/x.

    Every leaf tensor that requires a gradient, and is no parameter, counts as an explained input. Where a
    rule puts relevance on an input that is zero, no coefficient can carry it: the ledger has it under "zero
    input"; `explain` has no such limit. The run that is given has the rules used, `applied`, and what sinks
    took, `ledger`.

    Raises:
        CoverageError: at the end, if relevance met operations that are not covered.
    """
    name, composite = resolve(None, rules, bounds)
    if isinstance(composite, Baseline):
        raise RuleError(f"rules={name!r} is a plain gradient, for which nothing has to be propagated.")
    run = _run(composite, accept, per_operation=False)
    run.slots = "none"
    forward = Forward(run, TABLE, any_leaf=True)
    with intercepting(forward.interception), GradientsOfSeen():
        yield run
    run.gaps.require_none()


def _run(composite: Composite, accept: Accepted, per_operation: bool, **collecting: Any) -> Run:
    return Run(
        composite.choose,
        unmatched=composite.unmatched,
        slots=composite.slots,
        per_operation=per_operation,
        accept=[a if isinstance(a, str) else name_of(a) for a in _as_list(accept)],
        **collecting,
    )


def _as_list(value: Any, name: str = "accept") -> Collection[Any]:
    """One name, or several of them, as several."""
    if isinstance(value, str) or callable(value):
        return [value]
    if not isinstance(value, Collection):
        raise InputError(f"{name}={value!r}: give a name, or a list of them.")
    return value
