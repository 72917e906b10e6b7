"""A linear operation as a matrix, for a second implementation of a rule: slow, and easy to read."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class DenseLayer:
    """One linear operation on one sample, z_j = Σ_i x_i w_ij + b_j.

    Attributes:
        x: inputs, (in,).
        w: weights, (in, out); zero where an input is not connected to an output.
        b: biases, (out,).
        connected: whether an input is connected to an output, whatever its weight, (in, out) bool.
    """

    x: Tensor
    w: Tensor
    b: Tensor
    connected: Tensor

    @property
    def z(self) -> Tensor:
        """Outputs, (out,)."""
        return self.x @ self.w + self.b


Formula = Callable[[DenseLayer, Tensor], Tensor]
"""A rule as a paper writes it: from a layer and the relevance of its outputs to that of its inputs."""


def dense_layer(
    function: Callable[[Tensor], Tensor], all_ones: Callable[[Tensor], Tensor], x: Tensor
) -> DenseLayer:
    """Return an affine function as a dense layer, for one sample.

    Args:
        function: from (1, *shape) to outputs.
        all_ones: the function with all weights one and no bias.
        x: the sample, of any shape.
    """

    def flat(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda v: f(v.reshape(1, *x.shape)).flatten()

    def jacobian(f: Callable[[Tensor], Tensor]) -> Tensor:
        matrix: Tensor = torch.func.jacrev(flat(f))(torch.zeros_like(x.flatten()))
        return matrix.T

    with torch.no_grad():
        b = flat(function)(torch.zeros_like(x.flatten()))
    return DenseLayer(x.flatten(), jacobian(function), b, jacobian(all_ones) != 0)
