"""The one autograd function: it gives a value that is already computed a backward of our own."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.engine.keep import StepOfBackward
from relprop.engine.levels import aside

Backward = Callable[..., Sequence[Tensor | None]]
"""From the coefficients of the values (None where nothing arrives) to those of the roots."""


@dataclass(slots=True)
class Step:
    """What `Attach` needs, out of autograd's sight: the values are fresh tensors to it, and not copied."""

    values: tuple[Tensor, ...]
    backward: Backward | None


class Attach(torch.autograd.Function):
    """Values with a backward of our own, attached to roots that need not be their operands."""

    @staticmethod
    def forward(ctx: Any, step: Step, *roots: Tensor) -> tuple[Tensor, ...]:
        ctx.step = step
        ctx.set_materialize_grads(False)
        values, step.values = step.values, ()
        return values

    @staticmethod
    def backward(ctx: Any, *coefficients: Tensor | None) -> tuple[Tensor | None, ...]:
        step: Step = ctx.step
        if step.backward is None:
            raise RuntimeError("relevance was propagated through this graph already; run the model again.")
        if all(c is None for c in coefficients):
            return (None,) * len(ctx.needs_input_grad)
        backward = step.backward
        if not _retained.count:
            step.backward = None  # frees the kept values, as autograd does
        with aside(), StepOfBackward():  # a rule's own calls are not the model's
            return (None, *backward(*coefficients))


class _Retained:
    """How many runs will go through their graph again. Kept values of all runs live longer meanwhile."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        with self._lock:
            self.count += number


_retained = _Retained()


@contextmanager
def retaining(wanted: bool) -> Iterator[None]:
    """Let backwards keep what they need, for another one through the same graph."""
    _retained.add(int(wanted))
    try:
        yield
    finally:
        _retained.add(-int(wanted))


def attach(values: Sequence[Tensor], roots: Sequence[Tensor], backward: Backward) -> tuple[Tensor, ...]:
    """Return `values` as functions of `roots` whose backward is `backward`.

    Usable once, like a graph not retained; inside of `retaining` again.
    """
    # As an output of an autograd function, a view could not be overwritten.
    owned = tuple(value.detach() if value._is_view() else value for value in values)
    result: tuple[Tensor, ...] = _applied()(Step(owned, backward), *roots)
    return result


def _applied() -> Callable[..., tuple[Tensor, ...]]:
    """What records the function: without what torch does beforehand for its transforms, where none is on."""
    if torch._C._are_functorch_transforms_active():
        return Attach.apply
    return super(torch.autograd.Function, Attach).apply
