"""What comparisons have in common: is the other library there, and how far apart are two results."""

from importlib.metadata import PackageNotFoundError, version

import pytest
from torch import Tensor

TOLERANCE = 1e-10
"""Relative to the largest element: rounding errors of float64, in networks of up to fifty layers."""

figures: dict[str, tuple[float, int]] = {}
"""By comparison: the largest difference, and of how many."""


def require(library: str, wanted: str) -> None:
    """Skip the module that is being imported unless the library is there, in the version to compare with."""
    try:
        installed = f"{version(library)} is"
    except PackageNotFoundError:
        installed = "none is"
    if installed != f"{wanted} is":
        pytest.skip(
            f"needs {library} {wanted}, and {installed} installed: make parity", allow_module_level=True
        )


def relative_difference(found: Tensor, reference: Tensor) -> float:
    """The largest difference of two elements, relative to the reference's largest element."""
    assert found.shape == reference.shape
    return float((found - reference).detach().abs().max() / reference.detach().abs().max())


def compare(name: str, found: Tensor, reference: Tensor) -> None:
    """Assert that two results differ by rounding errors only, and note the figure."""
    difference = relative_difference(found, reference)
    largest, count = figures.get(name, (0.0, 0))
    figures[name] = max(largest, difference), count + 1
    assert difference <= TOLERANCE
