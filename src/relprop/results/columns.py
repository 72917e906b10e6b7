"""Results as text: aligned tables, comma-separated values, lists of numbers."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from relprop.errors import visible
from relprop.results.store import text_of

TOLD = 64
"""The metadata of a file have the values of so many samples at most."""


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines: the first column is aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def comma_separated(rows: Iterable[Sequence[str | float | int | None]]) -> str:
    """Return rows as comma-separated values, with a line break after each. None is an empty cell."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    return written.getvalue()


def as_percent(share: float) -> str:
    """Return a share as text, such as "12.3 %", or "" for what is no number."""
    return f"{100 * share:.3g} %" if math.isfinite(share) else ""


def one_line(name: str) -> str:
    """Return a name with escapes for line breaks and for characters that cannot be seen."""
    return visible(name)


def share_of(amount: float, score: float) -> float:
    """Return what part of a score an amount is; NaN if the score is zero."""
    return amount / score if score else math.nan


def listed(values: Tensor, samples: Sequence[int] | None) -> str:
    """Return the numbers of samples, by default of the first `TOLD` ones, with commas between them."""
    numbers = values.reshape(-1).tolist()
    chosen = [numbers[sample] for sample in samples] if samples is not None else numbers[:TOLD]
    more = f", ... ({len(numbers)} in all)" if samples is None and len(numbers) > TOLD else ""
    return ", ".join(str(n) if isinstance(n, int) else f"{n:.6g}" for n in chosen) + more


def shortened(value: Any) -> str:
    """Return the first numbers of a tensor, or the text of something else."""
    if not isinstance(value, Tensor):
        return text_of(value)
    # Classes are whole numbers, of any size.
    shown = [str(v) if isinstance(v, int) else f"{v:.4g}" for v in value.tolist()[:4]]
    return f"[{', '.join(shown)}{', ...' if len(value) > 4 else ''}]"
