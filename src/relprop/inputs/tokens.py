"""Integer inputs, such as the tokens of a text: followed to the embedding where they are looked up.

What can be explained of an integer is what the model makes of it first: a row of an embedding. Ids are
followed through what only rearranges them (views, slices, a shift to the right): whatever the model does to
them is done to their positions, so that relevance at the embedding comes back to the element of the input
that it belongs to. Positions and types of tokens, and masks, are not explained: they look up parameters.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from relprop.calls.call import Call
from relprop.calls.moving import COPYING, MOVING, WRITTEN_OUT
from relprop.calls.nested import map_leaves, tensors_in
from relprop.engine.memory import laid_out
from relprop.engine.seen import Seen, inner_of

_NO_IDS = re.compile(r"position|token_type|type_id|segment|mask|label|length|index|indices", re.IGNORECASE)
"""Names of integer arguments that say where, of which kind or which, and not what."""

_FOLLOWED = frozenset(
    (
        *(*MOVING, *COPYING, *WRITTEN_OUT),
        *("cat", "stack", "pad", "constant_pad_nd", "clamp", "clamp_min", "clamp_max", "masked_fill"),
        *("where", "copy", "fill", "zero", "index_put", "slice_scatter", "select_scatter"),
    )
)
"""Operations after which an id is an id still."""

_VALUES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "where": (1, 2),
        "masked_fill": (0, 2),
        "constant_pad_nd": (0, 2),
        "pad": (0, 3),
        "copy": (0, 1),
        "fill": (0, 1),
        "index_put": (0, 2),
        "slice_scatter": (0, 1),
        "select_scatter": (0, 1),
    }
)
"""Which arguments are values, where it is not the first alone; others say where."""

_CONVERTING = frozenset(("to", "_to_copy", "clamp", "clamp_min", "clamp_max"))
"""Operations that leave every element where it is."""

_LOOKING = frozenset(
    (
        *("eq", "ne", "lt", "gt", "le", "ge", "equal", "any", "all", "max", "min", "amax", "amin", "isin"),
        *("_unique2", "unique_dim", "embedding", "item", "_local_scalar_dense", "sum", "argmax"),
        *("is_nonzero", "nonzero", "sym_size", "is_same_size"),
    )
)
"""Operations that look at ids, and leave them what they are."""

_INTEGERS = (torch.int64, torch.int32)


@dataclass(frozen=True)
class IdInput:
    """An integer input: name of the argument, shape, and the number of its first element."""

    name: str
    shape: tuple[int, ...]
    first: int


def may_be_ids(name: str, value: Any) -> bool:
    """Whether an argument is a tensor of integers that may be explained."""
    return (
        isinstance(value, Tensor)
        and value.dtype in _INTEGERS
        and value.dim() > 0
        and not _NO_IDS.search(name)
    )


class TokenIds:
    """The integer inputs of a run, and what became of them.

    Of each tensor that consists of ids it is known which elements of the inputs they are: int64 of the
    tensor's shape, counted through all inputs; -1 for what is none, as what begins a decoder's input.

    Attributes:
        inputs: them, in order.
    """

    def __init__(self) -> None:
        self._positions: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._lost: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._values: list[Tensor] = []
        self._count = 0
        self.inputs: list[IdInput] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Note an input."""
        self.inputs.append(IdInput(name, tuple(tensor.shape), self._count))
        positions = torch.arange(self._count, self._count + tensor.numel(), device=tensor.device)
        self._positions[tensor] = positions.reshape(tensor.shape)
        self._values.append(tensor.flatten().clone())
        self._count += tensor.numel()

    def find(self, tensor: Any) -> Tensor | None:
        """The positions of a tensor's elements, if it consists of ids."""
        if type(tensor) is not Seen:
            return None
        memory, inner = tensor.memory, tensor.recorded
        if memory is not None and memory.positions is not None:
            return memory.positions.as_strided(tensor.size(), tensor.stride(), tensor.offset)
        positions: Tensor | None = self._positions.get(inner)  # type: ignore[no-untyped-call]
        return positions

    def looked_up(self, call: Call) -> Tensor | None:
        """The positions of ids that a call looks up in the rows of a table, if it does nothing else."""
        if not self.inputs:
            return None
        index: Any = None
        if call.operation == "embedding":
            index = call.args[1]
        elif call.operation == "index" and _is_table(call.args[0]) and len(call.args[1]) == 1:
            index = call.args[1][0]
        elif call.operation == "index_select" and _is_table(call.args[0]) and call.args[1] == 0:
            index = call.args[2]
        positions = self.find(index)
        return None if positions is None else self._checked(inner_of(index), positions)

    def _checked(self, index: Tensor, positions: Tensor) -> Tensor:
        """The positions, without those whose values are not the inputs' any more."""
        values = torch.cat([values.to(index) for values in self._values])
        same = (positions >= 0) & (values[positions.clamp(min=0)] == index)
        return torch.where(same, positions, -1)

    def end_in(self, call: Call, result: Any) -> bool:
        """Whether a call made of ids what is none any more, and could have been meant to be."""
        if not self.inputs or call.operation in _LOOKING:
            return False
        if call.operation in _FOLLOWED and not any(t.is_floating_point() for t in tensors_in(result)):
            return False
        return any(self.find(t) is not None for t in tensors_in(call.args))

    def follow(self, call: Call) -> Any:
        """Run a call on constants, and know of its results what is known of its operands."""
        result = call.on([inner_of(a) for a in call.args])
        if not self.inputs or call.operation not in _FOLLOWED:
            return result
        values = _VALUES.get(call.operation, (0,))
        given = [call.args[i] for i in values if i < len(call.args)]
        known = [p for t in tensors_in(given) if (p := self.find(t)) is not None]
        if not known:
            return result
        positions = known[0] if call.operation in _CONVERTING else self._moved(call, values)
        for tensor, of_tensor in zip(tensors_in(result), tensors_in(positions), strict=False):
            if tensor.dtype in _INTEGERS and tensor.shape == of_tensor.shape:
                self._positions[tensor] = of_tensor
        return result

    def lose(self, result: Any) -> None:
        """Note that numbers were made of ids that are none, and that ids are none where they are written."""
        for tensor in tensors_in(result):
            self._lost[tensor] = True

    def note_written(self, target: Any, value: Any) -> None:
        """Note of a part of other integers, which is about to be overwritten, what is known of the value."""
        if not self.inputs or target.dtype not in _INTEGERS:
            return
        memory, written = target.memory, self.find(value)
        if memory is None:
            return
        if inner_of(value) in self._lost:
            memory.positions = None
            self._positions.pop(memory.base, None)  # type: ignore[no-untyped-call]
            return
        if memory.positions is None:
            base = memory.base
            known: Tensor | None = self._positions.get(base)  # type: ignore[no-untyped-call]
            if known is None and written is None:
                return
            known = torch.full_like(base, -1, dtype=torch.int64) if known is None else known
            memory.positions = laid_out(known, base.stride())
        part = memory.positions.as_strided(target.size(), target.stride(), target.offset)
        part.copy_(torch.full_like(part, -1) if written is None else written)

    def _moved(self, call: Call, values: tuple[int, ...]) -> Any:
        """What the call makes of positions; None where they cannot go the same way."""
        places = [self._in_place_of(v) if i in values else inner_of(v) for i, v in enumerate(call.args)]
        try:
            return call.on(places)
        except (RuntimeError, TypeError, IndexError):
            return None

    def _in_place_of(self, value: Any) -> Any:
        return map_leaves(self._position, value)

    def _position(self, value: Any) -> Any:
        """Positions in the place of ids, and -1 in that of other integers, which stand for no element."""
        if isinstance(value, Tensor):
            positions, value = self.find(value), inner_of(value)
            if positions is None and value.dtype == torch.bool:
                return value
            return torch.full_like(value, -1, dtype=torch.int64) if positions is None else positions
        return value if value is None else -1


def _is_table(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
