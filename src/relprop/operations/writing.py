"""Writing to parts of a tensor: each element has the relevance of what was written there last.

What lands on a constant that was written, or on the constant that was written to, is absorbed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.calls import Call, tensors_in
from relprop.intercept import Entry, Interception
from relprop.operations.exact import Exact
from relprop.operations.reshaping import absorbing


@dataclass(frozen=True)
class Written:
    """An operation that overwrites part of its first argument.

    Attributes:
        value: which argument is written: its position, and its name as a keyword; None for zeros.
    """

    value: int | None
    keyword: str = "value"

    def __call__(self, run: Interception, call: Call) -> Any:
        target, value = call.target, self._value(call)
        constant = not run.relevant(value)
        others = [t for t in tensors_in((call.args[1:], call.kwargs)) if run.relevant(t) and t is not value]
        if others:
            run.gap(call.name, "an index that depends on the input is not covered")
        base = target if run.relevant(target) else run.source(target, call.name)
        # Out of place: the copy into the target is left to the run.
        args = (base, *call.args[1:])
        write = _on_a_copy(call.function if call.inplace else None, call.function)
        keeps_sign = not constant or bool((torch.as_tensor(0.0 if value is None else value) >= 0).all())
        rearranged = Exact(keeps_sign=keeps_sign, slot="same")
        result = rearranged(run, Call(call.name, write, args, call.kwargs, False))
        return absorbing(run, result, self._mask(call, write), None, call.name) if constant else result

    def _value(self, call: Call) -> Any:
        if self.value is None:
            return None
        return call.args[self.value] if len(call.args) > self.value else call.kwargs[self.keyword]

    def _mask(self, call: Call, write: Callable[..., Tensor]) -> Tensor:
        """Where the call writes."""

        def filled(number: float) -> Tensor:
            value = self._value(call)
            new = torch.full_like(value, number) if isinstance(value, Tensor) else number
            zeros = torch.zeros_like(call.target)
            if self.value is None:
                return zeros if number else torch.ones_like(zeros)
            if len(call.args) > self.value:
                args = [*call.args]
                args[self.value] = new
                return write(zeros, *args[1:], **call.kwargs)
            return write(zeros, *call.args[1:], **{**call.kwargs, self.keyword: new})

        with torch.no_grad():
            return filled(1.0) != filled(0.0)


def _on_a_copy(inplace: Callable[..., Any] | None, function: Callable[..., Any]) -> Callable[..., Tensor]:
    """The function, which may work in place, out of place."""

    def run(target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if inplace is None:
            result: Tensor = function(target, *args, **kwargs)
            return result
        copy = target.clone()
        inplace(copy, *args, **kwargs)
        return copy

    return run


_added = Exact(slot="share")

TABLE: Mapping[str, Entry] = {
    "setitem": Written(2),
    "copy": Written(1, "src"),
    "fill": Written(1),
    "zero": Written(None),
    "index_put": Written(2, "values"),
    "index_copy": Written(3, "source"),
    "index_fill": Written(3),
    "scatter": Written(3, "src"),
    "masked_scatter": Written(2, "source"),
    "index_add": _added,
    "scatter_add": _added,
}
