"""The explained inputs as autograd sees them: where coefficients and relevance on zeros arrive."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from relprop.crossing.samples import step_of
from relprop.inputs.tokens import IdInput
from relprop.linear.numerics import wide


@dataclass(frozen=True, eq=False)
class Leaf:
    """One explained input, or what one embedding made of integer inputs.

    Attributes:
        root: what autograd computes coefficients of.
        slot: for relevance on zeros, or None.
        name: of the argument, if it is one.
        positions: of an embedding (*index, dimensions): which element of the `inputs` each row belongs to,
            (*index), counted through all of them; -1 for none.
        inputs: the integer inputs of the run.
    """

    root: Tensor
    slot: Tensor | None = None
    name: str = ""
    positions: Tensor | None = None
    inputs: Sequence[IdInput] = ()

    def relevance(self, found: Mapping[Tensor, Tensor | None]) -> tuple[dict[str, Tensor], Tensor | None]:
        """Relevance of inputs by name, from the gradients found; and that of rows of none of their elements.

        It is x·c + what the slot got, for integers in single precision at least.
        """
        c, direct = found[self.root], None if self.slot is None else found[self.slot]
        root = self.root if self.positions is None else self.root.to(wide(self.root.dtype))
        R = torch.zeros_like(root) if c is None else root * c
        return self.of_inputs((R if direct is None else R + direct).detach())

    def of_inputs(self, R: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """From relevance of the root to that of inputs by name, an integer's summed over its rows.

        Beside it relevance of rows of none of their elements, (*index), or None.
        """
        if self.positions is None:
            return {self.name: R}, None
        rows = R.flatten(self.positions.dim()).sum(-1)
        counts = self.positions >= 0
        total = max(each.first + _size(each) for each in self.inputs)
        summed = rows.new_zeros(total).index_add(0, self.positions[counts], rows[counts])
        of_inputs = {
            each.name: summed[each.first : each.first + _size(each)].reshape(each.shape)
            for each in self.looked_up()
        }
        return of_inputs, None if bool(counts.all()) else rows.masked_fill(counts, 0)

    def step(self, samples: int) -> int | None:
        """How many elements of the root lie between one sample and the next; None where samples are first."""
        inputs, positions = self.looked_up(), self.positions
        if len(inputs) != 1 or positions is None or samples == 1 or bool((positions < 0).any()):
            return None
        (each,) = inputs
        step = step_of((positions - each.first) // (_size(each) // samples), samples)
        return None if step is None else step * self.root.shape[-1]

    def looked_up(self) -> list[IdInput]:
        """The integer inputs of which something is here."""
        positions = self.positions
        assert positions is not None
        return [
            each
            for each in self.inputs
            if bool(((positions >= each.first) & (positions < each.first + _size(each))).any())
        ]


class Leaves:
    """Roots of the explained inputs, each with a slot or without."""

    def __init__(self) -> None:
        self._leaves: list[Leaf] = []

    def add(self, leaf: Leaf) -> None:
        """Note an explained input."""
        self._leaves.append(leaf)

    def __len__(self) -> int:
        return len(self._leaves)

    @property
    def variables(self) -> tuple[Tensor, ...]:
        """What autograd computes gradients of."""
        return tuple(t for leaf in self._leaves for t in (leaf.root, leaf.slot) if t is not None)

    def relevance(self, found: Mapping[Tensor, Tensor | None]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Relevance of each input by name, from the gradients found; and of rows of none of them."""
        parts = [leaf.relevance(found) for leaf in self._leaves]
        others = [elsewhere for _, elsewhere in parts if elsewhere is not None]
        return added([of_inputs for of_inputs, _ in parts]), others

    def by_gradient(
        self, relevance: Callable[[Tensor, Tensor], Tensor], found: Mapping[Tensor, Tensor | None]
    ) -> dict[str, Tensor] | None:
        """Relevance of each input by name, a function of input and gradient; None without any gradient."""
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
    """Sum relevance by name, of inputs that several embeddings look up."""
    total: dict[str, Tensor] = {}
    for part in parts:
        for name, R in part.items():
            # A model may have its embeddings on several devices.
            total[name] = total[name] + R.to(total[name].device) if name in total else R
    return total


def _size(each: IdInput) -> int:
    return torch.Size(each.shape).numel()
