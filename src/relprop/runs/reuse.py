"""Graphs that compute in the memory of operands that nobody needs any more.

On a CPU, memory bounds elementwise operations: one that overwrites an operand takes two thirds of the time.
An explanation is recorded without such overwriting, because what else needs an operand is known at the end.
"""

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from relprop.runs.graphs import LIES, OWN, SPELLING, aliased_by
from relprop.runs.spelling import spelling_of

aten = torch.ops.aten

_INTO = {
    aten.hardshrink_backward.default: aten.hardshrink_backward.grad_input,
    aten.threshold_backward.default: aten.threshold_backward.grad_input,
}
"""Operations that write to `grad_input`, for those that have no method that overwrites."""

_METHODS = {aten.pow.Tensor_Scalar: aten.pow_.Scalar}
"""Operations that overwrite, where the overload has another name."""

_COMMUTE = frozenset({aten.mul.Tensor, aten.add.Tensor})


def reusing_memory(module: fx.GraphModule) -> fx.GraphModule:
    """Let elementwise operations overwrite operands that nobody else needs, in place, and return the graph.

    It must be a graph of aten's operations, and from then on it is one for inputs that lie in memory as those
    that were traced.
    """
    memory = _Memory(module.graph)
    for node in module.graph.nodes:
        operation = _overwriting(node)
        if operation is None or any([each.meta.get(LIES) is None for each in node.all_input_nodes]):
            continue
        if not memory.may_take(node, node.args[0]):
            if node.target not in _COMMUTE or node.kwargs or not memory.may_take(node, node.args[1]):
                continue
            node.args = node.args[1], node.args[0]
        # Nothing of this memory is needed from here on, so the result counts as memory of its own.
        if node.target in _INTO:
            node.kwargs = {"grad_input": node.args[0]}
        node.target = operation
        node.meta[SPELLING] = spelling_of(operation, *map_arg((node.args, node.kwargs), _like))
    return module


def _overwriting(node: fx.Node) -> Any:
    """Return the operation that computes the same and overwrites its first operand; None if there is none."""
    target = node.target
    if target in _INTO or target in _METHODS:
        return _INTO.get(target) or _METHODS[target]
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.pointwise not in target.tags:
        return None
    method = getattr(aten, target._schema.name.partition("::")[2] + "_", None)
    return getattr(method, target._overloadname, None)


def _like(node: fx.Node) -> Tensor:
    shape, strides, dtype, _ = node.meta[LIES]
    return torch.empty_strided(shape, strides, dtype=dtype, device="meta")


class _Memory:
    """Which nodes of a graph share memory, and when it is needed last.

    Args:
        graph: the graph.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self._at = {node: i for i, node in enumerate(graph.nodes)}
        self._first: dict[fx.Node, fx.Node] = {}  # an earlier node of the same memory, or the node itself
        self._last: dict[fx.Node, int] = {}  # by the first node: when the memory is needed last
        self._others: set[fx.Node] = set()  # first nodes of memory that must stay as it is
        for node in graph.nodes:
            self._first[node], self._last[node] = node, max(map(self._at.__getitem__, node.users), default=0)
            if not _makes(node):
                self._others.add(node)
            for other in aliased_by(node):
                self._join(self._first_of(other), self._first_of(node))

    def may_take(self, node: fx.Node, operand: Any) -> bool:
        """Whether the result of a node may be in the memory of one of its operands."""
        # A result has no gaps, and neither has an operand that lies in memory as it does.
        if not isinstance(operand, fx.Node) or operand.meta.get(LIES) != node.meta.get(LIES):
            return False
        first = self._first_of(operand)
        others = [each for each in node.all_input_nodes if each is not operand]
        if first in self._others or any([self._first_of(each) is first for each in others]):
            return False
        return self._last[first] == self._at[node]

    def _first_of(self, node: fx.Node) -> fx.Node:
        first = self._first[node]
        while first is not self._first[first]:
            self._first[node] = first = self._first[first]
        return first

    def _join(self, one: fx.Node, other: fx.Node) -> None:
        self._first[other] = one
        self._last[one] = max(self._last[one], self._last[other])
        if other in self._others:
            self._others.add(one)


def _makes(node: fx.Node) -> bool:
    """Whether a node has memory of the graph's own: not of an input, a constant, or what the graph is given.

    Nor does memory count that may be in a cache of another library, or whose shape is changed in place.
    """
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace not in OWN:
        return False
    return torch.Tag.inplace_view not in target.tags
