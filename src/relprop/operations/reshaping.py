"""Operations that rearrange elements: exact, and they do with relevance what they do with values."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.operations.exact import Exact
from relprop.operations.linear import ZeroPadding
from relprop.provenance import empty_slot

_rearranged = Exact(keeps_sign=True, slot="same")


def join(run: Interception, call: Call) -> Any:
    """cat, stack and their like. What lands on a constant among the parts is absorbed."""
    tensors, *rest = call.args or (call.kwargs["tensors"],)
    joined = [t if run.relevant(t) else run.source(t, call.name) for t in tensors]
    kwargs = {key: value for key, value in call.kwargs.items() if key != "tensors"}
    return Exact(keeps_sign=True, slot="same")(run, replace(call, args=(joined, *rest), kwargs=kwargs))


def pad(run: Interception, call: Call) -> Any:
    """F.pad in every mode.

    Relevance that lands on a constant border is absorbed; on zeros, only slots can put any.
    """

    def arguments(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
        return input, tuple(pad), mode, value or 0.0

    x, pads, mode, value = arguments(*call.args, **call.kwargs)
    result = Exact(keeps_sign=value >= 0, slot="same")(run, call)
    tag = run.tag(result)
    if mode != "constant":
        return result
    if value == 0 and tag.slot is None:
        run.set_tag(result, replace(tag, origin=ZeroPadding(x=x, version=x._version, pads=pads)))
        return result
    path, border = run.modules.path, F.pad(empty_slot(x.detach()), pads, value=1.0)

    def backward(c: Tensor | None, direct: Tensor | None = None) -> tuple[Tensor | None, ...]:
        for on_border in (None if c is None else c * value, direct):
            if on_border is not None:
                run.ledger.add("constant", on_border * border, path, "pad")
        return (c,) if tag.slot is None else (c, direct)

    if tag.slot is None:
        (output,) = run.attach([result.detach()], [result], backward)
        run.set_tag(output, tag)
        return output
    output, slot = run.attach([result.detach(), empty_slot(result)], [result, tag.slot], backward)
    origin = ZeroPadding(x=x, version=x._version, pads=pads) if value == 0 else None
    run.set_tag(output, replace(tag, slot=slot, origin=origin))
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
}
