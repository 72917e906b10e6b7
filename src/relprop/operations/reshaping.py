"""Operations that rearrange elements: exact, and they do with relevance what they do with values."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from relprop.attach import attach_with_slot
from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.linear_operations import times
from relprop.operations.exact import Exact
from relprop.operations.linear import ZeroPadding
from relprop.provenance import empty_slot

_rearranged = Exact(keeps_sign=True, slot="same")


def join(run: Interception, call: Call) -> Any:
    """cat, stack and their like. What lands on a constant among the parts is absorbed."""
    tensors, *rest = call.args or (call.kwargs["tensors"],)
    dtype = next(t.dtype for t in tensors if run.relevant(t))
    joined = [t if run.relevant(t) else run.source(t.to(dtype), call.name) for t in tensors]
    kwargs = {key: value for key, value in call.kwargs.items() if key != "tensors"}
    return Exact(keeps_sign=True, slot="same")(run, replace(call, args=(joined, *rest), kwargs=kwargs))


def pad(run: Interception, call: Call) -> Any:
    """F.pad in every mode. Relevance that lands on a constant border is absorbed."""

    def arguments(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
        return input, tuple(pad), mode, value or 0.0

    x, pads, mode, value = arguments(*call.args, **call.kwargs)
    result = Exact(keeps_sign=value >= 0, slot="same")(run, call)
    if mode != "constant":
        return result
    if value != 0 or run.tag(result).slot is not None:
        border = F.pad(empty_slot(x.detach()), pads, value=1.0) != 0
        result = _absorbing(run, result, border, value, "pad")
    if value == 0:
        padding = ZeroPadding(x=x, version=x._version, pads=pads)
        run.set_tag(result, replace(run.tag(result), origin=padding))
    return result


def masked_fill(run: Interception, call: Call) -> Any:
    """masked_fill with a number. Relevance that lands on it is absorbed."""

    def arguments(input: Tensor, mask: Tensor, value: Any) -> Any:
        return mask, value

    mask, value = arguments(*call.args, **call.kwargs)
    if run.relevant(value):
        run.gap("masked_fill", "the value depends on the input")
        return Exact(slot="share")(run, call)
    result = Exact(keeps_sign=float(value) >= 0, slot="same")(run, call)
    return _absorbing(run, result, mask.expand(result.shape), float(value), "masked_fill")


def _absorbing(run: Interception, result: Tensor, mask: Tensor, value: float, operation: str) -> Tensor:
    """Report what relevance lands where `mask` is true, on a constant value."""
    path, tag, kept = run.modules.path, run.tag(result), run.keep(mask)

    def backward(c: Tensor | None, direct: Tensor | None) -> tuple[Tensor | None, ...]:
        for amount in (None if c is None or value == 0 else times(c, value), direct):
            if amount is not None:
                run.ledger.add("constant", amount.masked_fill(~kept.value, 0), path, operation)
        return c, direct

    output, slot = attach_with_slot(result.detach().clone(), result, tag.slot, backward)
    run.set_tag(output, replace(tag, slot=slot))
    return output


TABLE: Mapping[str, Entry] = {
    **dict.fromkeys(
        (
            # shape
            *("view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "ravel"),
            *("squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to"),
            # order
            *("permute", "swapaxes", "movedim", "t", "T", "mT", "flip", "roll", "contiguous", "clone"),
            # parts
            *("split", "chunk", "unbind", "narrow", "select", "getitem"),
            *("gather", "index_select", "take_along_dim"),
            # type and device
            *("to", "type", "type_as", "float", "double", "half", "bfloat16", "cpu", "cuda", "positive"),
        ),
        _rearranged,
    ),
    **dict.fromkeys(("cat", "stack", "hstack", "vstack"), join),
    "pad": pad,
    "masked_fill": masked_fill,
}
