"""What an explanation calls, in order: operations, numbers, and tensors that were there before."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from relprop.calls.nested import tensors_in
from relprop.engine.mode import DispatchMode
from relprop.engine.seen import Seen
from relprop.runs.storages import place_of

aten = torch.ops.aten


class Trail(DispatchMode):  # type: ignore[no-untyped-call]
    """Notes all calls of torch's operations.

    Attributes:
        program: the operations.
        operands: their arguments, one after the other: None for a tensor that comes from the inputs or from
            an earlier call, where another tensor lies, and everything else as it is.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.program: list[Any] = []
        self.operands: list[Any] = []
        self._made = {place_of(t) for t in inputs}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.program.append(func)
        if Seen in types:  # a part of the model runs again in the backward
            return func(*args, **kwargs)
        before: set[int] = set()
        if func is aten.lift_fresh.default:  # a new tensor, whose values the model wrote in Python
            self.operands.append(repr(args[0].tolist()))
        else:
            self._note((args, kwargs), before)
        result = func(*args, **kwargs)
        self._made |= {place_of(t) for t in tensors_in(result)} - before
        return result

    def _note(self, value: Any, before: set[int]) -> None:
        """Note an operand, and where tensors lie that were there before."""
        if isinstance(value, Tensor):
            place = place_of(value)
            if place in self._made:
                self.operands.append(None)
            else:
                self.operands.append((place, value.storage_offset()))
                before.add(place)
        elif isinstance(value, (list, tuple)):
            self.operands.append(len(value))
            for each in value:
                self._note(each, before)
        elif isinstance(value, dict):
            for name, each in value.items():
                self.operands.append(name)
                self._note(each, before)
        else:
            self.operands.append(value)
