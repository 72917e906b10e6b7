"""Time of explanations of recurrent layers, relative to the input gradient through the same layer of torch.

One layer of 256 units on 200 steps, a linear layer on its last state, float32, random weights, which time
does not depend on. Times are medians of ways that take turns; measure on an idle machine. Run with
`make benchmark`.

    python benchmarks/recurrent.py --steps 1000 --width 64
"""

import argparse
import statistics
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import relprop
from networks import seconds

KINDS: Mapping[str, Callable[..., nn.Module]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
RULES = ("epsilon", "epsilon-gamma-flat", "cp-lrp", "attnlrp")

Way = Callable[[], Any]


class Last(nn.Module):
    """A recurrent layer, and a linear layer on its last state."""

    def __init__(self, kind: Callable[..., nn.Module], width: int) -> None:
        super().__init__()
        self.layer, self.last = kind(width, width, batch_first=True), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Signals (N, steps, width) to scores (N, 3)."""
        scores: Tensor = self.last(self.layer(x)[0][:, -1])
        return scores


def ways(model: nn.Module, x: Tensor) -> dict[str, Way]:
    """The gradient, and explanations by several rules."""

    def gradient() -> None:
        y = x.clone().requires_grad_()
        torch.autograd.grad(model(y)[:, 0].sum(), y)

    def explaining(rules: str) -> Way:
        return lambda: relprop.explain(model, x, target=0, rules=rules)

    return {"gradient": gradient, **{rules: explaining(rules) for rules in RULES}}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--width", type=int, default=256, help="inputs and units")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    table = Table("layer", "batch", "gradient, ms", *RULES)
    cases = [(name, batch) for name in KINDS for batch in (1, 8)]
    for name, batch in track(cases, "Timing"):
        torch.manual_seed(0)
        model = Last(KINDS[name], options.width).eval().requires_grad_(False)
        x = torch.randn(batch, options.steps, options.width)
        every = ways(model, x)
        rounds = [{which: seconds(way) for which, way in every.items()} for _ in range(options.rounds + 1)][
            1:
        ]
        medians = {which: statistics.median(r[which] for r in rounds) for which in every}
        base = medians["gradient"]
        ratios = [f"{medians[rules] / base:.2f}" for rules in RULES]
        table.add_row(name, str(batch), f"{base * 1e3:.0f}", *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
