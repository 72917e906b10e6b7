"""The way from the inputs to the score in steps that add up: the largest entries, all others, the sinks."""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from relprop.errors import InputError
from relprop.results.ledger import Ledger
from relprop.view.arrays import as_array, require_finite
from relprop.view.entries import (
    Amounts,
    feature_names,
    kind_of_entry,
    largest,
    place_of_entry,
    require_count,
    values_of,
    with_value,
)
from relprop.view.way import ROUNDING

SMALL = 1e-3
"""Sinks of no more than this part of the largest amount are one step, with what is missing to the score."""


@dataclass(frozen=True)
class Step:
    """A step towards the score.

    Attributes:
        name: of the entry or of the sink.
        amount: what it adds.
        kind: "entry", "others" (all other entries), "sink", or "difference" (small sinks, and rounding).
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
    told: list[Callable[[int], str]] = []
    amounts: list[Amounts] = []
    for name, given in inputs.items():
        R, whole = in_samples(given, ledger.samples, call)
        own = as_array(R[sample : sample + 1], call, "values")
        require_finite(own, call)
        own = own[0].sum(0) if R.dim() > 2 and not whole else own[0]
        only = len(inputs) == 1
        names = feature_names(features, own.size, call) if only else None
        seen = values_of(values, own.shape, sample, len(R), call) if only else None
        told.append(_namer(own.shape, R.dim() - whole, names, seen, "" if only else f"{name}: "))
        amounts.append(own.reshape(-1))
    first = np.cumsum([0, *map(len, amounts)]).tolist()

    def name_of(number: int) -> str:
        which = bisect_right(first, number) - 1
        return told[which](number - first[which])

    absorbed = {sink: float(amount[sample]) for sink, amount in ledger.absorbed.items()}
    score = float(ledger.seed[sample])
    return steps(name_of, np.concatenate(amounts), absorbed, score, k, call, mixed=ledger.mixed)


def _namer(
    shape: tuple[int, ...],
    dimensions: int,
    names: Sequence[str] | None,
    seen: Amounts | None,
    before: str,
) -> Callable[[int], str]:
    """Return a function from the number of an entry to its name: of millions, few are named."""

    def name_of(number: int) -> str:
        place = np.unravel_index(number, shape) if shape else ()
        # Rows and columns are those of a pixel, or of an input of which nothing more is known.
        kind = "" if len(place) > 1 and dimensions != 4 else f"{kind_of_entry(dimensions)} "
        plain = f"{kind}{place_of_entry(place)}"
        name = names[number] if names is not None else plain
        return before + (name if seen is None else with_value(name, float(seen.reshape(-1)[number])))

    return name_of


def steps(
    name_of: Callable[[int], str],
    amounts: Amounts,
    absorbed: Mapping[str, float],
    score: float,
    k: int,
    call: str,
    *,
    mixed: bool = False,
    what: str = "inputs",
) -> list[Step]:
    """Return the steps from nothing to a score.

    Args:
        name_of: the name of an entry, by its number.
        amounts: the relevance of each entry, (entries,).
        absorbed: the amount of each sink.
        score: what all of them add up to.
        k: how many entries are steps of their own.
        call: what was called, for errors.
        mixed: whether the model mixes samples, so that the amounts of one need not add up.
        what: what the entries are, for the step of all others.

    Raises:
        InputError: an amount of a sink, or the score, is NaN or infinite.
    """
    wrong = [name for name, amount in {**absorbed, "score": score}.items() if not math.isfinite(amount)]
    if wrong:
        raise InputError(
            f"{call}: the ledger has an amount that is NaN or infinite, of {wrong[0]!r}. Find out where it "
            "comes from: explain(..., per_operation=True) and print(explanation.ledger.table())."
        )
    chosen = largest(amounts, len(amounts) if len(amounts) == k + 1 else k)
    found = [Step(name_of(int(place)), float(amounts[place]), "entry") for place in chosen]
    if others := len(amounts) - len(chosen):
        found.append(Step(f"the other {others:,} {what}", math.fsum(np.delete(amounts, chosen)), "others"))
    largest_amount = max([abs(score), *(abs(step.amount) for step in found), *map(abs, absorbed.values())])
    small = {sink: a for sink, a in absorbed.items() if abs(a) <= SMALL * largest_amount}
    told = sorted(absorbed.keys() - small.keys(), key=lambda sink: (-abs(absorbed[sink]), sink))
    found += [Step(sink, absorbed[sink], "sink") for sink in told]
    missing = score - math.fsum(step.amount for step in found)
    if missing:
        unknown = abs(missing - math.fsum(small.values())) > SMALL * largest_amount
        seen = any(abs(amount) > ROUNDING * largest_amount for amount in small.values())
        lost = "other samples" if mixed else "not in the ledger"
        name = lost if unknown else "small sinks" if seen else "rounding"
        found.append(Step(name, missing, "difference"))
    return found


def in_samples(R: Tensor, samples: int, call: str) -> tuple[Tensor, bool]:
    """Return relevance with a dimension of samples, and whether it had none.

    Raises:
        InputError: there are several samples, and its first dimension is another one.
    """
    if samples == 1:
        whole = R.dim() == 0 or len(R) != 1
        return (R[None] if whole else R), whole
    if R.dim() == 0 or len(R) != samples:
        raise InputError(
            f"{call}: relevance of shape {tuple(R.shape)} has the entries of all {samples} samples in one "
            "dimension. Take the part of a sample from the tensor itself."
        )
    return R, False
