"""The 2017 heatmapping.org tutorial as a computation: two networks, twelve digits, six rows of maps.

The last row is the example of its successor (Montavon et al. 2019, ch. 10). Nothing is printed or written
here; `relprop.tutorial.report` draws and describes the result, the command `relprop tutorial` writes it.
"""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from relprop.data.mnist import MNIST, test_set, tutorial_sample
from relprop.linear.numerics import divide
from relprop.linear.operation import Incoming, LinearOperation, Propagated
from relprop.rules.composite import Composite
from relprop.rules.first_layer import ZBox
from relprop.rules.linear import Gamma
from relprop.runs.explain import explain
from relprop.targets.classes import Logit
from relprop.tutorial.train import error_rate
from relprop.zoo import bundled, fit, load, text_format

T = TypeVar("T")

REPETITIONS = 3
"""How often each step is run for its run time: another program may take the processor in one of them."""


@dataclass(frozen=True)
class BatchEpsilon:
    """R_i = Σ_j x_i w_ij / (z_j + ε rms(z) + 1e-9) · R_j, rms over all outputs of all samples. Two products.

    This rule reproduces the successor's example as it was executed. All samples share one stabiliser, so a
    map depends on the digits beside it. The stabiliser has no sign, so there is a pole at z_j = -ε rms(z).
    (The explained outputs, behind a ReLU, are above it.) relprop's own rules treat each sample alone, and
    their stabilisers have the sign of z.
    """

    epsilon: float

    @property
    def puts_relevance(self) -> bool:
        return False

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        stabiliser = self.epsilon * op.z.square().mean().sqrt() + 1e-9
        s = divide(incoming.relevance, op.z + stabiliser)
        absorbed = {"epsilon": s * stabiliser}
        if op.b is not None:
            absorbed["bias"] = s * op.b
        return Propagated(op.transpose(s, op.weight), absorbed=absorbed)


SUCCESSOR = Composite([("l1", ZBox()), ("l2", Gamma(0.1)), ("l3", BatchEpsilon(0.1))])
"""The rules of the successor's MNIST example, by the layers of "mnist-mlp"."""

PUBLISHED = {"mnist-mlp": 0.0105, "mnist-cnn": 0.0076}
"""Test errors that the tutorial states for its own two networks, by the name of ours."""


@dataclass(frozen=True)
class Step:
    """One row of maps: what is explained, and how."""

    name: str
    """Of its picture, without ".png"."""
    model: str
    rules: str | Composite | None
    """None is sensitivity: the squared gradient of the score."""


STEPS = (
    Step("mlp-sensitivity", "mnist-mlp", None),
    Step("mlp-deeptaylor", "mnist-mlp", "deep-taylor"),
    Step("cnn-sensitivity", "mnist-cnn", None),
    Step("cnn-deeptaylor", "mnist-cnn", "deep-taylor"),
    Step("cnn-alphabeta", "mnist-cnn", "alpha2-beta1"),
    Step("mlp-successor", "mnist-mlp", SUCCESSOR),
)
"""In the tutorial's order, the successor last."""

TASKS = len(PUBLISHED) + len(STEPS)
"""How many times `compute` reports progress."""


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps of one step. Float64, so that the pictures are the same on every machine.

    Attributes:
        relevance: (12, 1, H, W), as the network takes its input: 28 × 28, or padded 32 × 32.
        scores: of each digit's own class, (12,), before the trailing ReLU.
        gap: how far each digit's ledger is from balancing (`Ledger.gap`), (12,); None for sensitivity.
        seconds: run time for the twelve digits, the shortest of `REPETITIONS`.
    """

    step: Step
    relevance: Tensor
    scores: Tensor
    gap: Tensor | None
    seconds: float

    @property
    def sums(self) -> Tensor:
        """Sum of each map with its margin, (12,)."""
        return self.relevance.flatten(1).sum(1)

    @property
    def picture(self) -> Tensor:
        """The maps without the margin that the network's padding added, (12, 1, 28, 28)."""
        margin = (self.relevance.shape[-1] - 28) // 2
        return self.relevance[..., margin : margin + 28, margin : margin + 28]


