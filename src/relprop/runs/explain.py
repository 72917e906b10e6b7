"""Explaining a model, for one target or for several, in one call."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relprop.engine.checkpoints import Blocks
from relprop.engine.conditions import Condition
from relprop.engine.inner_values import Selector, Start
from relprop.inputs.signature import require_clear
from relprop.results.explanation import Explanation
from relprop.rules.bounds import Bounds
from relprop.rules.choice import Rules
from relprop.runs.backward import Progress
from relprop.runs.explainer import Explainer
from relprop.runs.propagating import Accepted
from relprop.runs.wanted import Selectors, Weights
from relprop.targets.given import TargetLike


def explain(
    model: Callable[..., Any],
    *inputs: Any,
    target: TargetLike = None,
    rules: Rules = None,
    bounds: Bounds | None = None,
    record: Selectors = (),
    conditions: Mapping[Selector, Condition] | None = None,
    start: Start | None = None,
    parameters: Weights = (),
    accept: Accepted = (),
    per_operation: bool = False,
    checkpoint: Blocks = (),
    kwargs: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Explanation:
    """Explain which parts of the inputs made the model decide as it did, by layer-wise relevance propagation.

    The model is used as it is, and is not changed. Its floating-point tensor arguments are explained, and so
    are integers that it looks up in an embedding, such as the tokens of a text. Each token gets one number.
    Those in dictionaries and dataclasses are explained in place; if there is no other input, those in lists,
    tuples and other objects too, and NumPy arrays. All other arguments are passed on. `Explainer` does the
    same for many batches. `explain_each` explains several targets by one forward.

    Args:
        model: a module in evaluation mode, or any function of tensors.
        inputs: the model's arguments. Samples are the first dimension, as in (samples, channels, height,
            width), or (samples,) for one number each. If the score is one number, the inputs are one sample
            as a whole.
        target: the score to explain, by default each sample's largest output: see
            `relprop.targets.as_target`.
        rules: a preset's name (`relprop.PRESETS`), a composite or its list of entries, one rule, or a TOML or
            JSON file of rules (`relprop.rules.files`). By default "cp-lrp" for tokens, "epsilon-gamma-box" if
            `bounds` are given, else "epsilon-plus-flat". For comparison, "gradient-times-input" and
            "squared-gradient" are plain gradients.
        bounds: smallest and largest value that the input can have, for the box rule: numbers, values per
            channel, or tensors of a sample's shape. Inputs with different bounds need a `ZBox` each, by the
            path of the first module that takes them.
        record: modules whose outputs get relevance too, by path or glob, or the modules themselves:
            `explanation.inner["layer3"]`.
        conditions: the part of the relevance of modules' outputs that is passed on, by path or glob, or by
            module: channel numbers, a mask that broadcasts to the output, or a function from relevance to
            such a mask. The ledger has the rest under "condition". Achtibat et al. 2023 (concept-conditional
            relevance).
        start: the module, or its path, whose output is explained instead of the model's; or (module, call) if
            it is called several times. A class is then a channel, summed over positions.
        parameters: weights that get relevance too, by name or glob, or the parameters themselves:
            `explanation.parameters`.
        accept: operations that relprop does not cover and whose plain gradient is accepted, by function or
            name.
        per_operation: whether the ledger also has the amounts of each operation.
        checkpoint: modules, by path or glob, whose inner values are dropped, and recomputed in the backward:
            "model.layers.*", or model.layers. This saves memory, and costs another forward of the modules.
        kwargs: arguments of the model by name. Their names may be those of options of `explain`.
        arguments: the model's other arguments by name.

    Raises:
        InputError: inputs, targets, paths or conditions that cannot be explained or do not exist; or an
            option that is also an argument of the model, without `kwargs`.
        ModelError: a model in training mode, one whose output does not depend on the inputs, or one with
            parameters that are NaN or infinite, where scores or relevance are not finite for it.
        RuleError: rules or bounds without meaning, or an unknown preset.
        CoverageError: relevance reaches operations that relprop does not cover.
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
    parameters: Weights = (),
    accept: Accepted = (),
    per_operation: bool = False,
    checkpoint: Blocks = (),
    progress: Progress | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> list[Explanation]:
    """Explain several targets by one forward of the model.

    All arguments but `targets` and `progress` are those of `explain`.

    Args:
        model: a module in evaluation mode, or any function of tensors.
        inputs: the model's arguments.
        targets: the scores to explain, one after the other.
        rules: the rules.
        bounds: smallest and largest value of the input.
        record: modules whose outputs get relevance too.
        conditions: the part of the relevance of modules' outputs that is passed on.
        start: a module whose output is explained instead of the model's.
        parameters: weights that get relevance too.
        accept: operations that are not covered, and whose plain gradient is accepted.
        per_operation: whether the ledgers also have the amounts of each operation.
        checkpoint: modules whose inner values are dropped, and recomputed in the backward.
        progress: called after each target with the number of targets that are done, and that of all.
        kwargs: arguments of the model by name.
        arguments: the model's other arguments by name.

    Returns:
        An explanation of each target.

    Raises:
        InputError: `targets` is not a list of at least one target; or as for `explain`.
        ModelError: as for `explain`.
        RuleError: as for `explain`.
        CoverageError: as for `explain`.
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
