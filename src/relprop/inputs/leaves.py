"""The explained inputs as autograd sees them: tensors at which coefficients and direct relevance arrive."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.crossing.samples import step_of
from relprop.inputs.tokens import IdInput
from relprop.linear.numerics import wide


@dataclass(frozen=True, eq=False)
class Leaf:
    """An explained floating-point input, or the result of an embedding that looks up integer inputs.

    Attributes:
        root: the tensor whose coefficient autograd computes. For an embedding (*index, dimensions), for
            one-hot vectors (*index).
        slot: the tensor whose gradient is the direct relevance, or None.
        name: name of the argument, for a floating-point input.
        positions: for an embedding the position of each row's id, (*index) int64, or -1 if the row is not
            that of an id. A position is the number of an element, counted through all integer inputs.
        inputs: the integer inputs of the run.
    """

    root: Tensor
    slot: Tensor | None = None
    name: str = ""
    positions: Tensor | None = None
    inputs: Sequence[IdInput] = ()

    def relevance(self, found: Mapping[Tensor, Tensor | None]) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return the relevance of inputs by name, and that of rows that belong to no input, or None.

        It is R = x·c plus the direct relevance. For embeddings, x and R have at least single precision.

        Args:
            found: the gradients of root and slot, or None.
        """
        c, direct = found[self.root], None if self.slot is None else found[self.slot]
        root = self.root if self.positions is None else self.root.to(wide(self.root.dtype))
        R = torch.zeros_like(root) if c is None else root * c
        return self.of_inputs((R if direct is None else R + direct).detach())

    def of_inputs(self, R: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return the relevance of inputs by name, and that of rows of no input, (*index), or None.

        The relevance of an integer is the sum over the rows that it looked up.

        Args:
            R: relevance of the root.
        """
        if self.positions is None:
            return {self.name: R}, None
        rows = R.flatten(self.positions.dim()).sum(-1) if R.dim() > self.positions.dim() else R
        counts = self.positions >= 0
        total = max(each.first + _size(each) for each in self.inputs)
        counted = rows.masked_fill(~counts, 0).flatten()
        summed = rows.new_zeros(total).index_add(0, self.positions.clamp(min=0).flatten(), counted)
        of_inputs = {
            each.name: summed[each.first : each.first + _size(each)].reshape(each.shape)
            for each in self.looked_up()
        }
        return of_inputs, None if bool(counts.all()) else rows.masked_fill(counts, 0)

    def step(self, samples: int) -> int | None:
        """Return the step between samples in the root (see `Tag.step`); None if first, or unknown."""
        inputs, positions = self.looked_up(), self.positions
        if len(inputs) != 1 or positions is None or samples == 1 or bool((positions < 0).any()):
            return None
        (each,) = inputs
        if each.bags is not None:
            return None
        step = step_of((positions - each.first) // (_size(each) // samples), samples)
        return None if step is None else step * self.root.shape[positions.dim() :].numel()

    def looked_up(self) -> list[IdInput]:
        """Return the integer inputs of which at least one element was looked up here."""
        positions = self.positions
        assert positions is not None
        return [
            each
            for each in self.inputs
            if bool(((positions >= each.first) & (positions < each.first + _size(each))).any())
        ]


class Leaves:
    """The explained inputs of a run, as autograd sees them."""

    def __init__(self) -> None:
        self._leaves: list[Leaf] = []

    def add(self, leaf: Leaf) -> None:
        """Record an explained input."""
        self._leaves.append(leaf)

    def __len__(self) -> int:
        return len(self._leaves)

    @property
    def variables(self) -> tuple[Tensor, ...]:
        """The tensors whose gradients autograd computes: roots and slots."""
        return tuple(t for leaf in self._leaves for t in (leaf.root, leaf.slot) if t is not None)

    def elements_of(self, tensor: Tensor) -> tuple[Leaf, Tensor] | None:
        """Return the floating-point input that a tensor consists of, and the number of each element in it.

        None if the tensor was computed from elements of inputs by more than moving them, or has one twice.

        Args:
            tensor: the tensor as autograd recorded it.
        """
        node: Any = tensor.grad_fn
        while node is not None and node.name().rstrip("0123456789") in _MOVED_BY:
            node = node.next_functions[0][0]
        root = tensor if tensor.grad_fn is None else getattr(node, "variable", None)
        leaf = next((leaf for leaf in self._leaves if leaf.root is root and leaf.positions is None), None)
        if leaf is None:
            return None
        if root is tensor:
            return leaf, torch.arange(tensor.numel(), device=tensor.device).reshape(tensor.shape)
        return _numbers_in(leaf, tensor)

    def behind(self, tensor: Tensor) -> list[str]:
        """Return the names of the floating-point inputs that a tensor was computed from."""
        roots, met, waiting = {id(tensor)}, set[Any](), [tensor.grad_fn]
        while waiting:
            node: Any = waiting.pop()
            if node is None or node in met:
                continue
            met.add(node)
            roots.add(id(getattr(node, "variable", None)))
            waiting += [following for following, _ in node.next_functions]
        return [leaf.name for leaf in self._leaves if leaf.positions is None and id(leaf.root) in roots]

    def relevance(self, found: Mapping[Tensor, Tensor | None]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the relevance of each input by name, and that of embedded rows that belong to no input."""
        parts = [leaf.relevance(found) for leaf in self._leaves]
        others = [elsewhere for _, elsewhere in parts if elsewhere is not None]
        return added([of_inputs for of_inputs, _ in parts]), others

    def by_gradient(
        self, relevance: Callable[[Tensor, Tensor], Tensor], found: Mapping[Tensor, Tensor | None]
    ) -> dict[str, Tensor] | None:
        """Return the relevance of each input by name, by a plain gradient; None if there is no gradient.

        Args:
            relevance: computes relevance from an input and its gradient.
            found: the gradients of the roots, or None.
        """
        if all(found[leaf.root] is None for leaf in self._leaves):
            return None
        parts = []
        for leaf in self._leaves:
            x, gradient = leaf.root.detach(), found[leaf.root]
            parts.append(
                leaf.of_inputs(relevance(x, torch.zeros_like(x) if gradient is None else gradient))[0]
            )
        return added(parts)


def added(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Sum relevance by name, since several embeddings may look up the same input."""
    total: dict[str, Tensor] = {}
    for part in parts:
        for name, R in part.items():
            # A model may have its embeddings on several devices.
            total[name] = total[name] + R.to(total[name].device) if name in total else R
    return total


def _numbers_in(leaf: Leaf, tensor: Tensor) -> tuple[Leaf, Tensor] | None:
    """Return the leaf, and the number in it of each element of a tensor that consists of its elements.

    Moving backwards, numbers of the elements arrive at the elements of the leaf. They go one digit at a time,
    because a floating-point type counts exactly only so far.
    """

    def arriving(numbers: Tensor) -> Tensor:
        (moved,) = torch.autograd.grad(tensor, leaf.root, numbers.to(tensor.dtype), retain_graph=True)
        return moved.flatten().to(torch.int64)

    there = arriving(torch.ones_like(tensor))
    if bool((there > 1).any()):
        return None
    base = 2 ** min(20, int(-math.log2(torch.finfo(tensor.dtype).eps)))
    own = torch.arange(tensor.numel(), device=tensor.device).reshape(tensor.shape)
    numbers, unit = torch.zeros_like(there), 1
    while unit < tensor.numel():
        numbers += arriving(own // unit % base) * unit
        unit *= base
    places = there.nonzero().flatten()
    positions = torch.empty_like(own.flatten())
    positions[numbers[places]] = places
    return leaf, positions.reshape(tensor.shape)


_MOVED_BY = frozenset(
    f"{name}Backward"
    for name in (
        *("Select", "Slice", "Index", "IndexSelect", "Gather", "MaskedSelect", "Unbind", "Diagonal", "Take"),
        *("Split", "SplitWithSizes", "UnsafeSplit", "Chunk", "Narrow", "Flip", "Roll"),
        *("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Permute", "Transpose", "T", "Alias"),
        *("Expand", "Clone", "ToCopy"),
    )
)
"""Autograd's names of the operations that only move elements."""


def _size(each: IdInput) -> int:
    return torch.Size(each.shape).numel()
