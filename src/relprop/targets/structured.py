"""Targets for outputs other than (samples, classes): one of several, a position, a region of pixels."""

from abc import abstractmethod
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from relprop.calls.nested import values_of
from relprop.errors import InputError
from relprop.targets.classes import Logit, OfClass
from relprop.targets.given import TargetLike, as_target
from relprop.targets.scores import OfSamples, applied, logits_of, measure_of

__all__ = ["At", "Part", "Region"]


_HUGE = 2**63
"""Larger numbers count nothing, and those of thousands of digits cannot be printed."""


class _OfPart(OfSamples):
    """Base of targets that select a part of the output, and apply another target to it."""

    target: TargetLike

    @property
    def measure(self) -> str:
        """What the score is."""
        return measure_of(as_target(self.target))

    def __call__(self, output: Any) -> Tensor:
        return as_target(self.target)(self.part(output))

    def scores(self, output: Any, samples: int) -> Any:
        return applied(as_target(self.target), self.part(output), samples)

    def chosen(self) -> int | tuple[int, ...] | None:
        target = as_target(self.target)
        return target.chosen() if isinstance(target, OfSamples) else None

    def with_classes(self, index: Any) -> Any:
        target = as_target(self.target)
        assert isinstance(target, OfSamples)
        made = copy(self)
        object.__setattr__(made, "target", target.with_classes(index))
        return made

    @abstractmethod
    def part(self, output: Any) -> Any:
        """Return the part of an output.

        Raises:
            InputError: it has no such part.
        """

    def _written(self, which: Any) -> str:
        told = "" if self.target is None else f", {_told(self.target)}"
        return f"{type(self).__name__}({which!r}{told})"


@dataclass(frozen=True, repr=False)
class Part(_OfPart):
    """A target for one of several outputs.

    Args:
        name: the output: a key of a dictionary, a position in a tuple, or the name of an attribute.
        target: the target for this output: any that `explain(..., target=...)` takes.

    Raises:
        InputError: when it is called: the model's output has no such part.
    """

    name: Any
    target: TargetLike = None

    def __repr__(self) -> str:
        return self._written(self.name)

    def part(self, output: Any) -> Any:
        if isinstance(output, Tensor) and (not isinstance(self.name, int) or abs(self.name) > len(output)):
            raise InputError(
                f"target {self!r}: the model's output has no such part; it is one tensor, of shape "
                f"{tuple(output.shape)}. Give the target of this tensor, without Part."
            )
        try:
            return output[self.name]
        except (KeyError, IndexError, TypeError):
            if isinstance(self.name, str) and hasattr(output, self.name):
                return getattr(output, self.name)
        has = list(output) if isinstance(output, dict) else f"{type(output).__name__} of {_length(output)}"
        raise InputError(f"target {self!r}: the model's output has no such part; it is {has}.")


@dataclass(frozen=True, repr=False)
class At(_OfPart):
    """A target for one position of an output (samples, positions, classes), such as a language model's.

    Args:
        position: the position, one for all samples or one for each. Negative positions count from the end.
        target: the target at this position: any that `explain(..., target=...)` takes for (samples, classes).

    Raises:
        InputError: a position that is not an integer. When it is called: the output has another form, or the
            position is out of range.
    """

    position: int | tuple[int, ...]
    target: TargetLike = None

    def __post_init__(self) -> None:
        """Take positions from lists and tensors too."""
        given: Any = self.position
        numbers = given.tolist() if hasattr(given, "tolist") else given
        numbers = tuple(numbers) if isinstance(numbers, (list, tuple)) else numbers
        each = numbers if isinstance(numbers, tuple) else (numbers,)
        if not each or not all(isinstance(n, int) and not isinstance(n, bool) for n in each):
            raise InputError(f"At({given!r}): give the number of a position, or one for each sample.")
        if any(abs(n) >= _HUGE for n in each):
            raise InputError("target At: a position has more than 64 bits. Give the number of a position.")
        object.__setattr__(self, "position", numbers)

    def __repr__(self) -> str:
        return self._written(self.position)

    def told(self, output: Any, samples: int) -> "At":
        """Return the target as an explanation stores it, with the class of each sample if it has one."""
        target, part = as_target(self.target), self.part(output)
        if not isinstance(target, OfClass):
            return self
        classes = tuple(target.classes(values_of(part)).tolist())
        return At(self.position, classes if isinstance(target, Logit) else replace(target, index=classes))

    def part(self, output: Any) -> Tensor:
        output = logits_of(output)
        if not isinstance(output, Tensor) or output.dim() != 3:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                f"target {self!r}: the output must be a tensor (samples, positions, classes), or have one as "
                f"its logits, and is {got}."
            )
        samples, length = output.shape[:2]
        numbers = self.position if isinstance(self.position, tuple) else (self.position,) * samples
        if len(numbers) != samples:
            raise InputError(f"target {self!r}: there are {len(numbers)} positions for {samples} samples.")
        wrong = [n for n in numbers if not -length <= n < length]
        if wrong:
            raise InputError(
                f"target {self!r}: position {wrong[0]} is out of range: the output has {length} positions, 0 "
                f"to {length - 1}, or -{length} to -1 from the end."
            )
        if len(set(numbers)) == 1:
            return output[:, numbers[0]]
        return torch.stack([output[i, number] for i, number in enumerate(numbers)])


