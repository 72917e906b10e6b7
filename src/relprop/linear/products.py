"""Linear maps that are other products: einsum, experts, layers on products, sparse and complex matrices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Size, Tensor

from relprop.linear.maps import Dense, LinearMap


@dataclass(frozen=True)
class Contraction(LinearMap):
    """An einsum of the input with a constant, or an operation that can be written so, as batched products.

    Attributes:
        x: letters of the input's dimensions.
        w: letters of the weight's dimensions.
        z: letters of the output's dimensions.
    """

    exact_zeros: ClassVar[bool] = True

    x: str
    w: str
    z: str

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum(f"{self.x},{self.w}->{self.z}", x, weight)

    def transpose(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        # An input dimension that neither weight nor output has was summed over: its elements get the same.
        known = "".join(letter for letter in self.x if letter in self.z + self.w)
        back = torch.einsum(f"{self.z},{self.w}->{known}", s, weight)
        for position, letter in enumerate(self.x):
            if letter not in known:
                back = back.unsqueeze(position)
        return back.expand(shape)


@dataclass(frozen=True)
class Grouped(LinearMap):
    """Each group of rows is multiplied by a matrix of its own, as by the experts of a mixture.

    The weight is (groups, in, out), the input (rows, in).

    Attributes:
        ends: index where each group of rows ends. The first group begins at 0. Rows after the last end belong
            to no group, and their output is zero.
    """

    exact_zeros: ClassVar[bool] = True
    alike: ClassVar[bool] = False

    ends: tuple[int, ...]

    def _per_group(self, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply rows by the matrix of their group; weight (groups, columns of x, columns of result)."""
        groups = zip((0, *self.ends), self.ends, weight, strict=False)
        parts = [x[begin:end] @ matrix for begin, end, matrix in groups]
        return torch.cat([*parts, x.new_zeros(len(x) - self.ends[-1], weight.shape[-1])])

    def fits(self, weight: Tensor) -> bool:
        return weight.dim() == 3

    def contributions(self, weight: Tensor) -> int:
        return weight.shape[1]

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._per_group(x, weight)

    def transpose(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        return self._per_group(s, weight.transpose(1, 2))

    def spread(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        return s.sum(-1, keepdim=True).expand(shape)

    def fan_in(self, weight: Tensor, shape: Size) -> Tensor:
        return torch.tensor(float(shape[-1]), dtype=torch.float64)


@dataclass(frozen=True)
class OfProducts(Dense):
    """A matrix product over the last dimension, which has all products of two vectors.

    The weight is (out, one, other), as for `F.bilinear`.
    """

    def fits(self, weight: Tensor) -> bool:
        return weight.dim() == 3

    def contributions(self, weight: Tensor) -> int:
        return weight[0].numel()

    def channels(self, weight: Tensor, shape: Size) -> int | None:
        return None

    def scale_outputs(self, weight: Tensor, factors: Tensor) -> Tensor:
        return weight * factors[:, None, None]

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight.flatten(1).t()

    def transpose(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        return s @ weight.flatten(1)


@dataclass(frozen=True, eq=False)
class Sparse(LinearMap):
    """A sparse matrix times the input (columns, features). Its stored elements are the connections.

    The weight is (stored,), the values of the stored elements.

    Attributes:
        rows: row of each stored element.
        columns: column of each stored element.
        height: number of rows.
    """

    exact_zeros: ClassVar[bool] = True
    alike: ClassVar[bool] = False

    rows: Tensor
    columns: Tensor
    height: int

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._matrix(self.rows, self.columns, weight, (self.height, x.shape[0])) @ x

    def transpose(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        return self._matrix(self.columns, self.rows, weight, (shape[0], self.height)) @ s

    def contributions(self, weight: Tensor) -> int:
        return int(self.rows.bincount().max()) if len(self.rows) else 0

    def fan_in(self, weight: Tensor, shape: Size) -> Tensor:
        return self.rows.bincount(minlength=self.height).to(weight.dtype)[:, None]

    @staticmethod
    def _matrix(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
        indices = torch.stack([rows, columns])
        return torch.sparse_coo_tensor(indices, values, shape, check_invariants=False)


@dataclass(frozen=True)
class OfComplex(LinearMap):
    """A linear map of complex numbers, as a real one of their real and imaginary parts.

    The parts are the last dimension of input and output. The weight a + ib is [[a, -b], [b, a]]: blocks of a
    matrix from the parts of the input to those of the output, (2, 2, *shape).

    Attributes:
        inner: how one block is applied to one part.
    """

    exact_zeros: ClassVar[bool] = True

    inner: LinearMap

    def fits(self, weight: Tensor) -> bool:
        return self.inner.fits(weight[0, 0])

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        parts = x.unbind(-1)
        return torch.stack([self._sum(self.inner.apply, parts, blocks) for blocks in weight.unbind()], -1)

    def transpose(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        def back(part: Tensor, block: Tensor) -> Tensor:
            return self.inner.transpose(part, block, shape[:-1])

        parts = s.unbind(-1)
        return torch.stack([self._sum(back, parts, blocks) for blocks in weight.unbind(1)], -1)

    def contributions(self, weight: Tensor) -> int:
        return 2 * self.inner.contributions(weight[0, 0])

    @staticmethod
    def _sum(function: Callable[[Tensor, Tensor], Tensor], parts: Sequence[Tensor], blocks: Tensor) -> Tensor:
        one, other = (function(part, block) for part, block in zip(parts, blocks.unbind(), strict=True))
        return one + other


def blocks_of(weight: Tensor) -> Tensor:
    """Return a complex weight as the blocks of a real one, for `OfComplex`."""
    a, b = weight.real, weight.imag
    return torch.stack([torch.stack([a, -b]), torch.stack([b, a])])
