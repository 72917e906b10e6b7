"""Makes random programs smaller: without a step, with a simpler one, or with one input instead of two."""

from collections.abc import Iterator
from dataclasses import replace

from random_programs import AS_WRITTEN, Drawn, Spelling


def smaller(drawn: Drawn, spelling: Spelling) -> Iterator[tuple[Drawn, Spelling]]:
    """Yield programs and spellings that are simpler in one thing each, the simplest first."""
    if spelling.whole != AS_WRITTEN:
        yield drawn, replace(spelling, whole=AS_WRITTEN)
    if spelling.alone:
        yield drawn, replace(spelling, alone=False)
    for i in reversed(range(len(drawn.steps))):
        for instead in dict.fromkeys(drawn.steps[i].operands):
            yield from _without(drawn, spelling, i, instead)
    for i, way in enumerate(spelling.ways):
        if way:
            ways = (*spelling.ways[:i], 0, *spelling.ways[i + 1 :])
            yield drawn, replace(spelling, ways=ways)
    for i, step in enumerate(drawn.steps):
        for simple in SIMPLE[: SIMPLE.index(step.operation) if step.operation in SIMPLE else None]:
            if len(step.operands) == 1:
                steps = (*drawn.steps[:i], replace(step, operation=simple), *drawn.steps[i + 1 :])
                ways = (*spelling.ways[:i], 0, *spelling.ways[i + 1 :])
                yield replace(drawn, steps=steps), replace(spelling, ways=ways)
    for at in range(len(drawn.shapes)):
        if len(drawn.shapes) == 2:
            yield from _without_input(drawn, spelling, at)


SIMPLE = ("scale", "relu", "sigmoid", "linear_without_bias")
"""Operations of one operand that others are replaced by, the simplest first."""


def _without(drawn: Drawn, spelling: Spelling, i: int, instead: int) -> Iterator[tuple[Drawn, Spelling]]:
    """The program without a step, whose result is replaced by another value."""
    gone = len(drawn.shapes) + i

    def moved(at: int) -> int:
        at = instead if at == gone else at
        return at - 1 if at > gone else at

    steps = tuple(
        replace(step, operands=tuple(map(moved, step.operands)))
        for j, step in enumerate(drawn.steps)
        if j != i
    )
    ways = spelling.ways[:i] + spelling.ways[i + 1 :]
    if steps:
        yield from _all_used(replace(drawn, steps=steps), replace(spelling, ways=ways))


def _without_input(drawn: Drawn, spelling: Spelling, gone: int) -> Iterator[tuple[Drawn, Spelling]]:
    """The program with one input in the place of both."""
    shapes = drawn.shapes[1 - gone : 2 - gone]
    steps = tuple(
        replace(step, operands=tuple(max(at - 1, 0) for at in step.operands)) for step in drawn.steps
    )
    yield from _all_used(replace(drawn, shapes=shapes, steps=steps), spelling)


def _all_used(drawn: Drawn, spelling: Spelling) -> Iterator[tuple[Drawn, Spelling]]:
    """The program without steps whose results nothing uses, if every input is used."""
    count = len(drawn.shapes)
    while True:
        used = {at for step in drawn.steps for at in step.operands} | {count + len(drawn.steps) - 1}
        unused = [i for i in range(len(drawn.steps)) if count + i not in used]
        if not unused:
            break
        i = unused[-1]
        steps = tuple(
            replace(step, operands=tuple(at - (at > count + i) for at in step.operands))
            for j, step in enumerate(drawn.steps)
            if j != i
        )
        drawn = replace(drawn, steps=steps)
        spelling = replace(spelling, ways=spelling.ways[:i] + spelling.ways[i + 1 :])
    if set(range(count)) <= {at for step in drawn.steps for at in step.operands}:
        yield drawn, spelling
