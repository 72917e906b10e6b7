"""The entry of operations that are exact under the plain gradient; how relevance on zeros crosses them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from relprop.calls import Call, map_leaves, map_tensors, tensors_in
from relprop.intercept import Interception
from relprop.keeping import Kept
from relprop.linear_operations import divide
from relprop.provenance import empty_slot, merge_tags


@dataclass(frozen=True)
class Exact:
    """A linear or homogeneous operation (of degree one): the plain gradient carries coefficients through it.

    Attributes:
        keeps_sign: whether the result of non-negative operands is non-negative.
        nonnegative: whether the result is non-negative whatever the operands are.
        slot: how relevance itself crosses it. "same": the operation rearranges elements, and does the same
            with slots; "pass": elementwise; "share": each operand gets relevance in proportion to what it
            contributed.
    """

    keeps_sign: bool = False
    nonnegative: bool = False
    slot: Literal["same", "pass", "share"] = "share"

    def __call__(self, run: Interception, call: Call) -> Any:
        operands = [t for t in tensors_in((call.args, call.kwargs)) if run.relevant(t)]
        tags = [run.tag(t) for t in operands]
        slots = [tag.slot for tag in tags]
        with_slots = any(slot is not None for slot in slots)
        kept = [run.keep(t) for t in operands] if with_slots and self.slot != "same" else []
        nonnegative = self.nonnegative or (self.keeps_sign and all(tag.nonnegative for tag in tags))
        result = run.native(call)
        outputs = [t for t in tensors_in(result) if t.requires_grad]
        if call.name in _MOVING and outputs[0].dim() and not _keeps_samples_first(operands[0], outputs[0]):
            run.ledger.mixed = True
        out_slots: list[Tensor | None] = [None] * len(outputs)
        if with_slots:
            out_slots = list(self._slots(run, call, operands, slots, kept, outputs))
        for output, slot in zip(outputs, out_slots, strict=True):
            run.set_tag(output, merge_tags(tags, nonnegative=nonnegative, slot=slot))
        return result

    def _slots(
        self,
        run: Interception,
        call: Call,
        operands: list[Tensor],
        slots: list[Tensor | None],
        kept: list[Kept],
        outputs: list[Tensor],
    ) -> Sequence[Tensor | None]:
        if self.slot == "pass" and outputs[0].shape == operands[0].shape:
            return slots[:1]
        function = as_function(run, call)
        if self.slot == "same":
            if call.inplace:
                run.gap(
                    call.name, "relevance on zeros cannot follow this in-place operation; use its plain form"
                )
                return [None] * len(outputs)
            filled = [
                empty_slot(t) if slot is None else slot for t, slot in zip(operands, slots, strict=True)
            ]
            return [t for t in tensors_in(function(filled)) if t.requires_grad]
        present = [slot is not None for slot in slots]

        def backward(*relevance: Tensor | None) -> tuple[Tensor, ...]:
            shared = share(function, [k.value for k in kept], relevance)
            return tuple(R for R, here in zip(shared, present, strict=True) if here)

        roots = [slot for slot in slots if slot is not None]
        return run.attach([empty_slot(t) for t in outputs], roots, backward)


_MOVING = frozenset({"permute", "swapaxes", "movedim", "t", "T", "mT"})


def _keeps_samples_first(operand: Tensor, result: Tensor) -> bool:
    """Whether a permutation of dimensions, which makes a view, leaves the first one where it is."""
    return operand.shape[0] == result.shape[0] and operand.stride(0) == result.stride(0)


def as_function(run: Interception, call: Call) -> Callable[[Sequence[Tensor]], Any]:
    """The call as a function of its relevant operands, in the order of the arguments."""
    # It must not hold the operands themselves, which hold the graph.
    function = call.function
    template = map_tensors(lambda t: _Place() if run.relevant(t) else t, (call.args, call.kwargs))

    def run_with(operands: Sequence[Tensor]) -> Any:
        remaining = iter(operands)
        args, kwargs = map_leaves(lambda v: next(remaining) if isinstance(v, _Place) else v, template)
        return function(*args, **kwargs)

    return run_with


class _Place:
    """Stands where a relevant operand was among a call's arguments."""


def share(
    function: Callable[[Sequence[Tensor]], Any], operands: list[Tensor], relevance: Sequence[Tensor | None]
) -> list[Tensor]:
    """Relevance of the operands of a homogeneous function, in proportion to what they contributed.

    R_i = x_i ∂y/∂x_i · R/y; where y is zero, in equal parts to the zeros that y is connected to.
    """

    def pull(at: list[Tensor], relevance: Sequence[Tensor | None]) -> list[Tensor]:
        with torch.enable_grad():
            leaves = [x.clone().requires_grad_() for x in at]
            # Clones, because the function may work in place.
            outputs = [t for t in tensors_in(function([x.clone() for x in leaves])) if t.requires_grad]
        pairs = [(y, divide(R, y.detach())) for y, R in zip(outputs, relevance, strict=True) if R is not None]
        found = torch.autograd.grad([y for y, _ in pairs], leaves, [s for _, s in pairs])
        return [x * c for x, c in zip(at, found, strict=True)]

    values = [t for t in tensors_in(function([x.clone() for x in operands])) if t.is_floating_point()]
    leftover = [None if R is None else R * (y == 0) for R, y in zip(relevance, values, strict=True)]
    shared = pull(operands, relevance)
    # First to the zeros, of which one wins a maximum of zero; where there are none, terms cancelled to zero.
    for stand_ins in ([(x == 0).to(x) for x in operands], [torch.ones_like(x) for x in operands]):
        if not any(bool(R.any()) for R in leftover if R is not None):
            break
        shared = [R + rest for R, rest in zip(shared, pull(stand_ins, leftover), strict=True)]
        weighed = [t for t in tensors_in(function([x.clone() for x in stand_ins])) if t.is_floating_point()]
        leftover = [None if R is None else R * (y == 0) for R, y in zip(leftover, weighed, strict=True)]
    return shared
