"""Operations that are not covered, places where the way of relevance is cut, and the errors about them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

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
        place = f" at {self.source}" if self.source else ""
        return f"{self.operation} in module {self.path or '(root)'!r}{place}: {self.reason}"


class Gaps:
    """The gaps of a run, and where the way of relevance is cut.

    Attributes:
        found: each gap once, in order.
        noted: each gap as often as it was found.
        cuts: the first few places where the way ends without being a gap.
    """

    def __init__(self, accept: Collection[str] = ()) -> None:
        self._accept = frozenset(accept)
        self.noted: list[Gap] = []
        self._met: set[Gap] = set()
        self.found: list[Gap] = []
        self.cuts: list[Gap] = []

    def add(self, gap: Gap) -> bool:
        """Note a gap, unless its operation is accepted; whether it is one."""
        if gap.acceptable and gap.operation in self._accept:
            return False
        self.noted.append(gap)
        if gap not in self.found:
            self.found.append(gap)
        return True

    def cut(self, place: Gap) -> None:
        """Note where the way of relevance is cut."""
        if len(self.cuts) < 5:
            self.cuts.append(place)

    def find(self, gap: Gap) -> None:
        """Note a gap that counts wherever relevance goes."""
        self.add(gap)
        self._met.add(gap)

    def meet(self, gaps: Collection[Gap]) -> None:
        """Note that relevance came to these gaps."""
        self._met.update(gaps)

    def require_none(self) -> None:
        """Refuse relevance that went through gaps.

        Raises:
            CoverageError: there are some; it names all.
        """
        met = [gap for gap in self.found if gap in self._met]
        if met:
            raise CoverageError(coverage_message(met))


_REASONS = {
    "grad": "the model computes a gradient of its own, which would be a relevance coefficient here",
    "backward": "the model computes gradients of its own, which would be relevance coefficients here",
    "apply_": "what Python makes of numbers is out of relprop's sight",
    "data": "writing to .data is out of relprop's sight",
    "data_ptr": "what reads memory by itself, such as a kernel of another library, is out of relprop's sight",
    "set_": "a tensor that takes another one's memory is out of relprop's sight; copy the values instead",
}
"""Better advice than that there is no entry."""


def reason_of(operation: str) -> str:
    """Why an operation without an entry is not covered."""
    reason = _REASONS.get(operation, Gap.reason)
    if "_loss" in operation or operation in ("kl_div", "binary_cross_entropy_with_logits"):
        reason = "a loss is no score to explain: call the model without labels"
    if any(word in operation.lower() for word in _ATTENTION):
        reason += (
            "; for attention by a kernel of another library take torch's: load the model with "
            "attn_implementation='sdpa', or call F.scaled_dot_product_attention"
        )
    return reason


_ATTENTION = ("attn", "attention", "flash", "xformers")


def coverage_message(gaps: Sequence[Gap]) -> str:
    """Say that operations are not covered: all of them, where, and what to do."""
    count = "1 operation" if len(gaps) == 1 else f"{len(gaps)} operations"
    listed = "\n".join(f"  - {gap}" for gap in gaps)
    remedy = what_helps({gap.operation for gap in gaps if gap.acceptable})
    return f"relevance meets {count} without a rule:\n{listed}" + (f"\nEither {remedy}" if remedy else "")


def what_helps(acceptable: Collection[str]) -> str:
    """Say what users can do about operations whose plain gradient can be accepted; "" if there are none."""
    if not acceptable:
        return ""
    return (
        "add an entry with relprop.register(name, entry) (docs/own-rules.md), or accept "
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
