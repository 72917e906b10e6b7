"""Small random functions of one or two inputs, written as Python source in many equivalent ways."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from string import Template
from typing import Any

import torch
from torch import Tensor

import random_functions
import random_layers
import random_moves
import random_products
from random_steps import OPERATIONS, Drawing, Shape

TABLES = (random_functions, random_layers, random_moves, random_products)
"""What adds operations when it is imported."""

Program = Callable[..., Tensor]

PRELUDE = """
from math import sqrt

import torch
import torch.nn.functional as F
from torch import nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

aten = torch.ops.aten


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def holding(module, **values):
    for name, value in values.items():
        if value is not None:
            getattr(module, name).data = value
    return module.eval().requires_grad_(False)


def dense(w, b=None):
    return holding(nn.Linear(w.shape[1], w.shape[0], b is not None), weight=w, bias=b)


def conv1d(w, b, stride, padding, dilation, groups):
    made = nn.Conv1d(w.shape[1] * groups, w.shape[0], w.shape[2], stride, padding, dilation, groups)
    return holding(made, weight=w, bias=b)


def conv2d(w, b, stride, padding, dilation, groups):
    made = nn.Conv2d(w.shape[1] * groups, w.shape[0], w.shape[2], stride, padding, dilation, groups)
    return holding(made, weight=w, bias=b)


class batch_norm(nn.Module):
    def __init__(self, m, v, w, b):
        super().__init__()
        self.of = [holding(made(len(m)), running_mean=m, running_var=v, weight=w, bias=b) for made in (
            nn.BatchNorm1d, nn.BatchNorm2d)]

    def forward(self, x):
        return self.of[x.dim() == 4](x)


class Holding(nn.Module):
    def __init__(self, program):
        super().__init__()
        self.program = program

    def forward(self, *inputs):
        return self.program(*inputs)


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, program, *inputs):
        return program(*inputs)

    @staticmethod
    def backward(ctx, *gradients):
        raise NotImplementedError


def exported(program, inputs):
    return torch.export.export(Holding(program).eval(), inputs)


def customised(program):
    return lambda *inputs: Custom.apply(program, *inputs)


def checkpointed(program):
    return lambda *inputs: checkpoint(program, *inputs, use_reentrant=False)


def of_one(program):
    return torch.vmap(lambda *sample: program(*[x[None] for x in sample])[0])
"""
"""What every program needs, as source."""

AS_WRITTEN = "program"
WHOLE: dict[str, str] = {
    AS_WRITTEN: "program",
    "module": "Holding(program).eval()",
    "make_fx": "make_fx(program)(*inputs)",
    "decomposed": "make_fx(program, decomposition_table=core_aten_decompositions())(*inputs)",
    "functionalize": "torch.func.functionalize(program)",
    "custom function": "customised(program)",
    "checkpoint": "checkpointed(program)",
    "vmap": "of_one(program)",
    "traced": "torch.jit.trace(program, inputs, check_trace=False)",
    "exported": "exported(program, inputs).module()",
    "exported and decomposed": "exported(program, inputs).run_decompositions().module()",
}
"""Ways of calling a whole program, as source that makes another function of it."""


EXPENSIVE = ("exported", "exported and decomposed")
"""Ways that take a second each."""


@cache
def _prelude() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "random_program"}
    exec(compile(PRELUDE, "prelude of random programs", "exec"), names)
    return names


@dataclass(frozen=True)
class Step:
    """One operation of a program.

    Attributes:
        operation: a key of `OPERATIONS`.
        operands: which values: the inputs come first, then the results of steps.
        seed: of what it draws.
    """

    operation: str
    operands: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class Spelling:
    """How a program is written.

    Attributes:
        ways: which way of each step, modulo how many there are.
        whole: how the program is called, a key of `WHOLE`.
        alone: whether the first sample is explained alone.
    """

    ways: tuple[int, ...]
    whole: str = AS_WRITTEN
    alone: bool = False


@dataclass(frozen=True)
class Drawn:
    """A program without its spelling.

    Attributes:
        shapes: of the inputs, samples first.
        steps: in the order in which they run; the last one's result is the output, made flat.
        seed: of the inputs.
    """

    shapes: tuple[Shape, ...]
    steps: tuple[Step, ...]
    seed: int

    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs, in (-4, 4)."""
        source = torch.Generator().manual_seed(self.seed)
        return tuple(
            torch.randn(shape, generator=source, dtype=torch.float64).clamp(-3.9, 3.9)
            for shape in self.shapes
        )

    @property
    def plain(self) -> Spelling:
        """The spelling that others are compared with: each step in its first way."""
        return Spelling((0,) * len(self.steps))


