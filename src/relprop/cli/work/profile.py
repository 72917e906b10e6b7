"""Where the time of one explanation goes: phases, modules and operations of the model, operations of torch.

torch's profiler records each of its operations. What passes outside of them is Python's time. relprop crosses
an operation backward in a node of autograd that has the number of the operation, so that both directions
belong to one operation in one module.
"""

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

LINES = 10
"""The most lines of a table."""

ROUNDS = 3
"""Explanations without the profiler, whose median is told."""

FORWARD, BACKWARD, AROUND = "forward", "backward", "around them: checks, score, result"
GRAPH = "graph, and around it"
"""The phases of an explanation; by a graph there is one."""

_WHOLE = "relprop explanation"
_MODULE = "relprop module "
_NODE = "autograd::engine::evaluate_function: "


class Amounts(NamedTuple):
    """Milliseconds in two columns: forward and backward, or Python and torch."""

    first: float = 0.0
    second: float = 0.0

    @property
    def both(self) -> float:
        """In both."""
        return self.first + self.second


@dataclass(frozen=True)
class Profile:
    """Where the time goes, in milliseconds.

    Attributes:
        alone: what an explanation takes without the profiler.
        total: what it took while it was recorded.
        phases: of each phase, what Python and what torch's operations took.
        operations: of each operation of the model by name, forward and backward.
        modules: of each module by path, what its own operations took, forward and backward.
        kernels: each operation of torch that was called: milliseconds, and the number of calls.
    """

    alone: float
    total: float
    phases: Mapping[str, Amounts]
    operations: Mapping[str, Amounts]
    modules: Mapping[str, Amounts]
    kernels: Mapping[str, tuple[float, int]]

    def __str__(self) -> str:
        lines = [
            f"One explanation takes {self.alone:,.1f} ms, and {self.total:,.1f} ms while torch's profiler "
            "records it. Of these:"
        ]
        both = ("forward, ms", "backward, ms")
        tables = [
            _table("phase", ("Python, ms", "torch, ms"), self.phases, self.total, ordered=False),
            _table("module of the model", both, self.modules, self.total),
            _table("operation of the model", both, self.operations, self.total),
            _table_of_kernels(self.kernels, self.total),
        ]
        return "\n\n".join([*lines, *(table for table in tables if table)])


class _Event(NamedTuple):
    """An event of the profiler: its name, phase, module and operation, and what it takes by itself."""

    name: str
    phase: str
    module: str | None
    operation: str | None
    own: float


def profiled(explain: Callable[[], Any], model: nn.Module | None) -> Profile:
    """Explain a few times, and record the last time.

    Args:
        explain: explains once. It is called before, so that nothing is made for the first time.
        model: whose modules are told apart while it runs; None for a graph, which runs no module.
    """
    # Otherwise the profiler writes a line to stderr for its start and end.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    explain()
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        explain()
        times.append(1e3 * (time.perf_counter() - begun))
    with (
        _modules_told(model),
        profile(activities=[ProfilerActivity.CPU]) as profiler,
        _range(_WHOLE),
    ):
        explain()
    return account(profiler.events() or (), statistics.median(times))


def account(events: Iterable[Any], alone: float) -> Profile:
    """Add up what the profiler recorded.

    Args:
        events: of torch's profiler.
        alone: milliseconds that an explanation takes without it.
    """
    found, total = _told(events)
    if all(event.phase == AROUND for event in found):
        found = [event._replace(phase=GRAPH) for event in found]
    phases: dict[str, list[float]] = {}
    operations: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    modules: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    kernels: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for phase in (FORWARD, BACKWARD, AROUND, GRAPH):
        if any(event.phase == phase for event in found):
            phases[phase] = [0.0, 0.0]
    for event in found:
        of_torch = _is_of_torch(event.name)
        phases[event.phase][of_torch] += event.own
        backward = event.phase == BACKWARD
        if event.operation is not None:
            operations[_plain(event.operation)][backward] += event.own
        if event.module is not None:
            modules[event.module or "(root)"][backward] += event.own
        if of_torch and not event.name.startswith(_NODE):
            kernels[_plain(event.name)][0] += event.own
            kernels[_plain(event.name)][1] += 1
    return Profile(
        alone,
        total,
        {name: Amounts(*amounts) for name, amounts in phases.items()},
        {name: Amounts(*amounts) for name, amounts in operations.items()},
        {name: Amounts(*amounts) for name, amounts in modules.items()},
        {name: (amount, int(calls)) for name, (amount, calls) in kernels.items()},
    )


