"""Which rules tell best what a classifier of pictures looks at? Measured by region flipping.

The regions of a picture are replaced one after the other, once from the most relevant on and once from the
least relevant on, and each time the score of the explained class falls along a curve. The figure is the area
between the two curves, as a mean over the steps: how much higher the score is where what counts little went
first. Higher is better; a random order has 0. Samek et al. 2017, "Evaluating the visualization of what a deep
neural network has learned", and Montavon et al. 2018, sec. 5.

Photographs: regions of 16 × 16 pixels are replaced by the picture's mean colour; the network is
EfficientNet-Lite0; each photograph is cut in several ways. Digits: single pixels become black; the networks
are the tutorial's, on the first test digits of MNIST.

Each figure has a 95 % interval over pictures; beside it stands the difference from the first rules, paired by
picture, with its own. Run with `make faithfulness`.
"""

import argparse
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import relprop
from relprop.data.mnist import pixels, test_set
from relprop.models import resolve
from relprop.places import First, Kind
from relprop.rules import Epsilon, Flat, Gamma, ZBox
from relprop.view.picture import read_picture
from relprop.zoo import bundled

EXAMPLES = Path(__file__).parents[1] / "examples" / "photographs"
IN_SCIKIT_IMAGE = (
    *("astronaut.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png"),
    *("horse.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg"),
)
CUTS = 6
REGION, STEPS = 16, 14

Relevance = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""From a model, pictures and their classes to one number for each pixel, (pictures, height, width)."""


def by(rules: Any, bounds: Any = None) -> Relevance:
    """Relevance by rules."""
    return lambda model, x, target: relprop.explain(
        model, x, target=target, rules=rules, bounds=bounds
    ).relevance.sum(1)


def integrated(model: nn.Module, x: Tensor, target: Tensor, steps: int = 32) -> Tensor:
    """Integrated gradients from black, or from zero. Sundararajan et al. 2017."""
    total = torch.zeros_like(x)
    for step in range(steps):
        total += _gradient(model, x * (step + 0.5) / steps, target)
    return (total / steps * x).sum(1)


def smoothed(model: nn.Module, x: Tensor, target: Tensor, steps: int = 32) -> Tensor:
    """Squared gradients of noisy pictures, averaged. Smilkov et al. 2017; Hooker et al. 2019 square them."""
    generator, width = torch.Generator().manual_seed(0), 0.15 * float(x.max() - x.min())
    noisy = (x + width * torch.randn(x.shape, generator=generator) for _ in range(steps))
    return sum((_gradient(model, each, target) ** 2 for each in noisy), torch.zeros_like(x)).sum(1)


def _gradient(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    scores = model(leaf).gather(1, target[:, None]).sum()
    return torch.autograd.grad(scores, leaf)[0]


def at_random(_model: nn.Module, x: Tensor, _target: Tensor) -> Tensor:
    """Relevance without any meaning."""
    return torch.randn(x.shape[0], *x.shape[2:], generator=torch.Generator().manual_seed(0))


CONVOLUTION, DENSE = Kind("convolution"), Kind("dense")


def methods(model: nn.Module, bounds: Any) -> Mapping[str, Relevance]:
    """What is compared; the first is what the others are compared with."""
    flat, box = (First() & CONVOLUTION, Flat()), (First() & CONVOLUTION, ZBox())
    last = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
    return {
        "epsilon-plus-flat": by("epsilon-plus-flat"),
        "default": by(None),
        "flat, γ .25, ε": by([flat, (CONVOLUTION, Gamma(0.25)), ("*", Epsilon(1e-6))]),
        "flat, γ .25 everywhere": by([flat, ("*", Gamma(0.25))]),
        "flat, γ .25, last ε": by([(last, Epsilon(1e-6)), flat, ("*", Gamma(0.25))]),
        "epsilon-gamma-box": by("epsilon-gamma-box", bounds),
        "box, γ .25 everywhere": by([box, ("*", Gamma(0.25))], bounds),
        "epsilon-plus": by("epsilon-plus"),
        "epsilon-alpha2-beta1": by("epsilon-alpha2-beta1"),
        "deep-taylor": by("deep-taylor", bounds),
        "epsilon": by("epsilon"),
        "vgg-2019": by("vgg-2019", bounds),
        "gradient × input": by("gradient-times-input"),
        "integrated gradients": integrated,
        "smoothed gradients": smoothed,
        "random": at_random,
    }


def pictures(folder: Path | None) -> list[Path]:
    """The photographs in a folder; without one those of scikit-image, or the project's own three."""
    if folder is not None:
        return sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".jpeg"))
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        return pictures(EXAMPLES)
    return [Path(found.origin).parent / "data" / name for name in IN_SCIKIT_IMAGE]


