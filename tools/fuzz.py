"""Search random programs for spellings that are explained differently.

`make fuzz SECONDS=60` runs it. Each seed draws a small function and equivalent ways of writing it. Their
relevance must be equal, and their ledgers must balance. A failure is made minimal and printed as source.
The exit status is 1 if there was one.

    python tools/fuzz.py --seconds 600 --first 1000
    python tools/fuzz.py --seed 1234        a seed that failed
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS / "networks_explained"), str(TESTS / "comparisons")]

from search_of_spellings import Counts, GeneratorError, check, minimal  # noqa: E402


def main() -> int:
    """Check seeds until the time is over; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="how long new seeds are begun")
    parser.add_argument("--first", type=int, help="the first seed; by default one that follows from the time")
    parser.add_argument("--seed", type=int, help="check this seed alone")
    given = parser.parse_args()
    if given.seconds <= 0:
        parser.error(f"--seconds {given.seconds:g}: give a number above 0, or one seed by --seed")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    first = int(time.time()) if given.first is None else given.first
    if given.seed is not None:
        first, given.seconds = given.seed, 0
    counts, failed, seed, begun = Counts(), 0, first, time.monotonic()
    print(f"seeds from {first}")
    try:
        while seed == first or time.monotonic() - begun < given.seconds:
            failed += not _passes(seed, counts)
            seed += 1
            if sys.stdout.isatty():
                print(f"\r{counts}, {failed} failed", end="", flush=True)
    except KeyboardInterrupt:
        print("\rstopped by Ctrl-C")
    print(f"\rseeds {first} to {seed - 1}: {counts}; {failed} failed")
    return int(failed > 0)


def _passes(seed: int, counts: Counts) -> bool:
    """Check a seed, and print what is wrong."""
    try:
        failure = check(seed, expensive=seed % 20 == 0, counts=counts)
    except GeneratorError as error:
        print(f"\rseed {seed}: the generator is wrong: {error}")
        return False
    if failure is not None:
        print(f"\rseed {seed}: {minimal(failure)}")
    return failure is None


if __name__ == "__main__":
    sys.exit(main())
