"""From a model's output to scores: what targets have in common, and outputs that lack a dimension."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from relprop.errors import InputError, RelpropError


class Target(Protocol):
    """A function from the model's output to one score for each sample, or one for the whole input.

    An optional attribute `measure` names the score in a word or two, such as "log-odds".
    """

    def __call__(self, output: Any, /) -> Tensor:
        """Return the scores, (samples,), or one number."""


class OfSamples(ABC):
    """Base of targets that know what a dimension means once they know the number of samples."""

    @abstractmethod
    def scores(self, output: Any, samples: int) -> Any:
        """Return the scores, (samples,), also of an output without a dimension of samples or of classes."""

    def told(self, output: Any, samples: int) -> Any:
        """Return the target as an explanation stores it."""
        return self

    def chosen(self) -> int | tuple[int, ...] | None:
        """Return the classes for which others can be put, or None."""
        return None

    def with_classes(self, index: Any) -> "OfSamples":
        """Return the target for other classes, one for each sample. A graph gives a tensor, also of one."""
        return self


def scores_of(target: Target, output: Any, samples: int, *, differing: str = "") -> Tensor:
    """Apply a target, and check that it returns one score for each sample, or one for the whole input.

    Args:
        target: the target.
        output: the model's output.
        samples: number of samples of the inputs; 1 if these have different numbers.
        differing: the error about inputs with different numbers of samples. They need a single score.

    Returns:
        The scores, (samples,) or (1,).

    Raises:
        InputError: the target returns something else.
    """
    try:
        scores = applied(target, output, samples)
    except RelpropError:
        raise
    except Exception as error:
        shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
        error.add_note(
            f"This is an error of the target {target!r}: explain called it with the model's output{shape}. "
            "Try target(model(...)) itself."
        )
        raise
    if isinstance(scores, Tensor) and scores.is_complex():
        raise InputError(
            f"the target {target!r} gave complex numbers, and scores are real; take .abs(), .real or .imag."
        )
    if isinstance(scores, Tensor):
        if scores.shape in ((), (1,)):
            return scores.reshape(1)
        if scores.shape == (samples,):
            return scores
    if differing:
        raise InputError(differing)
    refused = (
        f"the target must give one score for each sample, a tensor of shape ({samples},), or one number; "
    )
    if not isinstance(scores, Tensor):
        raise InputError(f"{refused}{target!r} gave {type(scores).__name__}.")
    of_class = isinstance(target, OfSamples) and isinstance(output, Tensor)
    how = "target=lambda output: output[:, 0].sum()" if of_class else "add .sum() to what the target returns"
    raise InputError(
        f"{refused}{target!r} gave shape {tuple(scores.shape)}. If the first dimension of the inputs is not "
        f"that of the samples, as for the nodes of several graphs, explain the sum of the scores: {how}."
    )


def applied(target: Target, output: Any, samples: int) -> Any:
    """Return what a target makes of an output."""
    return target.scores(output, samples) if isinstance(target, OfSamples) else target(output)


def as_told(target: Target, output: Any, samples: int) -> Any:
    """Return a target as an explanation stores it: the class of each sample if there is one, else itself."""
    return target.told(output, samples) if isinstance(target, OfSamples) else target


def of_classes(output: Any, samples: int) -> Any:
    """Return an output as (samples, classes) if it has only one of these dimensions, or none.

    Raises:
        InputError: it is not clear which dimension it has.
    """
    logits = logits_of(output)
    if not isinstance(logits, Tensor) or logits.dim() > 1:
        return output
    if samples == 1 or logits.dim() == 0:
        return logits.reshape(1, -1)
    if len(logits) == samples:
        return logits.unsqueeze(1)
    raise InputError(
        f"the output has shape {tuple(logits.shape)}, and the inputs have {samples} samples in their first "
        "dimension. For a single sample, add this dimension: explain(model, x.unsqueeze(0)). If the inputs "
        "have no samples, as the nodes of a graph, add it to the output: "
        "explain(lambda x: model(x).unsqueeze(0), x)."
    )


def logits_of(output: Any) -> Any:
    """Return the output called `logits` if a model returns several outputs, else the output itself."""
    logits = None if isinstance(output, Tensor) else getattr(output, "logits", None)
    if logits is None and isinstance(output, Mapping):
        logits = output.get("logits")
    return logits if isinstance(logits, Tensor) else output


def measure_of(target: Any) -> str:
    """Return the name of a target's score, a word or two."""
    measure = getattr(target, "measure", None)
    return measure if isinstance(measure, str) else "score"
