"""A case: one model on one input, and the ways in which it is explained."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Subject:
    """What is explained.

    Attributes:
        model: the model.
        x: its input. Samples are the first dimension.
        target: the score, as relprop takes it.
        score: the same score of each sample, of the model's output.
        name: the name of the model's argument, or "" if it is the first one.
        bounds: of the input, for rules that need them.
        blocks: path of the list of modules that get checkpoints.
        patches: LXT's module of patches, and that of the model's code, if LXT knows the model.
        canonizer: the name of zennit's canonizer for the model.
        copies: of the model, by the library that writes to it.
    """

    model: Callable[..., Any]
    x: Tensor
    target: Any
    score: Callable[[Any], Tensor]
    name: str = ""
    bounds: tuple[float, float] | None = None
    blocks: str = ""
    patches: tuple[str, str] | None = None
    canonizer: str = ""
    copies: dict[str, Any] = field(default_factory=dict)

    def copy_for(self, library: str) -> Any:
        """The copy of the model that a library may write to."""
        if library not in self.copies:
            self.copies[library] = copy.deepcopy(self.model)
        return self.copies[library]

    def given(self, x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the model, with x in its place."""
        return ((), {self.name: x}) if self.name else ((x,), {})

    def output(self, x: Tensor, model: Callable[..., Any] | None = None) -> Tensor:
        """The score of each sample, by the model or by another form of it."""
        inputs, arguments = self.given(x)
        return self.score((self.model if model is None else model)(*inputs, **arguments))


class Row(NamedTuple):
    """One way of explaining a case: which way, and by which rules ("" where there are none)."""

    way: str
    rules: str = ""


BASE = Row("gradient")
"""What others are compared with."""

BASE_OF_LXT = Row("gradient beside LXT")
"""What LXT is compared with: the same in the environment of LXT, in a process of its own as well."""


@dataclass(frozen=True)
class Case:
    """One model on one input.

    Attributes:
        name: of the command line: "vgg16", and "batch/4" within a series.
        title: says what it is.
        part: the part of the page that shows it.
        make: makes the subject.
        plan: the rules of each way, in the order in which rows are shown.
        compiled: rows that Inductor compiles, which takes a minute or more for a large network.
        at: in a series, what grows: the number of samples, layers, pixels or tokens.
    """

    name: str
    title: str
    part: str
    make: Callable[[], Subject]
    plan: Mapping[str, Sequence[str]]
    compiled: Sequence[Row] = ()
    at: int | None = None

    def rows(self, *, compiled: bool) -> list[Row]:
        """Every way and rules; the gradient is the first."""
        rows = [Row(way, rules) for way, several in self.plan.items() for rules in several]
        return rows + (list(self.compiled) if compiled else [])