@dataclass(frozen=True)
class TestError:
    """How many of the test digits a network does not recognise."""

    __test__ = False  # pytest would take the name for a test

    wrong: int
    digits: int
    seconds: float

    @property
    def rate(self) -> float:
        """Share of the digits, between 0 and 1."""
        return self.wrong / self.digits


@dataclass(frozen=True, eq=False)
class Tutorial:
    """Everything that the tutorial computes.

    Attributes:
        images: the digits, (12, 1, 28, 28) in [-1, 1].
        labels: what they are, (12,) int64.
        errors: of both networks on all test digits, by name.
        maps: by the name of the step, in the order of `STEPS`.
    """

    images: Tensor
    labels: Tensor
    errors: dict[str, TestError]
    maps: dict[str, Maps]


def load_networks(weights: Path | None = None) -> dict[str, nn.Module]:
    """Load both networks by name, with the package's weights or from a folder in the tutorial's text format.

    Raises:
        FileError: a file is missing, damaged or does not fit its network.
    """
    if weights is None:
        return {name: load(name) for name in PUBLISHED}
    networks: dict[str, nn.Module] = {}
    for name in PUBLISHED:
        network = bundled(name).build()
        fit(network, text_format.read(weights, name), str(weights))
        networks[name] = network.eval().requires_grad_(False)
    return networks


def compute(
    networks: Mapping[str, nn.Module], progress: Callable[[str], None] = lambda task: None
) -> Tutorial:
    """Compute everything, in a few seconds.

    Args:
        networks: as `load_networks` returns them; they are left as they are.
        progress: called before each of the `TASKS` with what is done next.
    """
    errors = {}
    for name in PUBLISHED:
        progress(f"test error of {name}")
        errors[name] = measure(name, networks[name], test_set())
    images, labels = tutorial_sample()
    maps = {}
    for step in STEPS:
        progress(step.name)
        maps[step.name] = maps_of(step, networks[step.model], images, labels)
    return Tutorial(images, labels, errors, maps)


def measure(name: str, network: nn.Module, data: MNIST) -> TestError:
    """Count the digits that a network of the bundled kind `name` does not recognise."""
    start = time.perf_counter()
    rate = error_rate(network, bundled(name).prepare, data)
    return TestError(round(rate * len(data)), len(data), time.perf_counter() - start)


def maps_of(step: Step, network: nn.Module, images: Tensor, labels: Tensor) -> Maps:
    """Make the maps of one step, for images (N, 1, 28, 28) and the class (N,) to explain for each."""
    model = bundled(step.model)
    network = copy.deepcopy(network).double()
    x = model.prepare(images).double()
    if step.rules is None:
        (relevance, scores), seconds = _timed(lambda: sensitivity(network, x, labels))
        return Maps(step, relevance, scores, None, seconds)
    own = Logit(tuple(labels.tolist()))
    explanation, seconds = _timed(
        lambda: explain(
            network,
            x,
            # A ReLU completes the last layer: a class that the network speaks against has an empty map.
            target=lambda scores: own(scores.relu()),
            rules=step.rules,
            bounds=(model.low, model.high),
        )
    )
    scores = _own(explanation.output, labels)
    return Maps(step, explanation.relevance, scores, explanation.ledger.gap, seconds)


def sensitivity(network: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Squared gradient of each sample's score for its class, of the shape of `x`; and these scores, (N,)."""
    x = x.detach().requires_grad_()
    scores = _own(network(x), labels)
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    return gradient.square(), scores.detach()


def _own(scores: Tensor, labels: Tensor) -> Tensor:
    """Pick from (N, classes) the score of each sample's own class, (N,)."""
    return scores.gather(1, labels[:, None]).squeeze(1)


def _timed(run: Callable[[], T]) -> tuple[T, float]:
    """Run something that takes milliseconds; give its result and its shortest run time in seconds."""
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    return result, min(times)
