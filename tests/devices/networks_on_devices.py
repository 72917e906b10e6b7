"""Networks on the CPU and on another device, and what is the same on both."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from by_plan import Counted
from relprop import Explanation
from relprop.calls.nested import map_tensors


@dataclass(frozen=True)
class Subject:
    """A model with arguments and a target.

    Attributes:
        model: the model, in double precision if it can compute in it.
        inputs: positional arguments.
        arguments: keyword arguments.
        target: the target.
        bounds: the range of the inputs.
    """

    model: nn.Module
    inputs: Sequence[Any]
    arguments: Mapping[str, Any]
    target: Any
    bounds: tuple[float, float] | None = None

    def on(self, device: str) -> "Subject":
        """Return a copy on a device."""

        def moved(t: Tensor) -> Tensor:
            return t.to(device)

        return replace(
            self,
            model=copy.deepcopy(self.model).to(device),
            inputs=map_tensors(moved, list(self.inputs)),
            arguments=map_tensors(moved, dict(self.arguments)),
        )


class Text(nn.Module):
    """A transformer of torch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 16)
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
        self.output = nn.Linear(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.output(self.layers(self.embedding(ids)).mean(1))
        return y


class Series(nn.Module):
    """A recurrent network with layers of two kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 8, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(16, 6, batch_first=True)
        self.output = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output(self.gru(self.lstm(x)[0])[0][:, -1])
        return y


class Split(nn.Module):
    """A model of two parts, of which each is on a device of its own.

    Args:
        first: the first part.
        second: the second part.
        device: where the second part is.
        returns: whether the output is where the input is.
    """

    def __init__(self, first: nn.Module, second: nn.Module, device: str, *, returns: bool) -> None:
        super().__init__()
        self.first, self.second = first, second.to(device)
        self.device, self.returns = device, returns

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x).to(self.device))
        return y.to(x.device) if self.returns else y


def picture() -> Subject:
    """A convolutional network with what such networks are made of."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.LayerNorm(32),
        nn.Linear(32, 5),
    )
    return _subject(model, torch.rand(4, 3, 16, 16, dtype=torch.float64), (0, 1))


def text() -> Subject:
    """A sentence for `Text`."""
    return _subject(Text(), torch.randint(30, (2, 7)))


def series() -> Subject:
    """Numbers for `Series`."""
    return _subject(Series(), torch.randn(2, 6, 5, dtype=torch.float64), (-9, 9))


def _subject(model: nn.Module, x: Tensor, bounds: tuple[float, float] | None = None) -> Subject:
    return Subject(model.double().eval(), [x], {}, 1, bounds)


SMALL = {"picture": picture, "text": text, "series": series}

EVERY_PRESET = [
    (name, rules)
    for name in SMALL
    for rules, preset in relprop.PRESETS.items()
    if name != "text" or not preset.needs_bounds  # token ids have none
]


def explainer(subject: Subject, rules: str) -> Counted:
    """Return an explainer by the rules of a preset."""
    bounds = subject.bounds if relprop.PRESETS[rules].needs_bounds else None
    return Counted(subject.model, rules=rules, bounds=bounds)


def require_same(found: Explanation, expected: Explanation, tolerance: float = 1e-10) -> None:
    """Check that an explanation is on another device than the CPU, and is the one that the CPU gives."""
    for name, R in expected.inputs.items():
        size = float(R.abs().max()) if R.numel() else 0.0
        require_close(found.inputs[name], R, tolerance * size)
    require_close(found.score, expected.score, tolerance * float(expected.score.abs().max()))
    rows, others = (torch.stack([row for _, row in each.ledger.rows()]) for each in (found, expected))
    require_close(rows, others, tolerance * float(others.abs().max()))


def require_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Check that a tensor on a device has the values of one on the CPU."""
    assert found.device.type != "cpu"
    assert expected.device.type == "cpu"
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=max(tolerance, 1e-30))
