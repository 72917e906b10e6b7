"""The device of these tests: a GPU if there is one, or one that is pretended."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pretended_device
import pytest
import torch
from torch.torch_version import TorchVersion

from relprop.runs import planned

Forbidding = Callable[[], AbstractContextManager[None]]


@pytest.fixture(scope="session")
def device() -> str:
    """Name of the device."""
    if torch.cuda.is_available():
        return "cuda"
    if TorchVersion(torch.__version__) < "2.9":
        pytest.skip("earlier versions of torch know devices of others in part")
    try:
        pretended_device.made()
    except (OSError, RuntimeError) as error:
        pytest.skip(f"there is no GPU here, and no compiler to pretend one: {error}")
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
        counted = pretended_device.made()
        counted.forget()
        yield
        assert counted.reads() == []

    return on_cuda if device == "cuda" else pretended


@pytest.fixture
def early_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are made after the first explanation."""
    monkeypatch.setattr(planned, "AFTER", 1)
