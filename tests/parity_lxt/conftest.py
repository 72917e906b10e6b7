"""Comparisons with LXT print their figures at the end, as those with zennit and captum do."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "parity"))
from comparing import compare, figures


@pytest.fixture
def assert_agree(request: pytest.FixtureRequest) -> Callable[[Tensor, Tensor], None]:
    """Assert that two results differ by rounding errors only, and note the figure by test and family."""
    parameters = getattr(request.node, "callspec", None)
    case = parameters and parameters.params.get("case")
    name = ", ".join([request.node.originalname, *(case or ())])
    return lambda found, reference: compare(name, found, reference)


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if figures:
        terminalreporter.section("largest difference, relative to the largest element")
    for name, (difference, count) in figures.items():
        terminalreporter.write_line(f"{difference:.1e} in {count:4} comparisons  {name}")
