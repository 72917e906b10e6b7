"""Networks that several tests explain, and how their results are compared."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DOUBLE = {"dtype": torch.float64}


def modules() -> nn.Sequential:
    """A network of modules."""
    torch.manual_seed(3)
    return (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 2),
            nn.ReLU6(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(6, 5),
        )
        .double()
        .eval()
    )


def close(a: Tensor, b: Tensor) -> None:
    """Equal up to rounding errors, relative to the largest value."""
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1e-10 * b.abs().max()


def linear(inputs: int = 6, outputs: int = 6) -> nn.Linear:
    return nn.Linear(inputs, outputs).double().eval()


def random_norm(norm: Any, generator: torch.Generator | None = None) -> Any:
    """The batch norm after it has seen something."""
    with torch.no_grad():
        for values in (norm.running_mean, norm.weight, norm.bias):
            values.normal_(generator=generator)
        norm.running_var.uniform_(0.3, 2, generator=generator)
    return norm.double().eval()


def batch_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels).double().eval()
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.normal_()
        norm.bias.normal_()
    return norm


class Spelled(nn.Module):
    """SiLU of a module's sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.sigmoid(x)


class Residual(nn.Module):
    """A branch beside an identity, both overwritten by what follows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), batch_norm(channels))
        self.shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        y += self.shortcut(x)
        return y.relu_()


def network(*, bias: bool = True) -> nn.Sequential:
    """Everything that is folded, re-rooted or overwritten; the classes at the end. Always the same one."""
    torch.manual_seed(4)
    return (
        nn.Sequential(
            nn.Conv2d(2, 3, 3, bias=bias),
            batch_norm(3),
            nn.ReLU(inplace=True),
            nn.Conv2d(3, 4, 1, bias=bias),
            Spelled(),
            nn.ZeroPad2d(1),
            nn.Conv2d(4, 4, 3, bias=bias),
            nn.ReLU(),
            nn.Tanh(),
            Residual(4),
            batch_norm(4),
            nn.Conv2d(4, 4, 2, bias=bias),
            nn.Dropout(),
            nn.Hardswish(inplace=True),
            nn.Flatten(),
            nn.Linear(36, 5, bias=bias),
        )
        .double()
        .eval()
    )


class Several(nn.Module):
    """Returns whatever containers its users like."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any], unwrap: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.inner = _Pair(wrap)
        self.head, self.unwrap = nn.Linear(6, 3), unwrap

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.unwrap(self.inner(x)))


class _Pair(nn.Module):
    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.wrap = nn.Linear(4, 3), nn.Linear(4, 3), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.a(x).relu(), self.b(x).relu())


class Twice(nn.Module):
    """One layer that is called two times, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.linear(self.linear(x).relu()).relu())


class Unused(nn.Module):
    """A layer whose output counts, and one whose output does not."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.used(x)


class Experts(nn.Module):
    """A mixture of experts for tokens, by a loop or by groups of rows."""

    def __init__(self, *, grouped: bool) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4, bias=False)
        self.up, self.down = (nn.Parameter(torch.randn(4, i, o) / i**0.5) for i, o in ((8, 16), (16, 8)))
        self.grouped = grouped

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, 8)
        weights, chosen = self.router(rows).softmax(-1).topk(2, -1)
        weights = weights / weights.sum(-1, keepdim=True)
        if self.grouped:
            order = chosen.flatten().argsort(stable=True)
            ends = chosen.flatten().bincount(minlength=4).cumsum(0).int()
            h = F.silu(F.grouped_mm(rows[order // 2], self.up, offs=ends))
            z = F.grouped_mm(h, self.down, offs=ends) * weights.flatten()[order, None]
            return torch.zeros_like(rows).index_add(0, order // 2, z).view_as(x)
        total = torch.zeros_like(rows)
        for expert in range(4):
            row, place = torch.where(chosen == expert)
            z = F.silu(rows[row] @ self.up[expert]) @ self.down[expert] * weights[row, place, None]
            total.index_add_(0, row, z)
        return total.view_as(x)
