"""One computation as a graph of torch's operations, which gives the same results for other values.

`trace` runs a function once, on real values, and records its operations by `make_fx`. A look at a value that
depends on the inputs, such as a branch of the model, becomes a *guard*: the graph computes the value as well,
and its results hold only for inputs for which it is the same. What a graph cannot say is a `TraceError`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from relprop.calls.nested import tensors_in
from relprop.calls.traced import tracing
from relprop.errors import RelpropError
from relprop.runs.graphs import simplified

aten = torch.ops.aten


class TraceError(RelpropError):
    """Why a computation is no graph that holds for other values."""


@dataclass(frozen=True)
class Traced:
    """A computation as a graph.

    Attributes:
        graph: from the inputs to the results and a truth value: whether the guards hold.
        guards: the number of guards.
        constants: the tensors that the graph refers to, with their versions.
    """

    graph: fx.GraphModule
    guards: int
    constants: tuple[tuple[Tensor, int], ...]

    def unchanged(self) -> bool:
        """Whether the tensors that the graph refers to have not been written to since."""
        return all([version_of(tensor) == version for tensor, version in self.constants])


def trace(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> tuple[Traced, list[Tensor]]:
    """Trace a function of tensors, and return it with its results for these inputs.

    Raises:
        TraceError: it cannot be traced.
    """
    results: list[Tensor] = []

    def guarded(*values: Tensor) -> tuple[list[Tensor], Tensor | None]:
        looking = _Looking(values)
        with tracing(), looking, _LeavingTorch(looking):
            computed = list(function(*values))
        if looking.refused:  # and the model has caught the error
            raise TraceError(looking.refused)
        results.extend(t.detach() for t in computed)
        holds = torch.stack(looking.guards).all() if looking.guards else None
        guarded.count = len(looking.guards)  # type: ignore[attr-defined]
        return computed, holds

    graph = make_fx(guarded)(*inputs)
    simplified(graph)
    found = {id(t): t for t in _constants(graph)}
    constants = tuple((t, version_of(t)) for t in found.values())
    return Traced(graph, guarded.count, constants), results  # type: ignore[attr-defined]


def _constants(graph: fx.GraphModule) -> list[Tensor]:
    targets = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    return [
        value for value in (getattr(graph, target) for target in sorted(targets)) if isinstance(value, Tensor)
    ]


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written to. A tensor of inference mode does not know."""
    return 0 if tensor.is_inference() else tensor._version


_LOOKS = (aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default)


class _Looking(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows which tensors depend on the inputs, and turns looks at their values into guards.

    Attributes:
        guards: truth values, each of one element.
        refused: why the computation cannot be traced, or "".
    """

    supports_higher_order_operators = True

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.guards: list[Tensor] = []
        self.refused = ""
        self._dependent: Any = WeakIdKeyDictionary()
        for tensor in inputs:
            self._dependent[tensor] = True

    def depends(self, value: Any) -> bool:
        """Whether a tensor, or one of several, depends on the inputs."""
        return any([t in self._dependent for t in tensors_in(value)])

    def refuse(self, reason: str) -> NoReturn:
        """Raise that the computation cannot be traced.

        Raises:
            TraceError: always.
        """
        self.refused = self.refused or reason
        raise TraceError(reason)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and _draws(func, args, kwargs):
            self.refuse(f"{func._schema.name} draws random numbers")
        if not self.depends((args, kwargs)):
            with disable_proxy_modes_tracing():  # a constant of the graph
                return func(*args, **kwargs)
        if func in _LOOKS:
            return self._look(func, args, kwargs)
        if torch.Tag.dynamic_output_shape in func.tags and _has_dynamic_shape(func, args, kwargs):
            self.refuse(f"the shape of what {func._schema.name} returns depends on values")
        result = func(*args, **kwargs)
        for tensor in tensors_in(result):
            self._dependent[tensor] = True
        if func._schema.is_mutable:
            for argument, value in zip(func._schema.arguments, args, strict=False):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    for tensor in tensors_in(value):
                        self._dependent[tensor] = True
        return result

    def _look(self, func: Any, args: Any, kwargs: Any) -> Any:
        with disable_proxy_modes_tracing():
            found = func(*args, **kwargs)
        if func is aten.equal.default:
            one, other = args
            if one.shape == other.shape:
                same = (one == other).all()
                self.guards.append(same if found else ~same)
            return found
        value = args[0]
        if func is aten.is_nonzero.default:
            value = value != 0
        self.guards.append((value == found).all() if found == found else value.isnan().all())
        return found


def _has_dynamic_shape(func: Any, args: Any, kwargs: Any) -> bool:
    if func is aten.index.Tensor:
        return any([t.dtype in (torch.bool, torch.uint8) for t in tensors_in(args[1])])
    return kwargs.get("output_size") is None  # repeat_interleave, which may be told


def _draws(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a call of an operation that may draw random numbers does so: dropout of 0 does not."""
    for i, argument in enumerate(func._schema.arguments):
        if argument.name == "dropout_p":
            return bool(args[i] if i < len(args) else kwargs.get("dropout_p", argument.default_value))
    return True


_LEAVES = frozenset({"tolist", "numpy", "__array__", "__dlpack__", "data_ptr"})


class _LeavingTorch(TorchFunctionMode):
    """Refuses to take values that depend on the inputs out of torch, where a graph cannot follow them."""

    def __init__(self, looking: _Looking) -> None:
        super().__init__()
        self._looking = looking

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _LEAVES and self._looking.depends(args[:1]):
            self._looking.refuse(f"values that depend on the inputs leave torch by {name}()")
        return func(*args, **(kwargs or {}))
