"""Peak memory and time of explanations of VGG-16 and ResNet-50, relative to the plain input gradient.

Memory is what torch's profiler counts as allocated at once on the CPU, beyond the model and the cached
weights, which a first explanation has made by then. Times are medians of ways that take turns in one
process; measure on an idle machine. Weights are random: neither depends on them. Run with `make benchmark`.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import relprop
from relprop.rules import AlphaBeta, Epsilon, Gamma, ZPlus

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "networks_explained"))
from torchvision_shim import import_torchvision

RULES: dict[str, Any] = {
    "ε": Epsilon(1e-6),
    "z⁺": ZPlus(),
    "γ": Gamma(0.25),
    "αβ": AlphaBeta(2, 1),
    "epsilon-gamma-box": "epsilon-gamma-box",
    "epsilon-plus-flat": "epsilon-plus-flat",
}

BOUNDS = (-6.0, 6.0)


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak(function: Callable[[], Any]) -> int:
    """Most bytes that are allocated at once while the function runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = profiler.profiler.kineto_results.events()
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def ways(model: nn.Module, x: Tensor) -> dict[str, Callable[[], Any]]:
    """What is compared: the gradient, and explanations by several rules."""

    def gradient() -> Any:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(model(leaf).amax(1).sum(), leaf)

    def explanation(rules: Any) -> Callable[[], Any]:
        return lambda: relprop.explain(model, x, rules=rules, bounds=BOUNDS)

    return {"gradient": gradient, **{name: explanation(rules) for name, rules in RULES.items()}}


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", relprop.errors.ScoreWarning)  # of random weights
    console = Console()
    for name in ("vgg16", "resnet50"):
        torch.manual_seed(0)
        model = getattr(import_torchvision().models, name)(weights=None).eval().requires_grad_(False)
        compared = ways(model, torch.randn(options.batch, 3, options.size, options.size))
        for way in compared.values():
            way()
        memory = {label: peak(way) for label, way in compared.items()}
        times: dict[str, list[float]] = {label: [] for label in compared}
        for _ in track(range(options.repeat), name, console=console, transient=True):
            for label, way in compared.items():
                times[label].append(seconds(way))
        title = f"{name}, batch {options.batch}, {options.size} px, {options.threads} threads"
        table = Table("", "memory, MiB", "× gradient", "time, s", "× gradient", title=title)
        for label in compared:
            took = statistics.median(times[label])
            table.add_row(
                label,
                f"{memory[label] / 2**20:.0f}",
                f"{memory[label] / memory['gradient']:.2f}",
                f"{took:.2f}",
                f"{took / statistics.median(times['gradient']):.2f}",
            )
        console.print(table)


if __name__ == "__main__":
    main()
