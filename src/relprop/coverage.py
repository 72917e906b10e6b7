"""Which rule each operation of a model gets, and what is not covered, without computing relevance."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relprop.baselines import Baseline
from relprop.errors import RuleError
from relprop.gaps import Gap
from relprop.input_errors import naming_inputs
from relprop.inputs import only_tokens, put_stand_ins, require_evaluation_mode
from relprop.intercept import Interception, intercepting
from relprop.operations import FAMILIES, TABLE
from relprop.rules.bounds import Bounds
from relprop.rules.choice import Rules, resolve

_LONG_NUMBER = re.compile(r"-?\d+\.\d{4,}(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Crossing:
    """How relevance crosses one call.

    Attributes:
        path: of the module that runs.
        operation: canonical name.
        how: the rule, or the family of operations that are crossed alike, or why it is not covered.
        covered: whether it can be crossed.
        acceptable: whether `explain(..., accept=...)` lets it pass where it is not.
    """

    path: str
    operation: str
    how: str
    covered: bool = True
    acceptable: bool = False


@dataclass(frozen=True)
class Coverage:
    """Every call of a model on the way of relevance, in order. Prints as a table.

    Attributes:
        crossings: the calls.
        preset: name of the rules.
    """

    crossings: tuple[Crossing, ...]
    preset: str

    @property
    def gaps(self) -> tuple[Crossing, ...]:
        """What is not covered."""
        return tuple(c for c in self.crossings if not c.covered)

    @property
    def complete(self) -> bool:
        """Whether everything is covered."""
        return not self.gaps

    def summary(self) -> list[tuple[str, str, int, str]]:
        """Operation, how it is crossed, how often, and where first; gaps come first."""
        groups: dict[tuple[bool, str, str], list[str]] = {}
        for c in self.crossings:
            # Of what is folded into another operation the table does not tell into which one.
            how = c.how.partition(" in ")[0] if c.how.startswith("part of ") else c.how
            groups.setdefault((c.covered, c.operation, how), []).append(c.path or "(root)")
        ordered = sorted(groups.items(), key=lambda group: group[0][0])
        return [(operation, how, len(paths), paths[0]) for (_, operation, how), paths in ordered]

    def __str__(self) -> str:
        covered = len(self.crossings) - len(self.gaps)
        share = 100 * covered / max(1, len(self.crossings))
        rows = [("operation", "calls", "first in", "crossed by")]
        rows += [
            (name, str(count), first, _LONG_NUMBER.sub(_shortened, how))
            for name, how, count, first in self.summary()
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [
            f"{name:{widths[0]}s}  {count:>{widths[1]}s}  {first:{widths[2]}s}  {how}"
            for name, count, first, how in rows
        ]
        counted = f"{covered} of {len(self.crossings)} calls covered ({share:.0f} %)"
        return "\n".join([*lines, f"{counted}, rules: {self.preset}"])


def coverage(
    model: Callable[..., Any],
    *inputs: Any,
    rules: Rules = None,
    bounds: Bounds | None = None,
    **arguments: Any,
) -> Coverage:
    """Run a model once and say how relevance would cross each of its calls. Gaps are no error here.

    Args:
        model: as for `relprop.explain`.
        inputs: the model's arguments.
        rules: as for `relprop.explain`.
        bounds: likewise.
        arguments: the model's keyword arguments.

    Raises:
        InputError: inputs that cannot be explained.
        ModelError: a model in training mode.
        RuleError: rules without meaning.
    """
    require_evaluation_mode(model)
    name, composite = resolve(model, rules, bounds, of_tokens=only_tokens(inputs, arguments))
    if isinstance(composite, Baseline):
        raise RuleError(f"rules={name!r} is a plain gradient, which goes through everything.")
    crossings: list[Crossing] = []

    def note(path: str, operation: str, how: str, gaps: list[Gap]) -> None:
        crossings.extend(map(_not_covered, gaps))
        if not gaps:
            crossings.append(Crossing(path, operation, how or _family(operation)))

    run = Interception(TABLE, composite.choose, slots=composite.slots, note=note)
    with intercepting(run):
        shapes, stand_ins, others = put_stand_ins(
            run.inputs.stand_in, run.inputs.stand_in_for_ids, model, inputs, arguments
        )
        run.constants.note_data((stand_ins, others))
        with naming_inputs(model, shapes, run.inputs.any):
            model(*stand_ins, **others)
    noted = {(c.path, c.operation) for c in crossings if not c.covered}
    for gap in run.gaps.found:
        if (gap.path, gap.operation) not in noted:  # found at the end of a module
            crossings.append(_not_covered(gap))
    return Coverage(tuple(crossings), name)


def _shortened(number: re.Match[str]) -> str:
    return f"{float(number[0]):.4g}"


def _not_covered(gap: Gap) -> Crossing:
    how = f"NOT COVERED: {gap.reason}"
    return Crossing(gap.path, gap.operation, how, covered=False, acceptable=gap.acceptable)


def _family(operation: str) -> str:
    return next((family for family, table in FAMILIES.items() if operation in table), "plain gradient")
