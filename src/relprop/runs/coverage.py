"""Which rule each operation of a model gets, and what is not covered, without computing relevance."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relprop.calls.call import Call
from relprop.engine.active import without_compiler
from relprop.engine.gaps import Gap, what_helps
from relprop.engine.observer import Observer
from relprop.engine.run import Run
from relprop.errors import RuleError
from relprop.inputs.arguments import only_tokens
from relprop.inputs.evaluation import require_evaluation_mode
from relprop.inputs.signature import joined_arguments, options_of, require_arguments, require_clear
from relprop.operations import FAMILIES, TABLE
from relprop.operations.whole import is_declared
from relprop.rules.bounds import Bounds
from relprop.rules.choice import Rules, resolve
from relprop.rules.gradients import Baseline
from relprop.runs.explain import explain
from relprop.runs.forward import Forward

_LONG_NUMBER = re.compile(r"-?\d+\.\d{4,}(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Crossing:
    """How relevance crosses one call.

    Attributes:
        path: path of the module that runs.
        operation: name of the operation, as in torch's documentation.
        how: the rule; or the family of operations that relevance crosses in the same way; or the operation
            that the call is part of; or the reason why it is not covered.
        within: path of the module of the operation that the call is part of.
        covered: whether relevance can cross the call.
        acceptable: whether `explain(..., accept=...)` can accept the plain gradient of a call that is not
            covered.
    """

    path: str
    operation: str
    how: str
    covered: bool = True
    acceptable: bool = False
    within: str | None = None


@dataclass(frozen=True)
class Coverage:
    """Every call of a model on relevant tensors, in order. It prints as a table.

    Attributes:
        crossings: the calls.
        preset: name of the rules.
        nothing: why `explain` finds nothing to explain: the model looks up none of its integers, or its
            output does not depend on the inputs. Empty if there is something to explain.
    """

    crossings: tuple[Crossing, ...]
    preset: str
    nothing: str = ""

    @property
    def gaps(self) -> tuple[Crossing, ...]:
        """The calls that are not covered."""
        return tuple(c for c in self.crossings if not c.covered)

    @property
    def remedy(self) -> str:
        """What helps with the calls that are not covered; "" if there is nothing to say."""
        return what_helps({gap.operation for gap in self.gaps if gap.acceptable})

    @property
    def complete(self) -> bool:
        """Whether there is something to explain, and all calls are covered."""
        return not self.gaps and not self.nothing

    def summary(self) -> list[tuple[str, str, int, str]]:
        """Return operation, how it is crossed, number of calls and first path of each kind; gaps first."""
        groups: dict[tuple[bool, str, str], list[str]] = {}
        for c in self.crossings:
            groups.setdefault((c.covered, c.operation, c.how), []).append(c.path or "(root)")
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
        ending = [f"NOTHING IS EXPLAINED: {self.nothing}"] if self.nothing else []
        return "\n".join([*lines, f"{counted}, rules: {self.preset}", *ending])


def coverage(
    model: Callable[..., Any],
    *inputs: Any,
    rules: Rules = None,
    bounds: Bounds | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Coverage:
    """Run a model once, and list how relevance would cross each of its calls.

    Gaps are not an error here, nor is a model of which `explain` finds nothing to explain.

    Args:
        model: as for `relprop.explain`.
        inputs: the model's arguments.
        rules: as for `relprop.explain`.
        bounds: as for `relprop.explain`.
        kwargs: arguments of the model by name. Their names may be those of options.
        arguments: the model's other arguments by name.

    Raises:
        InputError: inputs that cannot be explained.
        ModelError: a model in training mode.
        RuleError: rules without meaning.
    """
    require_evaluation_mode(model)
    require_arguments(options_of(explain), model, arguments)
    require_clear("coverage", model, len(inputs), {"rules": rules, "bounds": bounds}, kwargs)
    arguments = joined_arguments(kwargs, arguments)
    name, composite = resolve(rules, bounds, of_tokens=only_tokens(inputs, arguments))
    if isinstance(composite, Baseline):
        raise RuleError(
            f"rules={name!r} is a plain gradient, which covers every operation. Give a preset or a composite."
        )

    def covered() -> Coverage:
        run = Run(composite.choose, unmatched=composite.unmatched, slots=composite.slots)
        observer = _Crossings(run)
        with Forward(run, TABLE, [observer]).of(model, inputs, arguments, demanding=False) as forward:
            nothing = forward.why_nothing()
        return Coverage(tuple(observer.crossings), name, nothing)

    return without_compiler(covered)


class _Crossings(Observer):
    """Notes how each call is crossed."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.crossings: list[Crossing] = []

    def after_call(self, call: Call, applied: int, gaps: Sequence[Gap]) -> None:
        self.crossings.extend(map(_not_covered, gaps))
        if gaps or not (call.operation in TABLE or is_declared(call.operation)):
            return
        run = self.run
        how, within = ", ".join(dict.fromkeys(str(a.rule) for a in run.applied[applied:])), None
        if run.part_of is not None:
            operation, within = run.part_of
            how = f"part of {operation}"
        crossing = Crossing(run.modules.path, call.name, how or _family(call.operation), within=within)
        self.crossings.append(crossing)


def _shortened(number: re.Match[str]) -> str:
    return f"{float(number[0]):.4g}"


def _not_covered(gap: Gap) -> Crossing:
    how = f"NOT COVERED: {gap.reason}"
    return Crossing(gap.path, gap.operation, how, covered=False, acceptable=gap.acceptable)


def _family(operation: str) -> str:
    return next((family for family, table in FAMILIES.items() if operation in table), "as it was declared")
