"""Graphs that compute in the memory of operands that nobody needs any more.

On a CPU, memory bounds elementwise operations: one that overwrites an operand takes two thirds of the time.
An explanation is recorded without such overwriting, because what else needs an operand is known at the end.
"""

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from relprop.runs.graphs import LIES, SPELLING, aliased_by
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
        memory.share(node, node.args[0])
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
        self._of: dict[fx.Node, set[fx.Node]] = {}
        for node in graph.nodes:
            self._of[node] = {node}
            for other in aliased_by(node):
                self.share(node, other)

    def may_take(self, node: fx.Node, operand: Any) -> bool:
        """Whether the result of a node may be in the memory of one of its operands."""
        # A result has no gaps, and neither has an operand that lies in memory as it does.
        if not isinstance(operand, fx.Node) or operand.meta.get(LIES) != node.meta.get(LIES):
            return False
        shared = self._of[operand]
        if any([each in shared for each in node.all_input_nodes if each is not operand]):
            return False
        return self._is_of_the_graph(shared) and self._last_use(shared) == self._at[node]

    def share(self, node: fx.Node, other: fx.Node) -> None:
        """Note that two nodes share memory."""
        both = self._of[node] | self._of[other]
        for each in both:
            self._of[each] = both

    def _is_of_the_graph(self, shared: set[fx.Node]) -> bool:
        """Whether memory is that of no input and no constant, and of nothing that the graph is given."""
        return all([isinstance(each.target, torch._ops.OpOverload) for each in shared])

    def _last_use(self, shared: set[fx.Node]) -> int:
        return max([self._at[user] for each in shared for user in each.users])
