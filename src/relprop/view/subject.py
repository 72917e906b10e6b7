"""What is drawn of an explanation: the relevance, the samples, their labels and their pictures."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from relprop.errors import Call, InputError
from relprop.view.heatmaps import require_drawable
from relprop.view.options import PLOT, Options


class Explained(Protocol):
    """An explanation, as far as it can be drawn: see `relprop.results.explanation.Explanation`."""

    @property
    def inputs(self) -> Mapping[str, torch.Tensor]:
        """Relevance of the inputs, by name."""

    @property
    def inner(self) -> Mapping[str, torch.Tensor]:
        """Relevance of the outputs of recorded modules, by path."""

    @property
    def target(self) -> Any:
        """The explained class of each sample, or what else is explained."""

    @property
    def score(self) -> torch.Tensor:
        """The explained score of each sample."""

    @property
    def measure(self) -> str:
        """The name of the score."""

    def described(self, model: str | None, samples: Sequence[int] | None, /) -> dict[str, str]:
        """Return a description in words, for the metadata of files."""


MOST = 64
"""Largest number of samples that are drawn if none are chosen."""


def relevance_of(
    subject: Explained | torch.Tensor, of: str | None, call: Call = PLOT
) -> tuple[torch.Tensor, str | None]:
    """Return the relevance that is meant, and its name or, for the only input, None.

    Args:
        subject: an explanation, or relevance itself.
        of: name of the input or of the recorded module, or None for the only input.
        call: what was called, for errors.

    Raises:
        InputError: there are several inputs and no name, or there is no relevance of this name.
    """
    inputs = {"": subject} if isinstance(subject, torch.Tensor) else subject.inputs
    inner: Mapping[str, torch.Tensor] = {} if isinstance(subject, torch.Tensor) else subject.inner
    if len(inputs) == 1 and (of is None or of in inputs):
        return next(iter(inputs.values())), None
    shapes = [f"{name} {tuple(R.shape)}" for name, R in inputs.items()]
    names = ", ".join([*shapes, *inner]) if inner or len(inputs) > 1 else ""
    if of is None:
        raise InputError(
            f"there is relevance of several inputs: {names}. Choose one: "
            f"{call(f'of={next(iter(inputs))!r}')}."
        )
    if of in inputs:
        return inputs[of], of
    if of not in inner:
        raise InputError(
            f"{call(f'of={of!r}')}: there is no relevance of this name. "
            + (f"There is: {names}." if names else "There is only that of the input. Leave of= out.")
        )
    try:
        return inner[of], of
    except InputError as error:
        raise InputError(
            f"{call(f'of={of!r}')}: {error} Draw it by plot(tensor), of relprop.view.plot."
        ) from None


def drawable(
    subject: Explained | torch.Tensor, of: str | None, call: Call = PLOT
) -> tuple[torch.Tensor, str | None]:
    """Return the relevance to draw, with a dimension of samples and at least one more, and its name.

    Raises:
        InputError: as for `relevance_of`; or it has another shape.
    """
    R, name = relevance_of(subject, of, call)
    if R.dim() < 2 or not R.numel():
        require_drawable(tuple(R.shape))
    return R, name


def chosen_samples(count: int, look: Options) -> list[int]:
    """Return the numbers of the samples to draw.

    Raises:
        InputError: there are no such samples, or too many and none were chosen.
    """
    if look.samples is None:
        if count > MOST:
            raise InputError(
                f"there are {count} samples, too many for a picture. Choose some: plot(samples=range(12))."
            )
        return list(range(count))
    chosen = [int(sample) for sample in look.samples]
    wrong = [sample for sample in chosen if not -count <= sample < count]
    if wrong or not chosen:
        raise InputError(f"plot(samples={look.samples!r}): give one number or more, from 0 to {count - 1}.")
    return [sample % count for sample in chosen]


def given_labels(count: int, look: Options) -> list[str] | None:
    """Return the labels that the user gave, one for each sample, or None.

    Raises:
        InputError: there are more or fewer.
    """
    if look.labels is None:
        return None
    if isinstance(look.labels, str) or len(look.labels) != count:
        raise InputError(f"plot(labels={look.labels!r}): give a list of {count} texts, one for each sample.")
    return [str(label) for label in look.labels]


def labels_of(subject: Explained | torch.Tensor, count: int, look: Options) -> list[str]:
    """Return a label for each sample: the given one, or its target and score.

    Raises:
        InputError: there are more labels or fewer, or the explained class has no name.
    """
    given = given_labels(count, look)
    if given is not None:
        return given
    if isinstance(subject, torch.Tensor) or subject.score.numel() != count:
        return [""] * count
    scores = [f"{subject.measure} {score:.4g}" for score in subject.score.tolist()]
    target = subject.target
    if not isinstance(target, torch.Tensor) or target.is_floating_point() or target.numel() != count:
        return scores
    names = [class_name(c, look.classes, PLOT, f"class {c} is explained") for c in target.tolist()]
    return [f"{name}, {score}" for name, score in zip(names, scores, strict=True)]


def class_name(number: int, classes: Sequence[str] | None, call: Call, why: str) -> str:
    """Return a class by its name or, if none is known, by its number.

    Args:
        number: of the class.
        classes: the names of all classes, or None.
        call: what got the names, for errors.
        why: why the class needs a name, for errors: "class 3 is explained".

    Raises:
        InputError: there are names, but not for this class.
    """
    if classes is None:
        return f"class {number}"
    if not 0 <= number < len(classes):
        raise InputError(
            f"{call('classes=...')} has {len(classes)} names, but {why}; give a name for each class."
        )
    return str(classes[number])


def described_as(about: dict[str, str], name: str | None) -> dict[str, str]:
    """Return a description as that of the relevance of this name; None is the only input."""
    if name is None:
        return about
    title = about["Title"].replace("Relevance of the input", f"Relevance of {name}", 1)
    return about | {"Title": title, "Relevance of": name}


def pictures_of(picture: Any, count: int, chosen: Sequence[int]) -> Any:
    """Return the pictures of the chosen samples, if there is a picture for each sample."""
    several = isinstance(picture, (list, tuple)) or (
        isinstance(picture, (torch.Tensor, np.ndarray)) and picture.ndim == 4
    )
    if several and len(picture) == count:
        return [picture[sample] for sample in chosen]
    return picture
