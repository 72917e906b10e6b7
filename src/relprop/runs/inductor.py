"""Graphs by `torch.compile`, as far as it computes them right. What it gives is compared by the caller."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

_ON_CPU = {"layout_optimization": False}
"""Options for Inductor, which otherwise lays out the weights of convolutions anew in each call. That takes a
sixth of the time of a ResNet-50."""

_WITH_FACTOR = frozenset({aten.add.Tensor, aten.add_.Tensor, aten.sub.Tensor, aten.sub_.Tensor})
"""Operations that multiply their second operand by `alpha`."""

_WRITING = frozenset({aten._index_put_impl, aten.scatter, aten.scatter_add, aten.scatter_reduce})
"""Operations that write to elements of a tensor whose places are values."""


def compilable(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of a graph of aten's operations for `torch.compile`.

    Inductor, as of torch 2.13, fuses `x + alpha * (a @ b)` to a product that adds x, and loses alpha
    (pytorch/pytorch#167313 is alike). Multiplied apart, alpha is kept, and fused as well. It calls a kernel
    of torch for the gradient of `hardshrink`, by which rules divide, and fails if sizes are symbols.
    """
    graph = deepcopy(module.graph)  # not what its nodes refer to
    for node in graph.nodes:
        if node.target in _WITH_FACTOR and node.kwargs.get("alpha", 1) != 1:
            with graph.inserting_before(node):
                multiplied = graph.call_function(_multiplied, (*node.args[:2], node.kwargs["alpha"]))
            node.args, node.kwargs = (node.args[0], multiplied), {}
        elif node.target is aten.hardshrink_backward.default:
            node.target = _hardshrink_backward
    return fx.GraphModule(module, graph)


def _multiplied(one: Any, other: Any, factor: float) -> Any:
    """Multiply in the dtype of a sum."""
    if isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype != other.dtype:
        other = other.to(torch.promote_types(one.dtype, other.dtype))
    return other * factor


class CompileError(RuntimeError):
    """Why `torch.compile` does not compile a graph."""


def compiled_run(
    graph: fx.GraphModule, leaves: Sequence[Tensor], *, dynamic: bool = False
) -> Callable[..., Any]:
    """Return what runs a graph by `torch.compile`, which compiles it when it is first called.

    Args:
        graph: a graph as `compilable` gives it.
        leaves: its inputs.
        dynamic: whether it serves inputs of other sizes, too.

    Returns:
        The graph as it is called. It raises a CompileError, as for other sizes it may be compiled again.

    Raises:
        CompileError: torch compiles nothing here.
    """
    options: dict[str, Any] = {"post_grad_custom_post_pass": _writing_apart()}
    if all([leaf.device.type == "cpu" for leaf in leaves]):
        options |= _ON_CPU
    with _told():
        run = torch.compile(graph, fullgraph=True, dynamic=dynamic, options=options)

    def compiled(*given: Tensor) -> Any:
        with _told():
            return run(*[leaf.detach() for leaf in given])  # for gradients it would compile again

    return compiled


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise CompileError(in_brief(error)) from error


def _hardshrink_backward(gradient: Tensor, values: Tensor, most: float) -> Tensor:
    """Compute the gradient of `hardshrink`, which is 0 for small values, by operations that are fused."""
    return torch.where((values >= -most) & (values <= most), 0.0, gradient)


@cache
def _writing_apart() -> Any:
    """Return a pass for Inductor's graphs, which leaves what writes to parts of a tensor to torch's kernels.

    Inductor's own write in place, to zeros, and until pytorch/pytorch#185873 it may read the zeros instead:
    the gradient of max-pooling and that of `gather`, with which an explanation of a class starts. Where an
    earlier Inductor does not know the mark, it stays so.
    """
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files  # takes seconds

    class WritingApart(CustomGraphPass):
        def __call__(self, graph: fx.Graph) -> None:
            for node in graph.nodes:
                if node.target in (aten.index_put.default, aten._unsafe_index_put.default):
                    node.target = aten._index_put_impl.default  # which Inductor does not make one in place
                if getattr(node.target, "overloadpacket", None) in _WRITING:
                    node.meta["should_fallback"] = True

        def uuid(self) -> bytes:  # a part of the key of Inductor's cache
            return get_hash_for_files((__file__,))

    return WritingApart()


def in_brief(error: Exception) -> str:
    """Return what an error of `torch.compile` says first, and which error it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].endswith("raised:"):  # "backend='inductor' raised:", and then the error
        return " ".join(lines[1:2])
    return ": ".join([type(error).__name__, *lines[:1]])
