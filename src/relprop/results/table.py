"""Where along the network relevance is lost: what each operation absorbs, from the output to the input."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, SupportsFloat, SupportsIndex

from torch import Tensor

from relprop.errors import InputError
from relprop.view.way import ROUNDING, Step, Way


class Books(Protocol):
    """A ledger, as far as a table needs it: see `relprop.results.ledger.Ledger`."""

    samples: int
    per_operation: bool
    mixed: bool
    seed: Tensor
    inputs: Tensor
    absorbed: dict[str, Tensor]
    operations: dict[tuple[str, str], dict[str, Tensor]]

    @property
    def gap(self) -> Tensor:
        """How far the ledger is from balancing, (samples,)."""


def way(ledger: Books, sample: int | None = None, above: float = ROUNDING, *, call: str = "table") -> Way:
    """Follow relevance from the output to the input.

    An operation that ran several times is one step, where relevance met it first.

    Args:
        ledger: with the amounts of each operation.
        sample: its number; None sums over all.
        above: see `Ledger.table`.
        call: how errors name the call.

    Raises:
        InputError: there are no amounts of operations, or there is no such sample.
    """
    _require_books(ledger, call)
    chosen: slice = slice(None)
    if sample is not None:
        if not isinstance(sample, SupportsIndex) or not -ledger.samples <= sample < ledger.samples:
            raise InputError(
                f"ledger.{call}(sample={sample!r}): give a number from 0 to {ledger.samples - 1}, or leave "
                "it out for the sum over all samples."
            )
        chosen = slice(sample % ledger.samples, sample % ledger.samples + 1)

    if not isinstance(above, SupportsFloat):
        raise InputError(
            f"ledger.{call}(above={above!r}): give the share of the largest amount from which on an "
            "operation is listed, such as 1e-6."
        )

    def amounts(absorbed: Mapping[str, Tensor]) -> dict[str, float]:
        return {sink: float(amount[chosen].sum()) for sink, amount in sorted(absorbed.items())}

    every = [ledger.seed[chosen], ledger.inputs[chosen], *(a[chosen] for a in ledger.absorbed.values())]
    largest = max((abs(v) for row in every for v in row.tolist() if math.isfinite(v)), default=0.0)
    remaining, steps = float(ledger.seed[chosen].sum()), []
    for (path, operation), sinks in ledger.operations.items():
        absorbed = amounts(sinks)
        remaining -= sum(absorbed.values())
        # Of each sample: what one loses and another gains is no rounding error.
        visible = any(not abs(v) <= above * largest for a in sinks.values() for v in a[chosen].tolist())
        steps.append(Step(path, operation, absorbed, remaining, visible))
    return Way(
        steps=tuple(steps),
        seed=float(ledger.seed[chosen].sum()),
        inputs=float(ledger.inputs[chosen].sum()),
        absorbed=amounts(ledger.absorbed),
        least=above * largest,
        gap=float(ledger.gap[chosen].max()) if ledger.samples else 0.0,
        samples=_samples(ledger.samples, sample),
        mixed=ledger.mixed and sample is not None,
    )


def _require_books(ledger: Books, call: str) -> None:
    if ledger.per_operation:
        return
    if "not conserved" in ledger.absorbed:
        raise InputError(
            f"ledger.{call}(): a plain gradient has no amounts for each operation. Explain with rules: "
            'explain(..., rules="epsilon", per_operation=True).'
        )
    raise InputError(
        f"ledger.{call}(): this ledger has no amounts for each operation. Ask for them: "
        "explain(..., per_operation=True)."
    )


def _samples(count: int, sample: int | None) -> str:
    if sample is not None:
        return f"sample {sample % count}"
    return "1 sample" if count == 1 else f"sum over {count} samples"


def as_table(found: Way) -> str:
    """Write a way as a table, a line for each operation that absorbed something."""
    sinks, steps = found.sinks, found.shown
    empty = ["", *[""] * len(sinks)]
    rows = [["from output to input", "", *sinks, "remaining"], ["seed", *empty, found.written(found.seed)]]
    for step in steps:
        amounts = [step.absorbed.get(sink, 0) for sink in sinks]
        told = [found.written(amount) if found.tells(amount) else "" for amount in amounts]
        rows.append([step.path or "(root)", step.operation, *told, found.written(step.remaining)])
    if steps:
        rows.append(["absorbed in all", "", *[found.written(found.absorbed[sink]) for sink in sinks], ""])
    rows.append(["inputs", *empty, found.written(found.inputs)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    balance = f"{found.samples}; balances to {found.gap:.1e} of the largest amount"
    return "\n".join([*lines, balance, *_remarks(found)])


def _line(row: Sequence[str], widths: Iterable[int]) -> str:
    """Set words to the left, numbers to the right."""
    cells = [
        f"{text:{width}s}" if i < 2 else f"{text:>{width}s}"
        for i, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _remarks(found: Way) -> list[str]:
    hidden = len(found.steps) - len(found.shown)
    remarks = []
    if found.mixed:
        remarks.append(
            "the model mixes its samples: only the sum over all of them, sample=None, has a meaning"
        )
    if hidden and not found.shown:
        remarks.append(f"no operation absorbed more than {found.least:.1e}; all are listed with above=0")
    elif hidden:
        others = "1 operation" if hidden == 1 else f"{hidden} operations"
        remarks.append(
            f"{others} more, with no more than {found.least:.1e} in any sink; all are listed with above=0"
        )
    return remarks
