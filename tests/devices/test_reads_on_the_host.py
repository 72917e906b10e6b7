"""A graph reads no value on the host: the device need not be waited for."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from networks_on_devices import EVERY_PRESET, SMALL, explainer
from relprop.runs import replayed
from relprop.runs.graphs import as_graphs_run


@pytest.fixture
def forbidden(
    without_reads: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Forbid reads while graphs run, of plans and others, and return a list of such graphs."""
    ran = []

    @contextmanager
    def forbidding() -> Iterator[None]:
        with as_graphs_run(), without_reads():
            ran.append("a graph")
            yield

    monkeypatch.setattr(replayed, "as_graphs_run", forbidding)
    return ran


@pytest.mark.parametrize(("name", "rules"), EVERY_PRESET)
def test_a_graph_reads_nothing(device: str, name: str, rules: str, forbidden: list[str]) -> None:
    subject = SMALL[name]().on(device)
    explain = explainer(subject, rules).compile(*subject.inputs, target=1)
    forbidden.clear()
    explain(*subject.inputs, target=1)
    assert forbidden == ["a graph"]


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("name", ["picture", "text"])
def test_a_plan_reads_nothing(device: str, name: str, forbidden: list[str]) -> None:
    subject = SMALL[name]().on(device)
    explain = explainer(subject, "epsilon")
    for _ in range(4):
        explain(*subject.inputs, target=1)
    forbidden.clear()
    explain(*subject.inputs, target=1)
    assert forbidden == ["a graph"]


WAITING: dict[str, Callable[[Tensor], Any]] = {
    "a number": lambda t: float(t.sum()),
    "a copy to the CPU": lambda t: t.cpu(),
    "a copy from the CPU": lambda t: torch.ones(3).to(t.device),
    "a mask": lambda t: t[t > 0],
    "an index on the CPU": lambda t: t[torch.tensor([0, 2])],
    "a shape that depends on values": lambda t: t.nonzero(),
}


@pytest.mark.parametrize("what", WAITING)
def test_what_waits_for_the_device_is_noticed(
    device: str, what: str, without_reads: Callable[[], AbstractContextManager[None]]
) -> None:
    t = torch.ones(3, device=device)
    with pytest.raises((AssertionError, RuntimeError)), without_reads():
        WAITING[what](t)
