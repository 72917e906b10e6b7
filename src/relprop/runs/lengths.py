"""One graph for inputs of any length, from recordings of an explanation of three lengths.

The recordings must have the same operations. Numbers among their arguments that differ, such as the sizes of
a view, must follow the length by a law (`law_of`). So nothing has to be known of a model. That the graph
holds for a further length is not assumed: see `relprop.runs.compiled`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from relprop.runs.graphs import folded
from relprop.runs.storages import place_of
from relprop.runs.tracing import Recording, Traced, traced_from
from relprop.runs.trail import Trail

aten = torch.ops.aten

NEEDED = 3
"""So many lengths are recorded: two for a line, and one to prove it."""

SHORTEST = 2
"""Shorter inputs are no example of others: where a size is 1, operations broadcast."""

Number = int | float


class DifferError(Exception):
    """Why recordings are not one computation for different lengths."""


class _NoLawError(Exception):
    """Why arguments of an operation follow no law."""


@dataclass(frozen=True)
class Law:
    """How a number depends on a length n: a + b n + c n² + d / n.

    Attributes:
        terms: a, b, c, and d.
    """

    terms: tuple[Number, Number, Number, Number]

    def __call__(self, n: Any) -> Any:
        """Return the number for a length, which may be a symbol."""
        a, b, c, d = self.terms
        found = a
        for factor, power in ((b, n), (c, n * n)):
            if factor:
                found = found + (power if factor == 1 else factor * power)
        return found + d / n if d else found


def law_of(numbers: Sequence[Number], lengths: Sequence[int]) -> Law | None:
    """Return the law of numbers that differ between three lengths, or None.

    It is a + b n or b n + c n² for whole numbers, and a + b n or d / n for others. Two lengths give it, and
    the third proves it.
    """
    (u, v), (m, n) = numbers[:2], lengths[:2]
    candidates: list[tuple[Number, ...]] = []
    if all([isinstance(number, int) for number in numbers]):
        if (v - u) % (n - m) == 0:
            slope = (v - u) // (n - m)
            candidates.append((u - slope * m, slope, 0, 0))
        if u % m == v % n == 0 and (v // n - u // m) % (n - m) == 0:
            curve = (v // n - u // m) // (n - m)
            candidates.append((0, u // m - curve * m, curve, 0))
    else:
        slope = (v - u) / (n - m)
        candidates += [(u - slope * m, slope, 0, 0), (0, 0, 0, u * m)]
    for terms in candidates:
        law = Law(terms)  # type: ignore[arg-type]
        if all([_near(law(length), number) for length, number in zip(lengths, numbers, strict=True)]):
            return law
    return None


def _for_all(values: Sequence[Any], lengths: Sequence[int]) -> Any:
    """Return a value that is the same for three lengths, or the law of numbers that differ.

    Raises:
        _NoLawError: there is none.
    """
    first = values[0]
    if all([_equal(first, value) for value in values]):
        return first
    law = None
    if all([type(value) in (int, float) and type(value) is type(first) for value in values]):
        law = law_of(values, lengths)
    if law is None:
        told = [", ".join(map(str, several)) for several in (values, lengths)]
        raise _NoLawError(f"takes {told[0]} for the lengths {told[1]}")
    return law


def _equal(one: Any, other: Any) -> bool:
    return one is other or bool(one == other) or (one != one and other != other)


def _near(one: Number, other: Number) -> bool:
    return one == other if isinstance(other, int) else abs(one - other) <= 1e-14 * abs(other)


Layouts = list[tuple[int, ...]]
"""How tensors lie in memory: of each, its sizes and then its strides."""


def layouts_of(tensors: Sequence[Tensor]) -> Layouts:
    """Return how tensors lie in memory."""
    return [(*t.shape, *t.stride()) for t in tensors]


def sizes_of(layouts: Layouts) -> list[int]:
    """Return the sizes of tensors, one after the other."""
    return [size for layout in layouts for size in layout[: len(layout) // 2]]


def orders_of(layouts: Layouts) -> tuple[Any, ...]:
    """Return the dimensions of tensors from the outermost to the innermost in memory."""
    strides = [layout[len(layout) // 2 :] for layout in layouts]
    return tuple([tuple(sorted(range(len(each)), key=lambda i: -each[i])) for each in strides])


@dataclass(frozen=True)
class Shapes:
    """How inputs of any length lie in memory.

    Attributes:
        place: the number of an input, and its dimension whose size is the length.
        laws: for each input the laws of its sizes and strides; a number where it is the same for all.
    """

    place: tuple[int, int]
    laws: Sequence[Sequence[Law | int]]

    def length_of(self, layouts: Layouts) -> int:
        """Return the length of inputs that lie so in memory."""
        number, dim = self.place
        return layouts[number][dim]

    def fit(self, layouts: Layouts) -> bool:
        """Whether inputs lie so, for some length."""
        n = self.length_of(layouts)
        expected = [tuple(law(n) if isinstance(law, Law) else law for law in each) for each in self.laws]
        return n >= SHORTEST and expected == layouts


def shapes_of(several: Sequence[Layouts]) -> tuple[Shapes, list[int]]:
    """Return how inputs of three lengths lie in memory, and the lengths.

    Raises:
        DifferError: they differ in more than a length.
    """
    of_inputs = [list(zip(*layouts, strict=True)) for layouts in zip(*several, strict=True)]
    place = next(
        (i, dim)
        for i, found in enumerate(of_inputs)
        for dim, numbers in enumerate(found)
        if len(set(numbers)) > 1
    )
    lengths = [layouts[place[0]][place[1]] for layouts in several]
    is_size = 2 * place[1] < len(of_inputs[place[0]])
    try:
        if not is_size or len(set(lengths)) < len(lengths):
            raise _NoLawError
        laws = [[_for_all(numbers, lengths) for numbers in found] for found in of_inputs]
    except _NoLawError:
        raise DifferError("their inputs differ in more than one size") from None
    return Shapes(place, laws), lengths


@dataclass(frozen=True)
class Calls:
    """What is called for any length.

    Attributes:
        program: the operations.
        operands: their arguments, as `Trail` has them, or laws of numbers.
    """

    program: Sequence[Any]
    operands: Sequence[Any]

    def are(self, trail: Trail, length: int) -> bool:
        """Whether the same was called for a length."""
        if self.program != trail.program or len(self.operands) != len(trail.operands):
            return False
        return all([_fits(*pair, length) for pair in zip(self.operands, trail.operands, strict=True)])


_ANY = Law((0, 0, 0, 0))
"""For a number that follows no law, of an operation that nothing depends on."""


def _fits(expected: Any, found: Any, length: int) -> bool:
    if isinstance(expected, Law):
        return expected is _ANY or (type(found) in (int, float) and _near(expected(length), found))
    return _equal(expected, found)


def calls_of(trails: Sequence[Trail], lengths: Sequence[int]) -> Calls:
    """Return what is called for any length, from what was called for three by one program."""
    operands = []
    for found in zip(*[trail.operands for trail in trails], strict=True):
        try:
            operands.append(_for_all(found, lengths))
        except _NoLawError:
            operands.append(_ANY)
    return Calls(trails[0].program, operands)


def of_any_length(recordings: Sequence[Recording], shapes: Shapes, lengths: Sequence[int]) -> Traced:
    """Return one graph from recordings of three lengths.

    Args:
        recordings: the recordings.
        shapes: how their inputs lie in memory.
        lengths: the lengths.

    Raises:
        DifferError: they are not one computation.
    """
    joined = _Joined(recordings, shapes.place, lengths)
    read = frozenset().union(*[recording.read for recording in recordings])
    return traced_from(folded(joined.module()), recordings[0].guards, read)[0]


@dataclass
class _Joined:
    """Goes through recordings of several lengths at once, and makes one graph of them."""

    recordings: Sequence[Recording]
    place: tuple[int, int]
    lengths: Sequence[int]
    graph: fx.Graph = field(default_factory=fx.Graph)
    constants: dict[str, Tensor] = field(default_factory=dict)
    _nodes: dict[fx.Node, fx.Node] = field(default_factory=dict)
    _numbers: dict[Law, Any] = field(default_factory=dict)
    _length: fx.Node | None = None

    def module(self) -> fx.GraphModule:
        """Return the graph.

        Raises:
            DifferError: the recordings are not one computation.
        """
        several = []
        for recording in self.recordings:
            recording.module.graph.eliminate_dead_code()
            several.append(list(recording.module.graph.nodes))
        if len({len(nodes) for nodes in several}) > 1:
            *others, last = [str(len(nodes)) for nodes in several]
            raise DifferError(f"they have {', '.join(others)} and {last} operations")
        for nodes in zip(*several, strict=True):
            called = list(dict.fromkeys(map(_called, nodes)))
            if len(called) > 1:
                raise DifferError(f"one calls {called[0]} where another calls {called[1]}")
            joined = self._joined(nodes)
            for node in nodes:
                self._nodes[node] = joined
        return fx.GraphModule(self.constants, self.graph)

    def _joined(self, nodes: Sequence[fx.Node]) -> fx.Node:
        node = nodes[0]
        if node.op == "get_attr":
            return self._constant(nodes)
        try:
            args = self._argument([each.args for each in nodes])
            kwargs = self._argument([dict(each.kwargs) for each in nodes])
        except _NoLawError as error:
            raise DifferError(f"{_called(node)} {error}") from None
        found = self.graph.create_node(node.op, node.target, args, kwargs)
        found.meta.update(node.meta)
        return found

    def _constant(self, nodes: Sequence[fx.Node]) -> fx.Node:
        tensors = [
            getattr(recording.module, str(node.target))
            for recording, node in zip(self.recordings, nodes, strict=True)
        ]
        if not all([_is_same(tensors[0], other) for other in tensors[1:]]):
            raise DifferError("they have other constants")
        self.constants[str(nodes[0].target)] = tensors[0]
        return self.graph.get_attr(str(nodes[0].target))

    def _argument(self, values: Sequence[Any]) -> Any:
        """Return an argument of the joined graph for those of the recordings."""
        first = values[0]
        if len({type(value) for value in values}) > 1:
            raise _NoLawError("takes arguments of other types")
        if isinstance(first, fx.Node):
            if len({self._nodes[value] for value in values}) > 1:
                raise _NoLawError("takes other operands")
            return self._nodes[first]
        if isinstance(first, (list, tuple)):
            if len({len(value) for value in values}) > 1:
                raise _NoLawError("takes more operands")
            return type(first)([self._argument(each) for each in zip(*values, strict=True)])
        if isinstance(first, dict):
            return {name: self._argument([value[name] for value in values]) for name in first}
        value = _for_all(values, self.lengths)
        return self._number(value) if isinstance(value, Law) else value

    def _number(self, law: Law) -> fx.Node:
        """Return the node of a number."""
        if law not in self._numbers:
            if self._length is None:
                placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
                number, dim = self.place
                self._length = self.graph.call_function(aten.sym_size.int, (placeholders[number], dim))
            length = fx.Proxy(self._length, fx.proxy.GraphAppendingTracer(self.graph))
            self._numbers[law] = law(length).node
        node: fx.Node = self._numbers[law]
        return node


def _called(node: fx.Node) -> str:
    """Return what a node calls. The names of constants do not matter."""
    return str(node.target) if node.op == "call_function" else node.op


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two constants are the same."""
    if one.layout is not torch.strided or other.layout is not torch.strided:
        return one is other
    kinds = [(t.dtype, t.device, *layouts_of([t]), t.is_conj(), t.is_neg()) for t in (one, other)]
    if kinds[0] != kinds[1]:
        return False
    lie = [(place_of(t), t.storage_offset()) for t in (one, other)]
    return lie[0] == lie[1] or bool(((one == other) | ((one != one) & (other != other))).all())
