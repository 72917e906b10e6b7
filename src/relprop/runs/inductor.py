"""Graphs by `torch.compile`, as far as it computes them right. What it gives is compared by the caller."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

_ON_CPU = {"layout_optimization": False}
"""Options for Inductor, which otherwise lays out the weights of convolutions anew in each call. That takes a
sixth of the time of a ResNet-50."""

_WITH_FACTOR = frozenset({aten.add.Tensor, aten.add_.Tensor, aten.sub.Tensor, aten.sub_.Tensor})
"""Operations that multiply their second operand by `alpha`."""


def compilable(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of a graph of aten's operations for `torch.compile`.

    Two faults of Inductor, as of torch 2.13, are avoided, as far as explanations of classes meet them. It
    fuses `x + alpha * (a @ b)` to a product that adds x, and loses alpha (pytorch/pytorch#167313 is alike).
    Multiplied apart, alpha is kept, and fused as well. And it reads memory before `scatter_add` writes to it
    (pytorch/pytorch#171493 is alike).
    """
    graph = deepcopy(module.graph)  # not what its nodes refer to
    for node in graph.nodes:
        if node.target in _WITH_FACTOR and node.kwargs.get("alpha", 1) != 1:
            with graph.inserting_before(node):
                multiplied = graph.call_function(_multiplied, (*node.args[:2], node.kwargs["alpha"]))
            node.args, node.kwargs = (node.args[0], multiplied), {}
        elif node.target is aten.gather_backward.default:
            node.target = _gather_backward
    return fx.GraphModule(module, graph)


def _multiplied(one: Any, other: Any, factor: float) -> Any:
    """Multiply in the dtype of a sum."""
    if isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype != other.dtype:
        other = other.to(torch.promote_types(one.dtype, other.dtype))
    return other * factor


def _gather_backward(gradient: Tensor, values: Tensor, dim: int, index: Tensor, sparse_grad: bool) -> Any:
    """Compute the gradient of `gather` without `scatter_add` if one element is taken along the dimension."""
    others = [n if i != dim % values.dim() else 1 for i, n in enumerate(values.shape)]
    if not others or list(index.shape) != others:
        return aten.gather_backward(gradient, values, dim, index, sparse_grad)
    positions = torch.arange(values.shape[dim], device=values.device)
    along = positions.view([-1 if i == dim % values.dim() else 1 for i in range(values.dim())])
    return torch.where(along == index, gradient, 0.0)


def compiled_run(graph: fx.GraphModule, leaves: Sequence[Tensor]) -> Callable[..., Any]:
    """Return what runs a graph by `torch.compile`, which compiles it when it is first called.

    Args:
        graph: a graph as `compilable` gives it.
        leaves: its inputs.
    """
    options: Any = {"fullgraph": True, "dynamic": False}
    if all([leaf.device.type == "cpu" for leaf in leaves]):
        options["options"] = _ON_CPU
    run = torch.compile(graph, **options)
    return lambda *given: run(*[leaf.detach() for leaf in given])  # for gradients it would compile again


def in_brief(error: Exception) -> str:
    """Return what an error of `torch.compile` says first, and which error it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].endswith("raised:"):  # "backend='inductor' raised:", and then the error
        return " ".join(lines[1:2])
    return ": ".join([type(error).__name__, *lines[:1]])
