"""Results in the terminal."""

from rich.table import Table

from benchmarks.case import Case
from benchmarks.results import Found


def table(case: Case, found: Found) -> Table:
    """A case: time with quartiles, memory and products of each way, relative to the gradient."""
    others = f"; beside other work, {found.other_work:.1f} cores" if found.other_work > 0.1 else ""
    title = f"{case.name}: {case.title} ({found.took:.0f} s{others})"
    shown = Table(title=title, title_justify="left")
    shown.add_column("way")
    shown.add_column("rules")
    for column in ("time, ms", "× gradient", "quartiles", "memory, MiB", "× gradient", "products", "rounds"):
        shown.add_column(column, justify="right")
    failed: list[str] = []
    for row, measured in found.rows.items():
        if measured.error:
            shown.add_row(row.way, row.rules, "failed")
            failed.append(f"{row.way} {row.rules}: {measured.error}")
            continue
        quartiles, memory = found.quartiles(row), measured.cost.memory / 2**20 if measured.cost else None
        shown.add_row(
            row.way,
            row.rules,
            _digits(measured.median * 1e3 if measured.seconds else None),
            _ratio(found.time(row)),
            f"{quartiles[0]:.2f} - {quartiles[1]:.2f}" if quartiles else "",
            _digits(memory),
            _ratio(found.memory(row)),
            _ratio(found.products(row)),
            str(len(measured.seconds)),
        )
    shown.caption = "\n".join(failed) or None
    return shown


def _digits(amount: float | None) -> str:
    """Three digits."""
    if amount is None:
        return ""
    return f"{amount:.0f}" if amount >= 100 else f"{amount:.3g}"


def _ratio(amount: float | None) -> str:
    return "" if amount is None else f"{amount:.2f}"