class DoesNotFitError(Exception):
    """Operands do not have the shapes that an operation is for."""


def names_of(drawn: Drawn) -> list[str]:
    """The names of all values: inputs, and results of steps."""
    return ["x", "y"][: len(drawn.shapes)] + [f"h{i}" for i in range(1, len(drawn.steps) + 1)]


def used_once(drawn: Drawn, value: int) -> bool:
    """Whether a value may be overwritten: a result that has its own memory and that nothing else uses."""
    count = len(drawn.shapes)
    uses = sum(step.operands.count(value) for step in drawn.steps)
    return value >= count and uses == 1 and OPERATIONS[drawn.steps[value - count].operation].fresh


def written(drawn: Drawn, spelling: Spelling, shapes: Sequence[Shape]) -> str:
    """Return a program as source, without the prelude; `shapes` are those of all values.

    Raises:
        DoesNotFitError: an operation does not fit its operands.
    """
    names, constants, body = names_of(drawn), [], []
    for i, (step, way) in enumerate(zip(drawn.steps, spelling.ways, strict=True)):
        every, drawing = ways_of(step, [shapes[at] for at in step.operands])
        ways = _usable(drawn, i, every)
        own = names[step.operands[0]]
        known = {name: f"{name}{i + 1}" for name in drawing.constants}
        known |= dict(zip("xy", (names[at] for at in step.operands), strict=False))
        known |= {"z": names[len(drawn.shapes) + i]}
        known |= {"own": own if used_once(drawn, step.operands[0]) else f"{own}.clone()"}
        constants += [
            f"{known[n]} = {Template(made).substitute(known)}" for n, made in drawing.constants.items()
        ]
        text = ways[way % len(ways)]
        text = text if "$z" in text else f"$z = {text}"
        body += Template(text).substitute(known).split("\n")
    lines = [*body, f"return {names[-1]}.flatten(1)"]
    head = f"def program({', '.join(names[: len(drawn.shapes)])}):"
    return "\n".join([*constants, "", head, *[f"    {line}" for line in lines], ""])


def _usable(drawn: Drawn, at: int, ways: Sequence[str]) -> list[str]:
    """Return the ways in which a step of this program may be written; see `random_steps` for their marks."""
    step, roots = drawn.steps[at], roots_of(drawn)
    own = [roots[operand] for operand in step.operands]
    users = [drawn.steps[i] for i in _users(drawn, at)]
    continued = any(OPERATIONS[user.operation].continues for user in users)
    marks = {
        "~": len(set(own)) < len(own) or own != list(step.operands),
        "^": continued or any(len(user.operands) > 1 for user in users),
        "=": continued or any(user.operation in LAYERS for user in users),
        ":": any(earlier.operation in LAYERS for earlier in drawn.steps[:at]),
        "!": any(later.operation in LAYERS for later in drawn.steps[at + 1 :]),
    }
    split = [(way[: len(way) - len(way.lstrip("~^=:!"))], way.lstrip("~^=:!")) for way in ways]
    return [way for own_marks, way in split if not any(marks[mark] for mark in own_marks)]


def _users(drawn: Drawn, at: int) -> list[int]:
    """Return the steps that use a step's result, also after it was moved only."""
    count, found, moved = len(drawn.shapes), list[int](), {at}
    for i, step in enumerate(drawn.steps):
        if any(operand - count in moved for operand in step.operands):
            found.append(i)
            if not OPERATIONS[step.operation].fresh:
                moved.add(i)
    return found


ELEMENTWISE = ("total", "difference", "product", "gate")
LAYERS = ("linear", "linear_without_bias", "convolution", "attention")


def roots_of(drawn: Drawn) -> list[int]:
    """Return for each value the earlier value that it continues a chain of, itself if it is none."""
    roots = list(range(len(drawn.shapes)))
    for step in drawn.steps:
        continues = OPERATIONS[step.operation].continues
        common = {roots[at] for at in step.operands}
        continues = continues or (step.operation in ELEMENTWISE and len(common) == 1)
        roots.append(roots[step.operands[0]] if continues else len(roots))
    return roots


