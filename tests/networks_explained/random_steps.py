"""What operations of random programs are: ways in which a model may write them, as Python source.

The operations are in `random_layers`, `random_functions`, `random_products` and `random_moves`.

In a way of writing, `$x` and `$y` are operands and `$z` is the result. A way without `$z` is an expression.
`$own` is an operand that may be overwritten. Other names are constants, drawn for the step.

Some ways end what the engine knows, or begin it, where docs/design.md says so. They are used where that does
not matter:

- `~`: the operands are rearranged. A pointwise chain and a record of scales end there. These ways are used if
  the operands have neither in common.
- `^`: nothing that follows is folded into a layer that is written in parts, and no chain passes a write.
- `=`: a function ends in a number's scale or shift, which a layer that follows would take in.
- `:`: a number alone is not folded into a layer before, as a number and a shift are, and a mask is.
- `!`: relevance that is put on a zero goes elsewhere, as after a write to a part of a tensor. These ways are
  used if no layer follows, which might put relevance on zeros.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

Shape = tuple[int, ...]
Ways = tuple[str, ...]
T = TypeVar("T")


@dataclass
class Drawing:
    """What a step draws: options, and constants with the source that makes them."""

    seed: int
    constants: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    def choose(self, *options: T) -> T:
        """Draw one of several options."""
        return self.random.choice(options)

    def tensor(self, name: str, *shape: int, positive: bool = False) -> None:
        """Draw a constant of this shape."""
        made = f"drawn({self.seed * 10 + len(self.constants)}, {', '.join(map(str, shape))})"
        self.constants[name] = f"{made}.abs() + 0.5" if positive else made

    def define(self, name: str, source: str) -> None:
        """Make a constant of others."""
        self.constants[name] = source


@dataclass(frozen=True)
class Operation:
    """An operation of random programs.

    Attributes:
        ways: from what is drawn and the operands' shapes to the ways of writing; none if it does not fit.
        operands: how many there are.
        fresh: whether the result lies in memory of its own, in every way of writing.
        continues: whether it continues a chain, or a record of scales and shifts, of its first operand.
    """

    ways: Callable[..., Ways]
    operands: int
    fresh: bool
    continues: bool = False


OPERATIONS: dict[str, Operation] = {}
"""Operations by name."""


def operation(
    operands: int = 1, *, fresh: bool = True, continues: bool = False
) -> Callable[[Callable[..., Ways]], Callable[..., Ways]]:
    """Add an operation under its function's name."""

    def add(ways: Callable[..., Ways]) -> Callable[..., Ways]:
        OPERATIONS[ways.__name__] = Operation(ways, operands, fresh, continues)
        return ways

    return add


def pointwise(name: str, *ways: str) -> None:
    """Add a pointwise function."""
    OPERATIONS[name] = Operation(lambda _draw, _x: ways, 1, fresh=True, continues=True)
