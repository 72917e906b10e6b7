"""Settings for every test."""

import pytest
import torch

# Each of xdist's workers is one process on one core.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
