"""Settings for every test."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from networks import DOUBLE
from older_versions import lack_of
from relprop.operations import TABLE

# Each of xdist's workers is one process on one core.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        lack = lack_of(item.nodeid)
        if lack is not None:
            item.add_marker(pytest.mark.skip(reason=lack.told))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def table() -> Iterator[None]:
    """The operation table, which is as before after the test."""
    before = dict(TABLE)
    yield
    TABLE.clear()
    TABLE.update(before)


@pytest.fixture
def x() -> Tensor:
    """Two samples for `networks.modules` and `networks.network`."""
    return torch.randn(2, 2, 6, 6, **DOUBLE)
