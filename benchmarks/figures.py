"""The figures of `make bench` as the page asks for them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.case import BASE, BASE_OF_LXT, Case, Row
from benchmarks.cases import CASES
from benchmarks.cells import HEADS, NAMES, as_table, cell, named, ratio
from benchmarks.results import Found, Results

Amount = Callable[[Found, Row], float | None]

BUSY = 0.1
"""From so many cores on that other programs keep busy, figures say so."""


class Figures:
    """What was measured, by parts.

    Args:
        results: what was measured.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self.cases = [case for case in CASES if case.name in results.cases]
        self.settings = self._settings()

    def _settings(self) -> list[tuple[Mapping[str, Any], list[str]]]:
        """Machines and versions, each with the runs on it, the first one first."""
        found: list[tuple[Mapping[str, Any], list[str]]] = []
        for run in sorted({self.results.cases[case.name].run for case in self.cases}):
            about = {key: value for key, value in self.results.runs[run].items() if key != "import"}
            for other, runs in found:
                if other == about:
                    runs.append(run)
                    break
            else:
                found.append((about, [run]))
        return found

    def _setting_of(self, run: str) -> int:
        return next(number for number, (_, runs) in enumerate(self.settings, start=1) if run in runs)

    def part(self, part: str) -> list[tuple[Case, Found]]:
        """The cases of a part that were measured, with figures of the gradient."""
        every = [(case, self.results.cases[case.name]) for case in self.cases if case.part == part]
        return [(case, found) for case, found in every if found.time(BASE)]

    def between(self, part: str, way: str, rules: str, amount: Amount = Found.time) -> str:
        """The smallest and largest figure of a part, "" if there is none."""
        amounts = [found for _, each in self.part(part) if (found := amount(each, Row(way, rules)))]
        if not amounts:
            return ""
        low, high = ratio(min(amounts)), ratio(max(amounts))
        return low if low == high else f"{low} to {high}"

    def about(self, parts: Sequence[str]) -> str:
        """What the figures of parts were measured on."""
        cases = [each for part in parts for each in self.part(part)]
        rounds = [len(each.seconds) for _, found in cases for each in found.rows.values() if each.seconds]
        busy = max((found.other_work for _, found in cases), default=0.0)
        many = f"{min(rounds)} to {max(rounds)}" if min(rounds) < max(rounds) else f"{min(rounds)}"
        beside = f", beside other work that kept up to {busy:.1f} cores busy" if busy > BUSY else ""
        numbers = {self._setting_of(found.run) for _, found in cases}
        which = f", {' and '.join(map(str, sorted(numbers)))} [below](#how-it-was-measured)"
        return f"(Medians of {many} rounds{which if len(self.settings) > 1 else ''}{beside}.)"

    def rows(self, part: str, ways: Sequence[str], names: Mapping[str, str] | None = None) -> str:
        """A table of times: a line for each case and rules, a column for each way."""
        lines = self.lines(part, ways, None, names)
        return as_table(["", "rules", *(HEADS[way] for way in ways)], lines) if lines else ""

    def lines(
        self,
        part: str,
        ways: Sequence[str],
        amount: Amount | None,
        names: Mapping[str, str] | None = None,
    ) -> list[list[str]]:
        lines = []
        for case, found in self.part(part):
            title = case.title
            rules = dict.fromkeys(row.rules for row in found.rows if row.way in ways)
            for each in rules:
                cells = []
                for way in ways:
                    row = Row(way, each)
                    value = amount(found, row) if amount else None
                    cells.append(cell(found, row) if amount is None else ratio(value) if value else "")
                lines.append([title, (names or {}).get(each, NAMES.get(each, f"`{each}`")), *cells])
                title = ""
        return lines

    def dots_of(self, rules: str, ways: Sequence[str]) -> dict[str, dict[str, float]]:
        """Times by rules of networks of pictures, and of decoders, by way."""
        found = {}
        for part in ("pictures", "decoders"):
            for case, each in self.part(part):
                row = {HEADS[way]: time for way in ways if (time := each.time(Row(way, rules))) is not None}
                if row:
                    found[case.title if part == "pictures" else f"LLaMA, {case.name[6:]} wide"] = row
        return found

    def lines_of(self, part: str) -> dict[str, list[tuple[float, float]]]:
        """Times of a series, by way and rules; lines that have at least two points."""
        lines: dict[str, list[tuple[float, float]]] = {}
        for case, found in self.part(part):
            for row in found.rows:
                time = found.time(row)
                if row not in (BASE, BASE_OF_LXT) and time is not None and case.at is not None:
                    lines.setdefault(named(row).replace("`", ""), []).append((case.at, time))
        return {name: points for name, points in lines.items() if len(points) > 1}
