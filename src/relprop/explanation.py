"""The result of an explanation."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from relprop.ledger import Ledger
from relprop.provenance import Applied


@dataclass(frozen=True, eq=False)
class Explanation:
    """What made the model decide as it did.

    Attributes:
        relevance: of the input, of its shape and dtype; several inputs give a dict by the name of the
            argument.
        output: what the model returned, detached where it is a tensor.
        target: the explained class of each sample, (samples,) int64; the target itself where it is no class.
        score: the explained score of each sample, (samples,); where relevance started.
        preset: name of the rules, or "composite" for the user's own.
        rules: the rules that were used: in order, one for each linear operation.
        ledger: where relevance went; `print(explanation.ledger)`.
    """

    relevance: Tensor | dict[str, Tensor]
    output: Any
    target: Any
    score: Tensor
    preset: str
    rules: tuple[Applied, ...]
    ledger: Ledger

    def __repr__(self) -> str:
        shape = (
            tuple(self.relevance.shape)
            if isinstance(self.relevance, Tensor)
            else {name: tuple(R.shape) for name, R in self.relevance.items()}
        )
        return (
            f"Explanation(relevance of shape {shape}, target {_short(self.target)}, score "
            f"{_short(self.score)}, "
            f"rules {self.preset}: {len(self.rules)} operations, ledger closes to "
            f"{float(self.ledger.gap.max()):.1e})"
        )


def _short(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    shown = [f"{v:.4g}" for v in value.tolist()[:4]]
    return f"[{', '.join(shown)}{', ...' if len(value) > 4 else ''}]"
