"""Graphs of torch's operations with fewer nodes that give the same results.

A trace of an explanation has many operations that change nothing without autograd, and the same operations
several times. Operations that overwrite a tensor stay as they are, and so does what shares memory with it.
"""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg

from relprop.runs.spelling import is_method

aten = torch.ops.aten

_SAME = frozenset({aten.detach.default, aten.alias.default, aten.lift_fresh.default})
"""Operations that return their operand, as far as a graph without autograd is concerned."""


SPELLING = "relprop's spelling"
"""What a node's `meta` has by this name: see `relprop.runs.spelling.spelling_of`."""

LIES = "how it lies in memory"
"""What a node's `meta` has by this name: see `relprop.runs.storages.lies_of`."""

AGAIN = "computed again"
"""Whether a node computes what was dropped because it takes memory. It is no other node's result."""


_OF_NUMBERS = frozenset({aten.sym_size.int, operator.add, operator.mul, operator.truediv})
"""What nodes of sizes and other numbers call."""

OWN = ("aten", "prims")
"""Libraries whose operations tell what shares memory. Others may return what they keep."""

_SHAPING = frozenset({aten.view.default, aten._unsafe_view.default, aten.reshape.default})
"""Operations that give the elements of a tensor, in their order, another shape."""


def simplified(module: fx.GraphModule) -> fx.GraphModule:
    """Simplify a graph in place, and return it. `take` clears it up, and makes it callable."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.target in _SAME:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()
    _join_equal(graph)
    _join_views(graph)
    return module


def respelled(module: fx.GraphModule) -> fx.GraphModule:
    """Let a graph call torch's functions instead of aten's operations, in place, and return it."""
    for node in module.graph.nodes:
        function = node.meta.get(SPELLING)
        if function is not None:
            is_of_tensors = is_method(function)
            node.op = "call_method" if is_of_tensors else "call_function"
            node.target = function.__name__ if is_of_tensors else function
    vars(module).update(module._buffers)  # where they are found faster than by `nn.Module.__getattr__`
    module.recompile()
    return module


def runnable(module: fx.GraphModule) -> Callable[..., Any]:
    """Return a graph as a function that calls torch's functions, and holds nothing but its constants."""
    constants = SimpleNamespace(**respelled(module)._buffers)
    for name in vars(constants):  # a graph is freed by the garbage collector alone, perhaps much later
        del vars(module)[name]
    module._buffers.clear()
    return partial(type(module).forward, constants)


def folded(module: fx.GraphModule) -> fx.GraphModule:
    """Compute once what does not depend on the inputs, in place, and return the graph."""
    graph = module.graph
    written = _written_to(graph)
    values: dict[fx.Node, Any] = {}
    needed: dict[fx.Node, Any] = {}
    left = {node: len(node.users) for node in graph.nodes}
    with as_graphs_run():
        for node in graph.nodes:
            operands = node.all_input_nodes
            if node.op == "get_attr" and node not in written:
                values[node] = getattr(module, str(node.target))
            elif _is_pure(node) and node not in written and all([each in values for each in operands]):
                args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)
            else:
                needed |= {each: values[each] for each in operands if each in values}
            for operand in operands:
                left[operand] -= 1
                if not left[operand]:
                    values.pop(operand, None)
    for i, (node, value) in enumerate(needed.items()):
        if node.op == "call_function":
            module.register_buffer(f"folded_{i}", value)
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.get_attr(f"folded_{i}"))
    graph.eliminate_dead_code()
    return module


def _is_pure(node: fx.Node) -> bool:
    return node.target is operator.getitem or (node.op == "call_function" and _is_repeatable(node))


@contextmanager
def as_graphs_run() -> Iterator[None]:
    """Let operations be those of a graph, which has the casts of autocast, and give ordinary tensors."""
    with (
        torch.inference_mode(mode=False),
        torch.no_grad(),
        torch._C.DisableTorchFunction(),
        torch._C._DisableAutocast(),
    ):
        yield


