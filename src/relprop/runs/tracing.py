"""One computation as a graph of torch's operations, which gives the same results for other values.

`trace` runs a function once, on real values, and records each operation on values that depend on the inputs.
All other operations are computed once, and their results are constants of the graph. What depends on the
inputs is known by storage, so that views, aliases and writes through any of them are followed.

A look at a value that depends on the inputs, such as a branch of the model, becomes a *guard*: the graph
computes the value as well, and its results hold only for inputs for which it is the same. What a graph cannot
say is a `TraceError`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, fx

from relprop.calls.traced import tracing
from relprop.engine.keep import version_of
from relprop.runs.graphs import simplified, take
from relprop.runs.marks import Marks
from relprop.runs.tape import LeavingTorch, Tape, TraceError
from relprop.runs.trail import Trail

Result = TypeVar("Result")

_MOST = 2**30
"""So many bytes may a graph that nobody has asked for keep besides the model. If a model computes its weights
anew in each call, as of fewer bits, the graph keeps them all."""


@dataclass(frozen=True)
class Traced:
    """A computation as a graph.

    Attributes:
        graph: from the inputs to the results and a truth value: whether the guards hold. The truth value is
            None if there are no guards. With marks it takes a list of values besides, and empties it.
        guards: the number of guards.
        results: the number of results.
        constants: the tensors that the graph refers to, with their versions.
        read: where tensors lie that were there before, and that the computation looked at.
    """

    graph: fx.GraphModule
    guards: int
    results: int
    constants: tuple[tuple[Tensor, int], ...]
    read: frozenset[int]

    def unchanged(self) -> bool:
        """Whether the tensors that the graph refers to have not been written to since."""
        return all([version_of(tensor) == version for tensor, version in self.constants])


@dataclass(frozen=True)
class Recording:
    """All operations of one computation, in their order, as a graph of results and of guards.

    Attributes:
        module: the graph, from the inputs.
        guards: the number of guards.
        read: where tensors lie that were there before, and that the computation looked at.
        trail: what was called.
    """

    module: fx.GraphModule
    guards: int
    read: frozenset[int]
    trail: Trail


def trace(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], marks: Marks | None = None
) -> tuple[Traced, list[Tensor]]:
    """Trace a function of tensors, and return it with its results for these inputs.

    Args:
        function: the function.
        inputs: its arguments.
        marks: watches a model within the function. The graph takes the results of its calls from a list.

    Raises:
        TraceError: it cannot be traced. The function has ended, and has given what it gives.
    """
    tape = Tape(inputs)
    if marks is not None:
        marks.tape, tape.most = tape, _MOST
    results, holds = _recorded_by(tape, function)
    places = [] if marks is None else marks.places()
    module = tape.finished(results, holds, [node for _, _, node in places])
    traced, used = traced_from(module, len(tape.guards), tape.read)
    if marks is not None:
        marks.used = [places[i][:2] for i in used]
        marks.tape = None
    return traced, results


def record(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Recording:
    """Record all operations of a function of tensors, as `trace` does those that depend on the inputs.

    Raises:
        TraceError: it cannot be traced. The function has ended, and has given what it gives.
    """
    tape = Tape(inputs, every=True)
    trail = Trail(tape.inputs)

    def followed(*inputs: Tensor) -> Sequence[Tensor]:
        with trail:
            return function(*inputs)

    results, holds = _recorded_by(tape, followed)
    module = tape.finished(results, holds, [])
    return Recording(module, len(tape.guards), frozenset(tape.read), trail)


def follow(function: Callable[[Sequence[Tensor]], Result], inputs: Sequence[Tensor]) -> tuple[Result, Trail]:
    """Call a function of inputs as `record` does, and return what it gives and what it calls."""
    trail = Trail(inputs)
    with tracing(every=True), trail:
        return function(inputs), trail


def _recorded_by(tape: Tape, function: Callable[..., Sequence[Tensor]]) -> tuple[list[Tensor], Tensor | None]:
    """Return the results of a function, and whether its guards hold.

    Raises:
        TraceError: it cannot be traced.
    """
    with tracing(every=tape.every), tape, LeavingTorch(tape):
        results = list(function(*tape.inputs))
    if tape.refused:
        raise TraceError(tape.refused)
    with torch.no_grad(), tape:
        holds = torch.stack([guard.reshape(()) for guard in tape.guards]).all() if tape.guards else None
        results = [tape.of_its_own(t.detach()) for t in results]
    return results, holds


def traced_from(module: fx.GraphModule, guards: int, read: Collection[int]) -> tuple[Traced, list[int]]:
    """Simplify a graph in place, and return it with the constants that it needs.

    Returns:
        The graph, and which marked results it takes: see `relprop.runs.graphs.take`.
    """
    results = len(next(iter(reversed(module.graph.nodes))).args[0][0])
    used = take(simplified(module))
    names = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    constants = tuple((t, version_of(t)) for name, t in module.named_buffers() if name in names)
    return Traced(module, guards, results, constants, frozenset(read)), used
