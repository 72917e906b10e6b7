"""Operations that rearrange elements: exact, and they do with relevance what they do with values."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from relprop.intercept import Call, Entry, Interception
from relprop.operations.entries import Exact

_rearranged = Exact(keeps_sign=True, slot="same")


def pad(run: Interception, call: Call) -> Any:
    """F.pad in every mode. Relevance that lands on a constant other than zero is absorbed."""

    def arguments(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Any:  # noqa: A002
        return input, pad, mode, value or 0.0

    x, pads, mode, value = arguments(*call.args, **call.kwargs)
    result = Exact(keeps_sign=value >= 0, slot="same")(run, call)
    if mode != "constant" or value == 0:
        return result
    path, tag = run.modules.path, run.tag(result)
    border = F.pad(x.new_zeros(()).expand(x.shape), pads, value=value)

    def backward(c: Tensor) -> tuple[Tensor]:
        run.ledger.add("constant", c * border, path, "pad")
        return (c,)

    (output,) = run.attach([result.detach()], [result], backward)
    run.set_tag(output, tag)
    return output


TABLE: Mapping[str, Entry] = {
    **dict.fromkeys(
        # shape
        ["view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze"]
        + ["expand", "expand_as", "broadcast_to"]
        # order
        + ["permute", "swapaxes", "movedim", "t", "T", "mT", "flip", "roll", "contiguous", "clone"]
        # parts
        + ["cat", "stack", "hstack", "vstack", "split", "chunk", "unbind", "narrow", "select", "getitem"]
        # type and device
        + ["to", "type", "type_as", "float", "double", "half", "bfloat16", "cpu", "cuda", "positive"],
        _rearranged,
    ),
    "pad": pad,
}
