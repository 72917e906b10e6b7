"""Where an operation stands in the model, and which rule it got there."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from torch import nn

Slots = Literal["none", "inputs", "all"]
"""Which tensors get a slot for relevance itself: none, those up to the first linear operations, or all."""


class Kind(StrEnum):
    """Families of operations that composites tell apart.

    The linear ones, dense and convolution, need a rule; the others have a usual one.
    """

    CONVOLUTION = "convolution"
    DENSE = "dense"
    PRODUCT = "product"
    SUM = "sum"
    MAX_POOL = "max-pool"
    NORMALISATION = "normalisation"


LINEAR = frozenset({Kind.DENSE, Kind.CONVOLUTION})
"""Kinds of sites that rules are for, unless their `kinds` say otherwise."""


@dataclass(frozen=True)
class Site:
    """Where an operation stands in the model; what a composite chooses by.

    Attributes:
        path: of the innermost running module, within the explained model.
        modules: the running modules, outermost first.
        operation: its name in torch's documentation, such as "conv2d".
        kind: family of the operation, a `Kind`, or the word of an entry that users registered.
        depth: how many linear operations lie between the explained inputs and this one.
    """

    path: str
    modules: tuple[nn.Module, ...]
    operation: str
    kind: str
    depth: int

    @property
    def first(self) -> bool:
        """Whether no linear operation lies between the explained inputs and this one."""
        return self.depth == 0


@dataclass(frozen=True)
class Applied:
    """A rule that was used: where, and for which operation."""

    path: str
    operation: str
    rule: Any

    def __str__(self) -> str:
        return f"{self.path or '(root)'}: {self.operation}: {self.rule}"
