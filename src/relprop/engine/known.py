"""What the engine knows about a relevant tensor, one that depends on the explained inputs.

Relevance R arrives at a tensor x as a coefficient c, with R = x·c, and as direct relevance: R itself, put on
the tensor where no coefficient can express it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

Watch = Callable[[Tensor | None, Tensor | None, Tensor], tuple[Tensor | None, Tensor | None]]
"""A callback for relevance that arrives at a value. It gets the coefficient, the relevance put on the value
directly, and the value. It returns the coefficient and the direct relevance to pass on."""


@dataclass(eq=False, kw_only=True, slots=True)
class Origin:
    """An operation, stored in its result's tag, so that a later operation can attach to the operand instead.

    Attributes:
        recorded: the operand, as autograd sees it.
        tag: what is known about the operand.
        watches: callbacks of the values that are bypassed if a later operation attaches to the operand. The
            callback of the last value comes first.
    """

    recorded: Tensor
    tag: "Tag"
    watches: tuple[Watch, ...] = ()


@dataclass(eq=False, slots=True)
class Composed:
    """An elementwise function of one tensor, stored as the graph of the calls that it is composed of.

    The only tensors of the model that it holds are constants, so a backward may keep it.

    Attributes:
        last: the last call, from the values of its operands to the function's values.
        operands: the operands of the last call, as functions of the tensor; None for the tensor itself.
        at_zero: value and slope at zero; None until they are first needed.
    """

    last: Callable[[Sequence[Tensor]], Tensor]
    operands: "tuple[Composed | None, ...]"
    at_zero: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the function's values. Each call is made once, even if its result is used several times."""
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
        """Return the calls, operands first, and by `id()` how often the result of each call is used."""
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
    """A tensor that is an elementwise function of an earlier tensor, its root, by a chain of calls.

    Attributes:
        recorded: the root, as autograd sees it.
        function: from the values of the root to the values of the tensor.
        names: names of the operations in the chain.
        gates_itself: whether two functions of the root were multiplied or divided, as in `x * sigmoid(x)`.
    """

    function: Composed
    names: frozenset[str] = frozenset()
    gates_itself: bool = False


class Gate(Enum):
    """The role of a tensor as a factor. Of two factors, the one with the larger weight gates the other.

    Attributes:
        made_by: what computes such a tensor.
        weight: larger for a stronger gate; 0 for a signal.
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
    """What the engine knows about a relevant tensor.

    Attributes:
        depth: number of linear operations between the explained inputs and the tensor.
        nonnegative: whether the tensor is known to be non-negative.
        slot: a companion tensor of the same shape, or None. Its gradient is relevance that is put on the
            tensor directly; the tensor's own gradient is a coefficient. Only rules that put relevance on
            zeros need slots.
        origin: the operation that made the tensor, if a later one can attach to its operand: see `Origin`.
        pointwise: the root that the tensor is an elementwise function of; None if it is a root itself.
        gate: the tensor's role as a factor.
        step: number of elements, in logical order, between one sample and the next. None if the samples are
            in the first dimension, possibly merged with others, or if it is not known where they are.
    """

    depth: int = 0
    nonnegative: bool = False
    slot: Tensor | None = None
    origin: Origin | None = None
    pointwise: Pointwise | None = None
    gate: Gate = Gate.NONE
    step: int | None = None


def all_nonnegative(constant: Tensor) -> bool:
    """Whether a constant is known to be non-negative everywhere. False for complex and fake tensors."""
    return not (constant.is_complex() or isinstance(constant, FakeTensor)) and bool((constant >= 0).all())


def empty_slot(tensor: Tensor) -> Tensor:
    """Return a tensor of this shape whose values do not matter. It takes the memory of one number."""
    return torch.zeros((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)


def merge_tags(tags: Sequence[Tag], *, nonnegative: bool = False) -> Tag:
    """Return the tag of a result whose operands have these tags, without slot, origin, chain and step."""
    first = tags[0]
    if len(tags) == 1:
        return Tag(first.depth, nonnegative, gate=first.gate)
    gate = Gate.NONE if any([tag.gate is Gate.NONE for tag in tags]) else first.gate
    return Tag(max([tag.depth for tag in tags]), nonnegative, gate=gate)
