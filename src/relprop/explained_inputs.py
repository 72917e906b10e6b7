"""The explained inputs of a run: what the model gets in their place, and what relevance came to them."""

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relprop.active import unseen
from relprop.attach import attach, unattached
from relprop.errors import InputError
from relprop.inputs import KEEP_OUT
from relprop.leaves import Leaf, Leaves
from relprop.provenance import Tag, empty_slot
from relprop.tokens import TokenIds

if TYPE_CHECKING:
    from relprop.intercept import Interception


class ExplainedInputs:
    """The inputs of a run.

    Attributes:
        leaves: them as autograd sees them.
        ids: integer inputs, on their way to an embedding.
    """

    def __init__(self, run: "Interception") -> None:
        # Not to hold each other, so that a run, and all that it keeps, is free as soon as it ends.
        self._run: Interception = weakref.proxy(run)
        self.leaves = Leaves()
        self.ids = TokenIds()
        self._is_over = False

    @unseen
    def stand_in(self, name: str, tensor: Tensor) -> Tensor:
        """Return a stand-in for an explained input, for the model to work on, and in place if it likes."""
        with torch.no_grad():
            value = tensor.detach().clone()
        root = tensor.detach().requires_grad_()
        return self._explained(root, value, len(tensor), name=name)

    @unseen
    def stand_in_for_ids(self, name: str, tensor: Tensor) -> Tensor:
        """Return a stand-in for an integer input, explained where it is looked up in an embedding."""
        ids = tensor.detach().clone(memory_format=torch.contiguous_format)  # as its positions are
        self.ids.add(name, ids)
        return ids

    def looked_up(self, name: str, args: Any, kwargs: dict[str, Any], value: Any) -> Tensor | None:
        """What takes the place of a call's value, if it was an embedding of explained ids.

        Raises:
            InputError: there are other numbers of samples than in other inputs.
        """
        ids = self.ids.looked_up(name, args, kwargs)
        if ids is None or not isinstance(value, Tensor) or not value.is_floating_point():
            return None
        if self._is_over:  # in a part of the model that runs again; its values alone are wanted
            again = unattached(value)
            self._run.set_tag(again, Tag(nonnegative=bool((value >= 0).all())))
            return again
        root = value.detach().requires_grad_()
        found = Leaf(root, None, positions=ids.positions.clone(), inputs=tuple(self.ids.inputs))
        for each in found.looked_up():
            samples = self._run.ledger.samples
            if self.any() and each.shape[0] != samples:
                raise InputError(
                    f"{each.name!r} has {each.shape[0]} samples in its first dimension, and the other inputs "
                    f"have {samples}. {KEEP_OUT}"
                )
            if not self.any():
                self._run.ledger.samples = each.shape[0]
        samples = self._run.ledger.samples if found.looked_up() else len(value)
        return self._explained(
            root, value.detach().clone(), samples, positions=found.positions, inputs=found.inputs
        )

    def _explained(self, root: Tensor, value: Tensor, samples: int, **described: Any) -> Tensor:
        (stand_in,) = attach([value], [root], lambda c: (c,))
        slot = None if self._run.slots == "none" else empty_slot(value).requires_grad_()
        self.leaves.add(Leaf(root, slot, **described))
        self._run.ledger.samples = samples
        self._run.set_tag(stand_in, Tag(nonnegative=bool((value >= 0).all()), slot=slot))
        return stand_in

    def any(self) -> bool:
        """Whether something is explained by now."""
        return len(self.leaves) > 0

    def variables(self) -> tuple[Tensor, ...]:
        """What autograd computes gradients of. The forward is over then."""
        self._is_over = True
        return self.leaves.variables

    @unseen
    def relevance(self, seed: Tensor, found: Mapping[Tensor, Tensor | None]) -> dict[str, Tensor]:
        """Relevance of each input, from the gradients found; and the ledger's lines for seed and inputs."""
        relevance, others = self.leaves.relevance(found)
        ledger = self._run.ledger
        for rows in others:
            ledger.add("parameters", rows, "", "embedding")
        ledger.seed = ledger.per_sample(seed)
        ledger.inputs = torch.zeros_like(ledger.seed)
        for R in relevance.values():
            ledger.inputs = ledger.inputs + ledger.per_sample(R).to(seed.device)
        ledger.settle()
        ledger.find_mixture(torch.finfo(seed.dtype).eps ** 0.5)
        return relevance
