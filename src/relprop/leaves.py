"""The explained inputs as autograd sees them: where coefficients and relevance on zeros arrive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from relprop.tokens import IdInput


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
    slot: Tensor | None
    name: str = ""
    positions: Tensor | None = None
    inputs: Sequence[IdInput] = ()

    def relevance(self, found: Mapping[Tensor, Tensor | None]) -> tuple[dict[str, Tensor], Tensor | None]:
        """Relevance of inputs by name, from the gradients found; and that of rows of none of their elements.

        It is x·c + what the slot got, for integers in single precision at least.
        """
        c, direct = found[self.root], None if self.slot is None else found[self.slot]
        root = self.root if self.positions is None else self.root.to(_wide(self.root.dtype))
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
    """Roots of the explained inputs, each with a slot or without, and an anchor.

    Constants that relevance meets hang on the anchor, because autograd only visits what leads to a variable.
    """

    def __init__(self) -> None:
        self._leaves: list[Leaf] = []
        self._reaching: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        with torch.inference_mode(mode=False):
            self.anchor = torch.zeros((), requires_grad=True)

    def add(self, leaf: Leaf) -> None:
        """Note an explained input."""
        self._leaves.append(leaf)

    def __contains__(self, tensor: Tensor) -> bool:
        return any(tensor is t for leaf in self._leaves for t in (leaf.root, leaf.slot))

    def __len__(self) -> int:
        return len(self._leaves)

    @property
    def variables(self) -> tuple[Tensor, ...]:
        """What autograd computes gradients of."""
        pairs = [t for leaf in self._leaves for t in (leaf.root, leaf.slot) if t is not None]
        return (*pairs, self.anchor)

    def reached_by(self, tensor: Tensor) -> bool:
        """Whether one of the inputs is behind a tensor that no entry returned."""
        if tensor not in self._reaching:
            ours = {id(variable) for variable in self.variables}
            pending, seen, found = [tensor.grad_fn], set(), False
            while pending and not found:
                node: Any = pending.pop()
                if node is not None and node not in seen:
                    seen.add(node)
                    found = id(getattr(node, "variable", None)) in ours
                    pending += [following for following, _ in node.next_functions]
            self._reaching[tensor] = found
        return bool(self._reaching[tensor])

    def relevance(self, found: Mapping[Tensor, Tensor | None]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Relevance of each input by name, from the gradients found; and of rows of none of them."""
        parts = [leaf.relevance(found) for leaf in self._leaves]
        others = [elsewhere for _, elsewhere in parts if elsewhere is not None]
        return added([of_inputs for of_inputs, _ in parts]), others


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


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
