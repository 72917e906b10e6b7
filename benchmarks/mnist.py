"""Deep Taylor maps of the tutorial's CNN: images per second, against the tutorial's own way and the gradient.

The ways take turns in one process; medians are compared. On a busy machine torch's threads wait for each
other while NumPy's one does not: measure on an idle one, or with --threads 1. The tutorial computes in NumPy,
with weights read in double precision: docs/from-scratch.md does it as the tutorial does, but with matrix
products (`@`), which NumPy hands to its linear algebra library; the code of 2017 wrote `numpy.dot`, which for
images it does not. Run with `make benchmark`.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import relprop
from relprop.data.mnist import pixels, test_set
from relprop.zoo import BUNDLED

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "comparisons"))
import oracle

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Convolution: Any = oracle.page()["Convolution"]


class DotConvolution(Convolution):  # type: ignore[misc]
    """The page's convolution, its products spelled as in the code of 2017."""

    def forward(self, x: "NDArray[Any]") -> "NDArray[Any]":
        """Return the convolution of x, (N, height, width, in)."""
        self.x = x
        rows, columns = self.weight.shape[:2]
        height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
        z = self.bias
        for i, j in np.ndindex(rows, columns):
            z = z + np.dot(x[:, i : i + height, j : j + width], self.weight[i, j])
        return np.asarray(z)

    def gradient(self, g: "NDArray[Any]") -> "NDArray[Any]":
        """Return the gradient at the input, for one at the output."""
        rows, columns, channels = self.weight.shape[:3]
        count, height, width = g.shape[:3]
        result = np.zeros((count, height + rows - 1, width + columns - 1, channels), g.dtype)
        for i, j in np.ndindex(rows, columns):
            result[:, i : i + height, j : j + width] += np.dot(g, self.weight[i, j].T)
        return result


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=500, help="how many digits (default: 500)")
    parser.add_argument("--rounds", type=int, default=7, help="how many times each way runs (default: 7)")
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    bundled = BUNDLED["mnist-cnn"]
    model = relprop.load(bundled.name)
    data = test_set()
    x = bundled.prepare(pixels(data.images[: options.images, None]))
    labels = data.labels[: options.images]
    state = model.state_dict()
    images = x.double().numpy()

    def gradient() -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(model(leaf).gather(1, labels[:, None]).sum(), leaf)

    def by_relprop() -> None:
        relprop.explain(model, x, target=labels, rules="deep-taylor", bounds=(-1, 1))

    def with_products() -> None:
        oracle.maps("cnn", "deep-taylor", state, images, labels)

    def with_dot() -> None:
        with mock.patch.dict(oracle.page(), {"Convolution": DotConvolution}):
            oracle.maps("cnn", "deep-taylor", state, images, labels)

    ways: dict[str, Callable[[], None]] = {
        "plain gradient": gradient,
        "relprop": by_relprop,
        "NumPy with @": with_products,
        "NumPy with dot (2017)": with_dot,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    console = Console()
    for way in ways.values():
        way()
    for _ in track(range(options.rounds), "measuring", console=console, transient=True):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)

    medians = {name: statistics.median(times) for name, times in seconds.items()}
    table = Table(
        title=f"deep Taylor maps of mnist-cnn, {len(x)} images, {torch.get_num_threads()} threads, "
        f"median of {options.rounds}"
    )
    for column in ("", "images/s", "time / gradient", "time / relprop"):
        table.add_column(column, justify="left" if not column else "right")
    for name, median in medians.items():
        relative = (f"{median / medians[other]:.2f}" for other in ("plain gradient", "relprop"))
        table.add_row(name, f"{len(x) / median:,.0f}", *relative)
    console.print(table)


if __name__ == "__main__":
    main()
