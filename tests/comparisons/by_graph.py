"""Compares what a compiled explainer gives with the explainer itself, and a network for it."""

from typing import Any

import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop import Explainer


class Small(nn.Module):
    """A convolutional network with a batch norm, a pooling and a residual."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.head(h + self.second(h).relu())


SMALL = ("small", "mnist-cnn", "mnist-mlp")
"""The network above, and those of the tutorial."""


def small(name: str, *samples: int) -> tuple[nn.Module, list[Tensor]]:
    """Return one of them, in double precision, and batches of so many samples."""
    model = Small() if name == "small" else relprop.load(name).double().eval()
    size = {"small": (1, 6, 6), "mnist-cnn": (1, 32, 32), "mnist-mlp": (784,)}[name]
    return model, [torch.rand(count, *size, **DOUBLE) for count in samples]


def pictures(samples: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(samples, 1, 6, 6, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def graphs_of(compiled: Explainer) -> int:
    """Return how many graphs a compiled explainer has."""
    assert compiled._graphs is not None
    return sum(len(kind.graphs) for kind in compiled._graphs._kinds.values())


def assert_same(found: relprop.Explanation, expected: relprop.Explanation) -> None:
    torch.testing.assert_close(dict(found.inputs), dict(expected.inputs), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.score, expected.score)
    torch.testing.assert_close(found.ledger.absorbed, expected.ledger.absorbed, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.output, expected.output)
    assert list(map(str, found.rules)) == list(map(str, expected.rules))
    assert (found.preset, found.measure) == (expected.preset, expected.measure)
    assert str(found.target) == str(expected.target)


def assert_by_graph(
    explainer: Explainer, compiled: Explainer, *inputs: Any, graphs: int | None = None, **options: Any
) -> None:
    """Check that a compiled explainer gives the same, by the graphs that it has."""
    before = graphs_of(compiled)
    assert_same(compiled(*inputs, **options), explainer(*inputs, **options))
    assert graphs_of(compiled) == (before if graphs is None else graphs)