def photographs(folder: Path | None) -> tuple[nn.Module, Tensor, Any, int, Tensor]:
    """EfficientNet-Lite0, cuts of photographs, bounds, size of a region and what replaces it."""
    model = resolve("efficientnet-lite0")
    generator, cuts = torch.Generator().manual_seed(0), []
    for path in pictures(folder):
        whole = read_picture(path).convert("RGB")
        for _ in range(CUTS):
            side = int(min(whole.size) * (0.5 + 0.5 * float(torch.rand((), generator=generator))))
            left, top = (
                int((length - side) * float(torch.rand((), generator=generator))) for length in whole.size
            )
            cut = whole.crop((left, top, left + side, top + side))
            cuts.append(model.prepare(cut, str(path)).x)
    x = torch.cat(cuts)
    return model.module, x, model.bounds, REGION, x.mean((2, 3), keepdim=True)


def digits(name: str, count: int) -> tuple[nn.Module, Tensor, Any, int, Tensor]:
    """A network of the tutorial, digits, bounds, size of a region and what replaces it."""
    x = bundled(name).prepare(pixels(test_set().images[:count, None]))
    return relprop.load(name), x, (-1, 1), 1, torch.tensor(-1.0)


def areas(model: nn.Module, x: Tensor, order_by: Tensor, target: Tensor, size: int, gone: Tensor) -> Tensor:
    """The area between the curves of each picture, (pictures,)."""
    summed = nn.functional.avg_pool2d(order_by[:, None], size).flatten(1)
    ranks = summed.argsort(1, descending=True).argsort(1)
    grid = [length // size for length in x.shape[2:]]
    ranks, regions = ranks.view(-1, 1, *grid), ranks.shape[1]
    total = torch.zeros(len(x))
    for step in range(1, STEPS):
        number = round(step * regions / STEPS)
        for sign, chosen in ((-1, ranks < number), (1, ranks >= regions - number)):
            mask = chosen.repeat_interleave(size, 2).repeat_interleave(size, 3)
            with torch.no_grad():
                scores = model(torch.where(mask, gone, x))
            total += sign * scores.gather(1, target[:, None]).squeeze(1)
    return total / (STEPS - 1)


def interval(values: Tensor) -> str:
    """Mean and 95 % interval of the mean, by the normal distribution."""
    mean, half = float(values.mean()), 1.96 * float(values.std()) / len(values) ** 0.5
    return f"{mean:6.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def main() -> int:
    """Measure and print a table; return the exit status."""
    parser = argparse.ArgumentParser(description="Which rules tell best what a classifier looks at?")
    parser.add_argument(
        "--model", choices=("mnist-mlp", "mnist-cnn", "efficientnet-lite0"), default="efficientnet-lite0"
    )
    parser.add_argument("--pictures", type=Path, help="a folder of photographs")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rules and methods, by name in the table")
    parser.add_argument("--digits", type=int, default=200, help="number of digits")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", relprop.errors.ScoreWarning)
    photographed = arguments.model == "efficientnet-lite0"
    model, x, bounds, size, gone = (
        photographs(arguments.pictures) if photographed else digits(arguments.model, arguments.digits)
    )
    found: dict[str, Tensor] = {}
    batches = torch.split(x, 20 if photographed else 200)
    with torch.no_grad():
        targets = [model(batch).argmax(1) for batch in batches]
    known = methods(model, bounds)
    unknown = [name for name in arguments.only or () if name not in known]
    if unknown:
        parser.error(f"there is no {unknown[0]!r}; there are {', '.join(map(repr, known))}")
    work = [(name, known[name]) for name in arguments.only or known]
    for name, relevance in track(work, "rules", console=Console(stderr=True)):
        parts = []
        for number, (batch, target) in enumerate(zip(batches, targets, strict=True)):
            instead = gone[number * len(batch) :][: len(batch)] if gone.dim() else gone
            parts.append(areas(model, batch, relevance(model, batch, target), target, size, instead))
        found[name] = torch.cat(parts)
    first = next(iter(found))
    table = Table("rules", "area", f"difference from {first}", title=f"{arguments.model}, {len(x)} pictures")
    for name, values in found.items():
        table.add_row(name, interval(values), "" if name == first else interval(values - found[first]))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
