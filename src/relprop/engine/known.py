"""What is known of a tensor on the way of relevance, and what a later call may attach to."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

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


@dataclass(eq=False, slots=True)
class Composed:
    """A function of one tensor, element by element, as the calls that it is composed of.

    It holds no tensor of the model's but constants, so that a backward may keep it.

    Attributes:
        last: the last call, from values of its operands to the function's.
        operands: of the last call, as functions; None for the tensor itself.
        at_zero: value and slope at zero, once somebody asked for them.
    """

    last: Callable[[Sequence[Tensor]], Tensor]
    operands: "tuple[Composed | None, ...]"
    at_zero: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The function's values; every call is made once, however often its result is used."""
        order, uses = self.calls()
        values: dict[int, Tensor] = {}
        for call in order:
            values[id(call)] = call.last([x if o is None else values[id(o)] for o in call.operands])
            for operand in call.operands:
                uses[id(operand)] -= 1
                if operand is not None and not uses[id(operand)]:
                    del values[id(operand)]
        return values[id(self)]

    def calls(self) -> "tuple[list[Composed], Counter[int]]":
        """The calls in an order in which they can be made, and how often the result of each is used."""
        order: list[Composed] = []
        uses: Counter[int] = Counter()
        met: set[int] = set()
        waiting: list[tuple[Composed, bool]] = [(self, False)]
        while waiting:
            call, ready = waiting.pop()
            if ready:
                order.append(call)
            elif id(call) not in met:
                met.add(id(call))
                waiting.append((call, True))
                for operand in call.operands:
                    uses[id(operand)] += 1
                    if operand is not None:
                        waiting.append((operand, False))
        return order, uses


@dataclass(eq=False, kw_only=True, slots=True)
class Pointwise(Origin):
    """A tensor that is a function of an earlier one, element by element, however many calls it took.

    Attributes:
        recorded: the root: the tensor that the chain of calls began with.
        function: from values of the root to those of the tensor.
        names: of the operations among the calls.
        gates_itself: whether the root was multiplied with a function of it, as in `x * sigmoid(x)`.
    """

    function: Composed
    names: frozenset[str] = frozenset()
    gates_itself: bool = False


class Gate(Enum):
    """What a tensor is as a factor of others: the heavier of two factors weighs the other one, its signal.

    Attributes:
        made_by: what makes it.
        weight: how heavy it is.
    """

    NONE = ("a signal", 0)
    ACTIVATION = ("an activation function, such as SiLU in gated feed-forward layers", 1)
    BOUNDED = ("a sigmoid, or what is like one", 2)
    SOFTMAX = ("softmax", 2)
    LOG_SOFTMAX = ("log_softmax", 2)
    STATISTIC = ("a norm or a deviation, to normalise others by; it gets no relevance", 3)

    def __init__(self, made_by: str, weight: int) -> None:
        self.made_by, self.weight = made_by, weight


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
        gate: what it is as a factor of others.
        step: how many elements, in logical order, lie between one sample and the next; None where the first
            dimension is that of the samples, possibly merged with others.
    """

    depth: int = 0
    nonnegative: bool = False
    slot: Tensor | None = None
    origin: Origin | None = None
    pointwise: Pointwise | None = None
    gate: Gate = Gate.NONE
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
    gate = Gate.NONE if any([tag.gate is Gate.NONE for tag in tags]) else first.gate
    return Tag(max([tag.depth for tag in tags]), nonnegative, gate=gate)
