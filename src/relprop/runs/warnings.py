"""Warnings about results that are doubtful."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Size, Tensor, nn

from relprop.calls.nested import map_tensors, tensors_in, values_of
from relprop.calls.user_line import warn
from relprop.engine.known import role_of
from relprop.engine.parameters import ParameterRelevance
from relprop.engine.roles import Role
from relprop.engine.run import Run
from relprop.engine.seen import Seen
from relprop.errors import ModelError, ScoreWarning
from relprop.results.explanation import Explanation
from relprop.rules.choosing import Choosing
from relprop.rules.doubts import relevance_of_negative, unbalanced
from relprop.rules.other import SignalTakesAll
from relprop.rules.own import is_own
from relprop.rules.presets import DEEPEST, DEFAULT
from relprop.targets.classes import Logit
from relprop.targets.scores import OfSamples, measure_of
from relprop.targets.structured import At

_BOUNDED = {
    Role.SOFTMAX: (
        "the explained score comes from a softmax: each output depends on all classes, and little relevance "
        "passes where the model is confident."
    ),
    Role.LOG_SOFTMAX: "the explained score comes from a log_softmax: each output depends on all classes.",
    Role.WEIGHT: (
        "the explained score comes from a function that is not 0 at 0, such as a sigmoid or exp: its value "
        "at 0 is absorbed, as a bias is, and little relevance passes where a sigmoid saturates."
    ),
}
"""Doubtful scores, by their role as factors."""

_DIFFERENCES = ("score difference", "log-odds")
"""Names of scores that stay the same if all outputs of a sample change by one number."""


def warn_of_scores(goal: Any, scores: Tensor, role: Role, logits: Size | None) -> None:
    """Warn if explained scores come from a softmax or a sigmoid, or are negative.

    Args:
        goal: the target.
        scores: what it made of the output, (samples,).
        role: their role as factors, or that of a signal if nothing is doubtful about it (`role_of_score`).
        logits: the shape of the output that the target took, or None if that is no tensor.
    """
    if role in _BOUNDED:
        difference = ", or a difference: target=relprop.targets.RunnerUp(...)"
        warn(
            ScoreWarning(
                _BOUNDED[role],
                "Explain the scores before it: leave that layer out of the model or of the target"
                f"{difference if role is Role.LOG_SOFTMAX else ''}.",
                "Explain the scores before it: leave that layer out of the model.",
            )
        )
    negative = (scores < 0).cpu()
    if not isinstance(goal, Logit) or not bool(negative.any()):
        return
    # Without numbers, so that a loop over batches says it once.
    which = "the explained score is negative" + ("." if bool(negative.all()) else " for some samples.")
    if logits is not None and (logits[-1:] in ((), (1,)) or logits == scores.shape):
        y = "y[:, 0]" if len(logits) > 1 else "y"
        warn(
            ScoreWarning(
                f"{which} {relevance_of_negative('output')}",
                f"Explain the difference from a reference value, as in target=lambda y: {y} - reference, "
                f"or the negative output, as in target=lambda y: -{y}.",
                "Rules with ε explain both signs: --rules epsilon.",
            )
        )
        return
    warn(
        ScoreWarning(
            f"{which} {relevance_of_negative()}",
            "Explain a class with a positive score, or a difference: target=relprop.targets.Contrastive(...) "
            "or relprop.targets.RunnerUp(...).",
            "Explain a class with a positive score, by --target.",
        )
    )


def role_of_score(goal: Any, scores: Tensor, output: Any) -> Role:
    """Return the role of scores as factors; of a log_softmax that cancels in a difference, that of a signal.

    Args:
        goal: the target.
        scores: what it made of the output, as the run has it.
        output: the model's output, as the run has it.
    """
    role = role_of(scores.tag) if type(scores) is Seen else Role.SIGNAL
    return Role.SIGNAL if role is Role.LOG_SOFTMAX and _is_difference(goal, scores, output) else role


def _is_difference(goal: Any, scores: Tensor, output: Any) -> bool:
    """Whether what a log_softmax of the model subtracts from all classes cancels in a target.

    A function is tried: it is applied to the output with other numbers subtracted.
    """
    if isinstance(goal, OfSamples):
        return measure_of(goal) in _DIFFERENCES

    found = []

    def shifted(t: Tensor) -> Tensor:
        plain = values_of(t)
        if type(t) is not Seen or role_of(t.tag) is not Role.LOG_SOFTMAX:
            return plain
        sums = {dim: plain.double().exp().sum(dim) for dim in range(plain.dim())}
        dim = next((d for d, sum_ in sums.items() if bool(((sum_ - 1).abs() < 0.01).all())), None)
        if dim is None:
            return plain
        shape = [1 if i == dim else n for i, n in enumerate(plain.shape)]
        found.append(dim)
        numbers = torch.arange(math.prod(shape)).reshape(shape).to(plain).sin()
        return plain - 2 - numbers

    try:
        with torch.no_grad():
            given = map_tensors(shifted, output)
            if not found:  # the target itself has the log_softmax
                return False
            moved = goal(given)
            before = values_of(scores).double()
            near = torch.isclose(moved.double().reshape(before.shape), before, rtol=1e-4, atol=1e-2)
            return bool(near.all())
    except Exception:  # it is the user's function, which did not expect to be called again
        return False


def warn_of_padding(goal: Any, arguments: Mapping[str, Any]) -> None:
    """Warn if a target is at a position that the attention mask of the same call leaves out."""
    mask = arguments.get("attention_mask")
    if not isinstance(goal, At) or not isinstance(mask, Tensor) or mask.dim() != 2:
        return
    numbers = goal.position if isinstance(goal.position, tuple) else (goal.position,) * len(mask)
    padded = [
        sample
        for sample, (row, number) in enumerate(zip(mask, numbers, strict=False))
        if -len(row) <= number < len(row) and not bool(row[number])
    ]
    if padded:
        warn(
            ScoreWarning(
                f"target {goal!r} is at padding in {len(padded)} of {len(mask)} samples, first in sample "
                f"{padded[0]}.",
                "Give the last position of each: relprop.targets.At((attention_mask.sum(1) - 1).tolist(), "
                "...), or pad on the left.",
            )
        )


def require_finite(model: Any, scores: Tensor) -> None:
    """Check that the explained scores are finite.

    Raises:
        ModelError: a score is NaN or infinite. The error names a parameter that is not finite, if any.
    """
    if _is_finite(scores):
        return
    wrong = (~scores.detach().isfinite()).nonzero().flatten().tolist()
    guilty = _not_finite_in(model)
    if guilty:
        why = guilty
    elif scores.dtype == torch.float16:
        why = "float16 ends at 65504. Try model.to(torch.bfloat16), or .float()."
    else:
        why = "The model's parameters are finite. Check what model(...) returns on this input."
    raise ModelError(f"the explained score of sample {wrong[0]} is {float(scores.detach()[wrong[0]])}. {why}")


def warn_of_nonfinite(model: Any, explanations: Sequence[Explanation]) -> bool:
    """Warn of scores and relevance that are not finite, and return whether all are finite.

    Raises:
        ModelError: they are not, and a parameter of the model is not either; the error names it.
    """
    for explanation in explanations:
        relevance = [(f"relevance of input {name!r}", R) for name, R in explanation.inputs.items()]
        calls = explanation.inner.calls.items()
        relevance += [(f"relevance of module {path!r}", R) for path, each in calls for R in tensors_in(each)]
        relevance += [(f"relevance of parameter {n!r}", R) for n, R in explanation.parameters.items()]
        for what, values in [("the explained score", explanation.score), *relevance]:
            if not _is_finite(values):
                wrong = (~values.isfinite()).nonzero()
                told = (
                    f"{what} has {len(wrong)} of {values.numel()} values that are NaN or infinite, the first "
                    f"at {tuple(wrong[0].tolist())}."
                )
                guilty = _not_finite_in(model)
                if guilty:
                    raise ModelError(f"{told} {guilty}")
                warn(f"{told} {_why_not_finite(model, explanation)}")
                return False
    return True


def _is_finite(values: Tensor) -> bool:
    """Whether all values are finite."""
    if not values.is_complex() and math.isfinite(float(values.detach().sum())):
        return True  # one pass, where to ask for each takes four
    return bool(values.isfinite().all())


def _why_not_finite(model: Any, explanation: Explanation) -> str:
    if any(R.dtype == torch.float16 for R in explanation.inputs.values()):
        return "float16 ends at 65504. Try model.to(torch.bfloat16), or .float()."
    if not isinstance(model, nn.Module):
        return (
            "Look for such values in the weights that the function uses: "
            "[name for name, p in module.named_parameters() if not p.isfinite().all()]."
        )
    if not explanation.rules:
        return "The gradient is infinite there, as that of sqrt is at 0. Rules of relprop need no gradient."
    return "The model's parameters are finite. Compare with other rules, such as rules='epsilon'."


def _not_finite_in(model: Any) -> str:
    """Name the first parameter or buffer that is not finite, with the remedy; "" if there is none."""
    if not isinstance(model, nn.Module):
        return ""
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, values in named:
            # Masks among the buffers are infinite by intent.
            wrong = values.isnan() if kind == "buffer" else ~values.isfinite()
            if bool(wrong.any()):
                return f"The model's {kind} {name!r} has values that are NaN or infinite; load it again."
    return ""


def warn_of_books(explanation: Explanation) -> None:
    """Warn if the ledger does not balance, to `GAP` or `GAP_OF_HALVES` of its largest amount."""
    dtype = next(iter(explanation.inputs.values())).dtype
    told = unbalanced(explanation.ledger.largest_gap, dtype)
    if told:
        accepted = sorted({a.operation for a in explanation.rules if isinstance(a.rule, str)})
        own = sorted({str(a.rule) for a in explanation.rules if is_own(a.rule)})
        why = "look for NaN in the model's weights"
        if accepted:
            why = f"accepted without a rule: {', '.join(accepted)}"
        elif own:
            why = (
                f"by rules of your own: {', '.join(own)}; relprop.testing.check_rule looks for what is wrong"
            )
        warn(f"{told} ({why}). See print(explanation.ledger).")


def warn_of_bounds(bounds: Any, *, of_tokens: bool) -> None:
    """Warn of bounds that have no effect.

    Args:
        bounds: the bounds.
        of_tokens: whether only tokens are explained, by the default rules.
    """
    why = "no rule is a ZBox() without bounds of its own. Put one in, as in (relprop.places.First(), "
    why += "relprop.rules.ZBox())"
    if of_tokens:
        why = "tokens are explained, which have no smallest and largest value"
    warn(f"bounds={_written(bounds)} have no effect: {why}, or leave the bounds out.")


def _written(bounds: Any) -> str:
    parts = [f"tensor of shape {tuple(b.shape)}" if isinstance(b, Tensor) else repr(b) for b in bounds]
    return f"({', '.join(parts)})"


def warn_of_accepted(accept: Collection[str], accepted: Collection[str]) -> None:
    """Warn of operations that the user accepts, and that are none of those that relprop does not cover.

    Args:
        accept: the names of these operations.
        accepted: names of the operations without a rule that were accepted.
    """
    for name in accept:
        if name not in accepted:
            warn(
                f"accept={name!r} has no effect: the model ran no operation of this name that relprop does "
                "not cover. Give the names that print(relprop.coverage(model, x)) lists as NOT COVERED, or "
                "leave it out."
            )


def warn_of_places(choosing: Choosing) -> None:
    """Warn of entries of the composite that match nothing."""
    for told in choosing.idle():
        warn(f"an entry of the composite has no effect: {told}")


def warn_of_depth(preset: str, choosing: Choosing) -> None:
    """Warn if a preset that counts linear operations is used for a deeper network than it is for."""
    deepest = DEEPEST.get(preset)
    if deepest is not None and choosing.depth > deepest:
        warn(
            f"rules={preset!r} is for networks of up to {deepest} linear operations, and this one has "
            f"{choosing.depth}. Behind the twelfth it is LRP-0, which is nearly the plain gradient. Take "
            f'"{DEFAULT}", or a composite that counts otherwise.'
        )


def warn_of_lost(lost: Mapping[str, str], explained: Collection[str]) -> None:
    """Warn of integer inputs that the score depends on, and that have no relevance for it.

    Args:
        lost: where and why each was lost on its way to an embedding, by name.
        explained: names of the inputs that have relevance.
    """
    for name, place in lost.items():
        argument = re.split(r"[.\[]", name)[0]
        how = "only in part explained" if name in explained else "not explained"
        warn(
            f"the score depends on input {name!r}, which is {how}. What it contributes is in the ledger "
            "under 'parameters' or 'constant', or counts as that of other inputs. It was not followed to an "
            f"embedding: {place}. If it shall not be explained, bind it in a function: "
            f"explain(lambda x: model(x, {argument}={argument}), x)."
        )


NOT_SEEN = (
    "the score changes with it, by code that relprop does not follow, such as .tolist(), int(x), "
    "torch.unique or comparisons with one number after the other"
)
"""Why an integer input was lost, if no operation is known that did it."""


def warn_of_nothing(name: str, explanation: Explanation, *, is_sure: bool) -> None:
    """Warn of an input that the score depends on, and that gets exactly nothing.

    Args:
        name: name of the input.
        explanation: the explanation, which has the products in which the signal took all.
        is_sure: whether the plain gradient shows that the score depends on the input.
    """
    depends = (
        ", though the score depends on it"
        if is_sure
        else ". Whether the score depends on it could not be found, because the model has no plain gradient"
    )
    taken = [a for a in explanation.rules if isinstance(a.rule, SignalTakesAll)]
    places = list(dict.fromkeys(f"{a.operation} in module {a.path or '(root)'!r}" for a in taken))
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    if places:
        why = (
            "Where values are multiplied or divided, all relevance goes to the signal, and none to a gate, "
            f"to attention weights or to a denominator: here in {', '.join(places[:3])}{more}. A rule for "
            "products, ('*', relprop.rules.Uniform()) before others, gives gates and attention weights half."
        )
    elif "statistic" in explanation.ledger.absorbed:
        why = (
            "Relevance ends at a reciprocal such as 1/x, or at an inverse. The ledger has it under "
            "'statistic'."
        )
    else:
        why = "The rules pass nothing on to it. Compare with other rules."
    warn(f"input {name!r} gets no relevance at all{depends}. {why}")


def warn_of_parameters(parameters: ParameterRelevance, run: Run) -> None:
    """Warn of weights that a glob matches and a module uses, but no linear operation takes unchanged."""
    names = parameters.changed({a.path for a in run.applied})
    if names:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        warn(
            f"explanation.parameters has no relevance of {', '.join(names[:4])}{more}: no linear operation "
            "takes them unchanged. If a model computes with a weight first, such as standardising or "
            "transposing it, the result counts as a constant."
        )
