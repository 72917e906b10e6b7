"""The entry of operations that are exact under the plain gradient; how relevance on zeros crosses them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from relprop.attach import attach
from relprop.calls import Call, map_leaves, map_tensors, tensors_in
from relprop.intercept import Interception
from relprop.keeping import Kept
from relprop.linear.numerics import divide
from relprop.provenance import empty_slot, merge_tags


@dataclass(frozen=True)
class Exact:
    """A linear or homogeneous operation (of degree one): the plain gradient carries coefficients through it.

    Attributes:
        keeps_sign: whether the result of non-negative operands is non-negative.
        nonnegative: whether the result is non-negative whatever the operands are.
        slot: how relevance itself crosses it. "same": the operation rearranges elements, and does the same
            with slots; "pass": elementwise; "share": each operand gets relevance in proportion to what it
            contributed. "none": as a coefficient; what lands on zeros is in the ledger.
    """

    keeps_sign: bool = False
    nonnegative: bool = False
    slot: Literal["same", "pass", "share", "none"] = "share"

    def __call__(self, run: Interception, call: Call) -> Any:
        operands = [t for t in tensors_in((call.args, call.kwargs)) if run.relevant(t)]
        tags = [run.tag(t) for t in operands]
        slots = [run.slot(t) for t in operands]
        with_slots = self.slot != "none" and any(slot is not None for slot in slots)
        # Made before the call, which may overwrite its first argument.
        function = as_function(run, call) if with_slots else None
        kept = [run.keep(t) for t in operands] if with_slots and self.slot != "same" else []
        nonnegative = self.nonnegative or (self.keeps_sign and all(tag.nonnegative for tag in tags))
        versions = [t._version for t in operands]
        result = run.native(call)
        changed = versions != [t._version for t in operands]
        outputs = [t for t in tensors_in(result) if t.requires_grad]
        out_slots: Sequence[Tensor | None] = [None] * len(outputs)
        if function is not None:
            out_slots = self._slots(run, call, function, operands, slots, kept, outputs)
        for output, slot in zip(outputs, out_slots, strict=True):
            # What returns its operand itself, as dropout does in evaluation, tells nothing new of it.
            if changed or not any(output is operand for operand in operands):
                run.set_tag(output, merge_tags(tags, nonnegative=nonnegative, slot=slot))
        return result

    def _slots(
        self,
        run: Interception,
        call: Call,
        function: Callable[[Sequence[Tensor]], Any],
        operands: list[Tensor],
        slots: list[Tensor | None],
        kept: list[Kept],
        outputs: list[Tensor],
    ) -> Sequence[Tensor | None]:
        if self.slot == "pass" and outputs[0].shape == operands[0].shape:
            return slots[:1]
        if self.slot == "same":
            if call.inplace:
                reason = "relevance on zeros cannot follow this in-place operation; use its plain form"
                run.gap(call.name, reason)
                return [None] * len(outputs)
            filled = [
                empty_slot(t) if slot is None else slot for t, slot in zip(operands, slots, strict=True)
            ]
            if call.name == "view":  # for which the slot's memory may lie otherwise than the tensor's
                return [filled[0].reshape(outputs[0].shape)]
            return [t for t in tensors_in(function(filled)) if t.requires_grad]
        present = [slot is not None for slot in slots]

        def backward(*relevance: Tensor | None) -> tuple[Tensor, ...]:
            shared = share(function, [k.value for k in kept], relevance)
            return tuple(R for R, here in zip(shared, present, strict=True) if here)

        roots = [slot for slot in slots if slot is not None]
        return attach([empty_slot(t) for t in outputs], roots, backward)


def as_function(run: Interception, call: Call) -> Callable[[Sequence[Tensor]], Any]:
    """The call as a function of its relevant operands, in the order of the arguments."""
    # It must not hold the operands themselves, which hold the graph; constants may be overwritten later.
    function, inplace = call.function, call.inplace and bool(call.args)
    template = map_tensors(
        lambda t: _Place() if run.relevant(t) else run.keep_constant(t), (call.args, call.kwargs)
    )
    if inplace and isinstance(call.args[0], Tensor) and not run.relevant(call.args[0]):
        template = ([call.args[0].detach().clone(), *template[0][1:]], template[1])

    def run_with(operands: Sequence[Tensor]) -> Any:
        remaining = iter(operands)
        args, kwargs = map_leaves(
            lambda v: next(remaining) if isinstance(v, _Place) else v.value if isinstance(v, Kept) else v,
            template,
        )
        if inplace:  # on a copy
            args = [args[0].clone(), *args[1:]]
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

    def gradients(at: list[Tensor], weigh: Callable[[int, Tensor], Tensor | None]) -> list[Tensor]:
        """Gradients of the outputs, each weighed, at given operands."""
        with torch.enable_grad():
            leaves = [x.clone().requires_grad_() for x in at]
            # Clones, because the function may work in place.
            outputs = [t for t in tensors_in(function([x.clone() for x in leaves])) if t.requires_grad]
        weighed = [(y, weigh(i, y.detach())) for i, y in enumerate(outputs)]
        pairs = [(y, weight) for y, weight in weighed if weight is not None]
        return list(torch.autograd.grad([y for y, _ in pairs], leaves, [weight for _, weight in pairs]))

    def share_by(at: list[Tensor], relevance: Sequence[Tensor | None]) -> list[Tensor]:
        def weigh(i: int, y: Tensor) -> Tensor | None:
            R = relevance[i]
            return None if R is None else divide(R, y)

        return [x * c for x, c in zip(at, gradients(at, weigh), strict=True)]

    def without_share(at: list[Tensor], relevance: Sequence[Tensor | None]) -> list[Tensor | None]:
        values = [t for t in tensors_in(function([x.clone() for x in at])) if t.is_floating_point()]
        return [None if R is None else R * (y == 0) for R, y in zip(relevance, values, strict=True)]

    shared, rest = share_by(operands, relevance), without_share(operands, relevance)
    if not any(bool(R.any()) for R in rest if R is not None):
        return shared
    # First to the zeros, of which one wins a maximum of zero; where there are none, terms cancelled to zero.
    signs = [g.sign() for g in gradients(operands, lambda i, y: torch.ones_like(y))]
    zeros = [(x == 0) * sign for x, sign in zip(operands, signs, strict=True)]
    # A minimum of zero is won by what is negative.
    for stand_ins in (zeros, signs, [-x for x in zeros], [-x for x in signs]):
        shared = [R + more for R, more in zip(shared, share_by(stand_ins, rest), strict=True)]
        rest = without_share(stand_ins, rest)
    return shared
