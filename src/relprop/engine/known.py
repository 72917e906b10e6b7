"""What the engine knows about a relevant tensor, one that depends on the explained inputs.

Relevance R arrives at a tensor x as a coefficient c, with R = x·c, and as direct relevance: R itself, put on
the tensor where no coefficient can express it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol
from weakref import ReferenceType

import torch
from torch import Size, Tensor
from torch._subclasses.fake_tensor import FakeTensor

from relprop.engine.composed import Composed
from relprop.engine.keep import Kept
from relprop.engine.roles import Role, of_joined

Watch = Callable[[Tensor | None, Tensor | None, Tensor], tuple[Tensor | None, Tensor | None]]
"""A callback for relevance that arrives at a value. It gets the coefficient, the relevance put on the value
directly, and the value. It returns the coefficient and the direct relevance to pass on."""


class Operand(Protocol):
    """What a value can be attached to: a wrapper tensor, or the origin in a tensor's tag."""

    @property
    def recorded(self) -> Tensor:
        """The tensor as autograd sees it."""

    @property
    def tag(self) -> "Tag":
        """What is known about the tensor."""


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


@dataclass(eq=False, kw_only=True, slots=True)
class Pointwise(Origin):
    """A tensor that is an elementwise function of an earlier tensor, its root, by a chain of calls.

    Attributes:
        recorded: the root, as autograd sees it.
        function: from the values of the root to the values of the tensor.
        names: names of the operations in the chain.
    """

    function: Composed
    names: frozenset[str] = frozenset()


@dataclass(eq=False, kw_only=True, slots=True)
class ZeroPadding(Origin):
    """Zeros padded around an operand. A convolution takes them as its own padding: they are no inputs.

    Attributes:
        pads: number of zeros at each side, in the order of `F.pad`.
    """

    pads: tuple[int, ...]


class Place(NamedTuple):
    """Where a tensor lies in a storage, counted in elements from where the storage's base begins."""

    offset: int
    shape: Size
    strides: tuple[int, ...]

    def of(self, storage: Tensor) -> Tensor:
        """Return this part of a tensor that begins where the storage begins."""
        return storage.as_strided(self.shape, self.strides, self.offset)


class Island(NamedTuple):
    """A value that was written into zeros: its place, what autograd sees of it, what is known about it."""

    place: Place
    recorded: Tensor
    tag: "Tag"


@dataclass(eq=False, kw_only=True, slots=True)
class AmongZeros(Origin):
    """Values that were written to parts of a tensor of zeros, as pictures of several sizes to one batch.

    A convolution takes the zeros as its own padding: they are no inputs. `recorded` is the tensor itself.

    Attributes:
        islands: the values.
        place: where the tensor lies in the storage.
        memory: the whole storage.
    """

    islands: tuple[Island, ...]
    place: Place
    memory: Place

    def written(self, values: Sequence[Tensor]) -> Tensor:
        """Return zeros of the tensor's shape, with these values where the islands are."""
        like = values[0]
        storage = torch.empty_strided(
            self.memory.shape, self.memory.strides, dtype=like.dtype, device=like.device
        ).zero_()
        for island, value in zip(self.islands, values, strict=True):
            island.place.of(storage).copy_(value)
        return self.place.of(storage)

    def inside(self) -> Tensor:
        """Return where the values are, as a mask of the tensor's shape."""
        return self.written([torch.ones_like(i.recorded, dtype=torch.bool) for i in self.islands])


@dataclass(eq=False, kw_only=True, slots=True)
class Normalised(Origin):
    """A tensor over its own statistics, as in a layer norm, perhaps with scales and shifts since.

    They belong to the normalisation, and are not folded into a linear operation that follows.
    """


@dataclass(eq=False, kw_only=True, slots=True)
class Softmaxed(Origin):
    """The softmax of an operand, so that its logarithm is log_softmax.

    Attributes:
        dim: the dimension over which it sums to one.
    """

    dim: int


class Behind(NamedTuple):
    """What lies between the explained inputs and a tensor.

    Attributes:
        depth: the largest number of linear operations on a way.
        plain: whether there is nothing but dense layers, pointwise functions, sums and what moves values, as
            in a multilayer perceptron: no convolution, product, softmax or normalisation of a sample.
    """

    depth: int = 0
    plain: bool = True

    def after(self, linear: int = 0, *, plain: bool) -> "Behind":
        """What lies behind another operation, given how many linear ones it is, and whether it is plain."""
        return Behind(self.depth + linear, self.plain and plain)


_AT_INPUT = Behind()


def behind_all(tags: Sequence["Tag"], *, plain: bool = True) -> Behind:
    """What lies between the inputs and what is computed from several tensors, by a plain operation or not."""
    depth = -1
    for tag in tags:
        behind = tag.behind
        depth, plain = max(depth, behind.depth), plain and behind.plain
    return Behind(depth, plain)


