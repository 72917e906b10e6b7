"""Linear maps: one interface by which a rule uses a linear operation of any kind.

A map applies a weight, and the transpose of a weight. It does not hold the weight, because rules apply
modified weights. `spread` and `fan_in` use the map with all weights one. A convolution computes them at the
price of one channel.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Size, Tensor


class LinearMap(ABC):
    """The bias-free linear map x ↦ L_w(x) of a kind of operation.

    A subclass must define `apply`. The transpose follows from it by autograd. A subclass overrides a method
    where there is a faster way. A map is a frozen dataclass, because caches compare maps.

    Attributes:
        folds: whether scales and shifts of the outputs can be folded into weight and bias. Such a map defines
            `outputs`, `align_bias`, `scale_inputs` and `scale_outputs`.
        alike: whether all samples, or rows, have the same weights.
        by_rows: whether the map acts on the last dimension alone, so on each row by itself.
        exact_zeros: whether an output without contributions is exactly zero, and a sum of non-negative terms
            is precise. This holds for products and convolutions. A Fourier transform rounds.
    """

    folds: ClassVar[bool] = False
    exact_zeros: ClassVar[bool] = False
    alike: ClassVar[bool] = True
    by_rows: ClassVar[bool] = False

    @abstractmethod
    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return L_w(x)."""

    def transpose(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        """Return T_w(s), the gradient of Σ L_w(x)·s with respect to an input x of this shape."""
        with torch.enable_grad():
            x = s.new_zeros(shape, requires_grad=True)
            output = self.apply(x, weight)
        return torch.autograd.grad(output, x, s.contiguous())[0]  # some of torch's kernels need contiguous s

    def transpose_both(self, s: Tensor, one: Tensor, other: Tensor, shape: Size) -> tuple[Tensor, Tensor]:
        """Return T_one(s) and T_other(s)."""
        return self.transpose(s, one, shape), self.transpose(s, other, shape)

    def spread(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        """Return T_1(s), the transpose with all weights one, for an input of this shape."""
        return self.transpose(s, torch.ones_like(weight), shape)

    def fan_in(self, weight: Tensor, shape: Size) -> Tensor:
        """Return L_1(1): the number of inputs of each output. The result broadcasts against the output."""
        samples = 1 if self.alike else shape[0]
        return self.apply(weight.new_ones(samples, *shape[1:]), torch.ones_like(weight))

    def fits(self, weight: Tensor) -> bool:
        """Whether a weight of this shape can be applied."""
        return True

    def contributions(self, weight: Tensor) -> int:
        """Return the largest number of inputs that an output has."""
        return weight.numel()

    def outputs(self, weight: Tensor) -> int:
        """Return the number of outputs, or output channels, of the weight."""
        raise NotImplementedError(f"nothing is folded into {type(self).__name__}")

    def align_bias(self, bias: Tensor) -> Tensor:
        """Return a bias, (out,) or of the output's own shape, shaped for broadcasting against the output."""
        return bias

    def channels(self, weight: Tensor, shape: Size) -> int | None:
        """Return the number of input channels, or None if they are not in dimension 1 of the input."""
        return None

    def scale_inputs(self, weight: Tensor, factors: Tensor) -> Tensor:
        """Return w' with L_w'(x) = L_w(x·factors); `factors` has one number for each input channel."""
        raise NotImplementedError

    def scale_outputs(self, weight: Tensor, factors: Tensor) -> Tensor:
        """Return w' with L_w'(x) = L_w(x)·factors; `factors` has one number for each output, (out,)."""
        raise NotImplementedError

    def align_input(self, value: Tensor, shape: Size) -> Tensor:
        """Return a constant given by the user as a tensor of a sample's shape, (1, *shape[1:]).

        Where samples differ in their weights (`alike` is false), the result has the input's shape.

        Args:
            value: a number, a value per channel, or one per element of a sample.
            shape: shape of the input, samples first.

        Raises:
            ValueError: the value has none of these shapes.
        """
        return expanded(value, Size([1, *shape[1:]]) if self.alike else shape)


def _by_rows(x: Tensor, matrix: Tensor) -> Tensor:
    """Return x @ matrix, as one product of all rows: torch makes many of a tensor that is not contiguous."""
    if x.dim() <= 2:
        return x @ matrix
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[1])


@dataclass(frozen=True)
class Dense(LinearMap):
    """A matrix product over the last dimension.

    The weight is (out, in), as for `F.linear`. If `transposed`, it is (in, out), as for x @ weight.
    """

    folds: ClassVar[bool] = True
    exact_zeros: ClassVar[bool] = True
    by_rows: ClassVar[bool] = True

    transposed: bool = False

    def fits(self, weight: Tensor) -> bool:
        return weight.dim() == 2

    def contributions(self, weight: Tensor) -> int:
        return weight.shape[0 if self.transposed else 1]

    def channels(self, weight: Tensor, shape: Size) -> int | None:
        return weight.shape[0 if self.transposed else 1] if len(shape) == 2 else None

    def scale_inputs(self, weight: Tensor, factors: Tensor) -> Tensor:
        return weight * (factors[:, None] if self.transposed else factors)

    def scale_outputs(self, weight: Tensor, factors: Tensor) -> Tensor:
        return weight * (factors if self.transposed else factors[:, None])

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return _by_rows(x, weight if self.transposed else weight.t())

    def transpose(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        return _by_rows(s, weight.t() if self.transposed else weight)

    def spread(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        return s.sum(-1, keepdim=True).expand(shape)

    def fan_in(self, weight: Tensor, shape: Size) -> Tensor:
        return torch.tensor(float(shape[-1]), dtype=torch.float64)

    def outputs(self, weight: Tensor) -> int:
        return weight.shape[1 if self.transposed else 0]

    def align_input(self, value: Tensor, shape: Size) -> Tensor:
        sample = Size([1, *shape[1:]])
        if value.dim() > 1 and value.numel() == prod(shape[1:]):
            return value.reshape(sample)  # an image's bounds, for pixels that the model has flattened
        return expanded(value, sample)


@dataclass(frozen=True)
class Convolution(LinearMap):
    """Convolution and transposed convolution of any dimension, grouped and depthwise too.

    The weight is (out, in/groups, *kernel), or (in, out/groups, *kernel) if `transposed`. The input is
    (N, in, *space). `pads` are zeros added around the input beforehand, in the order of `F.pad`. Unlike
    `padding`, they may differ between the two sides of a dimension.
    """

    folds: ClassVar[bool] = True
    exact_zeros: ClassVar[bool] = True

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int
    kernel: tuple[int, ...]
    pads: tuple[int, ...] = ()

    def contributions(self, weight: Tensor) -> int:
        channels = len(weight) // self.groups if self.transposed else weight.shape[1]
        return channels * prod(self.kernel)

    def channels(self, weight: Tensor, shape: Size) -> int | None:
        return shape[1]

    def scale_inputs(self, weight: Tensor, factors: Tensor) -> Tensor:
        if self.transposed:
            return weight * _beside(factors, weight)
        # An output uses the input channels of its own group.
        per_output = factors.reshape(self.groups, 1, -1).expand(-1, len(weight) // self.groups, -1)
        return weight * _beside(per_output.reshape(weight.shape[:2]), weight)

    def scale_outputs(self, weight: Tensor, factors: Tensor) -> Tensor:
        if not self.transposed:
            return weight * _beside(factors, weight)
        per_input = factors.reshape(self.groups, 1, -1).expand(-1, len(weight) // self.groups, -1)
        return weight * _beside(per_input.reshape(weight.shape[:2]), weight)

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._apply(x, weight, self.groups)

    def transpose(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        return self._transpose(s, weight, shape, self.groups)

    def transpose_both(self, s: Tensor, one: Tensor, other: Tensor, shape: Size) -> tuple[Tensor, Tensor]:
        if self.transposed or self.groups > 1:
            return super().transpose_both(s, one, other, shape)
        # One call with twice the input channels costs less than two calls: an image has few channels, and
        # kernels compute with eight or more.
        channels = shape[1]
        both = self.transpose(s, torch.cat([one, other], 1), Size([shape[0], 2 * channels, *shape[2:]]))
        return both[:, :channels], both[:, channels:]

    # With all weights one, the output channels of a group are equal, and only the sum of its input channels
    # matters. So one channel for each group is enough. The groups are moved into the batch dimension.

    def spread(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        n, groups, space = s.shape[0], self.groups, shape[2:]
        single = s.reshape(n, groups, -1, *s.shape[2:]).sum(2).flatten(0, 1).unsqueeze(1)
        one = self._transpose(single, self._ones(s), Size([n * groups, 1, *space]), 1)
        per_group = one.reshape(n, groups, 1, *space)
        return per_group.expand(n, groups, shape[1] // groups, *space).reshape(shape)

    def fan_in(self, weight: Tensor, shape: Size) -> Tensor:
        ones = torch.ones(1, 1, *shape[2:], dtype=torch.float32, device="cpu")
        return self._apply(ones, self._ones(ones), 1) * (shape[1] // self.groups)

    def outputs(self, weight: Tensor) -> int:
        return weight.shape[1] * self.groups if self.transposed else weight.shape[0]

    def align_bias(self, bias: Tensor) -> Tensor:
        return bias if bias.dim() > 1 else bias.reshape(-1, *[1] * len(self.stride))

    def align_input(self, value: Tensor, shape: Size) -> Tensor:
        if value.dim() == 1 and value.shape[0] == shape[1]:
            value = value.reshape(-1, *[1] * len(self.stride))
        return expanded(value, Size([1, *shape[1:]]))

    def _ones(self, like: Tensor) -> Tensor:
        return like.new_ones(1, 1, *self.kernel)

    @property
    def _geometry(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.dilation, self.transposed, self.output_padding

    def _apply(self, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        x = F.pad(x, self.pads) if self.pads else x
        output: Tensor = torch.ops.aten.convolution(x, weight, None, *self._geometry, groups)
        return output

    def _transpose(self, s: Tensor, weight: Tensor, shape: Size, groups: int) -> Tensor:
        if self._is_by_place(s, groups):
            return self._transpose_by_place(s, weight, shape)
        # The transpose of a convolution is a transposed convolution, and the other way round.
        space = list(shape[2:])
        for i, pad in enumerate(self.pads):  # F.pad counts dimensions from the last
            space[-1 - i // 2] += pad
        extra = [0] * len(space)
        if not self.transposed:
            geometry = zip(s.shape[2:], self.stride, self.padding, self.dilation, self.kernel, strict=True)
            reach = [(n - 1) * step - 2 * p + d * (k - 1) + 1 for n, step, p, d, k in geometry]
            extra = [size - reached for size, reached in zip(space, reach, strict=True)]
        result: Tensor = torch.ops.aten.convolution(
            s, weight, None, self.stride, self.padding, self.dilation, not self.transposed, extra, groups
        )
        if self.transposed:
            for i, size in enumerate(space, 2):  # the result is larger if the output padding reaches a stride
                result = result.narrow(i, 0, size)
        return F.pad(result, [-pad for pad in self.pads]) if self.pads else result

    def _is_by_place(self, s: Tensor, groups: int) -> bool:
        """Whether a kernel of one is better applied as a matrix at each place.

        On a CPU this takes a third of the time of torch's kernel, and with strides a fifth.
        """
        return (
            set(self.kernel) == {1}
            and groups == 1
            and not self.transposed
            and not any(self.padding)
            and not self.pads
            and s.device.type == "cpu"
            and s.dtype in (torch.float32, torch.float64)
            and s.is_contiguous()
        )

    def _transpose_by_place(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        matrix = weight.flatten(1).t()
        places = torch.matmul(matrix, s.flatten(2)).reshape(len(s), len(matrix), *s.shape[2:])
        if set(self.stride) == {1}:
            return places
        result = s.new_zeros(shape)
        taken = result
        for dimension, step in enumerate(self.stride, 2):
            taken = torch.ops.aten.slice(taken, dimension, None, None, step)
        taken.copy_(places)
        return result


@dataclass(frozen=True, eq=False)
class SameValues:
    """A tensor that equals another one with the same values, for what caches compare."""

    tensor: Tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameValues) and torch.equal(self.tensor, other.tensor)

    def __hash__(self) -> int:
        return hash(self.tensor.shape)


@dataclass(frozen=True, kw_only=True)
class ConvolutionAmongZeros(Convolution):
    """A convolution of values that lie among zeros. The zeros are no inputs, as if they were padding.

    `inside` is true where the values are. It has the input's shape.
    """

    alike: ClassVar[bool] = False

    inside: SameValues

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return super().apply(x * self.inside.tensor, weight)

    def transpose(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        return super().transpose(s, weight, shape) * self.inside.tensor

    def transpose_both(self, s: Tensor, one: Tensor, other: Tensor, shape: Size) -> tuple[Tensor, Tensor]:
        return self.transpose(s, one, shape), self.transpose(s, other, shape)

    def spread(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        return super().spread(s, weight, shape) * self.inside.tensor

    def fan_in(self, weight: Tensor, shape: Size) -> Tensor:
        return self.apply(weight.new_ones(shape), torch.ones_like(weight))

    def align_input(self, value: Tensor, shape: Size) -> Tensor:
        return super().align_input(value, shape).expand(shape)


@dataclass(frozen=True)
class Scaling(LinearMap):
    """Each channel, in dimension 1, is multiplied by a number: a batch norm that is folded into nothing.

    The weight is (channels,).
    """

    exact_zeros: ClassVar[bool] = True

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * self._beside(weight, x.dim())

    def transpose(self, s: Tensor, weight: Tensor, shape: Size) -> Tensor:
        return self.apply(s, weight)

    def contributions(self, weight: Tensor) -> int:
        return 1

    def align_input(self, value: Tensor, shape: Size) -> Tensor:
        if value.dim() == 1 and len(value) == shape[1]:
            value = self._beside(value, len(shape))
        return expanded(value, Size([1, *shape[1:]]))

    @staticmethod
    def _beside(weight: Tensor, dimensions: int) -> Tensor:
        return weight.reshape(-1, *[1] * (dimensions - 2))


def _beside(factors: Tensor, weight: Tensor) -> Tensor:
    """Factors for the first dimensions of a weight, shaped for broadcasting against it."""
    return factors.reshape(*factors.shape, *[1] * (weight.dim() - factors.dim()))


def expanded(value: Tensor, shape: Size) -> Tensor:
    """Return a constant given by the user in this shape.

    Raises:
        ValueError: the constant does not broadcast to the shape.
    """
    try:
        return value.expand(shape)
    except RuntimeError as error:
        raise ValueError(
            f"{tuple(value.shape)} does not broadcast to a sample of shape {tuple(shape[1:])}"
        ) from error
