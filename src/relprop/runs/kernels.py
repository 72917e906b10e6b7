"""Operations that give a part of what their kernel returns, of which a gradient needs the rest."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

aten = torch.ops.aten

KERNELS = {
    aten.max_pool2d.default: aten.max_pool2d_with_indices.default,
    aten.max_pool3d.default: aten.max_pool3d_with_indices.default,
}
"""Operations that give the first result of a kernel alone, and this kernel, which has the same arguments. Its
indices are needed for the gradient, and to compute them again would take as long as the pooling."""


def kernel_of(operation: Any, args: Sequence[Any]) -> Callable[..., Any] | None:
    """Return the kernel that gives more than an operation on these arguments, or None."""
    kernel = KERNELS.get(operation)
    if kernel is None or args[0].is_quantized:  # which has a kernel of its own
        return None
    return kernel