@dataclass(eq=False, slots=True)
class Total:
    """That a tensor is the sum or the mean of another one, perhaps with constants: what to normalise it by.

    Attributes:
        of: the other tensor, as autograd sees it.
        exponent: its logarithm, if it is made by `exp`.
        dim: the dimension of a sum, without constants, over one dimension; otherwise None.
        scores: what the model called `exp` on before such a sum, whose logarithm is logsumexp of the scores.
        own: the sum itself, as autograd sees it.
        grouped: whether elements of one group are summed, as by `scatter_add`.
        steps: of exponentials, the calls from them to this tensor: the sum, and those that spread it.
        inverted: whether the tensor is one over the sum or the mean.
    """

    of: ReferenceType[Tensor]
    exponent: ReferenceType[Tensor] | None = None
    dim: int | None = None
    scores: Origin | None = None
    own: ReferenceType[Tensor] | None = None
    grouped: bool = False
    steps: tuple[Callable[[Sequence[Tensor]], Tensor], ...] = ()
    inverted: bool = False


@dataclass(eq=False, slots=True)
class Tag:
    """What the engine knows about a relevant tensor.

    Attributes:
        behind: what lies between the explained inputs and the tensor.
        nonnegative: whether the tensor is known to be non-negative.
        slot: a companion tensor of the same shape, or None. Its gradient is relevance that is put on the
            tensor directly; the tensor's own gradient is a coefficient. Only rules that put relevance on
            zeros need slots.
        origin: the operation that made the tensor, if a later one can attach to its operand: see `Origin`.
        pointwise: the root that the tensor is an elementwise function of; None if it is a root itself.
        role: the tensor's role as a factor; of a signal that ends a chain, the chain decides (`role_of`).
        total: what the tensor is the sum or the mean of, if it is one.
        exponent: what the tensor is the exponential of, if the model called `exp` on it.
        gates: which of the parts into which the tensor is split are gates, by number.
        step: number of elements, in logical order, between one sample and the next. None if the samples are
            in the first dimension, possibly merged with others, or if it is not known where they are.
        again: computes the tensor again from what is kept for the backward; None if it would take long.
    """

    behind: Behind = _AT_INPUT
    nonnegative: bool = False
    slot: Tensor | None = None
    origin: Origin | None = None
    pointwise: Pointwise | None = None
    role: Role = Role.SIGNAL
    step: int | None = None
    total: Total | None = None
    exponent: Origin | None = None
    gates: tuple[int, ...] = ()
    again: Callable[[], Kept] | None = None


def all_nonnegative(constant: Tensor) -> bool:
    """Whether a constant is known to be non-negative everywhere. False for complex and fake tensors."""
    if constant.layout is not torch.strided:  # what a sparse tensor does not store is zero
        constant = constant.to_sparse().coalesce().values()
    return not (constant.is_complex() or isinstance(constant, FakeTensor)) and bool((constant >= 0).all())


def empty_slot(tensor: Tensor) -> Tensor:
    """Return a tensor of this shape whose values do not matter. It takes the memory of one number."""
    return torch.zeros((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)


def as_exponential(tag: Tag) -> Origin | None:
    """Return x of a tensor that is exp(x) and that nothing watches."""
    chain = tag.pointwise
    return None if chain is None or chain.watches else tag.exponent


def role_of(tag: Tag) -> Role:
    """Return a tensor's role as a factor."""
    chain = tag.pointwise
    if tag.role is not Role.SIGNAL or chain is None:
        return tag.role
    root = role_of(chain.tag)
    if root.is_weight:
        return root  # a function of weights is a weight
    made = chain.function.role(chain.recorded)
    return root if made is Role.SIGNAL else made


def total_behind(tag: Tag) -> Total | None:
    """Return the total that a tensor is in proportion to, or to one over it, by the functions in between."""
    chain = tag.pointwise
    if chain is None:
        return tag.total
    total, function = chain.tag.total, chain.function
    power = None if total is None else function.power(chain.recorded)
    if total is None or power not in (1, -1):
        return None
    steps = () if chain.watches or not total.steps else (*total.steps, lambda t: function(t[0]))
    inverted = total.inverted != (power == -1)
    return replace(total, dim=None, scores=None, own=None, steps=steps, inverted=inverted)


def is_gate(tag: Tag) -> bool:
    """Whether a tensor is computed from declared gates alone, without evaluating a pointwise function."""
    return tag.role is Role.GATE or (tag.pointwise is not None and tag.pointwise.tag.role is Role.GATE)


def gates_of(tag: Tag) -> tuple[int, ...]:
    """Return which of the parts into which a tensor is split are gates."""
    return tag.gates if tag.pointwise is None else tag.pointwise.tag.gates


def merge_tags(tags: Sequence[Tag], *, nonnegative: bool = False) -> Tag:
    """Return the tag of a result whose operands have these tags, without slot, origin, chain and step."""
    if len(tags) == 1:
        (tag,) = tags
        role, gates = role_of(tag), gates_of(tag)
        return Tag(tag.behind, nonnegative, role=role, total=total_behind(tag), gates=gates)
    for tag in tags:
        if tag.role is Role.SIGNAL and tag.pointwise is None:
            return Tag(behind_all(tags), nonnegative)
    return Tag(behind_all(tags), nonnegative, role=of_joined([role_of(tag) for tag in tags]))
