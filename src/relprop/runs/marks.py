"""Which values of an explanation are the results of the model's calls."""

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import _disable_current_modes

from relprop.calls.nested import tensors_in
from relprop.engine.observer import Observer
from relprop.engine.seen import Seen
from relprop.runs.kernels import KERNELS
from relprop.runs.storages import lies_of

aten = torch.ops.aten

LOOKS = (
    aten._local_scalar_dense.default,
    aten.item.default,
    aten.is_nonzero.default,
    aten.equal.default,
)
"""Operations by which a program looks at values."""


class Look(NamedTuple):
    """Some values of a tensor, and how it lies in memory.

    Attributes:
        lies: see `lies_of`.
        values: the values.
    """

    lies: tuple[Any, ...] | None
    values: Tensor

    @staticmethod
    def at(tensor: Tensor) -> "Look":
        """Look at a tensor."""
        with torch.no_grad():
            values = tensor.detach().reshape(-1)
            values = values[:: values.numel() // _LOOKED_AT + 1].clone()
        return Look(lies_of(tensor), values)

    def differs(self, other: "Look") -> str:
        """Say what differs by more than rounding; "" if nothing does."""
        if self.lies != other.lies:
            return f"a tensor lies in memory as {self.lies}, and as {other.lies}"
        one, two = self.values, other.values
        if not one.is_floating_point() and not one.is_complex():
            return "" if torch.equal(one, two) else "there are other integers"
        near = torch.finfo(one.dtype).eps ** 0.5 * two.abs().nan_to_num(0, 0, 0).max() if len(two) else 0
        alike = ((one - two).abs() <= near) | (one == two) | (one.isnan() & two.isnan())
        return "" if bool(alike.all()) else "there are other values"


_LOOKED_AT = 1024
"""At so many values at most."""


class Marked(NamedTuple):
    """A call that a trace has seen.

    Attributes:
        operation: the operation.
        plain: the tensors among its arguments that do not depend on the samples.
        looks: a look at each tensor in its result, without what a kernel returns besides.
    """

    operation: Any
    plain: list[Tensor]
    looks: list[Look]


class Marks(Observer):
    """Knows which nodes of a trace are the results of the model's calls. It watches the model.

    Attributes:
        calls: the calls.
        tape: what records the trace, while there is one.
        used: which of the values the graph takes from a list instead of computing them: the call, and the
            position in its result.
    """

    def __init__(self) -> None:
        self.calls: list[Marked] = []
        self.used: list[tuple[int, int]] = []
        self.tape: Any = None
        self._nodes: list[list[fx.Node | None]] = []
        self._guards = 0
        self._is_over = False

    def begin_call(self) -> None:
        """Note what the trace has to find again so far."""
        self._guards = 0 if self.tape is None else len(self.tape.guards)

    def call(self, operation: Any, arguments: Any, result: Any) -> None:
        """Note the nodes of a result."""
        if self._is_over or self.tape is None:
            return
        values = [t.known if type(t) is Seen else t for t in tensors_in(result)]
        nodes = [self.tape.node_of(value) for value in values]
        self._nodes.append([*nodes, *_others_of_kernel(nodes[0])] if operation in KERNELS else nodes)
        with _disable_current_modes():
            looks = [Look.at(value) for value in values]
        self.calls.append(Marked(operation, [t for t in tensors_in(arguments) if type(t) is not Seen], looks))
        if operation in LOOKS:  # what the model finds decides about its next calls alone
            del self.tape.guards[self._guards :]

    def end_forward(self) -> None:
        self._is_over = True

    def places(self) -> list[tuple[int, int, fx.Node]]:
        """Return call, position in its result, and node of each value that depends on the inputs."""
        several = enumerate(self._nodes)
        return [(i, k, node) for i, nodes in several for k, node in enumerate(nodes) if node is not None]


def _others_of_kernel(first: Any) -> list[fx.Node | None]:
    """Return the nodes of the other results of the kernel that gave a node, in their order."""
    if first is None or first.target is not operator.getitem or first.args[0].target not in KERNELS.values():
        return []
    return [node for node in first.args[0].users if node is not first]
