"""Noise explained by a small network."""

import torch
from torch import nn

import relprop


def explained(count=3, target=2, side=8, **arguments):
    """Explain noise by a small network; also return the noise."""
    torch.manual_seed(0)
    size = 4 * (side - 2) ** 2
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(size, 5)).eval()
    nn.init.constant_(model[-1].bias, 2)  # scores are positive
    images = torch.rand(count, 3, side, side)
    return relprop.explain(model, images, target=target, **arguments), images
