"""Values written to parts of a tensor: what is put on their zeros is not lost, zeros between are padding."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE

PICTURES = torch.randn(3, 2, 5, 6, generator=torch.Generator().manual_seed(3), **DOUBLE).relu()
"""Half of the pixels are zero."""

SIZES = [(5, 6), (4, 6), (5, 3)]
PRESETS: list[tuple[str, dict[str, Any]]] = [
    ("epsilon-gamma-flat", {}),
    ("epsilon-gamma-box", {"bounds": (0.0, 4.0)}),
    ("epsilon-plus-flat", {}),
    ("epsilon-alpha2-beta1-flat", {}),
    ("epsilon", {}),
]


class Network(nn.Module):
    """Convolutions of what `join` makes of the pictures, each cut to its size."""

    def __init__(self, join: Callable[[list[Tensor]], Tensor], channels: int = 2) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.join = join
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.LazyLinear(3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        joined = self.join([one[:, :h, :w] for one, (h, w) in zip(x, SIZES, strict=False)])
        return self.head(self.layers(joined))


def padded(parts: list[Tensor]) -> Tensor:
    """Return a batch of 8 × 8 pixels, as zeros around each picture."""
    return torch.stack([F.pad(p, (0, 8 - p.shape[2], 0, 8 - p.shape[1])) for p in parts])


def assigned(parts: list[Tensor]) -> Tensor:
    batch = parts[0].new_zeros(len(parts), 2, 8, 8)
    for i, part in enumerate(parts):
        batch[i, :, : part.shape[1], : part.shape[2]] = part
    return batch


def copied(parts: list[Tensor]) -> Tensor:
    batch = parts[0].new_full((len(parts), 2, 8, 8), 0)
    for part, place in zip(parts, batch, strict=True):
        place[..., : part.shape[1], : part.shape[2]].copy_(part)
    return batch


def by_rows(parts: list[Tensor]) -> Tensor:
    batch = parts[0].new_zeros(len(parts), 2, 8, 8)
    for part, place in zip(parts, batch, strict=True):
        for i in range(part.shape[1]):
            place[:, i, : part.shape[2]] = part[:, i]
    return batch


def with_slices(parts: list[Tensor]) -> Tensor:
    """Write pictures with a dimension of samples."""
    batch = parts[0].new_zeros(len(parts), 2, 8, 8)
    for i, part in enumerate(parts):
        batch[i : i + 1, :, : part.shape[1], : part.shape[2]] = part[None]
    return batch


def joined(parts: list[Tensor]) -> Tensor:
    """Pad pictures as batches of one."""
    return torch.cat([F.pad(p[None], (0, 8 - p.shape[2], 0, 8 - p.shape[1])) for p in parts])


WAYS = [padded, joined, assigned, copied, by_rows, with_slices]


def explained(model: nn.Module, x: Tensor, preset: str, options: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        model(x)  # the last layer takes its size
    torch.manual_seed(2)
    nn.init.normal_(model.head.weight)
    explanation = relprop.explain(model, x, target=relprop.targets.Contrastive(1), rules=preset, **options)
    assert explanation.ledger.gap.max() < 1e-10
    return explanation.relevance


@pytest.mark.parametrize(("preset", "options"), PRESETS, ids=[preset for preset, _ in PRESETS])
@pytest.mark.parametrize("write", WAYS)
def test_a_batch_of_pictures_of_several_sizes(
    write: Callable[[list[Tensor]], Tensor], preset: str, options: dict[str, Any]
) -> None:
    """Each picture is explained as it is alone, with padding around it."""
    found = explained(Network(write), PICTURES, preset, options)
    for i, (h, w) in enumerate(SIZES):

        def alone(parts: list[Tensor], h: int = h, w: int = w) -> Tensor:
            return F.pad(parts[0][None, :, :h, :w], (0, 8 - w, 0, 8 - h))

        expected = explained(Network(alone), PICTURES[i : i + 1], preset, options)
        torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("samples", [1, 3])
def test_pictures_that_are_normalised_one_by_one(samples: int) -> None:
    """The box rule gets the bounds of what comes before, as with padding."""
    x = PICTURES[:samples]

    def by_slices(parts: list[Tensor]) -> Tensor:
        batch = parts[0].new_zeros(len(parts), 2, 8, 8)
        for i, part in enumerate(parts):
            batch[i : i + 1, :, :5, :6] = (part[None] - 0.5) / 0.25
        return batch

    def by_padding(parts: list[Tensor]) -> Tensor:
        return F.pad((torch.stack(parts) - 0.5) / 0.25, (0, 2, 0, 3))

    for preset, options in PRESETS:
        found, expected = (
            explained(_OfOneSize(join), x, preset, options) for join in (by_slices, by_padding)
        )
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


class _OfOneSize(Network):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.join(list(x))))
