"""One network, and each activation function, in many ways of writing."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import pi, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


def hardswish_in_place(x: Tensor) -> Tensor:
    """As timm writes it."""
    inner = F.relu6(x + 3.0).div_(6.0)
    return x.mul_(inner)


def hardswish_by_a_copy(x: Tensor) -> Tensor:
    gate = x.clone()
    gate.add_(3.0).clamp_(0.0, 6.0).div_(6.0)
    return x * gate


def tanh_gelu(x: Tensor) -> Tensor:
    """As its paper writes it."""
    return 0.5 * x * (1.0 + torch.tanh(sqrt(2.0 / pi) * (x + 0.044715 * torch.pow(x, 3.0))))


def tanh_gelu_in_place(x: Tensor) -> Tensor:
    inner = x.pow(3).mul_(0.044715).add_(x).mul_(sqrt(2.0 / pi)).tanh_().add_(1).mul_(0.5)
    return x.mul_(inner)


ACTIVATIONS: dict[str, list[Function]] = {
    "relu": [
        nn.ReLU(),
        F.relu,
        nn.ReLU(inplace=True),
        torch.relu_,
        lambda x: x.clamp(min=0),
        lambda x: x.clamp_min_(0),
        lambda x: F.threshold(x, 0, 0),
        lambda x: x * (x > 0),
        lambda x: torch.maximum(x, torch.zeros_like(x)),
        lambda x: (x + x.abs()) / 2,
        lambda x: x.add_(x.abs()).mul_(0.5),
        lambda x: torch.where(x > 0, x, 0.0),
        lambda x: x.masked_fill(x < 0, 0.0),
    ],
    "relu6": [
        nn.ReLU6(),
        F.relu6,
        lambda x: x.clamp_(0, 6),
        lambda x: F.hardtanh(x, 0, 6),
        lambda x: torch.clip(x, 0, 6),
    ],
    "leaky relu": [
        nn.LeakyReLU(0.1),
        lambda x: F.leaky_relu_(x, 0.1),
        lambda x: torch.where(x > 0, x, 0.1 * x),
        lambda x: torch.maximum(x, 0.1 * x),
        lambda x: F.relu(x) - 0.1 * F.relu(-x),
    ],
    "silu": [
        nn.SiLU(),
        F.silu,
        nn.SiLU(inplace=True),
        lambda x: x * torch.sigmoid(x),
        lambda x: torch.sigmoid(x) * x,
        lambda x: x.mul_(x.sigmoid()),
        lambda x: x * (1 / (1 + torch.exp(-x))),
        lambda x: x / (1 + torch.exp(-x)),
        lambda x: x.div_((-x).exp().add_(1)),
        lambda x: torch.mul(x, (1 + x.neg().exp()).reciprocal()),
    ],
    "hardswish": [
        nn.Hardswish(),
        F.hardswish,
        nn.Hardswish(inplace=True),
        lambda x: x * F.relu6(x + 3) / 6,
        lambda x: x * (F.relu6(x + 3) / 6),
        lambda x: x * F.hardsigmoid(x),
        lambda x: x.mul((3 + x).clamp(min=0, max=6)).div(6),
        lambda x: x * F.hardtanh(x + 3, 0.0, 6.0) * (1 / 6),
        hardswish_in_place,
        hardswish_by_a_copy,
    ],
    "gelu": [
        nn.GELU(),
        F.gelu,
        lambda x: x * 0.5 * (1.0 + torch.erf(x / sqrt(2.0))),
        lambda x: 0.5 * x * (1 + torch.special.erf(x * sqrt(0.5))),
        lambda x: x.mul_((x / sqrt(2.0)).erf_().add_(1.0).mul_(0.5)),
        lambda x: x * 0.5 * torch.erfc(-x / sqrt(2.0)),
    ],
    "gelu by tanh": [
        nn.GELU("tanh"),
        lambda x: F.gelu(x, approximate="tanh"),
        tanh_gelu,
        lambda x: 0.5 * x * (1 + torch.tanh(sqrt(2.0 / pi) * x * (1 + 0.044715 * x * x))),
        tanh_gelu_in_place,
    ],
    "quick gelu": [
        lambda x: x * torch.sigmoid(1.702 * x),
        lambda x: x.mul_((x * 1.702).sigmoid()),
        lambda x: F.silu(1.702 * x) / 1.702,
    ],
    "mish": [
        nn.Mish(),
        F.mish,
        lambda x: x * torch.tanh(F.softplus(x)),
        lambda x: x * torch.tanh(torch.log(1 + torch.exp(x))),
        lambda x: x * x.exp().log1p().tanh(),
        lambda x: x.mul_(F.softplus(x).tanh()),
    ],
    "softsign": [
        nn.Softsign(),
        F.softsign,
        lambda x: x / (1 + x.abs()),
        lambda x: x.div_(torch.abs(x) + 1),
    ],
    "elu": [
        nn.ELU(),
        F.elu,
        nn.ELU(inplace=True),
        lambda x: torch.where(x > 0, x, torch.exp(x) - 1),
        lambda x: F.relu(x) - F.relu(1 - x.exp()),
        lambda x: F.relu(x) + x.clamp(max=0).expm1(),
    ],
    "tanh": [
        nn.Tanh(),
        torch.tanh_,
        lambda x: 2 * torch.sigmoid(2 * x) - 1,
        lambda x: x.mul_(2).sigmoid_().mul_(2).sub_(1),
    ],
    "tanhshrink": [nn.Tanhshrink(), lambda x: x - torch.tanh(x), lambda x: x.sub_(x.tanh())],
    "sigmoid": [
        nn.Sigmoid(),
        torch.sigmoid,
        torch.sigmoid_,
        lambda x: 1 / (1 + torch.exp(-x)),
        lambda x: 0.5 * (1 + torch.tanh(x / 2)),
        lambda x: x.div_(2).tanh_().add_(1).div_(2),
        lambda x: (-x).exp_().add_(1).reciprocal_(),
        lambda x: (1 + torch.exp(-x)).pow(-1),
    ],
    "hardsigmoid": [
        nn.Hardsigmoid(),
        F.hardsigmoid,
        lambda x: F.relu6(x + 3) / 6,
        lambda x: x.add_(3.0).clamp_(0.0, 6.0).div_(6.0),
        lambda x: (x / 6 + 0.5).clamp(0, 1),
        lambda x: x.div_(6).add_(0.5).clamp_(0, 1),
    ],
    "softplus": [
        nn.Softplus(),
        F.softplus,
        lambda x: torch.log(1 + x.exp()),
        lambda x: x.exp().log1p(),
        lambda x: x.exp_().add_(1).log_(),
        lambda x: -F.logsigmoid(-x),
    ],
    "a square and more": [lambda x: x * x + x, lambda x: x.pow(2) + x, lambda x: x.square().add_(x)],
}
"""Ways of writing each activation function."""


@dataclass(frozen=True)
class Spelling:
    """The parts of a network in one way of writing."""

    norm: Callable[[nn.BatchNorm2d, Tensor], Tensor]
    activation: Function
    gate: Function
    add: Callable[[Tensor, Tensor], Tensor]
    scale: Callable[[Tensor, Tensor], Tensor]
    squeeze: Function
    max_pool: Function
    average: Function
    flatten: Function
    linear: Callable[[nn.Linear, Tensor], Tensor]


class Network(nn.Module):
    """A residual network with squeeze-and-excitation, for inputs (N, 2, 8, 8)."""

    def __init__(self, spelling: Spelling) -> None:
        super().__init__()
        self.spelling = spelling
        self.stem, self.stem_norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.wide, self.wide_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.deep, self.deep_norm = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(4)
        self.squeeze, self.excite = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
        self.head = nn.Linear(16, 3)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                random_statistics(module)
        self.double().eval()

    def written(self, spelling: Spelling) -> "Network":
        """The same network in another spelling."""
        other = copy.deepcopy(self)
        other.spelling = spelling
        if spelling.norm is without:
            for name in ("stem", "wide", "deep"):
                norm = getattr(other, f"{name}_norm")
                setattr(other, name, nn.utils.fuse_conv_bn_eval(getattr(other, name), norm))
        return other

    def forward(self, x: Tensor) -> Tensor:
        how = self.spelling
        x = how.max_pool(how.activation(how.norm(self.stem_norm, self.stem(x))))
        y = how.activation(how.norm(self.wide_norm, self.wide(x)))
        y = how.norm(self.deep_norm, self.deep(y))
        y = how.scale(y, how.gate(self.excite(how.activation(self.squeeze(how.squeeze(y))))))
        x = how.average(how.activation(how.add(y, x)))
        return how.linear(self.head, how.flatten(x))


def random_statistics(norm: nn.BatchNorm2d) -> None:
    """As if it had seen something: scales of both signs, and shifts."""
    with torch.no_grad():
        for values in (norm.running_mean, norm.weight, norm.bias):
            values.normal_()
        norm.running_var.uniform_(0.3, 2)


def without(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """It is in the convolution's weights."""
    return x