def take(module: fx.GraphModule) -> list[int]:
    """Let a graph take the third of its results from a list, its last argument, where it can, in place.

    The graph empties the list, so that a value is freed after its last use. What is overwritten is computed.

    Returns:
        Which of them the graph takes, in the order of the list. Without any, it gets no other argument.
    """
    graph = module.graph
    output = next(iter(reversed(graph.nodes)))
    results, holds, marked = output.args[0]
    output.args = ((_of_their_own(graph, output, results), holds),)
    written = _written_to(graph)
    first: dict[fx.Node, int] = {}
    for i, node in enumerate(marked):
        if node.op == "call_function" and node not in written:
            first.setdefault(node, i)
    parts: dict[fx.Node, int] = {}
    if first:
        with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
            given = graph.call_function(_emptied, (graph.placeholder("values"),))
            for node, i in first.items():
                part = graph.call_function(operator.getitem, (given, i))
                part.meta[LIES] = node.meta.get(LIES)
                node.replace_all_uses_with(part)
                parts[part] = i
    graph.eliminate_dead_code()
    for node in graph.nodes:
        if node.name == "values" and not node.users:
            graph.erase_node(node)
    used = [(part, i) for part, i in parts.items() if part.users]
    for place, (part, _) in enumerate(used):
        part.args = (part.args[0], place)
    graph.lint()
    module.recompile()
    return [i for _, i in used]


def _of_their_own(graph: fx.Graph, output: fx.Node, results: list[fx.Node]) -> list[fx.Node]:
    """Copy results that share memory with constants or inputs, and those that come twice."""
    found: list[fx.Node] = []
    with graph.inserting_before(output):
        for node in results:
            is_own = node not in found and not _is_of_others(node)
            found.append(node if is_own else graph.call_function(aten.clone.default, (node,)))
    return found


def _is_of_others(node: fx.Node) -> bool:
    """Whether a node may share memory with a constant or an input."""
    sharing = [node]
    for each in sharing:  # which grows
        if each.op != "call_function":
            return True
        sharing += [other for other in aliased_by(each) if other not in sharing]
    return False


def _emptied(values: list[Any]) -> tuple[Any, ...]:
    """Return what is in a list, which loses it."""
    found = tuple(values)
    values.clear()
    return found


def _join_equal(graph: fx.Graph) -> None:
    """Let each operation on the same operands be computed once."""
    written = _written_to(graph)
    known: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or not _is_repeatable(node) or node.meta.get(AGAIN):
            continue
        if node in written or not written.isdisjoint(node.all_input_nodes):  # before and after they differ
            continue
        key = (node.target, _hashable(node.args), _hashable(node.kwargs))
        try:
            first = known.setdefault(key, node)
        except TypeError:  # an argument without a hash
            continue
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _join_views(graph: fx.Graph) -> None:
    """Let a tensor that gets one shape and then another get the last one at once."""
    written = _written_to(graph)
    for node in graph.nodes:
        if node.target not in _SHAPING or node in written:
            continue
        node.target, node.meta[SPELLING] = aten.reshape.default, torch.reshape
        before = node.args[0]
        if before.target in _SHAPING and before not in written:
            node.args = (before.args[0], node.args[1])


def _is_repeatable(node: fx.Node) -> bool:
    """Whether an operation gives the same result each time."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return False
    return torch.Tag.nondeterministic_seeded not in target.tags


def _written_to(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that share memory with a tensor that is overwritten."""
    overwritten = [arg for node in graph.nodes for arg in _overwritten_by(node)]
    found: set[fx.Node] = set()
    while overwritten:
        node = overwritten.pop()
        if node in found or node.target in _OF_NUMBERS:
            continue
        found.add(node)
        overwritten += [*aliased_by(node), *(user for user in node.users if node in aliased_by(user))]
    return found


def _overwritten_by(node: fx.Node) -> Iterator[fx.Node]:
    if not isinstance(node.target, torch._ops.OpOverload):
        return
    for i, argument in enumerate(node.target._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
        nodes: list[fx.Node] = []
        map_arg(given, nodes.append)
        yield from nodes
        yield node


def aliased_by(node: fx.Node) -> list[fx.Node]:
    """Return the operands with which a node's result may share memory."""
    target = node.target
    if node.op != "call_function":
        return []
    if not isinstance(target, torch._ops.OpOverload):
        return node.all_input_nodes  # such as a part of several results
    nodes: list[fx.Node] = []
    library, _, name = target._schema.name.partition("::")
    tells = library in OWN and "view" not in name and "unsafe" not in name and not target._can_decompose()
    if not tells:
        return node.all_input_nodes
    for i, argument in enumerate(target._schema.arguments):
        if argument.alias_info is not None:
            map_arg(node.args[i] if i < len(node.args) else node.kwargs.get(argument.name), nodes.append)
    return nodes


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple([_hashable(v) for v in value])
    if isinstance(value, dict):
        return tuple([(k, _hashable(v)) for k, v in value.items()])
    # 1, 1.0 and True are equal, and other arguments.
    return (type(value), value) if isinstance(value, (bool, int, float)) else value
