"""Gaps (operations that are not covered), cuts (places where relevance ends), and the errors about both."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from relprop.errors import CoverageError


@dataclass(frozen=True)
class Gap:
    """An operation on relevant tensors that is not covered, or one that makes a constant of them.

    Attributes:
        path: module path.
        operation: name of the operation.
        source: the user's file and line.
        reason: why the operation is not covered.
        acceptable: whether the user may accept the operation's plain gradient.
        within: name of the autograd function whose forward calls the operation, or "".
    """

    path: str
    operation: str
    source: str
    reason: str = "no entry in the operation table"
    acceptable: bool = True
    within: str = ""

    def __str__(self) -> str:
        place = f" at {self.source}" if self.source else ""
        return f"{self.operation} in module {self.path or '(root)'!r}{place}: {self.reason}"


FEW = 5
"""The number of places where relevance ends that errors name."""


class Gaps:
    """The gaps and cuts of a run.

    Attributes:
        found: each gap once, in order.
        noted: each gap as often as it was found.
        cuts: the first five places where the model makes a constant of a relevant tensor.
        looks: the first five operations on relevant tensors that have no gradient, such as comparisons.
        accepted: the names of the operations that would be gaps and are accepted.
    """

    def __init__(self, accept: Collection[str] = ()) -> None:
        self._accept = frozenset(accept)
        self.accepted: set[str] = set()
        self.noted: list[Gap] = []
        self._met: set[Gap] = set()
        self.found: list[Gap] = []
        self.cuts: list[Gap] = []
        self.looks: list[Gap] = []

    def add(self, gap: Gap) -> bool:
        """Record a gap, unless its operation is accepted. Return whether the gap was recorded."""
        if gap.acceptable and gap.operation in self._accept:
            self.accepted.add(gap.operation)
            return False
        self.noted.append(gap)
        if gap not in self.found:
            self.found.append(gap)
        return True

    def cut(self, place: Gap) -> None:
        """Record a place where the model makes a constant of a relevant tensor."""
        if len(self.cuts) < FEW:
            self.cuts.append(place)

    def where_relevance_ends(self) -> list[Gap]:
        """Return the first places where the model makes constants, and then those where it compares."""
        return list(dict.fromkeys([*self.cuts, *self.looks]))[:FEW]

    def find(self, gap: Gap) -> None:
        """Record a gap that is an error wherever relevance goes."""
        self.add(gap)
        self._met.add(gap)

    def meet(self, gaps: Collection[Gap]) -> None:
        """Record that relevance arrived at these gaps."""
        self._met.update(gaps)

    def require_none(self) -> None:
        """Check that relevance arrived at no gap.

        Raises:
            CoverageError: relevance arrived at gaps; the error names all of them.
        """
        met = [gap for gap in self.found if gap in self._met]
        if met:
            raise CoverageError(coverage_message(met))


_REASONS = {
    "grad": "the model computes a gradient of its own, which would be a relevance coefficient here",
    "backward": "a gradient that the model computes would be a relevance coefficient here; in "
    "relprop.propagating, take those of a tensor by torch.autograd.grad(score, x)",
    "apply_": "relprop cannot see a Python function of single numbers",
    "data": "relprop cannot see writes to .data",
    "data_ptr": "relprop cannot see code that reads memory directly, such as a kernel of another library",
    "set_": "relprop cannot see that a tensor takes another tensor's memory; copy the values instead",
}
"""Reasons that are more helpful than "no entry in the operation table"."""


def reason_of(operation: str) -> str:
    """Return the reason why an operation without an entry is not covered."""
    reason = _REASONS.get(operation, Gap.reason)
    if "_loss" in operation or "_cross_entropy" in operation or operation == "kl_div":
        reason = (
            "a loss is no score to explain: call the model without labels, and let the target take a number "
            "of its output, such as target=lambda output: output[:, 0]"
        )
    if operation.startswith("quantize"):
        reason = (
            "quantised tensors have no gradient; explain the model before convert(), with its fake "
            "quantisation if it has one"
        )
    if any(word in operation.lower() for word in _ATTENTION):
        reason += (
            "; use torch's attention in place of another library's kernel: load the model with "
            "attn_implementation='sdpa', or call F.scaled_dot_product_attention"
        )
    return reason


_ATTENTION = ("attn", "attention", "flash", "xformers")


def without_gradient(operation: str) -> str:
    """Return the reason why a linear operation without a gradient is not covered, and what helps.

    Args:
        operation: name of an operation of another library, or of the class of an autograd function.
    """
    if "::" not in operation:
        return (
            f"it has no backward; give {operation} a static method backward(ctx, grad), which returns the "
            "gradient of each argument (docs/own-rules.md)"
        )
    return (
        "torch has no gradient of it; give it one by torch.library.register_autograd("
        f"{operation!r}, backward), where backward(ctx, grad) returns the gradient of each argument "
        "(docs/own-rules.md)"
    )


def coverage_message(gaps: Sequence[Gap]) -> str:
    """Return the error message about gaps: all of them, their places, and the remedy."""
    count = "1 operation" if len(gaps) == 1 else f"{len(gaps)} operations"
    listed = "\n".join(f"  - {gap}" for gap in gaps)
    remedy = what_helps({gap.operation for gap in gaps if gap.acceptable})
    return f"relevance reaches {count} without a rule:\n{listed}" + (f"\nEither {remedy}" if remedy else "")


def what_helps(acceptable: Collection[str]) -> str:
    """Return what users can do about operations whose plain gradient is acceptable; "" if there are none."""
    if not acceptable:
        return ""
    return (
        f"say how relevance crosses it, as by relprop.register({min(acceptable)!r}, 'pointwise') or "
        "'linear', 'identity', 'product', 'constant' (docs/own-rules.md), or accept "
        f"the plain gradient with explain(..., accept={sorted(map(str, acceptable))!r}); the ledger will "
        "hardly balance then."
    )


def gradients_off() -> str:
    """Return the reason why calls have no gradient: the context that the model runs them under."""
    return f"runs under torch.{'inference_mode' if torch.is_inference_mode_enabled() else 'no_grad'}()"


NO_GRADIENT = "has no gradient"


def disconnected_message(cuts: Sequence[Gap], remedy: str = "") -> str:
    """Return the error message about a score that does not depend on the inputs.

    Args:
        cuts: where the model makes constants.
        remedy: what helps, where it is not to leave out what makes constants.
    """
    message = "the explained score does not depend on the input through recorded operations."
    if not cuts:
        return (
            f"{message} Look for torch.no_grad(), .detach(), .data, .numpy() or .item() in the model's "
            "forward, and for comparisons such as x > 0."
        )
    places = "".join(f"\n  - {cut}" for cut in cuts)
    remedies = dict.fromkeys(_without(cut) for cut in cuts)
    for name in dict.fromkeys(cut.within for cut in cuts if cut.within):
        remedies[
            f"Or say how relevance crosses {name} as a whole: relprop.register({name}, 'identity'), or "
            "'pointwise', 'linear', 'product' (docs/own-rules.md)."
        ] = None
    return f"{message} The model makes constants here:{places}\n{remedy or ' '.join(remedies)}"


def _without(cut: Gap) -> str:
    """Return what users can do about a cut."""
    if cut.reason.startswith("runs under "):
        return (
            f"Leave out {cut.reason.removeprefix('runs under ')}. A decorated function has the plain one as "
            "its __wrapped__: explain(f.__wrapped__, x), or "
            "explain(functools.partial(type(model).forward.__wrapped__, model), x) for a module."
        )
    if cut.reason.startswith("casts to "):
        return (
            "If an embedding looks these integers up, explain what is behind the cast, with them as its "
            "input."
        )
    if cut.reason.startswith("takes "):
        return f"Compute with operations of torch in place of .{cut.operation}()."
    if cut.reason == NO_GRADIENT:
        return (
            "What compares, counts or picks places carries no relevance: use a function that has a gradient, "
            "such as a sigmoid, or pass relevance on unchanged, as a straight-through estimator does its "
            "gradient: x + (f(x) - x).detach()."
        )
    if cut.reason.startswith("is constant between"):
        rounded = f".{cut.operation}()"
        return (
            f"Leave out {rounded}, or pass relevance on unchanged, as a straight-through estimator does its "
            f"gradient: x + (x{rounded} - x).detach()."
        )
    return f"Leave out .{cut.operation}{'' if cut.operation == 'data' else '()'}."
