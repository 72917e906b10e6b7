"""What entries of the operation table may use: to keep values, attach backwards, choose rules, fill sinks."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from relprop.calls.call import Call
from relprop.calls.site import Applied, Site, Slots
from relprop.calls.user_line import user_line
from relprop.engine.attach import attach
from relprop.engine.constants import OfParameters
from relprop.engine.gaps import Gap, Gaps
from relprop.engine.keep import Constants, Keeper, Kept, KeptConstant
from relprop.engine.known import Tag, all_nonnegative, empty_slot
from relprop.engine.levels import seeing, tracking
from relprop.engine.memory import copy_of
from relprop.engine.modules import ModulePaths
from relprop.engine.parameters import ParameterRelevance
from relprop.engine.seen import Seen, inner_of, value_of, within
from relprop.linear.numerics import divide, times
from relprop.linear.operation import Incoming
from relprop.results.ledger import Ledger


class Operand(Protocol):
    """What a value can be attached to: a seen tensor, or the origin that one has."""

    @property
    def recorded(self) -> Tensor:
        """The tensor as autograd sees it."""

    @property
    def tag(self) -> Tag:
        """What is known of it."""


Outgoing = tuple[Tensor | None, Tensor | None]
"""Relevance that goes to an operand: its coefficient, and relevance put on it directly."""

Back = Callable[[Incoming], Sequence[Outgoing]]
"""From what arrives at a value to what goes to its operands, one after the other."""


class Run:
    """One propagation, as entries see it.

    Attributes:
        choose: gives the rule for an operation that needs one, or None.
        unmatched: what to say where it gives None.
        slots: which tensors get a slot for relevance itself.
        ledger: where relevance went.
        applied: the rules that were used.
        part_of: name and module path of the operation that the present call became part of, if it did.
        modules: which module runs.
        gaps: what is not covered.
        of_parameters: which constants were made of parameters.
        parameters: collects the relevance of parameters, if it is wanted.
        block: the module whose values are let go while it runs, if any.
        interception: takes calls on seen tensors that are made while no mode is active, as within another.
        is_over: whether calls are none of the run's any more.
    """

    def __init__(
        self,
        choose: Callable[[Site], Any],
        *,
        unmatched: str = "it has no rule",
        slots: Slots = "none",
        per_operation: bool = False,
        accept: Collection[str] = (),
        parameters: ParameterRelevance | None = None,
    ) -> None:
        self.choose = choose
        self.unmatched = unmatched
        self.slots = slots
        self.ledger = Ledger(per_operation=per_operation)
        self.applied: list[Applied] = []
        self.part_of: tuple[str, str] | None = None
        self.modules = ModulePaths()
        self.gaps = Gaps(accept)
        self.of_parameters = OfParameters()
        self.parameters = parameters
        self.block: Keeper | None = None
        self.constants = Constants()
        # Constants that relevance meets hang on it, because autograd only visits what leads to a variable.
        self.anchor = torch.zeros(0, requires_grad=True)
        self.interception: Any = None
        self.is_over = False

    def begin(self) -> None:
        """Open new books, for another target of the same forward."""
        self.ledger = Ledger(samples=self.ledger.samples, per_operation=self.ledger.per_operation)

    # ---- values ----

    def keep(self, tensor: Tensor, *, clippable: bool = False) -> Kept:
        """Keep a value for the backward. Clippable: or, behind a ReLU, what the ReLU makes of it."""
        kept = Kept(tensor, clippable=clippable)
        return kept if self.block is None else self.block.keep(kept)

    def keep_constant(self, tensor: Tensor) -> KeptConstant:
        """Keep a constant, such as a weight, which stays where it is anyway."""
        return self.constants.keep(tensor)

    def keep_saved(self, tensor: Tensor) -> Any:
        """Keep what autograd saves, for `saved_value`."""
        if type(tensor) is Seen:  # which torch's own checkpoints save
            return tensor
        return self.constants.keep(tensor) if self.block is None else self.block.keep(Kept(tensor))

    def native(self, call: Call, args: Sequence[Any] | None = None) -> Any:
        """Run a call as it is, recorded by autograd: what autograd sees of its results."""
        return call.on([inner_of(a) for a in (call.args if args is None else args)])

    def value(self, call: Call, args: Sequence[Any] | None = None) -> Any:
        """Run a call unrecorded."""
        with tracking():
            return call.on([within(a) for a in (call.args if args is None else args)])

    def seen(self, inner: Tensor, tag: Tag | None) -> Seen:
        """A tensor for the model: with what is known of it, or as a constant."""
        if inner.dtype.is_complex and inner.is_conj():
            inner = inner.resolve_conj()  # envelopes do not put it off
        return Seen.of(inner, tag, self)

    def perform(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a torch function as the model would, for an operation that is written out as its parts."""
        with seeing(), self.interception.mode:
            return function(*args, **kwargs)

    # ---- relevance ----

    def slot(self, operand: Operand) -> Tensor | None:
        """The slot of an operand; a new one where an operation that does not know slots lost it."""
        slot, inner = operand.tag.slot, operand.recorded
        if slot is not None or self.slots != "all" or inner.is_complex():
            return slot
        kept, path = self.keep(inner), self.modules.path

        def backward(direct: Tensor) -> tuple[Tensor]:
            return (self.as_coefficient(direct, kept.value, path, "relevance on zeros"),)

        return attach([empty_slot(inner)], [inner], backward)[0]

    def as_coefficient(self, direct: Tensor, x: Tensor, path: str, operation: str) -> Tensor:
        """Relevance of x as its coefficient; what lies on zeros is absorbed."""
        self.ledger.add("zero input", direct * (x == 0), path, operation)
        return divide(direct, x)

    def cross(
        self,
        value: Tensor,
        operands: Sequence[Operand],
        back: Back,
        tag: Tag,
        *,
        kept: Kept | None = None,
        slot: bool | Literal["same"] | None = None,
    ) -> Seen:
        """Give a value a backward of its own.

        Args:
            value: what the operation computed, a tensor of its own.
            operands: what it depends on.
            back: the backward.
            tag: what is known of the value, but for its slot.
            kept: the value for the backward, where `back` looks at `Incoming.z`.
            slot: whether the value has a slot, by default where all operands have one; "same" where relevance
                itself stays on its element, so that the slot of the one operand is the value's too.
        """
        if slot == "same":
            roots, same = [operands[0].recorded], self.slot(operands[0])
            (output,) = attach([value], roots, lambda c: back(Incoming(c, None, _value(kept)))[0][:1])
            return self.seen(output, with_slot_of(tag, same))
        if self.slots == "none":
            roots = [operand.recorded for operand in operands]

            def without_slots(c: Tensor | None) -> list[Tensor | None]:
                return [coefficient for coefficient, _ in back(Incoming(c, None, _value(kept)))]

            return self.seen(attach([value], roots, without_slots)[0], tag)
        slots = [self.slot(operand) for operand in operands]
        present = [slot is not None for slot in slots]
        roots = [operand.recorded for operand in operands]
        roots += [slot for slot in slots if slot is not None]
        with_slot = all(present) if slot is None else slot

        def backward(c: Tensor | None, direct: Tensor | None = None) -> list[Tensor | None]:
            outgoing = back(Incoming(c, direct, _value(kept)))
            return [
                *(coefficient for coefficient, _ in outgoing),
                *(direct for (_, direct), here in zip(outgoing, present, strict=True) if here),
            ]

        output, *beside = attach([value, empty_slot(value)] if with_slot else [value], roots, backward)
        return self.seen(output, with_slot_of(tag, beside[0] if beside else None))

    def site(self, call: Call, kind: str, depth: int) -> Site:
        """Where a call stands."""
        return Site(self.modules.path, self.modules.modules, call.name, kind, depth)

    def apply(self, call: Call, rule: Any) -> None:
        """Note that a call got a rule."""
        self.applied.append(Applied(self.modules.path, call.name, rule))

    def sink_of(self, constant: Any) -> str:
        """Name of the sink of what relevance a constant absorbs."""
        return "parameters" if self.of_parameters.has(constant) else "constant"

    def source(
        self, constant: Tensor, operation: str, dtype: torch.dtype | None = None, step: int | None = None
    ) -> Seen:
        """Return a stand-in for a constant that relevance meets; what arrives there is absorbed."""
        value = value_of(constant).detach()
        value = copy_of(value) if dtype in (None, value.dtype) else value.to(dtype)
        return self.sink(
            self.sink_of(constant), value, operation, Tag(nonnegative=all_nonnegative(value), step=step)
        )

    def sink(self, name: str, value: Tensor, operation: str, tag: Tag) -> Seen:
        """Return a value as an end of the way: what relevance arrives there is absorbed."""
        path, kept, step = self.modules.path, self.keep(value), tag.step

        def backward(c: Tensor | None, direct: Tensor | None = None) -> tuple[None]:
            for amount in (None if c is None else times(c, kept.value), direct):
                if amount is not None:
                    self.ledger.add(name, amount, path, operation, step)
            return (None,)

        values = [value] if self.slots == "none" else [value, empty_slot(value)]
        output, *slot = attach(values, [self.anchor], backward)
        return self.seen(output, with_slot_of(tag, slot[0] if slot else None))

    # ---- what is not covered ----

    def gap(self, operation: str, reason: str = Gap.reason, acceptable: bool = True) -> None:
        """Note an operation that is not covered; the run goes on, so that all gaps are found."""
        found = Gap(self.modules.path, operation, user_line(), reason, acceptable)
        if not self.gaps.add(found):
            self.applied.append(Applied(found.path, operation, "plain gradient, accepted"))

    def refuse(self, operation: str, reason: str, acceptable: bool = False) -> None:
        """Note what the model did that makes every explanation doubtful, wherever relevance goes."""
        self.gaps.find(Gap(self.modules.path, operation, user_line(), reason, acceptable))

    def cut(self, operation: str, reason: str) -> None:
        """Note where the way of relevance ends without a gap."""
        self.gaps.cut(Gap(self.modules.path, operation, user_line(), reason))


def with_slot_of(tag: Tag, slot: Tensor | None) -> Tag:
    """A tag with this slot."""
    if tag.slot is slot:
        return tag
    return Tag(tag.depth, tag.nonnegative, slot, tag.origin, tag.pointwise, tag.gate, tag.step)


def _value(kept: Kept | None) -> Tensor | None:
    return None if kept is None else kept.value
