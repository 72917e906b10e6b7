"""Comparisons with other libraries print their figures at the end."""

from collections.abc import Callable

import pytest
from comparing import compare, figures
from torch import Tensor


@pytest.fixture
def assert_agree(request: pytest.FixtureRequest) -> Callable[[Tensor, Tensor], None]:
    """Assert that two results differ by rounding errors only, and note the figure by test and network."""
    parameters = getattr(request.node, "callspec", None)
    network = parameters and parameters.params.get("network")
    name = request.node.originalname + (f", {network}" if network else "")
    return lambda found, reference: compare(name, found, reference)


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if figures:
        terminalreporter.section("largest difference, relative to the largest element")
    for name, (difference, count) in figures.items():
        terminalreporter.write_line(f"{difference:.1e} in {count:4} comparisons  {name}")
