"""A network that several tests explain."""

import torch
from torch import nn


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
