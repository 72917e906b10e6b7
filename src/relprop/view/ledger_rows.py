"""Grouping operations, if there are more than a picture has rows."""

from collections.abc import Iterable, Sequence

from relprop.view.way import Step, Way


def grouped(found: Way, most: int) -> list[Step]:
    """Return the steps that absorbed something, grouped to at most `most` of them.

    If there are more, all steps of one module become one step. Modules that absorbed least are grouped first,
    so that details remain where most relevance was lost. Steps that have only the model itself in common are
    joined with their neighbours. A group is at the place of its first step.
    """
    groups = [[step] for step in found.shown]
    labels = [(step.path, step.operation) for step in found.shown]
    while len(groups) > most:
        chosen = _smallest_module(labels, groups)
        if chosen is None:
            break
        members = [n for n, label in enumerate(labels) if _within(label, chosen)]
        groups[members[0]] = [step for n in members for step in groups[n]]
        labels[members[0]] = (chosen, "")
        for n in reversed(members[1:]):
            del groups[n], labels[n]
    size = max(1, -(-len(groups) // most))
    steps, remaining = [], found.seed
    for first in range(0, len(groups), size):
        part = [step for group in groups[first : first + size] for step in group]
        path, operation = labels[first]
        last = labels[min(first + size, len(groups)) - 1][0]
        if last != path:
            path, operation = f"{path or '(root)'} to {last or '(root)'}", ""
        absorbed = _summed(part)
        # Amounts of steps that are not shown, at most `Way.least` for each sink, are not subtracted.
        remaining -= sum(absorbed.values())
        steps.append(Step(path, operation, absorbed, remaining, count=len(part)))
    return steps


def _smallest_module(labels: Sequence[tuple[str, str]], groups: Sequence[Sequence[Step]]) -> str | None:
    """Return the module with several rows that absorbed least, or None. Of equal ones, the innermost."""
    modules = {prefix for path, operation in labels for prefix in _enclosing(path, operation)}
    sizes = {}
    for module in modules:
        members = [n for n, label in enumerate(labels) if _within(label, module)]
        if len(members) > 1:
            size = sum(abs(v) for n in members for step in groups[n] for v in step.absorbed.values())
            sizes[module] = (size, -module.count("."), members[0])
    return min(sizes, key=lambda module: sizes[module]) if sizes else None


def _enclosing(path: str, operation: str) -> Iterable[str]:
    """Return the paths of the modules around a step, or around a group of steps, without the model."""
    parts = path.split(".") if path else []
    ends = range(1, len(parts) + (1 if operation else 0))
    return [".".join(parts[:end]) for end in ends]


def _within(label: tuple[str, str], module: str) -> bool:
    return label[0] == module or label[0].startswith(f"{module}.")


def _summed(steps: Sequence[Step]) -> dict[str, float]:
    sinks = dict.fromkeys(sink for step in steps for sink in step.absorbed)
    return {sink: sum(step.absorbed.get(sink, 0.0) for step in steps) for sink in sinks}
