"""What is known of a tensor on the way of relevance, and of the place where an operation stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Origin:
    """An operation, remembered with its result, so that a later one can attach to its operand instead.

    Attributes:
        x: the operand.
        version: of the operand's memory when the operation ran.
    """

    x: Tensor
    version: int

    @property
    def intact(self) -> bool:
        """Whether the operand still has the value that the operation saw."""
        return self.x._version == self.version


@dataclass(frozen=True)
class Tag:
    """What is known of a tensor on the way of relevance.

    Attributes:
        depth: how many linear operations lie between the inputs and it.
        nonnegative: whether it cannot be negative.
        slot: a companion of the same shape whose gradient is relevance itself, beside the coefficient that
            the tensor's own gradient is. Only rules that put relevance on zeros need it; None where there are
            none.
        origin: what an operation left here for a later one to re-root on: see `Origin`.
    """

    depth: int = 0
    nonnegative: bool = False
    slot: Tensor | None = None
    origin: Origin | None = None


Slots = Literal["none", "inputs", "all"]
"""No slots, slots up to the first linear operations, or slots everywhere."""


@dataclass(frozen=True)
class Site:
    """Where an operation stands in the model; what a composite chooses by.

    Attributes:
        path: of the innermost running module, within the explained model.
        modules: the running modules, outermost first.
        operation: canonical name, such as "conv2d".
        kind: family of the operation: "dense" or "convolution".
        first: whether no linear operation lies between the explained inputs and this one.
    """

    path: str
    modules: tuple[nn.Module, ...]
    operation: str
    kind: str
    first: bool


@dataclass(frozen=True)
class Applied:
    """A rule that was used: where, and for which operation."""

    path: str
    operation: str
    rule: Any

    def __str__(self) -> str:
        return f"{self.path or '(root)'}: {self.operation}: {self.rule}"


def empty_slot(tensor: Tensor) -> Tensor:
    """A tensor of this shape whose values do not matter, in the memory of one number."""
    return torch.zeros((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)


def merge_tags(tags: Sequence[Tag], *, nonnegative: bool = False, slot: Tensor | None = None) -> Tag:
    """What holds of a result of operands with these tags."""
    return Tag(depth=max(tag.depth for tag in tags), nonnegative=nonnegative, slot=slot)
