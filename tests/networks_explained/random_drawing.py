"""Draws random programs and their spellings from a seed."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from torch import Tensor

from random_programs import (
    AS_WRITTEN,
    EXPENSIVE,
    WHOLE,
    DoesNotFitError,
    Drawn,
    Spelling,
    Step,
    last_value,
    roots_of,
    values_of,
    ways_of,
)
from random_steps import OPERATIONS, Shape

SAMPLES = 3
STARTS: tuple[Shape, ...] = ((5,), (6,), (3, 4), (4, 6), (2, 6), (2, 6, 6), (3, 4, 4))
"""Shapes of a sample of an input."""

PRODUCTS = ("dot_product", "matrix_product", "attention")
"""Products that are summed over. Their factors have different roots, see `_fits`."""


def draw(seed: int) -> Drawn:
    """Draw a program whose values stay away from kinks and from zero denominators."""
    random = Random(seed)
    while True:
        drawn = _drawn_once(random)
        if drawn is not None:
            return drawn


def _drawn_once(random: Random) -> Drawn | None:
    start = random.choice(STARTS)
    starts = [start]
    if random.random() < 0.35:
        starts.append(random.choice((start, start, start[:1], start[-1:], random.choice(STARTS))))
    shapes = tuple((SAMPLES, *start) for start in starts)
    drawn = Drawn(shapes, (), random.randrange(10**6))
    values = list(drawn.inputs())
    for _ in range(random.randint(2, 6)):
        step = _next_step(random, drawn, values)
        if step is None:
            return None
        drawn = replace(drawn, steps=(*drawn.steps, step))
        value = last_value(drawn, values)
        if not is_clear(value, step):
            return None
        values.append(value)
    used = {at for step in drawn.steps for at in step.operands}
    return drawn if used == set(range(len(values) - 1)) else None


def _next_step(random: Random, drawn: Drawn, values: Sequence[Tensor]) -> Step | None:
    roots = roots_of(drawn)
    last, count = len(values) - 1, len(values)
    # What needs two fitting operands is tried earlier.
    order = {name: random.random() * (0.4 if OPERATIONS[name].operands == 2 else 1) for name in OPERATIONS}
    for name in sorted(order, key=lambda name: order[name]):
        if OPERATIONS[name].operands == 1:
            # Now and then of an earlier value, which makes a branch.
            pairs: list[tuple[int, ...]] = [(last if random.random() < 0.8 else random.randrange(count),)]
        else:
            others = [(last, other) for other in random.sample(range(count), count) if other != last]
            pairs = [pair if random.random() < 0.6 else pair[::-1] for pair in others]
        for operands in pairs:
            step = Step(name, operands, random.randrange(10**6))
            if _fits(drawn, step, roots, [tuple(values[at].shape) for at in operands]):
                return step
    return None


def _fits(drawn: Drawn, step: Step, roots: Sequence[int], shapes: Sequence[Shape]) -> bool:
    """Whether a step may follow a program."""
    # Of a kernel of attention the values take all. Written out, two weights get half each.
    if step.operation == "attention" and any(earlier.operation == "softmax" for earlier in drawn.steps):
        return False
    # A product of two functions of one root is a pointwise function of it; summed over, it is a product.
    if step.operation in PRODUCTS and roots[step.operands[0]] == roots[step.operands[1]]:
        return False
    try:
        ways_of(step, shapes)
    except DoesNotFitError:
        return False
    return True


def is_clear(value: Tensor, step: Step | None = None) -> bool:
    """Whether values are of usual size, and none is zero but for rounding, or would be with other rounding.

    A zero of a saturated hardsigmoid, which is 1/2 at 0, is at the kink of a ReLU that follows. Where the
    largest of several values is zero, there may be more of them.
    """
    size = value.abs()
    largest = float(size.max())
    if step is not None and step.operation == "softplus" and float(value.max()) > 15:
        return False  # torch's function is x there
    if (
        step is not None
        and step.operation in ("hardsigmoid", "relu6", "gate", "largest")
        and bool(((size == 0) | (value == 0.5) | (value == 1)).any())
    ):
        written_so = ways_of(step, [(2, 2, 2)] * OPERATIONS[step.operation].operands)[0][0]
        if "relu(" not in written_so:
            return False
    return 1e-3 < largest < 1e3 and not bool(((size > 0) & (size < 1e-4 * largest)).any())


def is_clear_everywhere(drawn: Drawn) -> bool:
    """Whether this holds for the inputs and for the results of all steps."""
    steps = (*[None] * len(drawn.shapes), *drawn.steps)
    return all(is_clear(value, step) for value, step in zip(values_of(drawn), steps, strict=True))


def draw_spelling(drawn: Drawn, random: Random, *, expensive: bool = False) -> Spelling:
    """Draw how a program is written."""
    ways = tuple(random.randrange(10**6) for _ in drawn.steps)
    whole, alone = AS_WRITTEN, random.random() < 0.1
    if random.random() < 0.25:
        whole = random.choice([how for how in WHOLE if expensive or how not in EXPENSIVE])
    return Spelling(ways, whole, alone)
