"""Targets: a target computes one score for each sample from the model's output. Relevance starts there.

Targets run within the run of the model. So relevance crosses their operations by the same rules.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from relprop.calls.nested import values_of
from relprop.errors import InputError
from relprop.targets.scores import OfSamples, Target, logits_of, of_classes

__all__ = [
    "Contrastive",
    "Difference",
    "LogOdds",
    "Logit",
    "OfClass",
    "RunnerUp",
    "Target",
    "TargetLike",
    "Weighted",
    "as_target",
]

TargetLike = int | Sequence[int] | Tensor | Callable[[Any], Tensor] | None
"""The values that `explain(..., target=...)` takes: see `as_target`."""


@dataclass(frozen=True)
class OfClass(OfSamples):
    """Base of targets about one class of each sample, for outputs (samples, classes).

    Args:
        index: the class: one index for all samples, one for each, or None for each sample's best class.

    Raises:
        InputError: when it is called: the output is not (samples, classes), or an index is out of range.
    """

    index: int | tuple[int, ...] | None = None
    measure: ClassVar[str] = "score"

    def classes(self, output: Tensor) -> Tensor:
        """Return the class of each sample, int64."""
        return _classes(self.index, output)

    def scores(self, output: Any, samples: int) -> Tensor:
        return self(of_classes(output, samples))

    def told(self, output: Any, samples: int) -> Any:
        """Return the target as an explanation stores it: the class of each sample, (samples,) int64."""
        output = of_classes(output, samples)
        return self.classes(values_of(logits_of(output)))

    @abstractmethod
    def weights(self, scores: Tensor, chosen: Tensor) -> Tensor:
        """Return the weight of each class, (samples, classes), from detached scores and one-hot classes."""

    def __call__(self, output: Any) -> Tensor:
        output = logits_of(output)
        scores = _scores(output)  # what is chosen is no part of what is propagated
        chosen = torch.nn.functional.one_hot(self.classes(scores), scores.shape[1]).to(scores)
        weighted, constant = _weighted(output, self.weights(scores, chosen)), self.constant(scores, chosen)
        return weighted if constant is None else weighted + constant

    def constant(self, scores: Tensor, chosen: Tensor) -> Tensor | None:
        """Return what the weighted sum of the output lacks to the score, (samples,), if it lacks anything."""
        return None


@dataclass(frozen=True)
class Logit(OfClass):
    """The score of the class, y_c."""

    def weights(self, scores: Tensor, chosen: Tensor) -> Tensor:
        return chosen

    def __call__(self, output: Any) -> Tensor:
        output = logits_of(output)
        chosen = self.classes(_scores(output))
        # Fewer calls than a sum of weighted classes.
        scores: Tensor = output.gather(1, chosen.unsqueeze(1)).squeeze(1)
        return scores


@dataclass(frozen=True)
class Contrastive(OfClass):
    """The score of the class minus the mean of all others, y_c - Σ_{k≠c} y_k / (n-1)."""

    measure: ClassVar[str] = "score difference"

    def weights(self, scores: Tensor, chosen: Tensor) -> Tensor:
        return chosen - (1 - chosen) / max(1, scores.shape[1] - 1)


@dataclass(frozen=True)
class RunnerUp(OfClass):
    """The score of the class minus that of the best other class, y_c - max_{k≠c} y_k."""

    measure: ClassVar[str] = "score difference"

    def weights(self, scores: Tensor, chosen: Tensor) -> Tensor:
        rival = _rivals(self, scores, chosen).argmax(1, keepdim=True)
        return chosen - torch.zeros_like(chosen).scatter(1, rival, 1)


@dataclass(frozen=True)
class Difference(OfClass):
    """The score of the class minus that of another class, y_c - y_k.

    Args:
        index: the class: one index for all samples, one for each, or None for each sample's best class.
        against: the other class: one index for all samples, or one for each.
    """

    against: int | tuple[int, ...] | None = None

    def told(self, output: Any, samples: int) -> "Difference":
        output = of_classes(output, samples)
        return Difference(tuple(self.classes(values_of(logits_of(output))).tolist()), self.against)

    measure: ClassVar[str] = "score difference"

    def weights(self, scores: Tensor, chosen: Tensor) -> Tensor:
        if self.against is None:
            raise InputError(f"target {self}: give the other class, or take RunnerUp for the best other one.")
        other = _classes(self.against, scores)
        return chosen - torch.nn.functional.one_hot(other, scores.shape[1]).to(scores)


@dataclass(frozen=True)
class LogOdds(OfClass):
    """Log-odds of the class, η_c = -log Σ_{k≠c} exp(y_k - y_c): its evidence against all others.

    A difference z_ck = y_c - y_k starts with R_ck = p_k z_ck, with p_k = softmax(y_k) over the classes k ≠ c.
    These sum to η_c + H, where H = -Σ p_k log p_k is the entropy of p. The ledger has -H under "constant".
    So the coefficients are those of the gradient of η_c. Montavon et al. 2019, ch. 10.
    """

    measure: ClassVar[str] = "log-odds"

    def weights(self, scores: Tensor, chosen: Tensor) -> Tensor:
        return chosen - _rivals(self, scores, chosen).softmax(1)

    def constant(self, scores: Tensor, chosen: Tensor) -> Tensor:
        rivals = _rivals(self, scores, chosen)
        return (rivals.softmax(1) * rivals.log_softmax(1).masked_fill(chosen.bool(), 0)).nansum(1)


@dataclass(frozen=True, eq=False, repr=False)
class Weighted(OfSamples):
    """A weighted sum of the output.

    Args:
        weights: floating-point numbers of the output's shape, or of one sample's.

    Raises:
        InputError: weights that are not floating-point numbers, are not finite, or do not fit the output.
    """

    weights: Tensor
    measure: ClassVar[str] = "weighted sum"

    def __post_init__(self) -> None:
        if not (isinstance(self.weights, Tensor) and self.weights.is_floating_point()):
            raise InputError(f"Weighted({self.weights!r}): give a tensor of floating-point numbers.")
        if not bool(self.weights.isfinite().all()):
            raise InputError("target weights are NaN or infinite; replace them before explaining.")

    def scores(self, output: Any, samples: int) -> Tensor:
        return self(of_classes(output, samples) if samples == 1 else output)

    def __call__(self, output: Any) -> Tensor:
        output = logits_of(output)
        _require_tensor(output)
        if self.weights.shape not in (output.shape, output.shape[1:]):
            raise InputError(
                f"target weights of shape {tuple(self.weights.shape)} do not fit the output of shape "
                f"{tuple(output.shape)}; give weights of the output's shape, or of one sample's, "
                f"{tuple(output.shape[1:])}."
            )
        return _weighted(output, self.weights.to(values_of(output)).expand(output.shape))

    def __repr__(self) -> str:
        return f"Weighted(weights of shape {tuple(self.weights.shape)})"


def as_target(target: TargetLike) -> Target:
    """Return a target for a value that users give.

    Args:
        target: None for each sample's largest output; a class index; a class index for each sample (a
            sequence or an integer tensor); a floating-point tensor of weights, of the output's shape or of
            one sample's; or a function from the output to one score for each sample, such as
            `Contrastive(3)` or `lambda output: output[:, 3] - output[:, 5]`.

    Raises:
        InputError: another value.
    """
    if target is None:
        return Logit()
    if isinstance(target, bool):
        raise InputError(
            "target=True or False is no class index; give a number, one per sample, weights or a function."
        )
    if hasattr(target, "__array_interface__"):  # NumPy's arrays and scalars
        try:
            target = torch.as_tensor(target)
        except TypeError as error:
            raise InputError(f"target={target!r} is no array of numbers: {error}") from None
    if isinstance(target, type):
        raise InputError(f"target={target.__name__}: that is a class; write {target.__name__}().")
    if isinstance(target, int):
        return Logit(target)
    if isinstance(target, Tensor) and target.is_floating_point():
        return Weighted(target.detach())
    if (
        isinstance(target, Tensor)
        and target.dtype != torch.bool
        and not target.is_complex()
        and target.dim() <= 1
    ):
        return Logit(tuple(target.tolist()) if target.dim() else int(target))
    if isinstance(target, Tensor):
        raise InputError(
            f"target is a {target.dtype} tensor of shape {tuple(target.shape)}; give integers of shape "
            "(samples,) for classes, or floating-point weights of the output's shape."
        )
    if callable(target):
        return target
    if isinstance(target, Sequence) and not isinstance(target, str) and all(_is_index(t) for t in target):
        return Logit(tuple(int(t) for t in target))
    raise InputError(
        f"target={target!r} is not a target. Give a class index, one index per sample, a tensor of weights "
        "of the output's shape, or a function from the output to one score per sample."
    )


def _is_index(value: Any) -> bool:
    # NumPy's integers are no int, but they have __index__.
    return hasattr(value, "__index__") and not isinstance(value, (bool, Tensor))


def _require_tensor(output: Any) -> None:
    if not isinstance(output, Tensor):
        part = f"[{next(iter(output), 0)!r}]" if isinstance(output, dict) else "[0]"
        raise InputError(
            f"the model returns {type(output).__name__} and not a tensor. Give a target, for instance "
            f"target=lambda output: output{part}[:, 3]."
        )


def _scores(output: Any) -> Tensor:
    """Return the output of a classifier, (samples, classes), detached."""
    _require_tensor(output)
    if output.dim() != 2:
        example = {
            3: "relprop.targets.At(-1), the best class at the last position",
            4: "relprop.targets.Region(3), the pixels of a class",
        }.get(output.dim(), "lambda output: output")
        raise InputError(
            f"the output has shape {tuple(output.shape)}, not (samples, classes). Give a target, for "
            f"instance target={example}."
        )
    return values_of(output)


def _classes(index: int | tuple[int, ...] | None, output: Tensor) -> Tensor:
    samples, classes = output.shape
    if index is None:
        return output.argmax(1)
    if type(index) is int and 0 <= index < classes:
        return torch.full((samples,), index, device=output.device)
    indices = torch.as_tensor(index, device=output.device)
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise InputError(f"target {index!r} is no class index; give an integer, or one for each sample.")
    if indices.dim() and len(indices) != samples:
        raise InputError(
            f"target has {len(indices)} classes for {samples} samples; give one class for each sample."
        )
    if bool((indices < 0).any()) or bool((indices >= classes).any()):
        wrong = sorted({int(i) for i in indices.reshape(-1).tolist() if not 0 <= i < classes})
        raise InputError(
            f"target {', '.join(map(str, wrong))} is out of range: the output has {classes} classes, 0 to "
            f"{classes - 1}."
        )
    return indices.expand(samples).long()


def _rivals(target: OfClass, scores: Tensor, chosen: Tensor) -> Tensor:
    """The scores of the other classes; -inf for the chosen one."""
    _require_rivals(target, scores)
    return scores.masked_fill(chosen.bool(), -torch.inf)


def _require_rivals(target: OfClass, scores: Tensor) -> None:
    if scores.shape[1] < 2:
        raise InputError(
            f"target {target}: the output has one class, and no other to compare with. Give target=0."
        )


def _weighted(output: Tensor, weights: Tensor) -> Tensor:
    # A class that does not count may be masked with -inf.
    counting = output.masked_fill(weights == 0, 0)
    if bool(((weights != 0) & (weights != 1)).any()):
        counting = counting * weights
    return counting.reshape(output.shape[0], -1).sum(1)
