"""Targets: a target computes one score for each sample from the model's output. Relevance starts there.

Targets run within the run of the model. So relevance crosses their operations by the same rules.
"""

from abc import abstractmethod
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from relprop.calls.nested import values_of
from relprop.calls.traced import found
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
    "Weighted",
]


@dataclass(frozen=True)
class OfClass(OfSamples):
    """Base of targets about one class of each sample, for outputs (samples, classes).

    Args:
        index: the class: one index for all samples, one for each, or None for each sample's best class.

    Raises:
        InputError: an index that is no integer. When it is called: the output is not (samples, classes), or
            an index is out of range.
    """

    index: int | tuple[int, ...] | None = None
    measure: ClassVar[str] = "score"

    def __post_init__(self) -> None:
        """Take classes from lists, arrays and tensors too."""
        object.__setattr__(self, "index", self._whole(self.index))

    def _whole(self, given: Any) -> Any:
        numbers = given.tolist() if hasattr(given, "tolist") else given
        several = isinstance(numbers, (list, tuple))
        if several and numbers and all(is_index(number) for number in numbers):
            return tuple(map(int, numbers))
        if numbers is None or is_index(numbers):
            return None if numbers is None else int(numbers)
        raise InputError(
            f"target {type(self).__name__}({given!r}): {given!r} is no class index; give an integer, or one "
            f"for each sample.{by_name(given)}"
        )

    def classes(self, output: Tensor) -> Tensor:
        """Return the class of each sample, int64."""
        return _classes(self.index, output)

    def chosen(self) -> int | tuple[int, ...] | None:
        return self.index if type(self).told is OfClass.told else None

    def with_classes(self, index: Any) -> "OfClass":
        made = copy(self)
        object.__setattr__(made, "index", index)
        return made

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
        chosen = _one_hot(self.classes(scores), scores)
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

    def __post_init__(self) -> None:
        """Take classes from lists, arrays and tensors too."""
        super().__post_init__()
        object.__setattr__(self, "against", self._whole(self.against))
        if isinstance(self.index, int) and self.index == self.against:
            raise InputError(f"target {self}: the difference of a class and itself is 0. Give another class.")

    def told(self, output: Any, samples: int) -> "Difference":
        output = of_classes(output, samples)
        return Difference(tuple(self.classes(values_of(logits_of(output))).tolist()), self.against)

    measure: ClassVar[str] = "score difference"

    def weights(self, scores: Tensor, chosen: Tensor) -> Tensor:
        if self.against is None:
            raise InputError(f"target {self}: give the other class, or take RunnerUp for the best other one.")
        other = _classes(self.against, scores)
        return chosen - _one_hot(other, scores)


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


def by_name(given: Any) -> str:
    """What to write for a class, or several, given by name; "" if they are not."""
    if isinstance(given, str):
        return f" In a list of the classes' names, the index is names.index({given!r})."
    if isinstance(given, (list, tuple)) and given and all(isinstance(name, str) for name in given):
        return f" In a list of the classes' names, they are [names.index(name) for name in {given!r}]."
    return ""


def is_index(value: Any) -> bool:
    """Whether a value is the number of a class."""
    # NumPy's integers are no int, but they have __index__.
    return hasattr(value, "__index__") and not isinstance(value, (bool, Tensor))


def _require_tensor(output: Any) -> None:
    if isinstance(output, Tensor):
        return
    refused = f"the model returns {type(output).__name__} and not a tensor."
    parts: Any = {}
    if isinstance(output, (list, tuple, Mapping)):
        items = output.items() if isinstance(output, Mapping) else enumerate(output)
        parts = {f"[{key!r}]": part for key, part in items}
    elif hasattr(output, "__dict__"):
        parts = {f".{name}": part for name, part in vars(output).items()}
    tensors = [name for name, part in parts.items() if isinstance(part, Tensor) and part.dim() > 1]
    if not tensors:
        raise InputError(
            f"{refused} Explain a function that returns one, such as explain(lambda x: model.part(x), x)."
        )
    raise InputError(f"{refused} Give a target, for instance target=lambda output: output{tensors[0]}[:, 0].")


def _scores(output: Any) -> Tensor:
    """Return the output of a classifier, (samples, classes), detached."""
    _require_tensor(output)
    if not output.is_floating_point():
        raise InputError(
            f"the output has the type {output.dtype}, and scores of classes are floating-point numbers. "
            + (
                "Give a target that makes scores of it, such as target=lambda output: output.abs()[:, 0]."
                if output.is_complex()
                else "Integers and comparisons carry no relevance: let the model return the scores that they "
                "are made of, those before .argmax() or > 0."
            )
        )
    if output.dim() != 2:
        example = "relprop.targets.Region(0), the pixels of a class"
        if output.dim() < 4:
            example = (
                "relprop.targets.At(-1), the best class at the last position"
                if output.dim() == 3
                else "lambda output: output"
            )
        raise InputError(
            f"the output has shape {tuple(output.shape)}, not (samples, classes). Give a target, for "
            f"instance target={example}."
        )
    return values_of(output)


def _classes(index: int | tuple[int, ...] | Tensor | None, output: Tensor) -> Tensor:
    samples, classes = output.shape
    if not classes:
        raise InputError(
            f"the output has shape {tuple(output.shape)}, and so no classes. Give the model's last layer one "
            "output or more."
        )
    if index is None:
        return output.argmax(1)
    if isinstance(index, Tensor):  # an input of a graph, checked whenever it is given
        return index.to(output.device).expand(samples)
    each = index if isinstance(index, tuple) else (index,) * samples
    if len(each) != samples:
        raise InputError(
            f"target has {len(each)} classes for {samples} samples; give one class for each sample."
        )
    wrong = sorted({number for number in each if not 0 <= number < classes})
    if wrong:
        raise InputError(
            f"target {', '.join(map(_written, wrong))} is out of range: the output has {classes} classes, 0 "
            f"to {classes - 1}."
        )
    if isinstance(index, int):
        return torch.full((samples,), index, device=output.device)
    return torch.tensor(each, device=output.device)


def _one_hot(classes: Tensor, scores: Tensor) -> Tensor:
    """Return 1 at the class of each sample and 0 elsewhere, like the scores. F.one_hot looks at values."""
    return torch.zeros_like(scores).scatter(1, classes.unsqueeze(1), 1)


def _written(number: int) -> str:
    try:
        return str(number)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"


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
    if found((weights != 0) & (weights != 1), if_traced=True):
        counting = counting * weights
    return counting.reshape(output.shape[0], -1).sum(1)
