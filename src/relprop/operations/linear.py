"""Linear operations, to which the rules of a composite apply."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.calls.call import Call
from relprop.calls.site import Kind
from relprop.calls.traced import listed
from relprop.crossing.padding import with_padding
from relprop.crossing.parts import plus, with_own_value
from relprop.crossing.ruled import plain, start
from relprop.engine.interception import Entry
from relprop.engine.run import Run
from relprop.engine.seen import is_relevant
from relprop.linear.maps import Convolution, Dense
from relprop.linear.products import Grouped
from relprop.operations.products import contracted


def linear(run: Run, call: Call, x: Any, weight: Tensor, bias: Tensor | None) -> Any:
    """x @ weightᵀ + bias. A vector x is a single row. If the weight depends on the input, it is a product."""
    if is_relevant(weight) or is_relevant(bias):
        matrix = run.perform(torch.transpose, weight, 0, 1) if weight.dim() > 1 else weight
        product = run.perform(torch.matmul, x, matrix)
        return with_own_value(run, call, product if bias is None else run.perform(torch.add, product, bias))
    if x.dim() == 1 and weight.dim() == 2:
        return run.perform(lambda: F.linear(x.unsqueeze(0), weight, bias).squeeze(0))
    return start(run, call, Kind.DENSE, x, weight, bias, Dense())


def addmm(run: Run, call: Call, bias: Any, x: Any, weight: Any, beta: Any, alpha: Any) -> Any:
    """beta·bias + alpha·x @ weight: a dense layer, or written out as its parts."""
    a_layer = bias.dim() == 1 and beta == 1 and alpha == 1
    if a_layer and is_relevant(x) and not is_relevant(weight) and not is_relevant(bias):
        weight, map_ = as_held(weight)
        return start(run, call, Kind.DENSE, x, weight, bias, map_)
    return plus(torch.mm)(run, call, bias, x, weight, beta, alpha)


def as_held(weight: Any) -> tuple[Any, Dense]:
    """Return a matrix (in, out) as the model holds it, possibly transposed, and the map that applies it."""
    base = weight._base
    same = base is not None and base.dim() == 2 and base.storage_offset() == weight.storage_offset()
    if same and base.shape == weight.shape and base.stride() == weight.stride():
        return base, Dense(transposed=True)
    if same and base.shape == weight.shape[::-1] and base.stride() == weight.stride()[::-1]:
        return base, Dense()
    return weight, Dense(transposed=True)


def grouped_mm(run: Run, call: Call, x: Any, weight: Any, ends: Any, bias: Any, _dtype: Any) -> Any:
    """F.grouped_mm(x, weight, offs=...): rows of x times the matrix of their group, as in experts."""
    if x.dim() != 2 or weight.dim() != 3 or ends is None or bias is not None:
        run.gap(call.name, "only rows (rows, in) times weights (groups, in, out) without bias are covered")
        return plain(run, call)
    return start(run, call, Kind.DENSE, x, weight, None, Grouped(tuple(listed(ends))))


def convolution(
    run: Run,
    call: Call,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    *_options: Any,
) -> Any:
    """Convolution of any dimension, transposed or not."""
    dimensions = weight.dim() - 2
    if is_relevant(weight) or is_relevant(bias):
        return _of_activations(run, call, convolution)
    map_ = Convolution(
        stride=_tuple(stride, dimensions),
        padding=_tuple(padding, dimensions),
        dilation=_tuple(dilation, dimensions),
        transposed=transposed,
        output_padding=_tuple(output_padding, dimensions),
        groups=groups,
        kernel=tuple(weight.shape[2:]),
    )
    root = None
    if is_relevant(x) and not transposed and not x.is_complex():
        root, map_ = with_padding(run, x.tag.origin, map_)
    return start(run, call, Kind.CONVOLUTION, x, weight, bias, map_, root=root)


def _of_activations(run: Run, call: Call, entry: Entry) -> Any:
    """A convolution whose weight or bias depends on the input, as its parts."""
    x, weight, bias, *rest = call.args
    alone = Call(call.signature, [x, weight, None, *rest])
    if is_relevant(weight):
        product = contracted(run, alone, [x, weight])
    elif is_relevant(x):
        product = entry(run, alone, *alone.args)
    else:
        product = run.seen(run.value(alone), None)
    if bias is None:
        return product
    shift = run.perform(torch.reshape, bias, (-1, *[1] * (weight.dim() - 2)))
    return with_own_value(run, call, run.perform(torch.add, product, shift))


def simple_convolution(
    run: Run,
    call: Call,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Any,
    dilation: Sequence[int],
    groups: int,
) -> Any:
    """Convolution as models call it. Torch decomposes it if the padding is a word or the input one sample."""
    if isinstance(padding, str) or x.dim() != weight.dim():
        return NotImplemented
    if is_relevant(weight) or is_relevant(bias):
        return _of_activations(run, call, simple_convolution)
    none = (0,) * (weight.dim() - 2)
    return convolution(run, call, x, weight, bias, stride, padding, dilation, False, none, groups)


def _tuple(values: Sequence[int], dimensions: int) -> tuple[int, ...]:
    return tuple(values) * dimensions if len(values) == 1 else tuple(values)


TABLE: Mapping[str, Entry] = {
    "linear": linear,
    "addmm": addmm,
    "_grouped_mm": grouped_mm,
    "convolution": convolution,
    "_convolution": convolution,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), simple_convolution),
}
