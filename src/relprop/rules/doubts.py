"""What makes an explanation doubtful, in words, for warnings and for pages."""

import torch

GAP = 0.05
"""A ledger may be this far from balancing, relative to its largest amount."""

GAP_OF_HALVES = 0.2
"""The same for relevance in half precision."""


def unbalanced(gap: float, dtype: torch.dtype) -> str:
    """Say that a ledger does not balance; "" if it does.

    Args:
        gap: how far it is from balancing, relative to the largest amount.
        dtype: the dtype of relevance.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    if gap <= (GAP_OF_HALVES if half else GAP):
        return ""
    return f"the ledger does not balance: {gap:.1e} of the largest amount is missing or in excess"


def relevance_of_negative(what: str = "score") -> str:
    """Say what relevance for a negative score is.

    Args:
        what: "score" for that of a class, or "output" for a model's only one.
    """
    return (
        f"Relevance then explains why the {what} is low, and rules such as z+ explain positive scores only."
    )
