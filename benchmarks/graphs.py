"""Time of explanations in Python and by graphs, relative to the plain input gradient.

One digit, a hand-written LSTM, a LLaMA shape, and networks of pictures. "Python" is `relprop.explain` as it
is. "graph" is `Explainer.compile(...)`, "inductor" the same with mode="inductor", relative to the gradient
in Python too. Times are medians of ways that take turns in one process; measure on an idle machine. Weights
are random: time does not depend on them. Run with `make benchmark`.

    python benchmarks/graphs.py --only digit llama-64 --inductor
"""

import argparse
import json
import platform
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import relprop
from networks import seconds  # which makes the tests' networks importable
from relprop.targets import At
from torchvision_shim import import_torchvision

Way = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """What is explained.

    Attributes:
        model: the model.
        arguments: its argument by name.
        target: the score.
        score: the same score, of the model's output.
        rules: by name.
        bounds: of the input, for rules that need them.
    """

    model: Callable[..., Any]
    arguments: Mapping[str, Tensor]
    target: Any
    score: Callable[[Any], Tensor]
    rules: Sequence[str]
    bounds: tuple[float, float] | None = None


class WrittenLSTM(nn.Module):
    """An LSTM as users write it: one step after the other."""

    def __init__(self, inputs: int = 8, width: int = 32) -> None:
        super().__init__()
        self.of_input, self.of_state = nn.Linear(inputs, 4 * width), nn.Linear(width, 4 * width)
        self.last, self.width = nn.Linear(width, 3), width

    def forward(self, x: Tensor) -> Tensor:
        """Signals (samples, steps, inputs) to scores (samples, 3)."""
        h = c = x.new_zeros(len(x), self.width)
        for step in x.unbind(1):
            i, f, g, o = (self.of_input(step) + self.of_state(h)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        scores: Tensor = self.last(h)
        return scores


def digit() -> Case:
    """One digit of the tutorial's network."""
    pixels = torch.rand(1, 1, 32, 32)
    rules = ("epsilon", "deep-taylor", "alpha2-beta1", "epsilon-gamma-flat")
    return Case(relprop.load("mnist-cnn"), {"x": pixels}, 3, lambda y: y[:, 3], rules, (0.0, 1.0))


def written_lstm() -> Case:
    """200 steps of 32 units."""
    x = torch.randn(1, 200, 8)
    return Case(WrittenLSTM(), {"x": x}, 1, lambda y: y[:, 1], ("epsilon", "cp-lrp"))


def llama(width: int, tokens: int) -> Case:
    """Eight layers of a LLaMA."""
    import_torchvision()  # transformers imports it
    transformers = import_module("transformers")
    heads = max(1, width // 64)
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 8}
    config = transformers.LlamaConfig(
        **sizes, vocab_size=500, num_attention_heads=4 * heads, num_key_value_heads=2 * heads
    )
    model = transformers.LlamaForCausalLM(config)
    embeds = torch.randn(1, tokens, width)
    return Case(
        model,
        {"inputs_embeds": embeds},
        At(-1, 7),
        lambda y: y.logits[:, -1, 7],
        ("attnlrp", "cp-lrp", "epsilon"),
    )


def picture(name: str, batch: int = 2) -> Case:
    """A network of torchvision on pictures of 224 pixels."""
    model = getattr(import_torchvision().models, name)(weights=None)
    rules = ("epsilon", "epsilon-plus-flat", "epsilon-gamma-flat", "epsilon-alpha2-beta1")
    x = torch.randn(batch, 3, 224, 224)
    return Case(model, {"x": x}, 7, lambda y: y[:, 7], rules, (-6.0, 6.0))


CASES: Mapping[str, Callable[[], Case]] = {
    "digit": digit,
    "written-lstm": written_lstm,
    "llama-64": lambda: llama(64, 32),
    "llama-512": lambda: llama(512, 128),
    "resnet50": lambda: picture("resnet50"),
    "vgg16": lambda: picture("vgg16"),
    "efficientnet_b0": lambda: picture("efficientnet_b0"),
    "vit_b_16": lambda: picture("vit_b_16"),
}


def ways(case: Case, rules: str, *, inductor: bool) -> dict[str, Way]:
    """The gradient, and an explanation in Python and by graphs."""
    ((name, x),) = case.arguments.items()
    needs = relprop.PRESETS[rules].needs_bounds
    explainer = relprop.Explainer(case.model, rules=rules, bounds=case.bounds if needs else None)

    def given(x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ((x,), {}) if name == "x" else ((), {name: x})

    def gradient() -> None:
        leaf = x.clone().requires_grad_()
        inputs, arguments = given(leaf)
        torch.autograd.grad(case.score(case.model(*inputs, **arguments)).sum(), leaf)

    def by(mode: Literal["replay", "inductor"]) -> Way:
        inputs, arguments = given(x)
        compiled = explainer.compile(*inputs, target=case.target, mode=mode, kwargs=arguments)
        return lambda: compiled(*inputs, target=case.target, kwargs=arguments)

    inputs, arguments = given(x)
    found: dict[str, Way] = {
        "gradient": gradient,
        "Python": lambda: explainer(*inputs, target=case.target, kwargs=arguments),
        "graph": by("replay"),
    }
    return found | ({"inductor": by("inductor")} if inductor else {})


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--inductor", action="store_true", help="also mode='inductor', which takes minutes")
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", relprop.errors.ScoreWarning)  # of random weights
    console = Console()
    columns = ("gradient, ms", "Python", "graph", *(("inductor",) if options.inductor else ()))
    title = f"time, × gradient; {options.threads} thread(s), torch {torch.__version__}"
    table = Table("", "rules", *columns, title=title)
    figures: dict[str, Any] = {"torch": torch.__version__, "machine": platform.processor(), "times": {}}
    for name in options.only:
        torch.manual_seed(0)
        case = CASES[name]()
        if isinstance(case.model, nn.Module):
            case.model.eval().requires_grad_(requires_grad=False)
        for rules in case.rules:
            compared = ways(case, rules, inductor=options.inductor)
            times: dict[str, list[float]] = {label: [] for label in compared}
            for way in compared.values():
                way()
            for _ in track(range(options.repeat), f"{name} {rules}", console=console, transient=True):
                for label, way in compared.items():
                    times[label].append(seconds(way))
            medians = {label: statistics.median(each) for label, each in times.items()}
            figures["times"][f"{name} {rules}"] = times
            ratios = [f"{medians[label] / medians['gradient']:.2f}" for label in list(medians)[1:]]
            table.add_row(name, rules, f"{medians['gradient'] * 1e3:.1f}", *ratios)
    console.print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
