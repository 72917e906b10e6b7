"""The device of these tests: a GPU if there is one, or one that is pretended."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from torch.torch_version import TorchVersion

import pretended_device
from by_plan import early

__all__ = ["early"]

Forbidding = Callable[[], AbstractContextManager[None]]


@pytest.fixture(scope="session")
def device() -> str:
    """Name of the device."""
    if torch.cuda.is_available():
        return "cuda"
    if TorchVersion(torch.__version__) < "2.9":
        pytest.skip("earlier versions of torch know devices of others in part")
    pretended_device.made()
    return pretended_device.NAME


@pytest.fixture
def without_reads(device: str) -> Forbidding:
    """A context in which no value may be read on the host, which would wait for the device."""

    @contextmanager
    def on_cuda() -> Iterator[None]:
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

    @contextmanager
    def pretended() -> Iterator[None]:
        noted = pretended_device.made()
        noted.forget()
        yield
        assert noted.reads() == []

    return on_cuda if device == "cuda" else pretended
