"""Operations that rearrange elements: exact, and they do with relevance what they do with values."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.attach import attach_with_slot
from relprop.calls import Call, tensors_in
from relprop.intercept import Entry, Interception
from relprop.linear.numerics import times
from relprop.operations.exact import Exact, as_function
from relprop.operations.folding import moved
from relprop.operations.pointwise import Homogeneous
from relprop.operations.ruled import LinearOrigin, ZeroPadding
from relprop.provenance import empty_slot

_rearranged = Exact(keeps_sign=True, slot="same")
_copied = Homogeneous(copies=True)


def rearranged(run: Interception, call: Call) -> Any:
    """What moves elements: shapes, orders, parts. Of a linear operation's output it may be the whole."""
    return _moving(run, call, _rearranged)


def copied(run: Interception, call: Call) -> Any:
    """clone, contiguous and the like."""
    return _moving(run, call, _copied)


def _moving(run: Interception, call: Call, entry: Entry) -> Any:
    x = call.args[0] if call.args else None
    origin = run.tag(x).origin if isinstance(x, Tensor) and not call.inplace else None
    if not (isinstance(x, Tensor) and isinstance(origin, LinearOrigin) and origin.intact):
        return entry(run, call)
    move, result = as_function(run, call), entry(run, call)
    if isinstance(result, Tensor) and result is not x and result.numel() == x.numel():
        run.set_tag(result, replace(run.tag(result), origin=moved(origin, x, move)))
    return result


def as_other(run: Interception, call: Call) -> Any:
    """view_as and its like, where the other tensor only says a shape or a type."""
    others = [v.detach() if isinstance(v, Tensor) else v for v in call.args[1:]]
    kwargs = {key: v.detach() if isinstance(v, Tensor) else v for key, v in call.kwargs.items()}
    return _rearranged(run, replace(call, args=(call.args[0], *others), kwargs=kwargs))


def join(run: Interception, call: Call) -> Any:
    """cat, stack and their like. What lands on a constant among the parts is absorbed."""
    tensors, *rest = call.args or (call.kwargs["tensors"],)
    dtype = next(t.dtype for t in tensors if run.relevant(t))
    joined = [t if run.relevant(t) else run.source(call.own(t), call.name, dtype) for t in tensors]
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
        result = absorbing(run, result, border, value, "pad")
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
    return absorbing(run, result, mask.expand(result.shape), float(value), "masked_fill")


def where(run: Interception, call: Call) -> Any:
    """torch.where and Tensor.where. What lands on a constant is absorbed."""

    def arguments(condition: Tensor, input: Any, other: Any) -> Any:
        return condition, input, other

    def method(input: Any, condition: Tensor, other: Any) -> Any:
        return condition, input, other

    first = call.args[0] if call.args else call.kwargs["condition"]
    is_function = isinstance(first, Tensor) and first.dtype == torch.bool
    condition, a, b = (arguments if is_function else method)(*call.args, **call.kwargs)
    chosen = replace(call, function=torch.where, args=(condition, a, b), kwargs={}, inplace=False)
    keeps_sign = all(run.relevant(v) or bool((torch.as_tensor(v) >= 0).all()) for v in (a, b))
    result = Exact(keeps_sign=keeps_sign, slot="same")(run, chosen)
    for constant, mask in ((a, condition), (b, ~condition)):
        if not run.relevant(constant):
            result = absorbing(run, result, mask.expand(result.shape), None, "where")
    return result


def with_zeros(run: Interception, call: Call, entry: Exact = _rearranged) -> Any:
    """Rearrangement that fills places with zeros; relevance itself that lands there is absorbed."""
    operands = [t for t in tensors_in((call.args, call.kwargs)) if run.relevant(t)]
    function = as_function(run, call)
    result = entry(run, call)
    if run.tag(result).slot is None:
        return result
    with torch.no_grad():
        filled = function([torch.ones_like(t) for t in operands]) == 0
    return absorbing(run, result, filled, 0.0, call.name)


def absorbing(run: Interception, result: Tensor, mask: Tensor, value: float | None, operation: str) -> Tensor:
    """Report what relevance lands where `mask` is true, on a constant value (None: the result's own)."""
    path, tag, kept = run.modules.path, run.tag(result), run.keep(mask)
    kept_value = run.keep(result)

    def backward(c: Tensor | None, direct: Tensor | None) -> tuple[Tensor | None, ...]:
        on_constant = None
        if c is not None and value != 0:
            on_constant = times(c, kept_value.value if value is None else value)
        for amount in (on_constant, direct):
            if amount is not None:
                run.ledger.add("constant", amount.masked_fill(~kept.value, 0), path, operation)
        return c, direct

    output, slot = attach_with_slot(result.detach().clone(), result, tag.slot, backward)
    run.set_tag(output, replace(tag, slot=slot))
    return output


_COMPLEX = ("view_as_complex", "view_as_real", "real", "imag", "complex", "conj", "resolve_conj")

_FOURIER = (
    *("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_hfft", "fft_ihfft"),
    *("fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2", "fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn"),
)

TABLE: Mapping[str, Entry] = {
    **dict.fromkeys(
        (
            # shape
            *("view", "reshape", "flatten", "unflatten", "ravel"),
            *("squeeze", "unsqueeze", "expand", "broadcast_to"),
            # order
            *("permute", "swapaxes", "movedim", "t", "T", "mT", "flip", "roll", "rot90", "fliplr", "flipud"),
            *("channel_shuffle", "pixel_shuffle", "pixel_unshuffle"),
            # parts and copies
            *("split", "tensor_split", "chunk", "unsafe_chunk", "unsafe_split", "unbind"),
            *("narrow", "select", "getitem", "diagonal", "repeat", "repeat_interleave", "tile"),
            *("gather", "index_select", "take_along_dim"),
            # type and device
            *("to", "type", "float", "double", "half", "bfloat16", "cpu", "cuda"),
        ),
        rearranged,
    ),
    **dict.fromkeys(("view_as", "reshape_as", "expand_as", "type_as"), as_other),
    **dict.fromkeys(("clone", "contiguous", "positive"), copied),
    # Their coefficients are what autograd's gradients are, by real and imaginary part.
    **dict.fromkeys(_COMPLEX, Exact(slot="none")),
    **dict.fromkeys(_FOURIER, Exact(slot="none")),
    "as_strided": Exact(keeps_sign=True),
    **dict.fromkeys(("cat", "stack", "hstack", "vstack"), join),
    **dict.fromkeys(("unfold", "tril", "triu", "max_unpool1d", "max_unpool2d", "max_unpool3d"), with_zeros),
    "where": where,
    "pad": pad,
    "masked_fill": masked_fill,
}
