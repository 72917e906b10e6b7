"""The method on one screen: intercept, run, seed, backward, result."""

import difflib
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from relprop.bounds import Bounds, bounds_of, checked_bounds
from relprop.calls import map_tensors
from relprop.composites import DEFAULT, DEFAULT_WITHOUT_BOUNDS, Composite, Where, preset
from relprop.errors import CoverageError, RuleError
from relprop.explanation import Explanation
from relprop.gaps import coverage_message
from relprop.inputs import naming_inputs, put_stand_ins, require_evaluation_mode
from relprop.intercept import Interception, intercepting
from relprop.linear_operations import Rule
from relprop.names import canonical_name
from relprop.operations import TABLE
from relprop.targets import TargetLike, as_target, scores_of

Rules = str | Composite | Iterable[tuple[Where, Rule]] | Rule | None
"""A preset's name, a composite or its list of entries, one rule for everything, or None for what fits."""


def explain(
    model: Callable[..., Any],
    *inputs: Any,
    target: TargetLike = None,
    rules: Rules = None,
    bounds: Bounds | None = None,
    accept: Collection[str | Callable[..., Any]] = (),
    per_operation: bool = False,
    **arguments: Any,
) -> Explanation:
    """Explain which parts of the inputs made the model decide as it did, by layer-wise relevance propagation.

    The model is used as it is and left as it was. Its floating-point tensor arguments are explained, all
    others are passed on.

    Args:
        model: a module in evaluation mode, or any function of tensors.
        inputs: the model's arguments; samples are the first dimension, as in (samples, channels, height,
            width).
        target: what to explain, by default each sample's largest output: see `relprop.targets.as_target`.
        rules: how relevance is shared: a preset's name (`relprop.PRESETS`), a composite, or one rule. By
            default "epsilon-gamma-box" where the bounds of the input are known, else "epsilon-plus-flat".
        bounds: smallest and largest value that the input can have, for the box rule: numbers, values per
            channel, or tensors of a sample's shape. Models from `relprop.load` know theirs.
        accept: operations without an entry in the table whose plain gradient is to be taken, by function or
            name.
        per_operation: whether the ledger also keeps books for each operation.
        arguments: the model's keyword arguments. One with the name of an argument above cannot be given this
            way; wrap the model in a function.

    Raises:
        InputError: inputs or target that cannot be explained.
        ModelError: a model in training mode, or whose output does not depend on the inputs.
        RuleError: rules without meaning, or an unknown preset.
        CoverageError: relevance meets operations that no entry of the table covers.
    """
    require_evaluation_mode(model)
    model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped: compiled calls cannot be seen
    name, composite = _resolve(model, rules, bounds)
    goal = as_target(target)
    run = _interception(composite, accept, per_operation)
    with intercepting(run):
        names, stand_ins, stand_in_arguments = put_stand_ins(run, model, inputs, arguments)
        with naming_inputs(names, run.input_shapes):
            output = model(*stand_ins, **stand_in_arguments)
        scores = scores_of(goal, output, run.ledger.samples)
        applied = tuple(run.applied)  # checkpoints run parts of the model again in the backward
        relevance = run.relevance(scores)
    with torch._C.DisableTorchFunction():  # of a run around this one
        _warn(composite, run, half=relevance[0].dtype in (torch.float16, torch.bfloat16))
        return Explanation(
            relevance=relevance[0] if len(relevance) == 1 else dict(zip(names, relevance, strict=True)),
            output=map_tensors(Tensor.detach, output),
            target=goal.classes(output.detach()) if hasattr(goal, "classes") else goal,
            score=scores.detach(),
            preset=name,
            rules=applied,
            ledger=run.ledger,
        )


def _warn(composite: Composite, run: Interception, half: bool) -> None:
    """Warn of what makes a result doubtful: books that do not close, and places that do not exist."""
    gap = float(run.ledger.gap.max())
    if not gap <= (0.2 if half else 0.05):
        accepted = sorted({a.operation for a in run.applied if isinstance(a.rule, str)})
        why = (
            f"accepted without a rule: {', '.join(accepted)}"
            if accepted
            else "look for NaN in the model's weights"
        )
        warnings.warn(
            f"the ledger does not close: {gap:.1e} of the largest amount is missing or too much ({why}). "
            "See print(explanation.ledger).",
            stacklevel=3,
        )
    paths = {a.path for a in run.applied}
    for place in composite.places_without_match(paths):
        near = ", ".join(map(repr, difflib.get_close_matches(place, sorted(paths), n=3, cutoff=0.3)))
        warnings.warn(
            f"{place!r} in the composite matches no module with a linear operation"
            + (f"; near it are {near}." if near else "; explanation.rules has the paths."),
            stacklevel=3,
        )


def _as_list(accept: Collection[str | Callable[..., Any]] | str) -> Collection[str | Callable[..., Any]]:
    return [accept] if isinstance(accept, str) else accept


@contextmanager
def propagating(
    rules: Rules, bounds: Bounds | None = None, accept: Collection[str | Callable[..., Any]] = ()
) -> Iterator[Interception]:
    """The engine itself: inside, gradients of what is computed are relevance coefficients c = R/x.

    Every leaf tensor that requires a gradient, and is no parameter, counts as an explained input. Where a
    rule puts relevance on an input that is zero, no coefficient can carry it: the ledger has it under "zero
    input"; `explain` has no such limit. The run that is given has the rules used, `applied`, and what sinks
    took, `ledger`.

    Raises:
        CoverageError: at the end, if relevance met operations that are not covered.
    """
    composite = _resolve(None, rules, bounds)[1]
    with intercepting(_interception(composite, accept, per_operation=False, any_leaf=True)) as run:
        yield run
    if run.gaps:
        raise CoverageError(coverage_message(run.gaps))


def _interception(
    composite: Composite,
    accept: Collection[str | Callable[..., Any]],
    per_operation: bool,
    any_leaf: bool = False,
) -> Interception:
    return Interception(
        TABLE,
        composite.choose,
        slots="none" if any_leaf else composite.slots,
        per_operation=per_operation,
        accept=[a if isinstance(a, str) else canonical_name(a)[0] for a in _as_list(accept)],
        any_leaf=any_leaf,
    )


def _resolve(model: Any, rules: Rules, bounds: Bounds | None) -> tuple[str, Composite]:
    """Return the rules' name and the composite, with bounds where it needs them."""
    bounds = bounds_of(model) if bounds is None else checked_bounds(bounds)
    if rules is None:
        rules = DEFAULT_WITHOUT_BOUNDS if bounds is None else DEFAULT
    name = rules if isinstance(rules, str) else str(rules) if isinstance(rules, Rule) else "composite"
    composite = _composite(rules)
    if composite.needs_bounds:
        if bounds is None:
            raise RuleError(
                f"rules={name!r} has a box rule, which needs the smallest and largest value of the input: "
                "explain(..., bounds=(low, high))."
            )
        composite = composite.with_bounds(*bounds)
    return name, composite


def _composite(rules: Rules) -> Composite:
    if isinstance(rules, Composite):
        return rules
    if isinstance(rules, str):
        return preset(rules)
    if isinstance(rules, Rule):
        return Composite([("*", rules)])
    if isinstance(rules, Iterable) and not isinstance(rules, Mapping):
        return Composite(rules)
    raise RuleError(
        f"rules={rules!r}: give a preset's name, a composite, a list of (where, rule), or a rule."
    )
