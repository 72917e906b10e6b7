"""Linear operations: where the rules of a composite apply."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.linear.maps import Convolution, Dense
from relprop.linear.products import Grouped
from relprop.operations.ruled import ZeroPadding, plain, start
from relprop.provenance import Watch

Numbers = int | tuple[int, ...]


def linear(run: Interception, call: Call) -> Any:
    """F.linear(x, weight, bias)."""

    def arguments(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        return input, weight, bias

    x, weight, bias = arguments(*call.args, **call.kwargs)
    return start(run, call, "dense", x, weight, bias, Dense())


def addmm(run: Interception, call: Call) -> Any:
    """Sum bias + x @ weight with a constant matrix."""

    def arguments(input: Tensor, mat1: Tensor, mat2: Tensor, beta: float = 1, alpha: float = 1) -> Any:
        return input, mat1, mat2, beta, alpha

    bias, x, weight, beta, alpha = arguments(*call.args, **call.kwargs)
    if (beta, alpha) != (1, 1) or bias.dim() != 1 or run.relevant(bias):
        run.gap("addmm", "only a constant bias of shape (out,) and alpha = beta = 1 are covered")
        return plain(run, call, [t for t in (bias, x, weight) if run.relevant(t)])
    return start(run, call, "dense", x, weight, bias, Dense(transposed=True))


def grouped_mm(run: Interception, call: Call) -> Any:
    """F.grouped_mm(x, weight, offs=...): rows of x times the matrix of their group, as of experts."""

    def arguments(
        mat_a: Tensor,
        mat_b: Tensor,
        offs: Tensor | None = None,
        bias: Tensor | None = None,
        out_dtype: Any = None,
    ) -> Any:
        return mat_a, mat_b, offs, bias

    x, weight, ends, bias = arguments(*call.args, **call.kwargs)
    if x.dim() != 2 or weight.dim() != 3 or ends is None or bias is not None:
        run.gap(call.name, "only rows (rows, in) times weights (groups, in, out) without bias are covered")
        return plain(run, call, [t for t in (x, weight, bias) if run.relevant(t)])
    return start(run, call, "dense", x, weight, None, Grouped(tuple(ends.tolist())))


def convolution(dimensions: int) -> Entry:
    """conv1d, conv2d, conv3d."""

    def arguments(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Numbers = 1,
        padding: Numbers | str = 0,
        dilation: Numbers = 1,
        groups: int = 1,
    ) -> Any:
        return input, weight, bias, stride, padding, dilation, groups

    def entry(run: Interception, call: Call) -> Any:
        x, weight, bias, stride, padding, dilation, groups = arguments(*call.args, **call.kwargs)
        kernel, dilation = tuple(weight.shape[2:]), _tuple(dilation, dimensions)
        pads: tuple[int, ...] = ()
        if padding == "same":
            totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
            padding = tuple(total // 2 for total in totals)
            if any(total % 2 for total in totals):
                # torch pads one more at the end; F.pad counts dimensions from the last.
                pads = tuple(pad for total in reversed(totals) for pad in (0, total % 2))
        padding = 0 if padding == "valid" else padding
        before = run.tag(x).origin
        watches: tuple[Watch, ...] = ()
        if (
            isinstance(before, ZeroPadding)
            and before.intact
            and len(before.pads) <= 2 * dimensions
            and not pads
        ):
            x, pads = before.x, before.pads
            watches = tuple(_of_padded(watch, pads) for watch in before.watches)
        map_ = Convolution(
            stride=_tuple(stride, dimensions),
            padding=_tuple(padding, dimensions),
            dilation=dilation,
            transposed=False,
            output_padding=(0,) * dimensions,
            groups=groups,
            kernel=kernel,
            pads=pads,
        )
        return start(run, call, "convolution", x, weight, bias, map_, watches)

    return entry


def _of_padded(watch: Watch, pads: tuple[int, ...]) -> Watch:
    """The watch of a padded value, for what comes to the value without its padding."""
    crop = [-pad for pad in pads]

    def watches(c: Tensor | None, direct: Tensor | None, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        padded = [None if t is None else F.pad(t, pads) for t in (c, direct)]
        c, direct = watch(padded[0], padded[1], F.pad(x, pads))
        return None if c is None else F.pad(c, crop), None if direct is None else F.pad(direct, crop)

    return watches


def transposed_convolution(dimensions: int) -> Entry:
    """conv_transpose1d, conv_transpose2d, conv_transpose3d."""

    def arguments(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Numbers = 1,
        padding: Numbers = 0,
        output_padding: Numbers = 0,
        groups: int = 1,
        dilation: Numbers = 1,
    ) -> Any:
        return input, weight, bias, stride, padding, output_padding, groups, dilation

    def entry(run: Interception, call: Call) -> Any:
        x, weight, bias, stride, padding, output_padding, groups, dilation = arguments(
            *call.args, **call.kwargs
        )
        map_ = Convolution(
            stride=_tuple(stride, dimensions),
            padding=_tuple(padding, dimensions),
            dilation=_tuple(dilation, dimensions),
            transposed=True,
            output_padding=_tuple(output_padding, dimensions),
            groups=groups,
            kernel=tuple(weight.shape[2:]),
        )
        return start(run, call, "convolution", x, weight, bias, map_)

    return entry


def _tuple(value: Numbers, dimensions: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dimensions if len(values) == 1 else values


TABLE: Mapping[str, Entry] = {
    "linear": linear,
    "addmm": addmm,
    "_grouped_mm": grouped_mm,
    "grouped_mm": grouped_mm,
    **{f"conv{n}d": convolution(n) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": transposed_convolution(n) for n in (1, 2, 3)},
}
