"""Operations that are exact under the plain gradient, and how direct relevance crosses them."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from relprop.calls.call import PLACE, WITHOUT_TENSORS, Call, Signature, signature, written
from relprop.calls.moving import BY_SHAPE
from relprop.calls.nested import map_tensors, tensors_in
from relprop.crossing.samples import step_after
from relprop.engine.attach import attach
from relprop.engine.keep import KeptConstant
from relprop.engine.known import Tag, Total, as_exponential, empty_slot, merge_tags
from relprop.engine.run import Run, with_slot_of
from relprop.engine.seen import Seen, value_of
from relprop.linear.numerics import divide


def relevant_in(args: Sequence[Any]) -> list[Seen]:
    """Return the tensors among arguments that depend on the explained inputs, in order."""
    found: list[Seen] = []
    for a in args:
        kind = type(a)
        if kind is Seen:
            if a.relevant:
                found.append(a)
        elif kind is list or kind is tuple:
            found += [b for b in a if type(b) is Seen and b.relevant]
    return found


@dataclass(frozen=True)
class Exact:
    """A linear or homogeneous operation (of degree one): the plain gradient carries coefficients through it.

    Attributes:
        keeps_sign: whether the result of non-negative operands is non-negative.
        nonnegative: whether the result is non-negative whatever the operands are.
        slot: how direct relevance crosses the operation. "same": the operation rearranges elements, and slots
            are rearranged alike. "pass": the operation is elementwise, and relevance stays on its element.
            "share": each operand gets relevance in proportion to its contribution. "none": direct relevance
            becomes a coefficient of the result, and relevance on zeros is absorbed.
    """

    keeps_sign: bool = False
    nonnegative: bool = False
    slot: Literal["same", "pass", "share", "none"] = "share"

    def __call__(self, run: Run, call: Call, *_args: Any) -> Any:
        operands = relevant_in(call.args)
        result = run.native(call)
        if isinstance(result, Tensor) and result.requires_grad and "none" in (run.slots, self.slot):
            return run.seen(result, self._tag(run, call, operands, result))
        outputs = list(tensors_in(result))
        tag = self._tag(run, call, operands, outputs[0])
        slots: list[Tensor | None] = [None] * len(outputs)
        if run.slots != "none" and self.slot != "none":
            slots = self._slots(run, call, operands, outputs)
        following = iter(slots)

        def seen(output: Tensor) -> Tensor:
            slot = next(following)
            return run.seen(output, with_slot_of(tag, slot) if output.requires_grad else None)

        return map_tensors(seen, result)

    def _tag(self, run: Run, call: Call, operands: list[Seen], output: Tensor) -> Tag:
        tags = [t.tag for t in operands]
        keeps = self.nonnegative or (self.keeps_sign and all([tag.nonnegative for tag in tags]))
        tag = merge_tags(tags, nonnegative=keeps)
        if call.operation in _ADDING or (call.operation == "segment_reduce" and call.args[1] in _ADDING):
            tag.total = total_of(run, call, operands[0], output)
        elif tag.total is not None:
            tag.total = spread(run, call, tag.total)
        if run.ledger.samples > 1:
            tag.step = step_after(run, call, operands, output, self.slot)
        return tag

    def _slots(
        self, run: Run, call: Call, operands: list[Seen], outputs: list[Tensor]
    ) -> list[Tensor | None]:
        slots = [run.slot(t) for t in operands]
        present = [slot is not None for slot in slots]
        carried = [t for t in outputs if t.requires_grad]
        # Slots up to the first linear operations end where something comes in that lies behind one.
        if not any(present) or (run.slots == "inputs" and not all(present)):
            return [None] * len(outputs)
        if self.slot == "pass" and outputs[0].shape == operands[0].shape:
            return slots[:1]
        function = as_function(run, call)
        if self.slot == "same":
            filled = [
                empty_slot(t.recorded) if slot is None else slot
                for t, slot in zip(operands, slots, strict=True)
            ]
            if call.operation in BY_SHAPE:
                return [filled[0].reshape(outputs[0].shape)]
            results = list(tensors_in(function(filled)))
            return [t if t.requires_grad else None for t in results]
        kept = [run.keep(t.recorded) for t in operands]

        def backward(*relevance: Tensor | None) -> tuple[Tensor, ...]:
            shared = share(function, [k.value for k in kept], relevance)
            return tuple(R for R, here in zip(shared, present, strict=True) if here)

        roots = [slot for slot in slots if slot is not None]
        made = iter(attach([empty_slot(t) for t in carried], roots, backward))
        return [next(made) if t.requires_grad else None for t in outputs]


_ADDING = ("sum", "mean")
"""Operations that add elements, and kinds of `segment_reduce` that do."""


def total_of(run: Run, call: Call, x: Seen, output: Tensor) -> Total:
    """What the sum or the mean of a tensor, of all elements or of each group, says of it."""
    exponential, dim = as_exponential(x.tag), call.argument("dim")
    single = call.operation == "sum" and isinstance(dim, (list, tuple)) and len(dim) == 1
    return Total(
        weakref.ref(x.recorded),
        None if exponential is None else weakref.ref(exponential.recorded),
        dim[0] % x.dim() if single and x.dim() else None,
        scores=exponential if single else None,
        own=weakref.ref(output),
        grouped=call.operation not in _ADDING,
        steps=() if exponential is None else (as_function(run, call),),
    )


def spread(run: Run, call: Call, total: Total) -> Total:
    """What is known of a total that a call moves, gathers, or changes by a constant."""
    return replace(total, steps=(*total.steps, as_function(run, call))) if total.steps else total


@dataclass(frozen=True, eq=False, slots=True)
class Function:
    """A call as a function of its relevant operands, in the order of the arguments.

    Attributes:
        signature: signature of the operation.
        template: its arguments, with placeholders for the relevant operands, and constants as kept constants.
    """

    signature: Signature
    template: list[Any]

    def __call__(self, operands: Sequence[Tensor]) -> Any:
        remaining = iter(operands)
        return self.signature.call([_filled(a, remaining) for a in self.template])

    def written(self) -> tuple[Any, ...] | None:
        """Return name and arguments, as a key of functions that are alike; None if a constant is a tensor."""
        return written(self.signature.name, self.template)

    def has_shape(self) -> bool:
        """Whether a constant has dimensions."""
        constants = [a.value if type(a) is KeptConstant else a for a in self.template]
        return any([isinstance(constant, Tensor) and constant.dim() > 0 for constant in constants])


def as_function(run: Run, call: Call) -> Function:
    """Return a call as a function of its relevant operands, in the order of the arguments."""
    return Function(call.signature, [a if type(a) in WITHOUT_TENSORS else _held(run, a) for a in call.args])


def reshaping(shape: Sequence[int]) -> Function:
    """Return the function that gives its operand a shape."""
    return Function(signature(torch.ops.aten.reshape.default), [PLACE, list(shape)])


def _held(run: Run, value: Any) -> Any:
    """Return an argument with placeholders for relevant operands, and constants as kept constants.

    A relevant operand would hold the graph. A constant may be overwritten later.
    """
    kind = type(value)
    if kind is Seen:
        return PLACE if value.relevant else value_of(value)
    if kind is list or kind is tuple:
        return [_held(run, v) for v in value]
    return run.keep_constant(value) if isinstance(value, Tensor) else value


def _filled(value: Any, operands: Iterator[Tensor]) -> Any:
    kind = type(value)
    if value is PLACE:
        return next(operands)
    if kind is list:
        return [_filled(v, operands) for v in value]
    return value.value if kind is KeptConstant else value


def share(
    function: Callable[[Sequence[Tensor]], Any], operands: list[Tensor], relevance: Sequence[Tensor | None]
) -> list[Tensor]:
    """Return the relevance of the operands of a homogeneous function, in proportion to their contributions.

    R_i = x_i ∂y/∂x_i · R/y. Where y is zero, the zeros that y is connected to get equal parts.
    """

    def gradients(at: list[Tensor], weigh: Callable[[int, Tensor], Tensor | None]) -> list[Tensor]:
        """Gradients of the outputs, each multiplied by a weight, at given operands."""
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

        # A maximum may begin with -∞, which contributes nothing.
        return [torch.where(c == 0, 0, x * c) for x, c in zip(at, gradients(at, weigh), strict=True)]

    def without_share(at: list[Tensor], relevance: Sequence[Tensor | None]) -> list[Tensor | None]:
        values = [t for t in tensors_in(function([x.clone() for x in at])) if t.is_floating_point()]
        return [None if R is None else R * (y == 0) for R, y in zip(relevance, values, strict=True)]

    shared, rest = share_by(operands, relevance), without_share(operands, relevance)
    if not any(bool(R.any()) for R in rest if R is not None):
        return shared
    # First to operands that are zero: one of them wins a maximum of zero. If there are none, terms cancelled.
    signs = [g.sign() for g in gradients(operands, lambda i, y: torch.ones_like(y))]
    zeros = [(x == 0) * sign for x, sign in zip(operands, signs, strict=True)]
    # A minimum of zero is won by a negative stand-in.
    # A norm has no gradient where all elements are zero, and a deviation has none where all are equal.
    ones = [torch.ones_like(x) for x in operands]
    ramps = [x.flatten().cumsum(0).view_as(x) for x in ones]
    for stand_ins in (zeros, signs, [-x for x in zeros], [-x for x in signs], ones, ramps):
        shared = [R + more for R, more in zip(shared, share_by(stand_ins, rest), strict=True)]
        rest = without_share(stand_ins, rest)
    return shared
