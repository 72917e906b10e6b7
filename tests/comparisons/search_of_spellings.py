"""Searches random programs for spellings that are explained differently, and makes what it finds minimal."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

import relprop
from random_drawing import draw, draw_spelling, is_clear_everywhere
from random_programs import DoesNotFitError, Drawn, Spelling, complete, made
from relprop import PRESETS, Explanation
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus
from smaller_programs import smaller

RULES: Mapping[str, Any] = {
    **{name: preset.with_bounds(-4.0, 4.0) for name, preset in PRESETS.items()},
    **{
        str(rule): rule
        for rule in (Gamma(0.25), ZPlus(), AlphaBeta(2, 1), Flat(), WSquare(), Epsilon(0.1), ZBox(-50, 50))
    },
}
"""The rules under which spellings are compared, by what they print."""

CLOSE = 1e-9
"""By how much relevance may differ, relative to its largest value, and ledgers may miss their balance."""


class GeneratorError(AssertionError):
    """Two spellings compute different values, so that they are no spellings of one function."""


@dataclass(frozen=True)
class Failure:
    """A spelling that is explained differently.

    Attributes:
        drawn: the program.
        spelling: how it is written.
        rules: a key of `RULES`.
        kind: what is wrong: "error", "relevance" or "ledger".
        told: what is wrong, with numbers.
    """

    drawn: Drawn
    spelling: Spelling
    rules: str
    kind: str
    told: str

    def __str__(self) -> str:
        plain = complete(self.drawn, self.drawn.plain)
        other = complete(self.drawn, self.spelling)
        return (
            f"rules={self.rules}: {self.told}.\n\nThis program, behind the prelude of "
            f"tests/networks_explained/random_programs.py:\n\n{plain}\n"
            f"and the same in another spelling:\n\n{other}"
        )


@dataclass
class Counts:
    """How much was compared."""

    programs: int = 0
    compared: int = 0
    refused: int = 0
    unclear: int = 0

    def __str__(self) -> str:
        return (
            f"{self.programs} programs, {self.compared} comparisons, {self.refused} without relevance, "
            f"{self.unclear} near a kink"
        )

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.programs + other.programs,
            self.compared + other.compared,
            self.refused + other.refused,
            self.unclear + other.unclear,
        )


def _score(output: Tensor) -> Tensor:
    """A sum in which each output has another weight, without a product that might be folded into a layer."""
    return output.cumsum(1).sum(1)


def explained(program: Callable[..., Tensor], inputs: tuple[Tensor, ...], rules: str) -> Explanation:
    """Explain the sum of a program's outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return relprop.explain(program, *inputs, target=_score, rules=RULES[rules])


def relevance_of(e: Explanation) -> list[Tensor]:
    return list(e.inputs.values())


def compared(drawn: Drawn, spelling: Spelling, rules: str, expected: Explanation) -> Failure | None:
    """Compare a spelling with what is expected of its program.

    Raises:
        GeneratorError: the spelling computes other values.
    """

    def failure(kind: str, told: str) -> Failure:
        return Failure(drawn, spelling, rules, kind, told)

    try:
        program, inputs = made(drawn, spelling)
        with torch.no_grad():
            value = program(*inputs)
    except Exception as error:
        raise GeneratorError(f"{type(error).__name__}: {error}\n{complete(drawn, spelling)}") from error
    wanted = expected.output[: len(value)]
    if value.shape != wanted.shape or not torch.allclose(value, wanted, rtol=1e-12, atol=1e-12):
        raise GeneratorError(f"other values\n{complete(drawn, drawn.plain)}\n{complete(drawn, spelling)}")
    try:
        found = explained(program, inputs, rules)
    except Exception as error:
        return failure("error", f"{type(error).__name__}: {error}")
    largest = max(float(R.abs().max()) for R in relevance_of(expected))
    for R, wanted in zip(relevance_of(found), relevance_of(expected), strict=True):
        off = float((R - wanted[: len(R)]).abs().max())
        if not off <= CLOSE * largest:
            return failure("relevance", f"the relevance differs by {off / largest:.1e} of the largest")
    gap = float(found.ledger.gap.max())
    if not gap <= CLOSE:
        return failure("ledger", f"the ledger misses its balance by {gap:.1e}")
    return None


def is_steady(drawn: Drawn, rules: str, expected: Explanation) -> bool:
    """Whether relevance changes little if the inputs do: else rounding alone may change it by more."""
    program, inputs = made(drawn, drawn.plain)
    largest = max(float(R.abs().max()) for R in relevance_of(expected))
    for seed in range(2):
        source = torch.Generator().manual_seed(seed)
        near = tuple(x * (1 + 1e-9 * torch.randn(x.shape, generator=source, dtype=x.dtype)) for x in inputs)
        other = explained(program, near, rules)
        for R, wanted in zip(relevance_of(other), relevance_of(expected), strict=True):
            if not float((R - wanted).abs().max()) <= 1e-5 * largest:
                return False
    return True


def reference(drawn: Drawn, rules: str) -> Explanation | None:
    """Explain a program as it was drawn; None if it is an error, or nothing arrives at the inputs."""
    program, inputs = made(drawn, drawn.plain)
    try:
        e = explained(program, inputs, rules)
    except relprop.RelpropError:
        return None
    scores = _score(e.output).abs()
    if not bool(scores.isfinite().all()) or float(scores.min()) < 1e-6:
        return None  # relevance that starts with 1 has no coefficient there
    fits = all(bool(R.isfinite().all()) for R in relevance_of(e))
    return e if fits and max(float(R.abs().max()) for R in relevance_of(e)) > 1e-6 else None


def check(
    seed: int, *, spellings: int = 2, rules: int = 3, expensive: bool = False, counts: Counts | None = None
) -> Failure | None:
    """Compare spellings of the program of a seed, and return the first failure.

    Raises:
        GeneratorError: a spelling computes other values.
    """
    counts = Counts() if counts is None else counts
    drawn, random = draw(seed), Random(seed)
    names = list(RULES)
    chosen = [names[(rules * seed + i) % len(names)] for i in range(rules)]
    others = [draw_spelling(drawn, random, expensive=expensive) for _ in range(spellings)]
    counts.programs += 1
    for rule in chosen:
        expected = reference(drawn, rule)
        if expected is None:
            counts.refused += 1
            continue
        for spelling in (drawn.plain, *others):
            counts.compared += 1
            failure = compared(drawn, spelling, rule, expected)
            if failure is None:
                continue
            if failure.kind != "error" and not is_steady(drawn, rule, expected):
                counts.unclear += 1
                continue
            return failure
    return None


def minimal(failure: Failure) -> Failure:
    """Return a failure of the same kind whose program and spelling cannot be made smaller."""
    while True:
        for drawn, spelling in smaller(failure.drawn, failure.spelling):
            found = _again(drawn, spelling, failure)
            if found is not None:
                failure = found
                break
        else:
            return failure


def _again(drawn: Drawn, spelling: Spelling, failure: Failure) -> Failure | None:
    """The failure of another program, if it is of the same kind."""
    try:
        if not is_clear_everywhere(drawn):
            return None
        expected = reference(drawn, failure.rules)
        found = None if expected is None else compared(drawn, spelling, failure.rules, expected)
        if found is None or expected is None or found.kind != failure.kind:
            return None
        if found.kind != "error" and not is_steady(drawn, failure.rules, expected):
            return None
    except (DoesNotFitError, GeneratorError, RuntimeError, IndexError, ValueError):
        return None
    return found
