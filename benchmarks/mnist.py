"""Deep Taylor maps of the tutorial's CNN: images per second, against the tutorial's own way and the gradient.

The three ways take turns in one process, so that a busy machine slows all of them; medians are compared. Run it
with `make benchmark`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import relprop
from relprop.data.mnist import pixels, test_set
from relprop.zoo import BUNDLED

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import oracle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500, help="how many digits (default: 500)")
    parser.add_argument("--rounds", type=int, default=7, help="how many times each way runs (default: 7)")
    options = parser.parse_args()

    bundled = BUNDLED["mnist-cnn"]
    model = relprop.load(bundled.name)
    data = test_set()
    x = bundled.prepare(pixels(data.images[: options.images, None]))
    labels = data.labels[: options.images]
    state = {name: value.numpy() for name, value in model.state_dict().items()}

    def gradient() -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(model(leaf).gather(1, labels[:, None]).sum(), leaf)

    def by_relprop() -> None:
        relprop.explain(model, x, target=labels, rules="deep-taylor")

    def in_numpy() -> None:
        oracle.maps("cnn", "deep-taylor", state, x.numpy(), labels.numpy(), dtype="float32")

    ways: dict[str, Callable[[], None]] = {
        "plain gradient": gradient,
        "relprop": by_relprop,
        "NumPy, as in docs/from-scratch.md": in_numpy,
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
        table.add_row(
            name,
            f"{len(x) / median:,.0f}",
            f"{median / medians['plain gradient']:.2f}",
            f"{median / medians['relprop']:.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
