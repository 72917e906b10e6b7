"""The one autograd function: it attaches another backward to a value that is already computed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.engine.keep import StepOfBackward
from relprop.engine.levels import aside

Backward = Callable[..., Sequence[Tensor | None]]
"""From the gradients of the values (None where no relevance arrives) to the gradients of the roots."""


@dataclass(slots=True)
class Step:
    """The arguments of `Attach`. In this object autograd does not see the values as inputs or copy them.

    Attributes:
        values: the values, until they are attached.
        backward: the backward, until it has run.
        through_relus: whether all that arrives in the backward has come through ReLUs (see `find_relus`).
    """

    values: tuple[Tensor, ...]
    backward: Backward | None
    through_relus: bool = False


class Attach(torch.autograd.Function):
    """Returns values with another backward, attached to roots that need not be their operands."""

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
        if not _retained.backwards:
            step.backward = None  # frees the kept values, as autograd does
        # Calls of a rule are not calls of the model.
        with aside(), StepOfBackward(through_relus=step.through_relus):
            return (None, *backward(*coefficients))


class _Retained:
    """The backwards after which a graph is used again. While there are any, no run frees its kept values."""

    def __init__(self) -> None:
        self.backwards: set[object] = set()


_retained = _Retained()


@contextmanager
def retaining(wanted: bool) -> Iterator[None]:
    """Let backwards keep their values, if `wanted`, for another backward through the same graph."""
    this = object()
    try:
        if wanted:
            _retained.backwards.add(this)
        yield
    finally:
        _retained.backwards.discard(this)


def attach(values: Sequence[Tensor], roots: Sequence[Tensor], backward: Backward) -> tuple[Tensor, ...]:
    """Return `values` as functions of `roots` whose backward is `backward`.

    The backward runs once, as that of a graph that is not retained. Within `retaining` it runs again.
    """
    # A view that an autograd function returns could not be overwritten in place.
    owned = tuple(value.detach() if value._is_view() else value for value in values)
    result: tuple[Tensor, ...] = _applied()(Step(owned, backward), *roots)
    return result


def _applied() -> Callable[..., tuple[Tensor, ...]]:
    """Return `Attach.apply`, without torch's work for functorch transforms if none is active."""
    if torch._C._are_functorch_transforms_active():
        return Attach.apply
    return super(torch.autograd.Function, Attach).apply


_NODE: Any = Attach._backward_cls
_RELU = "ReluBackward0"
"""Autograd's node of max(0, x). A node of a clamp may have other bounds."""


def find_relus(ends: Sequence[Tensor]) -> None:
    """Find the values that relevance comes to through ReLUs alone, in the graph of a backward.

    Only the graph tells this for sure: a value may have consumers that no call of the model shows.

    Args:
        ends: the tensors from which the backward starts.
    """
    nodes: list[Any] = [t.grad_fn for t in ends if t.grad_fn is not None]
    met, beside = set(nodes), set(nodes)
    for node in nodes:  # which grows
        is_relu = node.name() == _RELU
        for following, _ in node.next_functions:
            if following is None:
                continue
            if not is_relu and type(following) is _NODE:
                beside.add(following)
            if following not in met:
                met.add(following)
                nodes.append(following)
    for node in met:
        if type(node) is _NODE:
            node.step.through_relus = node not in beside
