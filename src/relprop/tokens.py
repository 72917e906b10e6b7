"""Integer inputs, such as the tokens of a text: followed to the embedding where they are looked up.

What can be explained of an integer is what the model makes of it first: a row of an embedding. Ids are
followed through what only rearranges them (views, slices, a shift to the right), so that relevance at the
embedding comes back to the element of the input that it belongs to. Positions and types of tokens, and masks,
are not explained: what they look up are parameters.
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
        *("to", "long", "int", "type", "cpu", "cuda", "masked_fill", "where", "setitem", "copy", "clamp"),
    )
)
"""Operations after which an id is an id still."""

_VALUES: Mapping[str, tuple[int | str, ...]] = MappingProxyType(
    {
        "cat": (0, "tensors"),
        "stack": (0, "tensors"),
        "where": (0, 1, 2, "input", "other"),  # as a function and as a method
        "masked_fill": (2, "value"),
        "pad": (3, "value"),
        "setitem": (2,),
        "copy": (1, "src"),
    }
)
"""Which arguments of these are values among which ids may be, by position and name."""

_LOOKING_UP = frozenset(("embedding", "getitem", "index_select"))

_WRITING = frozenset(("setitem", "copy"))

_CONVERTING = frozenset(("to", "long", "int", "type", "cpu", "cuda", "clamp"))
"""Of these, operations that leave every element where it is."""


@dataclass(frozen=True)
class Ids:
    """Which elements of an integer input a tensor consists of.

    Attributes:
        name: of the argument.
        positions: int64 of the tensor's shape: which element of the input each is, counted through; -1 for
            what is none, as the token that begins a decoder's input.
    """

    name: str
    positions: Tensor


def may_be_ids(name: str, value: Any) -> bool:
    """Whether an argument is a tensor of integers that may be explained."""
    return (
        isinstance(value, Tensor)
        and value.dtype in (torch.int64, torch.int32)
        and value.dim() > 0
        and not _NO_IDS.search(name)
    )


class TokenIds:
    """The integer inputs of a run, and what became of them."""

    def __init__(self) -> None:
        self._ids: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._shapes: dict[str, tuple[int, ...]] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Note an input."""
        self._shapes[name] = tuple(tensor.shape)
        positions = torch.arange(tensor.numel(), device=tensor.device).reshape(tensor.shape)
        self._ids[tensor] = Ids(name, positions)

    def find(self, tensor: Any) -> Ids | None:
        """What is known of a tensor, if it consists of ids."""
        return self._ids.get(tensor) if len(self._ids) and isinstance(tensor, Tensor) else None  # type: ignore[no-untyped-call]

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of an input."""
        return self._shapes[name]

    def looked_up(self, name: str, args: Any, kwargs: dict[str, Any]) -> Ids | None:
        """The ids that a call looks up in a table, if it does nothing else."""
        if not self._shapes or name not in _LOOKING_UP:
            return None
        tensors = list(tensors_in((args, kwargs)))
        tables, indices = [t for t in tensors if t.is_floating_point()], [self.find(t) for t in tensors]
        found = [ids for ids in indices if ids is not None]
        return found[0] if len(tables) == len(found) == 1 and len(tensors) == 2 else None

    def follow(self, name: str, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a call, and know of its results what is known of its operands."""
        known = next((ids for t in tensors_in((args, kwargs)) if (ids := self.find(t)) is not None), None)
        looks_up = any(t.is_floating_point() for t in tensors_in((args, kwargs)))
        if known is None or looks_up or name not in _FOLLOWED:
            return function(*args, **kwargs)
        written = args[0] if name in _WRITING else None
        positions = known.positions if name in _CONVERTING else self._positions(name, function, args, kwargs)
        result = function(*args, **kwargs)
        for tensor, of_tensor in zip(
            [written] if written is not None else tensors_in(result), tensors_in(positions), strict=False
        ):
            if tensor.dtype in (torch.int64, torch.int32) and tensor.shape == of_tensor.shape:
                self._ids[tensor] = Ids(known.name, of_tensor)
        return result

    def _positions(self, name: str, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """What the call makes of positions."""
        values = _VALUES.get(name, ())
        args, kwargs = tuple(args), dict(kwargs)
        places = [
            map_leaves(self._position if i not in values else self._position_or_none, value)
            for i, value in enumerate(args)
        ]
        named = {
            key: map_leaves(self._position if key not in values else self._position_or_none, value)
            for key, value in kwargs.items()
        }
        if name not in _WRITING:
            return function(*places, **named)
        before = self.find(args[0])
        target = (
            torch.full_like(args[0], -1, dtype=torch.int64) if before is None else before.positions.clone()
        )
        function(target, *places[1:], **named)
        return target

    def _position(self, value: Any) -> Any:
        """Positions in the place of ids; indices and sizes as they are."""
        ids = self.find(value)
        return value if ids is None else ids.positions

    def _position_or_none(self, value: Any) -> Any:
        """Positions in the place of ids, and -1 in that of other integers, which stand for no element."""
        if isinstance(value, Tensor) and value.dtype == torch.bool:
            return value
        if isinstance(value, Tensor):
            ids = self.find(value)
            return torch.full_like(value, -1, dtype=torch.int64) if ids is None else ids.positions
        return -1