def functional_norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def frozen_norm(norm: Any, x: Tensor) -> Tensor:
    """As torchvision's FrozenBatchNorm2d writes it."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    return x * scale[None, :, None, None] + shift[None, :, None, None]


def norm_in_place(norm: Any, x: Tensor) -> Tensor:
    x -= norm.running_mean.view(1, -1, 1, 1)
    x /= torch.sqrt(norm.running_var + norm.eps).view(1, -1, 1, 1)
    x *= norm.weight.view(1, -1, 1, 1)
    x += norm.bias.view(1, -1, 1, 1)
    return x


def spellings(activation: str, gate: str) -> dict[str, Spelling]:
    """Ways of writing a network with this activation and this gate; the first is of modules."""
    modules = Spelling(
        norm=lambda norm, x: norm(x),
        activation=ACTIVATIONS[activation][0],
        gate=ACTIVATIONS[gate][0],
        add=lambda y, x: y + x,
        scale=lambda y, s: y * s,
        squeeze=nn.AdaptiveAvgPool2d(1),
        max_pool=nn.MaxPool2d(2),
        average=nn.AvgPool2d(2),
        flatten=nn.Flatten(),
        linear=lambda linear, x: linear(x),
    )
    functional = Spelling(
        norm=functional_norm,
        activation=ACTIVATIONS[activation][1],
        gate=ACTIVATIONS[gate][1],
        add=torch.add,
        scale=lambda y, s: s.expand_as(y).mul(y),
        squeeze=lambda y: F.adaptive_avg_pool2d(y, 1),
        max_pool=lambda x: F.max_pool2d(x, kernel_size=2),
        average=lambda x: F.avg_pool2d(x, kernel_size=2, stride=2),
        flatten=lambda x: torch.flatten(x, start_dim=1),
        linear=lambda linear, x: F.linear(x, weight=linear.weight, bias=linear.bias),
    )
    in_place = Spelling(
        norm=norm_in_place,
        activation=ACTIVATIONS[activation][-1],
        gate=ACTIVATIONS[gate][-1],
        add=lambda y, x: y.add_(x),
        scale=lambda y, s: y.mul_(s),
        squeeze=lambda y: y.mean((2, 3), keepdim=True),
        max_pool=lambda x: torch.max_pool2d(x, 2),
        average=lambda x: x.view(*x.shape[:2], 2, 2, 2, 2).mean((3, 5)),
        flatten=lambda x: x.reshape(len(x), -1),
        linear=lambda linear, x: (x @ linear.weight.T).add_(linear.bias),
    )
    written_out = Spelling(
        norm=frozen_norm,
        activation=ACTIVATIONS[activation][2],
        gate=ACTIVATIONS[gate][2],
        add=lambda y, x: torch.stack([x, y]).sum(0),
        scale=lambda y, s: torch.multiply(s, y),
        squeeze=lambda y: y.flatten(2).sum(-1)[..., None, None] / 16,
        max_pool=lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
        average=lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2).mean(-1),
        flatten=lambda x: x.contiguous().view(x.size(0), -1),
        linear=lambda linear, x: torch.addmm(linear.bias, x, linear.weight.t()),
    )
    return {
        "modules": modules,
        "functional": functional,
        "in place": in_place,
        "written out": written_out,
        "folded": replace(modules, norm=without),
    }