def _told(events: Iterable[Any]) -> tuple[list[_Event], float]:
    """What lies within the explanation, with phase, module and operation; and milliseconds of all."""
    ordered = sorted(events, key=lambda event: (event.time_range.start, -event.time_range.end))
    owners: dict[int, tuple[str | None, str | None]] = {}
    told: dict[int, _Event] = {}
    total = 0.0
    for event in ordered:
        name, above = event.name, event.cpu_parent and told.get(event.cpu_parent.id)
        if name == _WHOLE:
            total = event.time_range.elapsed_us() / 1e3
            where: tuple[str, str | None, str | None] = (AROUND, None, None)
        elif above is None:
            continue
        elif name.startswith(_MODULE):
            where = (FORWARD, name.removeprefix(_MODULE), None)
        elif name.startswith(_NODE):
            where = (BACKWARD, *owners.get(event.sequence_nr, (None, None)))
        else:
            where = (above.phase, above.module, above.operation)
            if above.phase == FORWARD and above.operation is None and _is_of_torch(name):
                where = (FORWARD, above.module, name)
            # The last one with a number makes the node that has it.
            if above.phase == FORWARD and event.sequence_nr >= 0:
                owners[event.sequence_nr] = where[1:]
        told[event.id] = _Event(name, *where, event.self_cpu_time_total / 1e3)
    return list(told.values()), total


def _is_of_torch(name: str) -> bool:
    """Whether an event is an operation of torch or of a library, or torch's own work on a node."""
    is_node = "Backward" in name and name[-1:].isdigit()
    return "::" in name or name == "detach" or is_node


def _plain(name: str) -> str:
    return name.removeprefix("aten::")


@contextmanager
def _range(name: str) -> Iterator[None]:
    """An event of the profiler, made below all modes of Python."""
    with torch._C._profiler._RecordFunctionFast(name):
        yield


@contextmanager
def _modules_told(model: nn.Module | None) -> Iterator[None]:
    """Make an event of each module's call; afterwards there are no hooks any more."""
    if model is None:
        yield
        return
    live: list[ExitStack] = []

    def begin(path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            live.append(ExitStack())
            live[-1].enter_context(_range(f"{_MODULE}{path}"))

        return hook

    def end(*_: Any) -> None:
        live.pop().close()

    with ExitStack() as hooks:
        for path, module in model.named_modules():
            hooks.callback(module.register_forward_pre_hook(begin(path), prepend=True).remove)
            hooks.callback(module.register_forward_hook(end, always_call=True).remove)
        yield


def _table(
    what: str, columns: Sequence[str], amounts: Mapping[str, Amounts], total: float, *, ordered: bool = True
) -> str:
    """Amounts as a table, the largest first; "" if there are none."""
    rows = sorted(amounts.items(), key=lambda row: -row[1].both if ordered else 0)
    shown = [(name, f"{one.first:,.2f}", f"{one.second:,.2f}", _part(one.both, total)) for name, one in rows]
    return _aligned((what, *columns, "of all"), shown)


def _table_of_kernels(kernels: Mapping[str, tuple[float, int]], total: float) -> str:
    rows = sorted(kernels.items(), key=lambda row: -row[1][0])
    shown = [(name, f"{amount:,.2f}", f"{calls:,}", _part(amount, total)) for name, (amount, calls) in rows]
    return _aligned(("operation of torch", "by itself, ms", "calls", "of all"), shown)


def _part(amount: float, total: float) -> str:
    return f"{amount / total:.1%}" if total else ""


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Names to the left, numbers to the right; the first lines, and how many more there are."""
    if not rows:
        return ""
    lines = [head, *rows[:LINES]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    told = [
        "  ".join(f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(line)).rstrip()
        for line in lines
    ]
    hidden = len(rows) - LINES
    return "\n".join([*told, *([f"... {hidden} more"] if hidden > 0 else [])])
