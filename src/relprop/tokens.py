"""Integer inputs, such as the tokens of a text: followed to the embedding where they are looked up.

What can be explained of an integer is what the model makes of it first: a row of an embedding. Ids are
followed through what only rearranges them (views, slices, a shift to the right): whatever the model does to
them is done to their positions, so that relevance at the embedding comes back to the element of the input
that it belongs to. Positions and types of tokens, and masks, are not explained: they look up parameters.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from relprop.calls import map_leaves, tensors_in

_NO_IDS = re.compile(r"position|token_type|type_id|segment|mask|label|length|index|indices", re.IGNORECASE)
"""Names of integer arguments that say where, of which kind or which, and not what."""

_FOLLOWED = frozenset(
    (
        *(
            "view",
            "reshape",
            "flatten",
            "unflatten",
            "ravel",
            "squeeze",
            "unsqueeze",
            "expand",
            "broadcast_to",
        ),
        *(
            "permute",
            "swapaxes",
            "movedim",
            "t",
            "T",
            "mT",
            "flip",
            "roll",
            "view_as",
            "reshape_as",
            "expand_as",
        ),
        *(
            "split",
            "tensor_split",
            "chunk",
            "unbind",
            "narrow",
            "select",
            "getitem",
            "index_select",
            "gather",
        ),
        *("repeat", "repeat_interleave", "tile", "clone", "contiguous", "detach", "cat", "stack", "pad"),
        *("to", "long", "int", "type", "cpu", "cuda", "clamp", "masked_fill", "where"),
        *("setitem", "copy", "fill", "zero"),
    )
)
"""Operations after which an id is an id still."""

_VALUES: Mapping[str, tuple[int | str, ...]] = MappingProxyType(
    {
        "cat": (0, "tensors"),
        "stack": (0, "tensors"),
        "where": (0, 1, 2, "input", "other"),  # as a function and as a method
        "masked_fill": (0, 2, "value"),
        "pad": (0, 3, "value"),
        "setitem": (0, 2),
        "copy": (0, 1, "src"),
        "fill": (0, 1, "value"),
    }
)
"""Which arguments are values, by position and name, where it is not the first alone; others say where."""

_CONVERTING = frozenset(("to", "long", "int", "type", "cpu", "cuda", "clamp"))
"""Operations that leave every element where it is."""

_LOOKING = frozenset(
    (
        *(
            "eq",
            "ne",
            "__eq__",
            "__ne__",
            "lt",
            "gt",
            "le",
            "ge",
            "equal",
            "any",
            "all",
            "max",
            "min",
            "unique",
        ),
        *(
            "embedding",
            "isin",
            "item",
            "tolist",
            "sum",
            "argmax",
            "is_inference",
            "untyped_storage",
            "data_ptr",
        ),
        *("new_zeros", "new_ones", "new_full", "new_empty", "is_nonzero", "__bool__", "__int__", "nonzero"),
    )
)
"""Operations that look at ids, and leave them what they are."""

_INTEGERS = (torch.int64, torch.int32)


@dataclass(frozen=True)
class Ids:
    """Which elements of integer inputs a tensor consists of.

    Attributes:
        positions: int64 of the tensor's shape: which element each is, counted through all inputs; -1 for what
            is none, as the token that begins a decoder's input. It shares memory as the tensor does.
        versions: of the tensor's memory and that of the positions, which change together.
    """

    positions: Tensor
    versions: tuple[int, int]

    def hold(self, tensor: Tensor) -> bool:
        """Whether nothing was written to the tensor that was not followed."""
        return tensor._version - self.versions[0] == self.positions._version - self.versions[1]


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

    Attributes:
        inputs: them, in order.
    """

    def __init__(self) -> None:
        self._ids: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._values: list[Tensor] = []
        self._count = 0
        self.inputs: list[IdInput] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Note an input."""
        self.inputs.append(IdInput(name, tuple(tensor.shape), self._count))
        positions = torch.arange(self._count, self._count + tensor.numel(), device=tensor.device)
        self._note(tensor, positions.reshape(tensor.shape))
        self._values.append(tensor.flatten().clone())
        self._count += tensor.numel()

    def find(self, tensor: Any) -> Ids | None:
        """What is known of a tensor, if it consists of ids."""
        if not self.inputs or not isinstance(tensor, Tensor):
            return None
        ids: Ids | None = self._ids.get(tensor)  # type: ignore[no-untyped-call]
        return ids if ids is not None and ids.hold(tensor) else None

    def looked_up(self, name: str, args: Any, kwargs: dict[str, Any]) -> Ids | None:
        """The ids that a call looks up in the rows of a table, if it does nothing else."""
        if not self.inputs:
            return None
        if name == "embedding":
            indices = [t for t in tensors_in((args, kwargs)) if self.find(t) is not None]
            index: Any = indices[0] if len(indices) == 1 else None
        elif name == "getitem" and _is_table(args[0]):
            index = args[1]
        elif name == "index_select" and _is_table(args[0]) and len(args) == 3 and args[1] == 0:
            index = args[2]
        else:
            return None
        ids = self.find(index)
        return None if ids is None else self._checked(index, ids)

    def _checked(self, index: Tensor, ids: Ids) -> Ids:
        """The ids, without those whose values are not the inputs' any more, as after writing out of sight."""
        values = torch.cat([values.to(index) for values in self._values])
        same = (ids.positions >= 0) & (values[ids.positions.clamp(min=0)] == index)
        return Ids(torch.where(same, ids.positions, -1), ids.versions)

    def end_in(self, name: str, args: Any, kwargs: dict[str, Any]) -> bool:
        """Whether a call is about to make of ids what is none any more, and could have been meant to be."""
        if not self.inputs or name in _FOLLOWED or name in _LOOKING or name.endswith("_like"):
            return False
        return any(self.find(t) is not None for t in tensors_in((args, kwargs)))

    def follow(self, name: str, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a call, and know of its results what is known of its operands."""
        if not self.inputs or name not in _FOLLOWED:
            return function(*args, **kwargs)
        values = _VALUES.get(name, (0, "input"))
        known = [
            ids
            for place, value in [*enumerate(args), *kwargs.items()]
            if place in values
            for t in tensors_in(value)
            if (ids := self.find(t)) is not None
        ]
        if not known:
            return function(*args, **kwargs)
        written = args[0] if name in ("setitem", "copy", "fill", "zero") else None
        if written is not None:
            self._begin_to_follow(written)
            if name == "zero":
                self._ids[written].positions.fill_(-1)
                return function(*args, **kwargs)
        if name in _CONVERTING:
            result = function(*args, **kwargs)
            if result is not args[0] and result.dtype in _INTEGERS:
                self._note(result, known[0].positions.to(result.device, copy=True))
            return result
        positions = self._moved(function, values, args, kwargs)
        result = function(*args, **kwargs)
        if written is None and positions is not None:
            for tensor, of_tensor in zip(tensors_in(result), tensors_in(positions), strict=False):
                if tensor.dtype in _INTEGERS and tensor.shape == of_tensor.shape:
                    self._note(tensor, of_tensor)
        return result

    def _note(self, tensor: Tensor, positions: Tensor) -> None:
        self._ids[tensor] = Ids(positions, (tensor._version, positions._version))

    def _begin_to_follow(self, target: Tensor) -> None:
        """Give a tensor of other integers, which ids are about to be written to, positions: of no element."""
        if self.find(target) is not None or target.dtype not in _INTEGERS:
            return
        base = target if target._base is None else target._base
        if self.find(base) is None:
            none = torch.empty_strided(base.size(), base.stride(), dtype=torch.int64, device=base.device)
            self._note(base, none.fill_(-1))
        if base is not target:
            whole = self.find(base)
            assert whole is not None
            offset = target.storage_offset() - base.storage_offset()
            self._note(target, whole.positions.as_strided(target.size(), target.stride(), offset))

    def _moved(
        self, function: Callable[..., Any], values: tuple[int | str, ...], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """What the call makes of positions; None where they cannot go the same way."""
        places = [self._in_place_of(v) if i in values else v for i, v in enumerate(args)]
        named = {key: self._in_place_of(v) if key in values else v for key, v in kwargs.items()}
        try:
            return function(*places, **named)
        except (RuntimeError, TypeError, IndexError):
            return None

    def _in_place_of(self, value: Any) -> Any:
        return map_leaves(self._position, value)

    def _position(self, value: Any) -> Any:
        """Positions in the place of ids, and -1 in that of other integers, which stand for no element."""
        if isinstance(value, Tensor) and value.dtype == torch.bool:
            return value
        if isinstance(value, Tensor):
            ids = self.find(value)
            return torch.full_like(value, -1, dtype=torch.int64) if ids is None else ids.positions
        return -1


def _is_table(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
