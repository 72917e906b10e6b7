"""How ways are measured: once to prepare them, once for memory and products, then in turns for the time."""

import gc
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from benchmarks.case import Row
from counting import FlopCount, peak

_T = TypeVar("_T")

FEWEST = 3
"""Rounds of a case that takes long."""
MOST = 51
"""Rounds of a case that takes no time."""
SHORT = 5.0
"""Seconds for which a case is measured at least."""
SLOW = 1.0
"""Seconds from which on a way that takes several times the gradient is measured in few rounds only."""


@dataclass(frozen=True)
class Cost:
    """What one explanation needs.

    Attributes:
        memory: most bytes that are allocated at once, beyond what there was before.
        products: operations of linear algebra; None if they cannot be counted.
    """

    memory: int
    products: int | None


class Way(Protocol):
    """Explains a case again and again."""

    @property
    def warms_up(self) -> bool:
        """Whether the first explanation makes what later ones use."""

    def seconds(self) -> float:
        """Explain, and say how long it takes."""

    def cost(self) -> Cost:
        """Explain, and count memory and products."""


@dataclass
class Measured:
    """What was found of one row.

    Attributes:
        first: seconds of preparing the way, such as tracing a graph, and of warming it up.
        seconds: of each round.
        cost: memory and products.
        error: why there are no figures, or "".
    """

    first: float = 0.0
    seconds: list[float] = field(default_factory=list)
    cost: Cost | None = None
    error: str = ""

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Local:
    """A way within this process.

    Attributes:
        explain: explains the case once.
        counted: whether its products are calls of torch's operations.
        warms_up: whether the first explanation makes what later ones use, and is not what they cost.
    """

    explain: Callable[[], Any]
    counted: bool = True
    warms_up: bool = True

    def seconds(self) -> float:
        start = time.perf_counter()
        self.explain()
        return time.perf_counter() - start

    def cost(self) -> Cost:
        if not self.counted:
            return Cost(peak(self.explain), None)
        with FlopCount() as count:
            memory = peak(self.explain)
        return Cost(memory, count.total)


def measure(
    builders: Mapping[Row, Callable[[], Way]],
    *,
    repeat: int,
    budget: float,
    step: Callable[[str], None] = lambda _: None,
) -> dict[Row, Measured]:
    """Measure the ways of a case in one process. What fails is told in its row, and the others go on.

    Args:
        builders: prepares each way; the first one is what others are compared with.
        repeat: rounds, unless the case takes little time or much.
        budget: seconds after which there is no further round, if there were three.
        step: called with the row and what is done with it.
    """
    found = {row: Measured() for row in builders}
    ways: dict[Row, Way] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of random weights, and of what peers have to say
        warnings.filterwarnings("error", "the explanation is computed without a graph")
        for row, build in builders.items():
            step(f"{name_of(row)}: first")
            start = time.perf_counter()
            if (way := _tried(found[row], build)) is None:
                continue
            if way.warms_up:
                _tried(found[row], way.seconds)
            found[row].first = time.perf_counter() - start
            if not found[row].error:
                step(f"{name_of(row)}: memory")
                found[row].cost = _tried(found[row], way.cost)
            if not found[row].error:
                ways[row] = way
        _in_turns(ways, found, repeat, budget, step)
    return found


def _in_turns(
    ways: dict[Row, Way],
    found: Mapping[Row, Measured],
    repeat: int,
    budget: float,
    step: Callable[[str], None],
) -> None:
    """Let the ways take turns. Each round begins with another one."""
    begun = time.perf_counter()
    for number in range(max(MOST, repeat)):
        passed = time.perf_counter() - begun
        if number >= repeat and (passed > SHORT or repeat < FEWEST):
            return
        if number >= FEWEST and passed > budget:
            return
        gc.collect()
        rows = list(ways)
        start = number % max(1, len(rows))
        base = found[rows[0]].seconds if rows else []
        for row in rows[start:] + rows[:start]:
            own = found[row].seconds
            usual = statistics.median(own) if len(own) >= FEWEST else 0.0
            if usual > SLOW and usual > 4 * statistics.median(base):
                continue
            step(f"{name_of(row)}: {number + 1}")
            seconds = _tried(found[row], ways[row].seconds)
            if seconds is None:
                del ways[row]
            else:
                own.append(seconds)


def _tried(measured: Measured, function: Callable[[], _T]) -> _T | None:
    """Call a function; note its error and return None if it fails."""
    try:
        return function()
    except Exception as error:  # of any library
        lines = str(error).strip().splitlines() or [""]
        measured.error = f"{type(error).__name__}: {lines[0]}"[:300]
        return None


def name_of(row: Row) -> str:
    """The row in words."""
    return f"{row.way} {row.rules}".strip()
