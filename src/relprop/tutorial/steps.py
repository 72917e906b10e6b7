"""The computation of the heatmapping.org tutorial of 2017: two networks, twelve digits, six rows of maps.

The last row is the example of the tutorial's successor (Montavon et al. 2019, ch. 10). Nothing is printed or
written here. `relprop.tutorial.report` draws and describes the result. The command `relprop tutorial` writes
the files.
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
"""How often each step is run. The shortest run time counts, since other programs may slow down a run."""


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
"""Test errors that the tutorial states for its own two networks, between 0 and 1, by our names."""


@dataclass(frozen=True)
class Step:
    """A row of maps: the network that is explained, and the rules."""

    name: str
    """Name of its picture, without ".png"."""
    model: str
    """Name of the bundled network."""
    rules: str | Composite | None
    """The rules, or None for sensitivity, which is the squared gradient of the score."""


STEPS = (
    Step("mlp-sensitivity", "mnist-mlp", None),
    Step("mlp-deeptaylor", "mnist-mlp", "deep-taylor"),
    Step("cnn-sensitivity", "mnist-cnn", None),
    Step("cnn-deeptaylor", "mnist-cnn", "deep-taylor"),
    Step("cnn-alphabeta", "mnist-cnn", "alpha2-beta1"),
    Step("mlp-successor", "mnist-mlp", SUCCESSOR),
)
"""The steps in the tutorial's order, and the successor's example last."""

TASKS = len(PUBLISHED) + len(STEPS)
"""How many times `compute` reports progress."""


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps of a step. They are computed in float64, so that the pictures are the same on every machine.

    Attributes:
        step: the step.
        relevance: the maps, (12, 1, H, W), of the size of the network's input: 28 × 28, or padded 32 × 32.
        scores: the score of each digit's own class, (12,), before the ReLU that the explained score has.
        gap: how far each digit's ledger is from balancing (`Ledger.gap`), (12,); None for sensitivity.
        seconds: run time for the twelve digits in seconds, the shortest of `REPETITIONS`.
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
        """The maps without the margin of the network's padding, (12, 1, 28, 28)."""
        margin = (self.relevance.shape[-1] - 28) // 2
        return self.relevance[..., margin : margin + 28, margin : margin + 28]


@dataclass(frozen=True)
class TestError:
    """Number of the test digits that a network does not recognise, number of test digits, and run time."""

    __test__ = False  # pytest would take the name for a test

    wrong: int
    digits: int
    seconds: float

    @property
    def rate(self) -> float:
        """Share of the digits that are not recognised, between 0 and 1."""
        return self.wrong / self.digits


@dataclass(frozen=True, eq=False)
class Tutorial:
    """Everything that the tutorial computes.

    Attributes:
        images: the digits, float32 (12, 1, 28, 28), in [-1, 1].
        labels: their labels, (12,) int64.
        errors: test errors of both networks on all test digits, by the network's name.
        maps: the maps by the name of the step, in the order of `STEPS`.
    """

    images: Tensor
    labels: Tensor
    errors: dict[str, TestError]
    maps: dict[str, Maps]


def load_networks(weights: Path | None = None) -> dict[str, nn.Module]:
    """Return both networks by name, in evaluation mode and without gradients for their weights.

    Args:
        weights: a folder with weights in the tutorial's text format (see `relprop.zoo.text_format`); by
            default the weights of the package.

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
    """Compute the whole tutorial. It takes a few seconds.

    Args:
        networks: both networks, as `load_networks` returns them. They are not changed.
        progress: called before each of the `TASKS` with a description of the task.
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
    """Count the digits that a network with the layers of the bundled network `name` does not recognise."""
    start = time.perf_counter()
    rate = error_rate(network, bundled(name).prepare, data)
    return TestError(round(rate * len(data)), len(data), time.perf_counter() - start)


def maps_of(step: Step, network: nn.Module, images: Tensor, labels: Tensor) -> Maps:
    """Compute the maps of a step.

    Args:
        step: the step.
        network: the network of the step. It is not changed.
        images: the digits, (N, 1, 28, 28), in [-1, 1].
        labels: the class to explain for each digit, (N,) int64.
    """
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
            # A negative score becomes zero by a ReLU, so the map of its class is zero.
            target=lambda scores: own(scores.relu()),
            rules=step.rules,
            bounds=(model.low, model.high),
        )
    )
    scores = _own(explanation.output, labels)
    return Maps(step, explanation.relevance, scores, explanation.ledger.gap, seconds)


def sensitivity(network: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared gradient of each sample's score for its class, and these scores.

    Args:
        network: the network.
        x: its input, (N, 1, H, W).
        labels: the class of each sample, (N,) int64.

    Returns:
        The squared gradient, in the shape of `x`, and the scores, (N,).
    """
    x = x.detach().requires_grad_()
    scores = _own(network(x), labels)
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    return gradient.square(), scores.detach()


def _own(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the score of each sample's own class, (N,), from all scores (N, classes)."""
    return scores.gather(1, labels[:, None]).squeeze(1)


def _timed(run: Callable[[], T]) -> tuple[T, float]:
    """Run a function `REPETITIONS` times. Return its result and the shortest run time in seconds."""
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    return result, min(times)
