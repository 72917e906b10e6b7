"""The explained inputs as autograd sees them: where coefficients and relevance on zeros arrive."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass(frozen=True, eq=False)
class Leaf:
    """One explained input, or what one embedding made of one.

    Attributes:
        name: of the argument.
        root: what autograd computes coefficients of.
        slot: for relevance on zeros, or None.
        positions: of an embedding (*index, dimensions): to which element of the input each row belongs,
            (*index); -1 for none.
        shape: of the input.
    """

    name: str
    root: Tensor
    slot: Tensor | None
    positions: Tensor | None
    shape: tuple[int, ...]

    def relevance(self, found: Mapping[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """Relevance of the input, from the gradients found; and that of rows of none of its elements.

        It is x·c + what the slot got, for integers in single precision at least.
        """
        c, direct = found[self.root], None if self.slot is None else found[self.slot]
        root = self.root if self.positions is None else self.root.to(_wide(self.root.dtype))
        R = torch.zeros_like(root) if c is None else root * c
        return self.of_input((R if direct is None else R + direct).detach())

    def of_input(self, R: Tensor) -> tuple[Tensor, Tensor | None]:
        """From relevance of the root to that of the input; and, (*index), of rows of none of its elements.

        That of an integer is summed over its rows.
        """
        if self.positions is None:
            return R, None
        rows = R.flatten(self.positions.dim()).sum(-1)
        counts = self.positions >= 0
        of_input = rows.new_zeros(self.shape).flatten()
        of_input = of_input.index_add(0, self.positions[counts], rows[counts])
        return of_input.reshape(self.shape), None if bool(counts.all()) else rows.masked_fill(counts, 0)


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
        relevance: dict[str, Tensor] = {}
        others = []
        for leaf in self._leaves:
            R, elsewhere = leaf.relevance(found)
            relevance[leaf.name] = relevance[leaf.name] + R if leaf.name in relevance else R
            others += [] if elsewhere is None else [elsewhere]
        return relevance, others


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
