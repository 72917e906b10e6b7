"""One call of an aten operation, with its arguments in the order of the schema. It can be run again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

import torch
from torch._library import custom_ops
from torch._ops import HigherOrderOperator, OpOverload

from relprop.calls.names import CONVOLUTIONS, documented_name

WITHOUT_TENSORS = frozenset(
    (int, float, bool, str, NoneType, torch.dtype, torch.device, torch.layout, torch.memory_format)
)
"""Types of arguments that are no tensors, and have none in them."""


@dataclass(frozen=True, eq=False, slots=True)
class Signature:
    """The schema of an operation, as far as relprop needs it.

    Attributes:
        operation: the overload to run. For an in-place operation, the overload that computes the same out of
            place, if there is one.
        name: name of the operation, the same for all its overloads, in place or not: "add". An operation of
            another library has its full name: "mylib::op".
        positional: number of arguments that are passed by position.
        defaults: default of every argument; None for an argument without default.
        keywords: position of each argument in the schema, by the argument's name.
        by_name: name and position of each argument that is only passed by name.
        writes: whether the operation overwrites its first argument.
        is_functional: whether `operation` leaves the first argument unchanged.
        moves_view: whether the operation only changes the shape of its first argument, as `unsqueeze_` does.
        writes_others: whether the operation overwrites another argument, such as `out`.
        without_out: for an operation with an argument `out`, the overload without it; otherwise None.
        views: whether a result may be a view of an argument.
        composite: whether torch can decompose the operation into others.
        tracked: whether the operation returns views or overwrites an argument. For plain tensors torch
            records both.
        derived: whether torch may have a gradient of the operation. An operation of another library has one
            only if it was registered.
        documented: name in torch's documentation; empty if it depends on the arguments.
    """

    operation: Any
    name: str
    positional: int
    defaults: tuple[Any, ...]
    keywords: Mapping[str, int]
    by_name: Sequence[tuple[str, int]]
    writes: bool
    is_functional: bool
    moves_view: bool
    writes_others: bool
    without_out: Any
    views: bool
    composite: bool
    tracked: bool
    derived: bool
    documented: str

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """Return all arguments in the order of the schema, with defaults for those that were left out."""
        bound = [*args, *self.defaults[len(args) :]]
        for name, value in kwargs.items():
            bound[self.keywords[name]] = value
        return bound

    def call(self, args: Sequence[Any]) -> Any:
        """Run the operation on arguments in the order of the schema."""
        count = self.positional
        if count == len(args) or not self.keywords:
            return self.operation(*args)
        return self.operation(*args[:count], **{name: args[i] for name, i in self.by_name})


def signature(operation: Any) -> Signature:
    """Return the signature of an operation, from a cache."""
    known = _known.get(id(operation))  # by id, because hashing an operation takes longer
    if known is None or known[0] is not operation:
        known = _known[id(operation)] = operation, _signature(operation)
    return known[1]


_known: dict[int, tuple[Any, Signature]] = {}


def _signature(operation: Any) -> Signature:
    if isinstance(operation, HigherOrderOperator):  # such as flex attention, which has no schema
        name = str(operation._name)
        return Signature(
            operation, name, 0, (), {}, (), False, True, False, False, None, False, False, False, True, name
        )
    schema = operation._schema
    space, _, name = str(schema.name).partition("::")
    arguments = schema.arguments
    written = [a.alias_info is not None and a.alias_info.is_write for a in arguments]
    writes = bool(written) and written[0] and name.endswith("_")
    views = any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
    functional = operation
    if writes:
        name = name.removesuffix("_")
        packet = getattr(getattr(torch.ops, space), name, None)
        functional = _out_of_place(packet, operation) or operation
    name = name if space == "aten" else f"{space}::{name}"
    return Signature(
        operation=functional,
        name=name,
        positional=sum(not a.kwarg_only for a in arguments),
        defaults=tuple(a.default_value if a.has_default_value() else None for a in arguments),
        keywords={a.name: i for i, a in enumerate(arguments)},
        by_name=[(a.name, i) for i, a in enumerate(arguments) if a.kwarg_only],
        writes=writes,
        is_functional=not writes or functional is not operation,
        moves_view=writes and torch.Tag.inplace_view in operation.tags,
        writes_others=any(written[int(writes) :]),
        without_out=_without_out(operation) if arguments and arguments[-1].name == "out" else None,
        views=views,
        composite=space != "prim" and operation._can_decompose(),
        tracked=views or any(written),
        derived=space in ("aten", "prim") or _has_gradient(str(schema.name), str(schema.overload_name)),
        documented="" if name in CONVOLUTIONS else documented_name(name),
    )


def _has_gradient(name: str, overload: str) -> bool:
    """Whether an operation of another library brings a gradient, or is made of torch's."""
    full = f"{name}.{overload}" if overload else name
    keys = ("Autograd", "AutogradCPU", "AutogradCUDA", "CompositeImplicitAutograd")
    return any([torch._C._dispatch_has_kernel_for_dispatch_key(full, key) for key in keys])


