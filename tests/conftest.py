"""Settings for every test."""

import pytest
import torch
from torch import Tensor

from networks import DOUBLE

# Each of xdist's workers is one process on one core.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def x() -> Tensor:
    """Two samples for `networks.modules` and `networks.network`."""
    return torch.randn(2, 2, 6, 6, **DOUBLE)
