"""What entries of the operation table may use: keep values, attach backwards, choose rules, fill sinks."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from relprop.calls.call import WITHOUT_TENSORS, Call
from relprop.calls.site import Applied, Site, Slots
from relprop.calls.user_line import function_around, user_line
from relprop.engine.attach import attach
from relprop.engine.constants import OfParameters
from relprop.engine.gaps import FEW, NO_GRADIENT, Gap, Gaps
from relprop.engine.keep import Constants, Keeper, Kept, KeptConstant
from relprop.engine.known import Behind, Operand, Tag, all_nonnegative, empty_slot
from relprop.engine.levels import seeing, tracking
from relprop.engine.memory import copy_of
from relprop.engine.modules import ModulePaths
from relprop.engine.parameters import ParameterRelevance
from relprop.engine.plain_weights import PlainWeights
from relprop.engine.roles import Role
from relprop.engine.seen import Seen, inner_of, value_of, within
from relprop.linear.numerics import divide, times
from relprop.linear.operation import Incoming
from relprop.results.ledger import Ledger

Outgoing = tuple[Tensor | None, Tensor | None]
"""Relevance that goes to an operand: its coefficient, and relevance put on it directly."""

Back = Callable[[Incoming], Sequence[Outgoing]]
"""A backward: from the relevance that arrives at a value to the relevance of each operand, in order."""


class Run:
    """One run of a model, as entries see it.

    Attributes:
        choose: returns the rule for a site, or None.
        unmatched: what the error says where `choose` returns None.
        slots: which tensors get a slot.
        ledger: amounts of relevance: the seed, what arrived at the inputs, what was absorbed.
        applied: the rules that were applied, in order.
        part_of: name and module path of the linear operation that the present call was folded into, or None.
        modules: the modules that are running.
        gaps: operations that are not covered.
        of_parameters: constants that were made of parameters.
        parameters: collects the relevance of parameters; None if it was not asked for.
        weights: plain values of parameters of other classes of tensors.
        block: the checkpointed module call that is running, which drops kept values; None outside of one.
        interception: handles the calls on this run's wrapper tensors.
        any_clipped: whether outputs that a ReLU set to zero are kept as zeros.
        scores: whether the target computes scores of the model's output now.
        is_over: whether the run's context was left. Calls on its wrapper tensors are plain calls afterwards.
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
        self.weights = PlainWeights(self.of_parameters, parameters)
        self.block: Keeper | None = None
        self.constants = Constants()
        # A constant that absorbs relevance is attached to this leaf, because autograd only runs a backward
        # that leads to a leaf.
        self.anchor = torch.zeros(0, requires_grad=True)
        self.interception: Any = None
        self.any_clipped = False
        self.scores = False
        self.is_over = False

    def begin(self) -> None:
        """Start a new ledger, for another target of the same forward."""
        self.ledger = Ledger(samples=self.ledger.samples, per_operation=self.ledger.per_operation)

    # ---- values ----

    def keep(self, tensor: Tensor, *, clippable: bool = False) -> Kept:
        """Keep a value for the backward. If it is `clippable` and a ReLU follows, relu(value) may be kept."""
        kept = Kept(tensor, clippable=clippable)
        return kept if self.block is None else self.block.keep(kept)

    def keep_constant(self, tensor: Tensor) -> KeptConstant:
        """Keep a constant, such as a weight, without a copy until the model overwrites it."""
        return self.constants.keep(tensor)

    def keep_saved(self, tensor: Tensor) -> Any:
        """Keep a tensor that autograd saves. `saved_value` returns its value."""
        if type(tensor) is Seen:  # torch's own checkpoints save wrapper tensors
            return tensor
        return self.constants.keep(tensor) if self.block is None else self.block.keep(Kept(tensor))

    def native(self, call: Call, args: Sequence[Any] | None = None) -> Any:
        """Run a call on the inner tensors, recorded by autograd. Returns inner tensors."""
        given = call.args if args is None else args
        return call.on([a if type(a) in WITHOUT_TENSORS else inner_of(a) for a in given])

    def value(self, call: Call, args: Sequence[Any] | None = None) -> Any:
        """Run a call on the inner tensors, not recorded by autograd. Returns plain tensors."""
        with tracking():
            given = call.args if args is None else args
            return call.on([a if type(a) in WITHOUT_TENSORS else within(a) for a in given])

    def seen(self, inner: Tensor, tag: Tag | None) -> Seen:
        """Return a wrapper tensor for the model: relevant with a tag, a constant without one."""
        if inner.dtype.is_complex and inner.is_conj():
            inner = inner.resolve_conj()  # a wrapper tensor has no lazy conjugation
        return Seen.of(inner, tag, self)

    def perform(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a torch function as the model would, for an entry that writes an operation out as parts."""
        with seeing(), self.interception.mode:
            return function(*args, **kwargs)

    # ---- relevance ----

    def slot(self, operand: Operand) -> Tensor | None:
        """Return the slot of an operand, or None.

        If every tensor should have a slot and an operation without support for slots lost it, the slot is a
        new one. Relevance of a new slot becomes a coefficient.
        """
        slot, inner = operand.tag.slot, operand.recorded
        if slot is not None or self.slots != "all" or inner.is_complex():
            return slot
        kept, path = self.keep(inner), self.modules.path

        def backward(direct: Tensor) -> tuple[Tensor]:
            return (self.as_coefficient(direct, kept.value, path, "relevance on zeros"),)

        return attach([empty_slot(inner)], [inner], backward)[0]

    def as_coefficient(self, direct: Tensor, x: Tensor, path: str, operation: str) -> Tensor:
        """Return relevance put on x directly as a coefficient of x. Relevance on zeros of x is absorbed."""
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
        """Attach a backward to a value and return the value as a wrapper tensor.

        Args:
            value: the result of the operation, without a graph.
            operands: the relevant tensors that the value depends on.
            back: the backward.
            tag: what is known about the value, except its slot.
            kept: the kept value, if `back` reads `Incoming.z`.
            slot: whether the value has a slot; by default it has one if all operands have. "same" if direct
                relevance stays on its element, so that the value shares the slot of its one operand.
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

    def site(self, call: Call, kind: str, behind: Behind) -> Site:
        """Return the place of a call in the model."""
        return Site(self.modules.path, self.modules.modules, call.name, kind, behind.depth, behind.plain)

    def apply(self, call: Call, rule: Any) -> None:
        """Record that a rule was applied to a call."""
        self.applied.append(Applied(self.modules.path, call.name, rule))

    def sink_of(self, constant: Any) -> str:
        """Return the name of the sink for relevance that a constant absorbs."""
        return "parameters" if self.of_parameters.has(constant) else "constant"

    def source(
        self,
        constant: Tensor,
        operation: str,
        dtype: torch.dtype | None = None,
        step: int | None = None,
        role: Role = Role.CONSTANT,
    ) -> Seen:
        """Return a stand-in for a constant operand. It absorbs the relevance that arrives at it."""
        value = value_of(constant).detach()
        value = copy_of(value) if dtype in (None, value.dtype) else value.to(dtype)
        return self.sink(
            self.sink_of(constant),
            value,
            operation,
            Tag(nonnegative=all_nonnegative(value), role=role, step=step),
        )

    def sink(self, name: str, value: Tensor, operation: str, tag: Tag) -> Seen:
        """Return a value as a wrapper tensor that absorbs all relevance that arrives at it.

        Args:
            name: name of the sink in the ledger.
            value: the value, without a graph.
            operation: name of the operation, for the ledger.
            tag: what is known about the value, except its slot.
        """
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
        """Record an operation that is not covered, or its plain gradient as applied if that is accepted.

        The run goes on, so that all gaps are found.
        """
        found = Gap(self.modules.path, operation, user_line(), reason, acceptable)
        if not self.gaps.add(found):
            self.applied.append(Applied(found.path, operation, "plain gradient, accepted"))

    def refuse(self, operation: str, reason: str, acceptable: bool = False) -> None:
        """Record what the model did that is an error wherever relevance goes, unless it is accepted."""
        self.gaps.find(Gap(self.modules.path, operation, user_line(), reason, acceptable))

    def look(self, operation: str) -> None:
        """Record an operation that has no gradient, such as a comparison. This is no gap."""
        self._note(self.gaps.looks, operation, NO_GRADIENT)

    def cut(self, operation: str, reason: str) -> None:
        """Record a place where the model makes a constant of a relevant tensor. This is no gap."""
        self._note(self.gaps.cuts, operation, reason)

    def _note(self, places: list[Gap], operation: str, reason: str) -> None:
        """Add a place to the first few. To find the user's line takes long, and is done for these alone."""
        if len(places) < FEW:
            places.append(Gap(self.modules.path, operation, user_line(), reason, within=function_around()))


def with_slot_of(tag: Tag, slot: Tensor | None) -> Tag:
    """Return the tag with this slot."""
    if tag.slot is slot:
        return tag
    # Faster than dataclasses.replace, for each operation.
    own = tag.origin, tag.pointwise, tag.role, tag.step, tag.total, tag.exponent, tag.gates, tag.again
    return Tag(tag.behind, tag.nonnegative, slot, *own)


def _value(kept: Kept | None) -> Tensor | None:
    return None if kept is None else kept.value