def lacks_gradient(name: str) -> bool:
    """Whether an operation of another library has no gradient, by its full name.

    An operation made by `torch.library.custom_op` has a kernel for autograd in any case. Without
    `register_autograd` the kernel only raises an error, in the backward.
    """
    operation = custom_ops.OPDEFS.get(name)
    if operation is not None:
        return operation._backward_fn is None
    return "::" in name and not _has_gradient(name, "")


def _out_of_place(packet: Any, operation: OpOverload) -> Any:
    """The overload with the same arguments as an in-place one: pow.Tensor_Scalar for pow_.Scalar."""
    wanted = [(a.name, str(a.type)) for a in operation._schema.arguments]
    overloads = [getattr(packet, name) for name in packet.overloads()] if packet else []
    for overload in overloads:
        if [(a.name, str(a.type)) for a in overload._schema.arguments] == wanted:
            return overload
    return getattr(packet, operation._overloadname, None)


def _without_out(operation: OpOverload) -> Any:
    names = [a.name for a in operation._schema.arguments[:-1]]
    packet: Any = operation._overloadpacket
    overloads = (getattr(packet, name) for name in packet.overloads())
    return next((o for o in overloads if [a.name for a in o._schema.arguments] == names), None)


class Call:
    """One call of an operation.

    Attributes:
        signature: signature of the operation.
        args: all arguments, in the order of the schema.
        operation: name of the operation in aten, the same for all overloads.
    """

    __slots__ = ("args", "operation", "signature")

    def __init__(self, signature: Signature, args: list[Any]) -> None:
        self.signature = signature
        self.args = args
        self.operation = signature.name

    @property
    def name(self) -> str:
        """Name of the operation in torch's documentation."""
        return self.signature.documented or documented_name(self.signature.name, self.args)

    def argument(self, name: str, default: Any = None) -> Any:
        """Return an argument by its name in the schema; `default` if the overload has no such argument."""
        place = self.signature.keywords.get(name)
        return default if place is None else self.args[place]

    def written(self, *operands: Any) -> tuple[Any, ...] | None:
        """Return name and arguments, the same for calls that are alike; None if a constant is a tensor.

        Args:
            operands: tensors for which other ones may come.
        """
        return written(self.operation, [PLACE if any([a is t for t in operands]) else a for a in self.args])

    def on(self, args: Sequence[Any]) -> Any:
        """Run the operation on other arguments, given in the order of the schema."""
        return self.signature.call(args)


PLACE = object()
"""Stands for a tensor that is not told."""


def written(operation: str, arguments: Sequence[Any]) -> tuple[Any, ...] | None:
    """Return a name and arguments as a key; None if an argument is a tensor."""
    key: list[Any] = [operation]
    for a in arguments:
        if type(a) is list:
            a = written("", a)
            if a is None:
                return None
        elif a is not PLACE and type(a) not in WITHOUT_TENSORS:
            return None
        elif type(a) is float and a == 0:
            a = str(a)  # 0.0 equals -0.0, but quotients by them are not equal
        key.append(a)
    return tuple(key)
