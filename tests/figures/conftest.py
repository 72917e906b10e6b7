"""Explanations of images, tables and signals, to be drawn."""

import matplotlib.figure
import pytest
import torch
from torch import nn

import relprop


@pytest.fixture
def ax():
    return matplotlib.figure.Figure().subplots()


@pytest.fixture
def images():
    """An explanation of three images of 8 x 8 pixels, and the images."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    nn.init.constant_(model[-1].bias, 2)
    x = torch.rand(3, 3, 8, 8)
    return relprop.explain(model, x, target=2), x


@pytest.fixture
def table():
    """An explanation of two rows of eight features, and the rows."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    x = torch.randn(2, 8)
    return relprop.explain(model, x, target=1), x


@pytest.fixture
def signals():
    """An explanation of two signals of three channels, and the signals."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(3, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    x = torch.randn(2, 3, 40)
    return relprop.explain(model, x, target=0), x
