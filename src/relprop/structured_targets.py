"""Targets for outputs that are no single row of scores: one part of several, and the pixels of a region."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.targets import TargetLike, as_target, measure_of


@dataclass(frozen=True, repr=False)
class Part:
    """A target for one of several outputs: a key of a dictionary, a position of a tuple, or an attribute.

    Args:
        name: the key, position or attribute.
        target: what is explained of it: whatever `explain(..., target=...)` takes.
    """

    name: Any
    target: TargetLike = None

    @property
    def measure(self) -> str:
        """What the score is."""
        return measure_of(as_target(self.target))

    def __call__(self, output: Any) -> Tensor:
        return as_target(self.target)(self.part(output))

    def __repr__(self) -> str:
        if self.target is None:
            return f"Part({self.name!r})"
        if isinstance(self.target, Tensor):
            return f"Part({self.name!r}, tensor of shape {tuple(self.target.shape)})"
        return f"Part({self.name!r}, {self.target!r})"

    def part(self, output: Any) -> Any:
        """The part of an output.

        Raises:
            InputError: it has none of this name.
        """
        try:
            return output[self.name]
        except (KeyError, IndexError, TypeError):
            if isinstance(self.name, str) and hasattr(output, self.name):
                return getattr(output, self.name)
        has = list(output) if isinstance(output, dict) else f"{type(output).__name__} of {_length(output)}"
        raise InputError(f"target {self!r}: the model's output has no such part; it is {has}.")


@dataclass(frozen=True, eq=False, repr=False)
class Region:
    """The scores of a class summed over pixels, for an output (samples, classes, ...) as of a segmentation.

    Args:
        index: the class.
        mask: which pixels, (...) or (samples, ...), true or a weight where they count; by default those where
            no other class has a higher score.
    """

    index: int
    mask: Tensor | None = None
    measure: ClassVar[str] = "sum over the region"

    def __call__(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.dim() < 3:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                f"target Region({self.index}): the output must be a tensor (samples, classes, ...), and is "
                f"{got}. For one of several outputs use relprop.Part('out', relprop.Region(...))."
            )
        if not 0 <= self.index < output.shape[1]:
            raise InputError(
                f"target Region({self.index}) is out of range: the output has {output.shape[1]} classes, 0 "
                f"to {output.shape[1] - 1}."
            )
        with torch._C.DisableTorchFunction():  # where it counts is no part of what is propagated
            counts = self._mask(output.detach())
        return (output[:, self.index] * counts).flatten(1).sum(1)

    def __repr__(self) -> str:
        if self.mask is None:
            return f"Region({self.index})"
        with torch._C.DisableTorchFunction():
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
                f"target Region({self.index}): the mask chooses no pixel of sample {empty[0]}, so that there "
                "is nothing to explain; leave the sample out, or give a mask with a pixel in each."
            )
        return counts


def _empty(counts: Tensor) -> list[int]:
    """The samples of which no pixel counts."""
    return (counts == 0).flatten(1).all(1).nonzero().flatten().tolist()


def _length(output: Any) -> str:
    return str(len(output)) if hasattr(output, "__len__") else "one"
