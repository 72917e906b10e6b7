"""What a model says of a picture, and what of it is to be explained."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.errors import InputError, ModelError
from relprop.models import Model
from relprop.pages.page import number

OFFERED = 5


@dataclass(frozen=True, eq=False)
class Answer:
    """One class, as a model sees it in a picture.

    Attributes:
        index: of the class.
        name: of the class, or None where it has no other than its index.
        target: what to explain, as `relprop.explain` takes it.
        score: of the class; of a segmentation, the sum over the pixels that it has.
        share: its probability or, of a segmentation, its share of the picture; None where that says nothing.
        area: whether the share is one of the picture.
    """

    index: int
    name: str | None
    target: int | Callable[[Any], Tensor]
    score: float
    share: float | None
    area: bool = False

    @property
    def title(self) -> str:
        """The class in a few words."""
        return f"class {self.index}" if self.name is None else self.name

    @property
    def label(self) -> str:
        """The class and its share, to be written above a heatmap."""
        if self.share is None:
            return f"{self.title}, score {number(self.score)}"
        share = f"{self.share:.0%}" if self.area else f"probability {self.share:.2f}"
        return f"{self.title}, {share}"

    @property
    def line(self) -> str:
        """All that is known, for a line of text."""
        line = self.title if self.name is None else f"{self.name} (class {self.index})"
        if self.share is not None and self.area:
            line += f" on {self.share:.0%} of the picture"
        elif self.share is not None:
            line += f", probability {self.share:.2f}"
        return f"{line}, score {_rounded(self.score)}"


def class_named(target: str, model: Model) -> int:
    """Find the class that a user means, by index or by name.

    Raises:
        InputError: the model has no such class; those with similar names are offered.
    """
    names = model.classes
    try:
        index = int(target)
    except ValueError:
        return _by_name(target, model)
    if names is not None and not 0 <= index < len(names):
        raise InputError(
            f"--target {target}: the classes of {model.name} are numbered 0 to {len(names) - 1}. "
            "Give one of them."
        )
    return index


def answers(output: Any, model: Model) -> list[Answer]:
    """Say which classes a model sees in a picture: all of a classifier, those present of a segmentation.

    Args:
        output: of one picture: scores (1, classes), or of every pixel (1, classes, H, W), also as the entry
            "out" of a dict.
        model: which gave it.

    Returns:
        The classes, the most likely first; of a segmentation the largest, and the background last.

    Raises:
        InputError: the output is of another kind.
        ModelError: it has another number of classes than there are names.
    """
    scores = output.get("out") if isinstance(output, dict) else output
    if isinstance(scores, Tensor) and scores.dim() in (2, 4):
        _require_a_name_each(scores.shape[1], model)
    if isinstance(scores, Tensor) and scores.dim() == 2 and scores.is_floating_point():
        return _of_classifier(scores[0].double(), model)
    if isinstance(scores, Tensor) and scores.dim() == 4 and scores.is_floating_point():
        return _of_segmentation(scores[0].double(), model)
    got = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
    raise InputError(
        f"{model.name} returns {got}. This command explains class scores of shape (1, classes) and "
        "segmentations of shape (1, classes, height, width). Explain other outputs in Python: "
        "relprop.explain(..., target=lambda output: ...)."
    )


def answer_for(index: int, found: list[Answer], model: Model) -> Answer:
    """Choose the answer about a class.

    Raises:
        InputError: the model has no such class, or a segmentation sees none of it.
    """
    for answer in found:
        if answer.index == index:
            return answer
    there = ", ".join(answer.line for answer in found[:OFFERED])
    if found[0].area:
        raise InputError(
            f"--target {index}: {model.name} finds this class at no pixel. Give one that it finds: {there}."
        )
    raise InputError(
        f"--target {index}: the classes of {model.name} are numbered 0 to {len(found) - 1}. Give one of them."
    )


def _by_name(target: str, model: Model) -> int:
    names = model.classes
    if names is None:
        raise InputError(
            f"--target {target}: the classes of {model.name} have no names. Give the number of a class, or "
            "the names of all classes with --classes FILE."
        )
    wanted = target.strip().casefold()
    found = [target] if target in names else [name for name in names if name.casefold() == wanted]
    if len(found) == 1:
        return names.index(found[0])
    near = found or [name for name in names if wanted in name.casefold().split()]
    near += [name for name in names if wanted in name.casefold()] if wanted else []
    near += difflib.get_close_matches(target, names, n=OFFERED, cutoff=0.6)
    offered = list(dict.fromkeys(near))[:OFFERED]
    near_it = ", ".join(f"{name} ({names.index(name)})" for name in offered)
    hint = (
        f"Near it are: {near_it}." if near_it else f"There are, for instance: {', '.join(names[:OFFERED])}."
    )
    raise InputError(f"--target {target}: {model.name} has no class of this name. {hint}")


def _require_a_name_each(count: int, model: Model) -> None:
    if model.classes is not None and len(model.classes) != count:
        raise ModelError(
            f"{model.name} gives scores of {count} {'class' if count == 1 else 'classes'}, but "
            f"{len(model.classes)} names are given. Give one for each, by --classes FILE or an attribute "
            "classes of the model."
        )


def _name(index: int, model: Model) -> str | None:
    names = model.classes
    if names is None or names[index] == str(index):
        return None
    return names[index]


def _rounded(score: float) -> str:
    """A score to two decimals, and to two digits where these would all be zero."""
    text = f"{score:.2f}"
    return text if float(text) or not score else f"{score:.2g}"


def _of_classifier(scores: Tensor, model: Model) -> list[Answer]:
    if len(scores) == 1:  # nothing to share with: a softmax would say 1 of whatever score
        return [Answer(0, _name(0, model), 0, float(scores[0]), None)]
    # Scores that are probabilities already stay what they are.
    already = bool((scores >= 0).all()) and abs(float(scores.sum()) - 1) < 1e-3
    shares = scores if already else scores.softmax(0)
    return [
        Answer(i, _name(i, model), i, float(scores[i]), None if model.digits else float(shares[i]))
        for i in scores.argsort(descending=True, stable=True).tolist()
    ]


def _of_segmentation(scores: Tensor, model: Model) -> list[Answer]:
    labels = scores.argmax(0)
    sizes = torch.bincount(labels.flatten(), minlength=len(scores))
    background = 0 if _name(0, model) in ("__background__", "background") else None
    present = [i for i in sizes.argsort(descending=True, stable=True).tolist() if sizes[i]]
    present.sort(key=lambda i: i == background)
    found = []
    for i in present:
        mask = labels == i
        share = float(mask.double().mean())
        found.append(
            Answer(i, _name(i, model), _sum_over(mask, i), float(scores[i][mask].sum()), share, True)
        )
    return found


def _sum_over(mask: Tensor, index: int) -> Callable[[Any], Tensor]:
    """Make a target: the sum of a class's scores over the pixels of a mask (H, W)."""

    def score(output: Any) -> Tensor:
        scores: Tensor = output["out"] if isinstance(output, dict) else output
        return scores[:, index, mask].sum(1)

    return score
