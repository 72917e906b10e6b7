"""Every linear operation, in its spellings: with and without bias, padding, stride, groups, dilation."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Matmul(nn.Module):
    """x @ w + b, as one writes it by hand."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(7, 5))
        self.bias = nn.Parameter(torch.randn(5)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight if self.bias is None else x @ self.weight + self.bias


class Addmm(nn.Module):
    """torch.addmm(b, x, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(7, 5))
        self.bias = nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class Functional(nn.Module):
    """The functional form, with keyword arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 2))
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, weight=self.weight, bias=self.bias, padding=(1, 0), stride=(1, 2))


@dataclass
class Case:
    """A linear operation and the shape of one sample."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def module(self) -> nn.Module:
        """In float64, with biases of both signs."""
        torch.manual_seed(1)
        module = self.make().double().eval()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_()
        return module

    def ones(self) -> nn.Module:
        """The same with all weights one and no bias: which input is connected to which output."""
        module = copy.deepcopy(self.module())
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.fill_(float("weight" in name))
        return module

    def input(self, *, nonnegative: bool, samples: int = 2) -> Tensor:
        """Values of both signs, or none below zero and some of them zero, as behind a ReLU."""
        torch.manual_seed(2)
        x = torch.randn(samples, *self.shape, dtype=torch.float64)
        return x.relu() if nonnegative else x


CASES = {
    "dense": Case(lambda: nn.Linear(7, 5), (7,)),
    "dense without bias": Case(lambda: nn.Linear(7, 5, bias=False), (7,)),
    "dense over a sequence": Case(lambda: nn.Linear(4, 3), (3, 4)),
    "matmul": Case(lambda: Matmul(bias=False), (7,)),
    "matmul and added bias": Case(lambda: Matmul(bias=True), (7,)),
    "addmm": Case(Addmm, (7,)),
    "conv1d": Case(lambda: nn.Conv1d(3, 4, 3), (3, 6)),
    "conv1d same": Case(lambda: nn.Conv1d(2, 3, 4, padding="same"), (2, 6)),
    "conv1d circular": Case(lambda: nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), (2, 5)),
    "conv2d": Case(lambda: nn.Conv2d(2, 3, 3), (2, 5, 5)),
    "conv2d without bias": Case(lambda: nn.Conv2d(2, 3, 3, bias=False), (2, 5, 5)),
    "conv2d padded and strided": Case(lambda: nn.Conv2d(2, 3, 3, padding=1, stride=2), (2, 5, 5)),
    "conv2d grouped": Case(lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 4, 4)),
    "conv2d depthwise": Case(lambda: nn.Conv2d(3, 3, 3, padding=1, groups=3), (3, 4, 4)),
    "conv2d dilated": Case(lambda: nn.Conv2d(2, 2, (3, 2), dilation=(2, 1), padding=(2, 0)), (2, 5, 4)),
    "conv2d functional": Case(Functional, (3, 4, 5)),
    "conv3d": Case(lambda: nn.Conv3d(2, 2, 2, padding=1, stride=(1, 2, 1)), (2, 3, 3, 3)),
    "conv_transpose1d": Case(lambda: nn.ConvTranspose1d(3, 2, 3, stride=2, output_padding=1), (3, 4)),
    "conv_transpose2d": Case(lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1), (2, 3, 3)),
    "conv_transpose2d grouped": Case(
        lambda: nn.ConvTranspose2d(4, 6, 2, groups=2, dilation=2, bias=False), (4, 3, 3)
    ),
    "conv_transpose3d": Case(lambda: nn.ConvTranspose3d(2, 2, 2), (2, 2, 2, 2)),
}
