"""The way from the inputs to the score in steps that add up: the largest entries, all others, the sinks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from relprop.results.ledger import Ledger
from relprop.results.table import ROUNDING
from relprop.view.arrays import as_array, require_finite
from relprop.view.entries import (
    Amounts,
    feature_names,
    largest,
    require_count,
    values_of,
    with_value,
)

SMALL = 1e-3
"""A difference of no more than this part of the largest amount is called rounding."""


@dataclass(frozen=True)
class Step:
    """A step towards the score.

    Attributes:
        name: of the entry or of the sink.
        amount: what it adds.
        kind: "entry", "others" (all other entries), "sink", or "difference" (what is missing to the score).
    """

    name: str
    amount: float
    kind: str


def steps_of(
    inputs: Mapping[str, Tensor],
    ledger: Ledger,
    sample: int,
    k: int,
    call: str,
    *,
    features: Sequence[str] | None = None,
    values: Any = None,
) -> list[Step]:
    """Return the steps from nothing to the score of a sample. Their sum is the seed of the ledger.

    Args:
        inputs: relevance by name. Channels of images and signals are summed.
        ledger: of the explanation.
        sample: number of the sample.
        k: how many entries are steps of their own.
        call: what was called, for errors.
        features: names of the features, if the only input is a table.
        values: the table that the model saw, or its row.

    Raises:
        InputError: `k` is less than 1, relevance is NaN, or names or values do not fit.
    """
    require_count(k, call)
    names: list[str] = []
    amounts: list[Amounts] = []
    for name, R in inputs.items():
        whole = is_whole(R, ledger.samples)
        R = R[None] if whole else R
        own = as_array(R[sample : sample + 1], call, "values")
        require_finite(own, call)
        own = own[0].sum(0) if R.dim() > 2 and not whole else own[0]
        told = feature_names(features, own.size, call) if len(inputs) == 1 else None
        told = told or [_place(np.unravel_index(n, own.shape), R.dim() - whole) for n in range(own.size)]
        seen = values_of(values, own.shape, sample, len(R), call) if len(inputs) == 1 else None
        if seen is not None:
            told = [with_value(one, value) for one, value in zip(told, seen.reshape(-1), strict=True)]
        names += told if len(inputs) == 1 else [f"{name}: {one}" for one in told]
        amounts.append(own.reshape(-1))
    absorbed = {sink: float(amount[sample]) for sink, amount in ledger.absorbed.items()}
    return steps(names, np.concatenate(amounts), absorbed, float(ledger.seed[sample]), k, mixed=ledger.mixed)


def steps(
    names: Sequence[str],
    amounts: Amounts,
    absorbed: Mapping[str, float],
    score: float,
    k: int,
    *,
    mixed: bool = False,
    what: str = "inputs",
) -> list[Step]:
    """Return the steps from nothing to a score.

    Args:
        names: the name of each entry.
        amounts: the relevance of each entry, (entries,).
        absorbed: the amount of each sink.
        score: what all of them add up to.
        k: how many entries are steps of their own.
        mixed: whether the model mixes samples, so that the amounts of one need not add up.
        what: what the entries are, for the step of all others.
    """
    chosen = largest(amounts, len(amounts) if len(amounts) == k + 1 else k)
    found = [Step(names[place], float(amounts[place]), "entry") for place in chosen]
    if others := len(amounts) - len(chosen):
        found.append(Step(f"the other {others:,} {what}", math.fsum(np.delete(amounts, chosen)), "others"))
    largest_amount = max([abs(score), *(abs(step.amount) for step in found), *map(abs, absorbed.values())])
    told = {sink: amount for sink, amount in absorbed.items() if abs(amount) > ROUNDING * largest_amount}
    found += [Step(sink, told[sink], "sink") for sink in sorted(told, key=lambda name: -abs(told[name]))]
    missing = score - math.fsum(step.amount for step in found)
    if missing:
        small = abs(missing) <= SMALL * largest_amount
        name = "rounding" if small else "other samples" if mixed else "not in the ledger"
        found.append(Step(name, missing, "difference"))
    return found


def is_whole(R: Tensor, samples: int) -> bool:
    """Whether an input was explained as a whole, and has no dimension of samples."""
    return samples == 1 and (R.dim() == 0 or len(R) != 1)


def _place(place: Any, dimensions: int) -> str:
    """Return the name of an entry by its place, and by the dimensions of the input with its samples."""
    where = tuple(map(int, place))
    if len(where) == 1:
        return f"{'feature' if dimensions <= 2 else 'step'} {where[0]}"
    return f"{'pixel ' if dimensions == 4 else ''}{where}"
