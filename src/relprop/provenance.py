"""What is known of a tensor on the way of relevance, and of the place where an operation stands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Watch = Callable[[Tensor | None, Tensor | None, Tensor], tuple[Tensor | None, Tensor | None]]
"""Sees relevance arrive at a value, as coefficient and slot's gradient, and returns what goes on of it."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """An operation, remembered with its result, so that a later one can attach to its operand instead.

    Attributes:
        x: the operand.
        version: of the operand's memory when the operation ran.
        watches: of values that are passed by when a later operation attaches to the operand; the last value's
            first.
    """

    x: Tensor
    version: int
    watches: tuple[Watch, ...] = ()

    @property
    def intact(self) -> bool:
        """Whether the operand still has the value that the operation saw."""
        return self.x._version == self.version


@dataclass(frozen=True, kw_only=True)
class Pointwise(Origin):
    """A tensor that is a function of an earlier one, element by element, however many calls it took.

    Attributes:
        x: the root: the tensor that the chain of calls began with.
        function: from values of the root to those of the tensor.
        names: of the operations among the calls.
        gates_itself: whether the root was multiplied with a function of it, as in `x * sigmoid(x)`.
    """

    function: Callable[[Tensor], Tensor]
    names: frozenset[str] = frozenset()
    gates_itself: bool = False

    def same_root(self, other: "Pointwise") -> bool:
        """Whether both are functions of one value."""
        return self.x is other.x and self.version == other.version


STATISTIC = "statistic"
"""The gate of what is made of values to normalise them, such as 1/√variance."""

ACTIVATION = "activation"
"""The gate of what an activation function made, such as SiLU in gated feed-forward layers."""


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
        pointwise: the root that the tensor is a pointwise function of; None if it is a root itself.
        gate: name of the operation that made it a gate, which weighs other values: "sigmoid", "softmax";
            `STATISTIC`, what normalises others and gets no relevance of them; `ACTIVATION`, which is a gate
            against what is none of these; empty for signals.
    """

    depth: int = 0
    nonnegative: bool = False
    slot: Tensor | None = None
    origin: Origin | None = None
    pointwise: Pointwise | None = None
    gate: str = ""


Slots = Literal["none", "inputs", "all"]
"""No slots, slots up to the first linear operations, or slots everywhere."""


@dataclass(frozen=True)
class Site:
    """Where an operation stands in the model; what a composite chooses by.

    Attributes:
        path: of the innermost running module, within the explained model.
        modules: the running modules, outermost first.
        operation: canonical name, such as "conv2d".
        kind: family of the operation: "dense" or "convolution", which need a rule; "normalisation",
            "product", "max-pool", "sum", which have one.
        depth: how many linear operations lie between the explained inputs and this one.
    """

    path: str
    modules: tuple[nn.Module, ...]
    operation: str
    kind: str
    depth: int

    @property
    def first(self) -> bool:
        """Whether no linear operation lies between the explained inputs and this one."""
        return self.depth == 0


@dataclass(frozen=True)
class Applied:
    """A rule that was used: where, and for which operation."""

    path: str
    operation: str
    rule: Any

    def __str__(self) -> str:
        return f"{self.path or '(root)'}: {self.operation}: {self.rule}"


def nonnegative(constant: Tensor) -> bool:
    """Whether a constant is non-negative; complex numbers are not."""
    return not constant.is_complex() and bool((constant >= 0).all())


def empty_slot(tensor: Tensor) -> Tensor:
    """A tensor of this shape whose values do not matter, in the memory of one number."""
    return torch.zeros((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)


def merge_tags(tags: Sequence[Tag], *, nonnegative: bool = False, slot: Tensor | None = None) -> Tag:
    """What holds of a result of operands with these tags."""
    gate = tags[0].gate if all(tag.gate for tag in tags) else ""
    return Tag(depth=max(tag.depth for tag in tags), nonnegative=nonnegative, slot=slot, gate=gate)
