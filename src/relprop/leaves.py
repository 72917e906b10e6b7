"""The explained inputs as autograd sees them: where coefficients and relevance on zeros arrive."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


class Leaves:
    """Roots of the explained inputs, each with a slot or without, and an anchor.

    Constants that relevance meets hang on the anchor, because autograd only visits what leads to a variable.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor | None]] = []
        self._reaching: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        with torch.inference_mode(mode=False):
            self.anchor = torch.zeros((), requires_grad=True)

    def add(self, root: Tensor, slot: Tensor | None) -> None:
        """Note an explained input."""
        self._pairs.append((root, slot))

    def __contains__(self, tensor: Tensor) -> bool:
        return any(tensor is t for pair in self._pairs for t in pair)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the explained inputs."""
        return [tuple(root.shape) for root, _ in self._pairs]

    @property
    def variables(self) -> tuple[Tensor, ...]:
        """What autograd computes gradients of."""
        return (*(t for pair in self._pairs for t in pair if t is not None), self.anchor)

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

    def relevance(self, found: Mapping[Tensor, Tensor | None]) -> tuple[Tensor, ...]:
        """Relevance of each input, x·c + what its slot got, from the gradients found."""
        relevance = []
        for root, slot in self._pairs:
            c, direct = found[root], None if slot is None else found[slot]
            R = torch.zeros_like(root) if c is None else root * c
            relevance.append((R if direct is None else R + direct).detach())
        return tuple(relevance)
