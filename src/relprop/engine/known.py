"""What is known of a tensor on the way of relevance, and what a later call may attach to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

Watch = Callable[[Tensor | None, Tensor | None, Tensor], tuple[Tensor | None, Tensor | None]]
"""Sees relevance arrive at a value, as coefficient and slot's gradient, and returns what goes on of it."""


@dataclass(eq=False, kw_only=True, slots=True)
class Origin:
    """An operation, remembered with its result, so that a later one can attach to its operand instead.

    Attributes:
        recorded: the operand, as autograd sees it.
        tag: what is known of the operand.
        watches: of values that are passed by when a later operation attaches to the operand; the last value's
            first.
    """

    recorded: Tensor
    tag: "Tag"
    watches: tuple[Watch, ...] = ()


@dataclass(eq=False, kw_only=True, slots=True)
class Pointwise(Origin):
    """A tensor that is a function of an earlier one, element by element, however many calls it took.

    Attributes:
        recorded: the root: the tensor that the chain of calls began with.
        function: from values of the root to those of the tensor.
        names: of the operations among the calls.
        gates_itself: whether the root was multiplied with a function of it, as in `x * sigmoid(x)`.
    """

    function: Callable[[Tensor], Tensor]
    names: frozenset[str] = frozenset()
    gates_itself: bool = False


STATISTIC = "statistic"
"""The gate of what is made of values to normalise them, such as 1/√variance."""

ACTIVATION = "activation"
"""The gate of what an activation function made, such as SiLU in gated feed-forward layers."""


@dataclass(eq=False, slots=True)
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
        step: how many elements, in logical order, lie between one sample and the next; None where the first
            dimension is that of the samples, possibly merged with others.
    """

    depth: int = 0
    nonnegative: bool = False
    slot: Tensor | None = None
    origin: Origin | None = None
    pointwise: Pointwise | None = None
    gate: str = ""
    step: int | None = None


def all_nonnegative(constant: Tensor) -> bool:
    """Whether a constant is non-negative everywhere: no complex number is, nor what has no values."""
    return not (constant.is_complex() or isinstance(constant, FakeTensor)) and bool((constant >= 0).all())


def empty_slot(tensor: Tensor) -> Tensor:
    """A tensor of this shape whose values do not matter, in the memory of one number."""
    return torch.zeros((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)


def merge_tags(tags: Sequence[Tag], *, nonnegative: bool = False) -> Tag:
    """What holds of a result of operands with these tags."""
    first = tags[0]
    if len(tags) == 1:
        return Tag(first.depth, nonnegative, gate=first.gate)
    gate = first.gate if all([tag.gate for tag in tags]) else ""
    return Tag(max([tag.depth for tag in tags]), nonnegative, gate=gate)
