"""The tape on which operations are recorded: see `relprop.runs.tracing`."""

import operator
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, fx
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from relprop.calls.nested import map_leaves, tensors_in
from relprop.calls.traced import is_again
from relprop.engine.mode import DispatchMode
from relprop.engine.seen import Seen
from relprop.errors import RelpropError
from relprop.runs.graphs import AGAIN, LIES, SPELLING
from relprop.runs.marks import LOOKS
from relprop.runs.spelling import spelling_of
from relprop.runs.storages import copied, lies_of, place_of, whole_memory_of, written_by

aten = torch.ops.aten


class TraceError(RelpropError):
    """Why a computation is no graph that holds for other values."""


_OF_SHAPE = frozenset(
    getattr(aten, name)
    for name in (
        *("zeros_like", "ones_like", "full_like", "empty_like"),
        *("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"),
        *("sym_size", "sym_numel", "sym_stride"),
    )
)
"""Operations whose results depend on the shape of a tensor alone."""


class Tape(DispatchMode):  # type: ignore[no-untyped-call]
    """Records operations on what depends on the inputs, or every operation.

    Attributes:
        inputs: the inputs, as tensors of their own.
        every: whether every operation is recorded.
        constants: tensors that do not depend on the inputs, and that recorded operations have as operands, by
            name.
        guards: truth values, each of one element.
        refused: why the computation cannot be traced, or "".
        read: where tensors lie that were there before, and that are operands.
        most: how many bytes constants may take that the computation has made, or None.
    """

    def __init__(self, inputs: Sequence[Tensor], *, every: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.every = every
        self.inputs = [copied(t) for t in inputs]
        self.constants: dict[str, Tensor] = {}
        self.guards: list[Tensor] = []
        self.refused = ""
        self.read: set[int] = set()
        self.most: int | None = None
        self._made: set[int] = set()
        self._kept = 0
        self._graph = fx.Graph()
        # By tensor, and by storage: a node with a tensor of that storage, and its dtype.
        self._nodes: Any = WeakIdKeyDictionary()
        self._storages: dict[int, tuple[fx.Node, torch.dtype]] = {}
        self._dependent: set[int] = set()  # storages of what depends on the inputs
        self._by_layout: dict[Any, fx.Node] = {}
        self._names: dict[Any, str] = {}  # of constants, by where they lie
        # So that no number stands for another storage. A weak reference keeps the number, not the values.
        self._held: list[StorageWeakRef | Tensor] = []
        for i, tensor in enumerate(self.inputs):
            self._note(tensor, self._graph.placeholder(f"input_{i}"), depends=True)

    # ---- what depends on the inputs ----

    def depends(self, value: Any) -> bool:
        """Whether a tensor, or one of several, depends on the inputs."""
        return any([place_of(t) in self._dependent for t in tensors_in(value)])

    def refuse(self, reason: str) -> NoReturn:
        """Raise that the computation cannot be traced.

        Raises:
            TraceError: always.
        """
        self.note(reason)
        raise TraceError(reason)

    def note(self, reason: str) -> None:
        """Note why the computation cannot be traced. It goes on."""
        self.refused = self.refused or reason

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.refused:
            try:
                return self._recorded(func, types, args, kwargs)
            except TraceError:  # within the model, which may have begun what it has to end
                pass
        return func(*args, **kwargs)

    def _recorded(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if Seen in types:
            self.refuse("a part of the model runs again in the backward")
        if torch.Tag.nondeterministic_seeded in func.tags and _draws(func, args, kwargs):
            self.refuse(f"{func._schema.name} draws random numbers")
        written = list(written_by(func, args, kwargs)) if func._schema.is_mutable else []
        depends = func.overloadpacket not in _OF_SHAPE and self.depends((args, kwargs))
        if depends:
            if func in LOOKS:
                return self._look(func, args)
            if torch.Tag.data_dependent_output in func.tags:
                self.refuse(f"{func._schema.name} looks at values")
            if torch.Tag.dynamic_output_shape in func.tags and self.depends(
                _deciding_shape(func, args, kwargs)
            ):
                self.refuse(f"the shape of what {func._schema.name} returns depends on values")
        for tensor in written:
            self._require_own(tensor)
            if depends:
                self._take_over(tensor)
            elif not self.every:
                self._preserve(tensor)
        if not depends and not self.every:
            return self._made_by(func, args, kwargs)
        if func is aten.as_strided.default and _is_view(*args, **kwargs):
            func, args, kwargs = aten.view.default, tuple(args[:2]), {}  # of which compilers know more
        if self.every and func is aten.lift_fresh.default:  # a new tensor, to which the model may write
            func, args = aten.clone.default, (args[0].clone(),)
        node = self._graph.call_function(
            func, map_leaves(self._operand, tuple(args)), map_leaves(self._operand, dict(kwargs))
        )
        node.meta[SPELLING], node.meta[AGAIN] = spelling_of(func, args, kwargs), is_again()
        result = self._made_by(func, args, kwargs)
        self._note(result, node, depends=depends)
        return result

    def _made_by(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return what a call gives, and note which memory was there before and which it made."""
        result = func(*args, **kwargs)
        operands = (
            set() if func is aten.lift_fresh.default else {place_of(t) for t in tensors_in((args, kwargs))}
        )
        self.read |= operands - self._made
        self._made |= {place_of(t) for t in tensors_in(result)} - operands
        return result

    def _require_own(self, tensor: Tensor) -> None:
        """Refuse a write to memory that was there before, where the next call would find it.

        Raises:
            TraceError: it was.
        """
        if place_of(tensor) not in self._made and place_of(tensor) not in self._dependent:
            self.refuse("the model writes to a tensor that it keeps, such as a buffer")

    def _look(self, func: Any, args: Any) -> Any:
        """Return what a look at values finds, and record that it has to be found again."""
        found = func(*args)
        with self:
            if func is aten.equal.default:
                if args[0].shape == args[1].shape:
                    same = (args[0] == args[1]).all()
                    self.guards.append(same if found else ~same)
                return found
            value = args[0] != 0 if func is aten.is_nonzero.default else args[0]
            self.guards.append(value == found if found == found else value.isnan())
        return found

    # ---- nodes ----

    def _note(self, value: Any, node: fx.Node, *, depends: bool) -> None:
        """Record the node of a tensor, or of several."""
        if isinstance(value, Tensor):
            if value not in self._nodes:
                self._nodes[value] = node
            node.meta.setdefault(LIES, lies_of(value))
            place = self._hold(value)
            self._storages.setdefault(place, (node, value.dtype))
            self._by_layout.setdefault(_layout_of(value), node)
            if depends:
                self._dependent.add(place)
        elif isinstance(value, (list, tuple)):
            for i, part in enumerate(value):
                if isinstance(part, (Tensor, list, tuple)):
                    part_node = self._graph.call_function(operator.getitem, (node, i))
                    self._note(part, part_node, depends=depends)

    def node_of(self, value: Tensor) -> fx.Node | None:
        """Return the first node that gives a tensor of this memory and layout, or None."""
        return self._by_layout.get(_layout_of(value)) if place_of(value) in self._storages else None

    def _operand(self, value: Any) -> Any:
        """Return what stands in the graph for an operand."""
        if not isinstance(value, Tensor):
            return value
        node = self._nodes.get(value)
        if node is not None:
            return node
        place = place_of(value)
        if place not in self._storages or not (place in self._made or place in self._dependent):
            constant = self._graph.get_attr(self._constant(value))
            constant.meta[LIES] = lies_of(value)
            return constant
        # Another tensor of the same storage, which torch made without an operation, as for autograd.
        first, dtype = self._storages[place]
        if value.dtype != dtype or value.is_conj() or value.is_neg():
            self.refuse(f"a {value.dtype} tensor shares memory with another one, and no operation tells how")
        where = (list(value.shape), list(value.stride()), value.storage_offset())
        self._nodes[value] = node = self._graph.call_function(aten.as_strided.default, (first, *where))
        node.meta[LIES] = lies_of(value)
        return node

    def _constant(self, value: Tensor) -> str:
        """Return the name of a constant."""
        self._hold(value)
        key = (place_of(value), value.dtype, value.is_conj(), value.is_neg())
        if value.layout is torch.strided:
            key += (value.shape, value.stride(), value.storage_offset())  # type: ignore[assignment]
        if key not in self._names and place_of(value) in self._made:
            self._kept += value.numel() * value.itemsize
            if self.most is not None and self._kept > self.most:
                self.refuse(f"its constants take more than {self.most / 2**30:.3g} GiB")
        name = self._names.setdefault(key, f"constant_{len(self.constants)}")
        self.constants.setdefault(name, value.detach())
        return name

    def _preserve(self, tensor: Tensor) -> None:
        """Keep what constants are before they are overwritten by another constant."""
        place = place_of(tensor)
        for key, name in list(self._names.items()):
            if key[0] == place:
                self.constants[name] = self.constants[name].clone()
                del self._names[key]

    def _take_over(self, tensor: Tensor) -> None:
        """Let the graph copy a constant before values that depend on the inputs are written to it."""
        place = self._hold(tensor)
        if place not in self._storages:
            self._preserve(tensor)
            whole = whole_memory_of(tensor).clone()
            node = self._graph.call_function(
                aten.clone.default, (self._graph.get_attr(self._constant(whole)),)
            )
            self._storages[place] = node, tensor.dtype
        self._dependent.add(place)

    def _hold(self, tensor: Tensor) -> int:
        place = place_of(tensor)
        if place not in self._storages:
            strided = tensor.layout is torch.strided
            weak = StorageWeakRef(tensor.untyped_storage()) if strided else tensor  # type: ignore[no-untyped-call]
            self._held.append(weak)
        return place

    # ---- the graph ----

    def of_its_own(self, tensor: Tensor) -> Tensor:
        """Return a result as a tensor that shares no memory with inputs and constants of the graph."""
        shared = [*self.inputs, *self.constants.values()]
        if place_of(tensor) in self._storages and place_of(tensor) not in map(place_of, shared):
            return tensor
        return tensor.clone()

    def finished(
        self, results: Sequence[Tensor], holds: Tensor | None, marked: Sequence[fx.Node]
    ) -> fx.GraphModule:
        """Return the graph of results, of whether guards hold, and of what is marked."""
        nodes = [self._operand(t) for t in results]
        self._graph.output((nodes, None if holds is None else self._operand(holds), list(marked)))
        return fx.GraphModule(self.constants, self._graph)


def _is_view(tensor: Tensor, size: Any, stride: Any, offset: int | None = None) -> bool:
    """Whether `as_strided` gives the elements of a tensor, in their order, another shape."""
    wanted = torch.empty(tuple(size), device="meta")
    same = offset in (None, tensor.storage_offset()) and wanted.numel() == tensor.numel()
    return same and tensor.is_contiguous() and wanted.stride() == tuple(stride)


def _layout_of(tensor: Tensor) -> Any:
    if tensor.layout is not torch.strided:
        return id(tensor)
    lies = tensor.shape, tensor.stride(), tensor.storage_offset()
    return place_of(tensor), tensor.dtype, tensor.is_conj(), tensor.is_neg(), *lies


def _deciding_shape(func: Any, args: Any, kwargs: Any) -> Any:
    """Return the operands whose values decide about the shape of a result."""
    if func is aten.index.Tensor:
        return [t for t in tensors_in(args[1]) if t.dtype in (torch.bool, torch.uint8)]
    if func is aten.masked_select.default:
        return args[1]
    return args if kwargs.get("output_size") is None else ()  # which repeat_interleave may be told


def _draws(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a call of an operation that may draw random numbers does so: dropout in evaluation does not."""
    given = {
        argument.name: args[i] if i < len(args) else kwargs.get(argument.name, argument.default_value)
        for i, argument in enumerate(func._schema.arguments)
    }
    probability = next((given[name] for name in ("dropout_p", "dropout", "p") if name in given), None)
    return probability != 0 and given.get("train", given.get("training")) is not False


_LEAVES = frozenset({"tolist", "numpy", "__array__", "__dlpack__", "data_ptr"})


class LeavingTorch(TorchFunctionMode):
    """Refuses to take values that depend on the inputs out of torch, where a graph cannot follow them."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _LEAVES and self._tape.depends(args[:1]):
            self._tape.note(f"values that depend on the inputs leave torch by {name}()")
        return func(*args, **(kwargs or {}))
