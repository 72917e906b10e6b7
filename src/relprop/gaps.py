"""Operations that are not covered, places where the way of relevance is cut, and the errors about them."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from relprop.errors import CoverageError


@dataclass(frozen=True)
class Gap:
    """An operation on the way of relevance that is not covered."""

    path: str
    operation: str
    source: str
    reason: str = "no entry in the operation table"
    acceptable: bool = True

    def __str__(self) -> str:
        return f"{self.operation} in module {self.path or '(root)'!r} at {self.source}: {self.reason}"


class Gaps:
    """The gaps of a run, and where the way of relevance is cut.

    Attributes:
        found: each gap once, in order.
        cuts: the first few places where the way ends without being a gap.
    """

    def __init__(self, accept: Collection[str] = ()) -> None:
        self._accept = frozenset(accept)
        self._met: list[Gap] = []  # as often as they were met
        self.found: list[Gap] = []
        self.cuts: list[Gap] = []

    def add(self, gap: Gap) -> bool:
        """Note a gap, unless its operation is accepted; whether it is one."""
        if gap.acceptable and gap.operation in self._accept:
            return False
        self._met.append(gap)
        if gap not in self.found:
            self.found.append(gap)
        return True

    def cut(self, place: Gap) -> None:
        """Note where the way of relevance is cut."""
        if len(self.cuts) < 5:
            self.cuts.append(place)

    @contextmanager
    def watched(self) -> Iterator[list[Gap]]:
        """Give a list of the gaps that are met while the context is open, filled at its end."""
        before = len(self._met)
        met: list[Gap] = []
        try:
            yield met
        finally:
            met += self._met[before:]

    def clear(self) -> None:
        """Forget the gaps."""
        self.found.clear()
        self._met.clear()

    def require_none(self) -> None:
        """Refuse to go on with gaps.

        Raises:
            CoverageError: there are some; it names all.
        """
        if self.found:
            raise CoverageError(coverage_message(self.found))


REASONS = {
    "grad": "the model computes a gradient of its own, which would be a relevance coefficient here",
    "backward": "the model computes gradients of its own, which would be relevance coefficients here",
    **dict.fromkeys(
        ("cross_entropy", "nll_loss", "mse_loss", "binary_cross_entropy_with_logits"),
        "a loss is no score to explain: call the model without labels",
    ),
    "data": "writing to .data is out of relprop's sight",
}
"""Better advice than that there is no entry."""


def coverage_message(gaps: Sequence[Gap]) -> str:
    """Say that operations are not covered: all of them, where, and what to do."""
    count = "1 operation" if len(gaps) == 1 else f"{len(gaps)} operations"
    listed = "\n".join(f"  - {gap}" for gap in gaps)
    remedy = what_helps({gap.operation for gap in gaps if gap.acceptable})
    return f"relevance meets {count} that relprop has no rule for:\n{listed}" + (
        f"\nEither {remedy}" if remedy else ""
    )


def what_helps(acceptable: Collection[str]) -> str:
    """Say what users can do about operations whose plain gradient can be accepted; "" if there are none."""
    if not acceptable:
        return ""
    return (
        "add an entry with relprop.register(name, entry) (CONTRIBUTING.md, 'Add an operation'), or accept "
        f"the plain gradient with explain(..., accept={sorted(acceptable)!r}); the ledger will hardly "
        "close then."
    )


def disconnected_message(cuts: Sequence[Gap]) -> str:
    """Say that no way leads from the score to the inputs, and where it is cut."""
    places = "".join(f"\n  - {cut}" for cut in cuts)
    return (
        "the explained score does not depend on the input through recorded operations."
        + (f" The way is cut here:{places}\nRemove" if places else " Look for")
        + " torch.no_grad(), .detach(), .data, .numpy() or .item() in the model's forward."
    )


_ATTENTION = ("attn", "attention", "flash", "xformers")


def unseen_reason(made_by: str, reason: str) -> str:
    """Why a tensor that relprop did not see being made is a gap, by the name of its autograd function.

    With what helps, where it is known what that is: a kernel of attention, a checkpoint.
    """
    if any(word in made_by.lower() for word in _ATTENTION):
        reason += (
            "; for attention by a kernel of another library take torch's: load the model with "
            "attn_implementation='sdpa', or call F.scaled_dot_product_attention"
        )
    if made_by.startswith("CheckpointFunction"):
        reason += (
            "; torch.utils.checkpoint hides what it computes with use_reentrant=True: take "
            "use_reentrant=False, or leave it out and give explain(..., checkpoint=...)"
        )
    return reason


UNSEEN = (
    "made an input of {} out of relprop's sight, perhaps by a custom autograd function; write it in torch "
    "operations"
)
"""Why a tensor that nothing is known of is a gap."""


def out_of_sight(module: nn.Module) -> str:
    """Say that a module did what relprop cannot see, and what to do."""
    hint = (
        "explain the module that was scripted or traced"
        if isinstance(module, torch.jit.ScriptModule)
        else "write what it does in torch operations"
    )
    return f"relprop cannot see inside {type(module).__name__}; {hint}"
