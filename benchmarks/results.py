"""Results as a file of JSON: written whole after each case, and read by what makes the page."""

import json
import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.case import BASE, BASE_OF_LXT, Row
from benchmarks.measuring import Cost, Measured

FORM = 1
"""Of the file."""


@dataclass(frozen=True)
class Found:
    """What was found of a case.

    Attributes:
        run: which run of the program found it.
        rows: each way.
        took: seconds that it took in all.
        other_work: cores that other programs kept busy meanwhile.
    """

    run: str
    rows: Mapping[Row, Measured]
    took: float
    other_work: float

    @property
    def gradient(self) -> Measured:
        """What the others are compared with."""
        return self.rows[BASE]

    def time(self, row: Row) -> float | None:
        """Median time relative to the gradient's, or None if there is none."""
        return self._relative(row, lambda measured: measured.median if measured.seconds else None)

    def quartiles(self, row: Row) -> tuple[float, float] | None:
        """Lower and upper quartile of the time, relative to the gradient's median."""
        measured = self.rows.get(row)
        time = self.time(row)
        if measured is None or len(measured.seconds) < 2 or time is None:
            return None
        low, _, high = statistics.quantiles(measured.seconds, n=4, method="inclusive")
        return time * low / measured.median, time * high / measured.median

    def memory(self, row: Row) -> float | None:
        """Peak memory relative to the gradient's."""
        return self._relative(row, lambda measured: measured.cost and measured.cost.memory)

    def products(self, row: Row) -> float | None:
        """Counted products relative to the gradient's."""
        return self._relative(row, lambda measured: measured.cost and measured.cost.products)

    def _relative(self, row: Row, amount: Any) -> float | None:
        measured = self.rows.get(row)
        if measured is None:
            return None
        # Processes differ, too: LXT is compared with the gradient in one like its own.
        beside = self.rows.get(BASE_OF_LXT)
        if row.way != "LXT" or beside is None or beside.error:
            beside = self.gradient
        one, base = amount(measured), amount(beside)
        return one / base if one is not None and base else None


@dataclass
class Results:
    """All cases that were measured.

    Attributes:
        cases: by name.
        runs: when the program ran, and on what: see `machine.description`.
    """

    cases: dict[str, Found] = field(default_factory=dict)
    runs: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Read a file; nothing if there is none.

        Raises:
            ValueError: it is no such file.
        """
        if not path.exists():
            return cls()
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["form"] != FORM:
                raise ValueError(f"it has form {stored['form']}, and not {FORM}")
            cases = {name: _found(case) for name, case in stored["cases"].items()}
            return cls(cases, stored["runs"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} has no results of this program ({error}). Move it away, or give another --out."
            ) from error

    def write(self, path: Path) -> None:
        """Write the file whole, so that no half of it is left behind."""
        used = {found.run for found in self.cases.values()}
        stored = {
            "form": FORM,
            "runs": {run: about for run, about in self.runs.items() if run in used},
            "cases": {name: _stored(found) for name, found in self.cases.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.part")
        beside.write_text(_text(stored), encoding="utf-8")
        os.replace(beside, path)


def _text(stored: Mapping[str, Any]) -> str:
    """JSON with a line for each row, so that differences can be read."""
    cases = []
    for name, case in stored["cases"].items():
        head = {key: value for key, value in case.items() if key != "rows"}
        rows = ",\n".join(f"   {json.dumps(row, ensure_ascii=False)}" for row in case["rows"])
        cases.append(f'  {json.dumps(name)}: {json.dumps(head)[:-1]}, "rows": [\n{rows}\n  ]}}')
    runs = json.dumps(stored["runs"], indent=1).replace("\n", "\n ")
    joined = ",\n".join(cases)
    return f'{{\n "form": {stored["form"]},\n "runs": {runs},\n "cases": {{\n{joined}\n }}\n}}\n'


def _stored(found: Found) -> dict[str, Any]:
    return {
        "run": found.run,
        "took": round(found.took, 1),
        "other_work": round(found.other_work, 2),
        "rows": [_stored_row(row, measured) for row, measured in found.rows.items()],
    }


def _stored_row(row: Row, measured: Measured) -> dict[str, Any]:
    stored: dict[str, Any] = {"way": row.way, "rules": row.rules, "first": _short(measured.first)}
    if measured.error:
        stored["error"] = measured.error
    if measured.cost is not None:
        stored |= {"memory": measured.cost.memory, "products": measured.cost.products}
    return stored | {"seconds": [_short(each) for each in measured.seconds]}


def _found(stored: Mapping[str, Any]) -> Found:
    rows = {}
    for row in stored["rows"]:
        cost = Cost(row["memory"], row["products"]) if "memory" in row else None
        measured = Measured(row["first"], row["seconds"], cost, row.get("error", ""))
        rows[Row(row["way"], row["rules"])] = measured
    return Found(stored["run"], rows, stored["took"], stored["other_work"])


def _short(seconds: float) -> float:
    """Four digits: more would be noise."""
    return float(f"{seconds:.4g}")
