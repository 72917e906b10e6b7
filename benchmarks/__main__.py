"""Measure what explanations cost, and write it to a file of JSON.

    make bench                                  everything: 90 minutes on a machine that does nothing else
    python -m benchmarks --only decoders        a part, whose figures in the file are replaced
    python -m benchmarks --only resnet50 "batch/*"
    python -m benchmarks --list                 the parts and cases

Ways of one case take turns in one process, so that their ratios are of the same minute. After each case the
file is written; Ctrl-C keeps the cases that are done. Peers that are not installed have a row that says so.
"""

import argparse
import fnmatch
import gc
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import ROOT
from benchmarks.case import Case, Row, Subject
from benchmarks.cases import CASES, PARTS
from benchmarks.lxt import ENVIRONMENT, LXT
from benchmarks.machine import OtherWork, description, importing
from benchmarks.measuring import Local, Way, measure
from benchmarks.results import Found, Results
from benchmarks.terminal import table
from benchmarks.ways import STATELESS, UNCOUNTED, WAYS

RESULTS = ROOT / "benchmarks" / "results.json"
QUICK_RESULTS = ROOT / "out" / "bench-quick.json"

INTERRUPTED = 130
"""The status after Ctrl-C."""


def builders(case: Case, subject: Subject, lxt: LXT, *, compiled: bool) -> Mapping[Row, Callable[[], Way]]:
    """What prepares each way of a case."""

    def local(row: Row) -> Way:
        explain = WAYS[row.way](subject, row.rules)
        return Local(explain, counted=row.way not in UNCOUNTED, warms_up=row.way not in STATELESS)

    return {
        row: partial(local, row) if row.way in WAYS else partial(lxt.way, case, subject, row.rules)
        for row in case.rows(compiled=compiled)
    }


def explore(
    case: Case, lxt: LXT, run: str, options: argparse.Namespace, step: Callable[[str], None]
) -> Found:
    """Measure a case."""
    torch.compiler.reset()
    gc.collect()
    torch.manual_seed(0)
    begun, others, helped = time.monotonic(), OtherWork(), lxt.seconds()
    subject = case.make()
    rows = measure(
        builders(case, subject, lxt, compiled=not options.quick),
        repeat=2 if options.quick else options.repeat,
        budget=options.budget,
        step=step,
    )
    return Found(run, rows, time.monotonic() - begun, others(lxt.seconds() - helped))


def about_run(lxt: LXT, *, quick: bool) -> dict[str, Any]:
    """What figures depend on, and how long it takes to import relprop."""
    about = description()
    if version := lxt.version():
        about["versions"]["lxt"] = version
    return about if quick else about | {"import": round(importing(), 4)}


def run_all(cases: Sequence[Case], options: argparse.Namespace, console: Console) -> int:
    """Measure cases, print a table of each and write all of them; return the exit status."""
    results = Results.read(options.out)
    torch.set_num_threads(options.threads)
    run = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    lxt = LXT(options.lxt, options.threads)
    results.cases = {name: found for name, found in results.cases.items() if name in {c.name for c in CASES}}
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    done, failed = 0, 0
    try:
        results.runs[run] = about_run(lxt, quick=options.quick)
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=len(cases))
            for case in cases:
                step = partial(_describe, bar, task, case.name)
                try:
                    found = explore(case, lxt, run, options, step)
                except Exception as error:  # of any library; the other cases go on
                    console.print(
                        f"{case.name} cannot be made: {type(error).__name__}: {error}", markup=False
                    )
                    failed += 1
                    continue
                results.cases[case.name] = found
                results.write(options.out)
                bar.advance(task)
                console.print(table(case, found))
                done += 1
    except KeyboardInterrupt:
        console.print(f"interrupted: {done} of {len(cases)} cases are done, and in {options.out}")
        return INTERRUPTED
    finally:
        lxt.close()
    console.print(f"{options.out} has {len(results.cases)} cases. `make docs` writes docs/performance.md.")
    return 1 if failed else 0


def _describe(bar: Progress, task: object, case: str, text: str) -> None:
    bar.update(task, description=f"{case}: {text}")  # type: ignore[arg-type]


def chosen(patterns: Sequence[str]) -> list[Case]:
    """The cases of some names, parts or globs.

    Raises:
        ValueError: none has such a name.
    """
    if not patterns:
        return list(CASES)
    for pattern in patterns:
        if not any(_matches(case, pattern) for case in CASES):
            raise ValueError(
                f"--only {pattern}: there is no such case. Give one of the parts {', '.join(PARTS)}, or "
                "a case that --list shows."
            )
    return [case for case in CASES if any(_matches(case, pattern) for pattern in patterns)]


def _matches(case: Case, pattern: str) -> bool:
    return case.part == pattern or fnmatch.fnmatchcase(case.name, pattern)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="CASE", help="parts, cases, or globs of cases"
    )
    parser.add_argument("--list", action="store_true", help="show the parts and cases, and measure nothing")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument(
        "--repeat", type=int, default=9, help="rounds; short cases have more, long ones fewer (default: 9)"
    )
    parser.add_argument(
        "--budget", type=float, default=20, help="seconds of rounds for a case, if it has three (default: 20)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two rounds and nothing compiled: to see that everything runs"
    )
    parser.add_argument("--out", type=Path, help=f"the file (default: {RESULTS.relative_to(ROOT)})")
    parser.add_argument(
        "--lxt", type=Path, default=ENVIRONMENT, metavar="PYTHON", help="Python of the environment with LXT"
    )
    options = parser.parse_args(arguments)
    if options.out is None:
        options.out = QUICK_RESULTS if options.quick else RESULTS
    console = Console()
    if not console.is_terminal:  # a file, in which lines may be long
        console = Console(width=120)
    if options.list:
        for part, title in PARTS.items():
            names = " ".join(case.name for case in CASES if case.part == part)
            console.print(f"{part}: {title}\n  {names}", highlight=False)
        return 0
    try:
        return run_all(chosen(options.only), options, console)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