@dataclass(frozen=True, eq=False, repr=False)
class Region:
    """The scores of a class summed over pixels, for an output (samples, classes, ...), as of a segmentation.

    Args:
        index: the class.
        mask: the pixels, (...) or (samples, ...): boolean, or a weight for each. By default the pixels where
            no other class has a higher score.

    Raises:
        InputError: an index that is no integer, or a mask that is no tensor. When it is called: the output
            has another form, the class is out of range, the mask does not fit, or a sample has no pixel.
    """

    index: int
    mask: Tensor | None = None
    measure: ClassVar[str] = "sum over the region"

    def __post_init__(self) -> None:
        given: Any = self.index
        if not hasattr(given, "__index__") or isinstance(given, bool) or getattr(given, "shape", ()) != ():
            raise InputError(f"target Region({given!r}): {given!r} is no class index; give an integer.")
        object.__setattr__(self, "index", int(given))
        if abs(self.index) >= _HUGE:
            raise InputError("target Region: the index has more than 64 bits. Give the number of a class.")
        if not (self.mask is None or isinstance(self.mask, Tensor)):
            raise InputError(
                f"target Region({self.index}, mask): the mask is a {type(self.mask).__name__}. Give a tensor "
                "of the pixels: torch.as_tensor(mask)."
            )
        if self.mask is not None and (self.mask.is_complex() or not bool(self.mask.isfinite().all())):
            raise InputError(
                f"target Region({self.index}, mask): the mask has elements that are no finite real numbers. "
                "Give True and False, or a weight for each pixel."
            )

    def __call__(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.dim() < 3:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                f"target Region({self.index}): the output must be a tensor (samples, classes, ...), and is "
                f"{got}. For one of several outputs use Part('out', Region(...)), of relprop.targets."
            )
        if not 0 <= self.index < output.shape[1]:
            raise InputError(
                f"target Region({self.index}) is out of range: the output has {output.shape[1]} classes, 0 "
                f"to {output.shape[1] - 1}."
            )
        counts = self._mask(values_of(output))  # where it counts is no part of what is propagated
        return (output[:, self.index] * counts).flatten(1).sum(1)

    def __repr__(self) -> str:
        if self.mask is None:
            return f"Region({self.index})"
        pixels = int(torch.count_nonzero(self.mask))
        return f"Region({self.index}, mask of {pixels} pixel{'s' * (pixels != 1)})"

    def _mask(self, scores: Tensor) -> Tensor:
        """Return how much each pixel counts, (samples, ...)."""
        if self.mask is None:
            counts = scores.argmax(1) == self.index
            empty = _empty(counts)
            if empty:
                raise InputError(
                    f"target Region({self.index}): in sample {empty[0]} no pixel has this class as its "
                    "best; give a mask."
                )
            return counts.to(scores.dtype)
        wanted = scores[:, 0].shape
        if self.mask.shape not in (wanted, wanted[1:]):
            raise InputError(
                f"target Region({self.index}): the mask has shape {tuple(self.mask.shape)}; give "
                f"{tuple(wanted[1:])} or {tuple(wanted)}, as the output's pixels."
            )
        counts = self.mask.detach().to(scores).expand(wanted)
        empty = _empty(counts)
        if empty:
            raise InputError(
                f"target Region({self.index}): the mask has no pixel of sample {empty[0]}. Leave the sample "
                "out, or give a mask with a pixel in each sample."
            )
        return counts


def _told(target: TargetLike) -> str:
    return f"tensor of shape {tuple(target.shape)}" if isinstance(target, Tensor) else repr(target)


def _empty(counts: Tensor) -> list[int]:
    """The samples of which no pixel counts."""
    return (counts == 0).flatten(1).all(1).nonzero().flatten().tolist()


def _length(output: Any) -> str:
    return str(len(output)) if hasattr(output, "__len__") else "one"