def ways_of(step: Step, shapes: Sequence[Shape]) -> tuple[tuple[str, ...], Drawing]:
    """Return the ways of writing a step, and what it drew.

    Raises:
        DoesNotFitError: there are none.
    """
    drawing = Drawing(step.seed)
    ways = OPERATIONS[step.operation].ways(drawing, *shapes)
    if not ways:
        raise DoesNotFitError(step)
    return ways, drawing


def complete(drawn: Drawn, spelling: Spelling) -> str:
    """Return a program as source that runs by itself, with its inputs."""
    inputs = ", ".join(names_of(drawn)[: len(drawn.shapes)])
    source = written(drawn, spelling, shapes_of(drawn))
    seeded = f"source = torch.Generator().manual_seed({drawn.seed})\n" + "".join(
        f"{name} = torch.randn({shape}, generator=source, dtype=torch.float64).clamp(-3.9, 3.9)\n"
        for name, shape in zip(names_of(drawn), drawn.shapes, strict=False)
    )
    sliced = f"inputs = tuple(x[:1] for x in ({inputs},))" if spelling.alone else f"inputs = ({inputs},)"
    whole = spelling.whole if _may_be(drawn, source, spelling.whole) else AS_WRITTEN
    return f"{source}\n{seeded}{sliced}\nprogram = {WHOLE[whole]}\n"


def _may_be(drawn: Drawn, source: str, whole: str) -> bool:
    """Whether a program may be called in this way; what is left out is not covered, or another function."""
    roots, decomposed = roots_of(drawn), whole in ("decomposed", "exported and decomposed")
    layers = [step for step in drawn.steps if step.operation in LAYERS]
    if (whole == "vmap" or decomposed) and any(roots[at] != at for step in layers for at in step.operands):
        return False  # these write views before layers, where a record of scales ends
    if decomposed and re.search(r"oftplus|ogsigmoid|\belu|ELU|eaky", source):
        return False  # a mask that is computed from the samples has no role
    if whole == "vmap":
        # It writes through views, which ends chains. It writes some parts several times, and torch's gradient
        # counts each of them. It takes kernels apart into samples, and parts zeros from what they surround.
        return not re.search(
            r"select_scatter|out=|inplace=True|\w_\(|\+=|native_|no_training|F\.pad|ZeroPad|t_pad|group_norm",
            source,
        )
    if whole == "checkpoint":  # when it runs again, a tensor of its own that it writes to is not seen
        return not any(word in source for word in ("out=", "new_empty", "zeros_like", "copy_"))
    # Torch refuses `out=`, or exports another program.
    return "out=" not in source or whole in (AS_WRITTEN, "module", "custom function", "make_fx", "traced")


def run_source(source: str) -> dict[str, Any]:
    """Run a program's source behind the prelude, and return its names."""
    names = dict(_prelude())
    exec(compile(source, "random program", "exec"), names)
    return names


def made(drawn: Drawn, spelling: Spelling) -> tuple[Program, tuple[Tensor, ...]]:
    """Return a program in a spelling, and its inputs."""
    names = run_source(complete(drawn, spelling))
    return names["program"], names["inputs"]


def values_of(drawn: Drawn) -> list[Tensor]:
    """Return the inputs and the result of every step.

    Raises:
        DoesNotFitError: an operation does not fit its operands.
    """
    values = list(drawn.inputs())
    for i in range(len(drawn.steps)):
        first = replace(drawn, steps=drawn.steps[: i + 1])
        with torch.no_grad():
            values.append(last_value(first, values))
    return values


def last_value(drawn: Drawn, values: Sequence[Tensor]) -> Tensor:
    """The result of the last step, from the values before it."""
    step = drawn.steps[-1]
    ways, drawing = ways_of(step, [tuple(values[at].shape) for at in step.operands])
    known = {name: name for name in drawing.constants} | {"z": "z", "x": "x", "y": "y", "own": "x.clone()"}
    names = dict(_prelude()) | dict(zip("xy", [values[at] for at in step.operands], strict=False))
    text = ways[0] if "$z" in ways[0] else f"$z = {ways[0]}"
    lines = [f"{n} = {Template(source).substitute(known)}" for n, source in drawing.constants.items()]
    exec("\n".join([*lines, Template(text).substitute(known)]), names)
    value: Tensor = names["z"]
    return value


def shapes_of(drawn: Drawn) -> list[Shape]:
    """Return the shapes of the inputs and of the result of every step."""
    return list(_shapes_of(drawn))


@cache
def _shapes_of(drawn: Drawn) -> tuple[Shape, ...]:
    return tuple(tuple(value.shape) for value in values_of(drawn))
