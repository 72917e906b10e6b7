"""The method on one screen: intercept, run, seed, backward, result."""

import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from relprop import zoo
from relprop.composites import DEFAULT, DEFAULT_WITHOUT_BOUNDS, Composite, Where, preset
from relprop.errors import InputError, ModelError, RelpropError, RuleError
from relprop.explanation import Explanation
from relprop.input_rules import Bound
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
    bounds: tuple[Bound, Bound] | None = None,
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
        arguments: the model's keyword arguments.

    Raises:
        InputError: inputs or target that cannot be explained.
        ModelError: a model in training mode, or whose output does not depend on the inputs.
        RuleError: rules without meaning, or an unknown preset.
        CoverageError: relevance meets operations that no entry of the table covers.
    """
    _require_evaluation_mode(model)
    name, composite = _resolve(model, rules, bounds)
    goal = as_target(target)
    run = _interception(composite, accept, per_operation)
    with intercepting(run):
        names, stand_ins, stand_in_arguments = _stand_ins(run, model, inputs, arguments)
        _warn_of_values_outside(bounds or zoo.bounds_of(model), inputs)
        with _naming_inputs(names, run.input_shapes):
            output = model(*stand_ins, **stand_in_arguments)
        scores = scores_of(goal, output, run.ledger.samples)
        relevance = run.relevance(scores)
        return Explanation(
            relevance=relevance[0] if len(relevance) == 1 else dict(zip(names, relevance, strict=True)),
            output=output.detach() if isinstance(output, Tensor) else output,
            target=goal.classes(output.detach()) if hasattr(goal, "classes") else goal,
            score=scores.detach(),
            preset=name,
            rules=tuple(run.applied),
            ledger=run.ledger,
        )


@contextmanager
def propagating(
    rules: Rules, bounds: tuple[Bound, Bound] | None = None, accept: Collection[str | Callable[..., Any]] = ()
) -> Iterator[Interception]:
    """The engine itself: inside, gradients of what is computed are relevance coefficients c = R/x.

    Every leaf tensor that requires a gradient, and is no parameter, counts as an explained input. Where a
    rule puts relevance on an input that is zero, no coefficient can carry it: the ledger has it under "zero
    input"; `explain` has no such limit.
    """
    composite = _resolve(None, rules, bounds)[1]
    with intercepting(_interception(composite, accept, per_operation=False, any_leaf=True)) as run:
        yield run


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
        accept=[a if isinstance(a, str) else canonical_name(a)[0] for a in accept],
        any_leaf=any_leaf,
    )


def _resolve(model: Any, rules: Rules, bounds: tuple[Bound, Bound] | None) -> tuple[str, Composite]:
    """Return the rules' name and the composite, with bounds where it needs them."""
    bounds = bounds or zoo.bounds_of(model)
    if rules is None:
        rules = DEFAULT_WITHOUT_BOUNDS if bounds is None else DEFAULT
    name = rules if isinstance(rules, str) else "composite"
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
    if isinstance(rules, Iterable):
        return Composite(rules)
    raise RuleError(
        f"rules={rules!r}: give a preset's name, a composite, a list of (where, rule), or a rule."
    )


@contextmanager
def _naming_inputs(names: list[str], shapes: list[tuple[int, ...]]) -> Iterator[None]:
    """Add to the model's own errors what it was called with."""
    try:
        yield
    except RelpropError:
        raise
    except Exception as error:
        called_with = ", ".join(f"{name} of shape {shape}" for name, shape in zip(names, shapes, strict=True))
        error.add_note(
            f"This is the model's own error: explain called it with {called_with}. Does model(...) run on it?"
        )
        raise


def _warn_of_values_outside(bounds: tuple[Bound, Bound] | None, inputs: tuple[Any, ...]) -> None:
    """Warn where an input cannot be of the box that its bounds describe, because it leaves it."""
    if bounds is None:
        return
    low, high = float(torch.as_tensor(bounds[0]).min()), float(torch.as_tensor(bounds[1]).max())
    for x in filter(_is_explained, inputs):
        if x.numel() and not (low <= float(x.min()) and float(x.max()) <= high):
            warnings.warn(
                f"the input has values from {float(x.min()):g} to {float(x.max()):g}, outside of its bounds, "
                f"{low:g} to {high:g}: the box rule is meant for values within. Is the input normalised as "
                "the model expects, and are bounds=(low, high) those of normalised values?",
                stacklevel=3,
            )


def _stand_ins(
    run: Interception, model: Callable[..., Any], inputs: tuple[Any, ...], arguments: dict[str, Any]
) -> tuple[list[str], list[Any], dict[str, Any]]:
    """Put stand-ins in the place of the inputs to explain; return also their names."""
    forward = model.forward if isinstance(model, nn.Module) else model
    try:
        named = list(inspect.signature(forward).parameters)
    except (TypeError, ValueError):
        named = []
    given = [*zip([*named, *(f"input{i}" for i in range(len(named), len(inputs)))], inputs, strict=False)]
    given += arguments.items()
    explained = {name: _checked(name, value) for name, value in given if _is_explained(value)}
    if not explained:
        kinds = [f"{name}: {_kind(value)}" for name, value in given]
        raise InputError(
            "nothing to explain: explain(model, ...) needs a floating-point tensor, and got "
            f"{', '.join(kinds) or 'none'}."
        )
    samples = {name: value.shape[0] for name, value in explained.items()}
    if len(set(samples.values())) > 1:
        raise InputError(f"the inputs have different numbers of samples in their first dimension: {samples}.")
    standing = {name: run.explain_input(value) for name, value in explained.items()}
    replaced = [(name, standing.get(name, value)) for name, value in given]
    return list(standing), [v for _, v in replaced[: len(inputs)]], dict(replaced[len(inputs) :])


def _is_explained(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _kind(value: Any) -> str:
    return f"{value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__


def _checked(name: str, value: Tensor) -> Tensor:
    if value.dim() < 2:
        raise InputError(
            f"input {name!r} of shape {tuple(value.shape)} has no dimension for samples; give it one in "
            "front, as with x.unsqueeze(0)."
        )
    if value.numel() == 0:
        raise InputError(f"input {name!r} of shape {tuple(value.shape)} is empty.")
    finite = value.isfinite()
    if not finite.all():
        where = tuple((~finite).nonzero()[0].tolist())
        raise InputError(
            f"input {name!r} has {int((~finite).sum())} values that are NaN or infinite, the first at "
            f"{where}; replace them before explaining."
        )
    return value.clone() if value.is_inference() else value


def _require_evaluation_mode(model: Any) -> None:
    if not callable(model):
        raise ModelError(
            f"the model is a {type(model).__name__}, which cannot be called; give a module or a function."
        )
    if not isinstance(model, nn.Module):
        return
    training = [path or "the model itself" for path, module in model.named_modules() if module.training]
    if training:
        more = f" and {len(training) - 1} more" if len(training) > 1 else ""
        raise ModelError(
            f"the model is in training mode ({training[0]}{more}), where dropout and batch statistics "
            "change its output: call model.eval() before explaining."
        )
