"""Deformable convolution, as torchvision computes it: samples of the image at shifted positions, and a layer.

y(p) = Σ_k w_k · m_k(p) · x(p + p_k + Δp_k(p)), Dai et al. 2017, Zhu et al. 2019. The shifts Δp are positions,
which get no relevance, and the modulation m is a factor of a product.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.calls.call import Call
from relprop.crossing.exact import Exact
from relprop.crossing.parts import with_own_value
from relprop.engine.interception import Entry
from relprop.engine.run import Run
from relprop.engine.seen import is_relevant, value_of


def deform_conv2d(
    run: Run,
    call: Call,
    x: Any,
    weight: Any,
    offset: Any,
    mask: Any,
    bias: Any,
    *options: Any,
) -> Any:
    """torchvision.ops.deform_conv2d, as its parts."""
    *geometry, groups, offset_groups, use_mask = options
    if not is_relevant(x):
        run.gap(call.name, "only its shifts, its mask or its weight depend on the input")
        return Exact()(run, call)
    samples, channels, *size = x.shape
    kernel, (high, wide) = weight.shape[2:], run.value(call).shape[2:]
    count = kernel.numel()
    shifts = value_of(offset).detach().reshape(samples * offset_groups, count, 2, high, wide)
    grid = _grid(shifts, kernel, size, geometry).reshape(samples * offset_groups, count * high, wide, 2)
    image = run.perform(torch.reshape, x, (samples * offset_groups, channels // offset_groups, *size))
    taken = run.perform(F.grid_sample, image, grid, "bilinear", "zeros", False)
    if use_mask:
        shape = (samples * offset_groups, 1, count * high, wide)
        taken = run.perform(torch.mul, taken, run.perform(torch.reshape, mask, shape))
    columns = run.perform(torch.reshape, taken, (samples, channels * count, high, wide))
    filters = run.perform(torch.reshape, weight, (len(weight), -1, 1, 1))
    return with_own_value(run, call, run.perform(F.conv2d, columns, filters, bias, groups=groups))


def _grid(shifts: Tensor, kernel: torch.Size, size: list[int], geometry: list[int]) -> Tensor:
    """Return where the image is sampled, (N, kernel, high, wide, 2), as `F.grid_sample` takes it."""
    strides, pads, dilations = geometry[:2], geometry[2:4], geometry[4:6]
    places = []
    for axis in (0, 1):
        of_kernel = torch.arange(kernel[axis], device=shifts.device) * dilations[axis]
        of_output = torch.arange(shifts.shape[3 + axis], device=shifts.device) * strides[axis] - pads[axis]
        shape = [1, 1]
        shape[axis] = -1
        of_kernel = of_kernel.view(shape).expand(tuple(kernel)).reshape(-1, 1, 1)
        place = shifts[:, :, axis] + of_kernel + of_output.view(shape)
        places.append((2 * place + 1) / size[axis] - 1)
    return torch.stack(places[::-1], -1)


TABLE: Mapping[str, Entry] = {"torchvision::deform_conv2d": deform_conv2d}
