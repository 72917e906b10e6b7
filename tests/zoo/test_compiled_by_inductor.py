"""What `mode="inductor"` compiles gives what Python gives: every preset, networks of pictures, transformers.

`make compiled` runs these, in double precision and on other values than the example's. A graph that is not
compiled warns, and a warning is an error here. Each compilation takes about half a minute.
"""

import shutil
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from by_graph import SMALL, Small, assert_same, graphs_of, small
from families_compared import assert_alike, other_values
from networks import DOUBLE
from relprop import PRESETS, Explainer, targets
from relprop.rules import AlphaBeta, Gamma, ZPlus
from transformer_families import FAMILIES
from zoo_networks import BOUNDS, NETWORKS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore:Model config"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what torch.compile imports
]

RULES: dict[str, Any] = {
    "epsilon": "epsilon",
    "zplus": ZPlus(),
    "gamma": Gamma(0.25),
    "alpha2-beta1": AlphaBeta(2, 1),
    "epsilon-gamma-box": "epsilon-gamma-box",
}

VISION = (
    *("alexnet", "resnet18", "densenet121", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny"),
    *("mixer_s32_224", "regnet_y_400mf", "googlenet", "squeezenet1_1", "nf_regnet_b0", "ghostnet_100"),
)
"""Twelve networks of pictures."""

PAIRS = [(name, list(RULES)[(i + n) % len(RULES)]) for i, name in enumerate(VISION) for n in (0, 2)]
"""Each network by two of the rules, and each of the rules on some five networks."""

TRANSFORMERS = (
    *("llama-sdpa", "llama-eager", "bert-sdpa", "gpt2-eager", "gemma2-eager", "t5-eager"),
    *("torchvision-vit-sdpa", "timm-swin-sdpa", "clip-sdpa", "mixtral-sdpa-batched_mm"),
)


PARTLY_SINGLE = ("llama-eager", "gemma2-eager", "t5-eager", "mixtral-sdpa-batched_mm")
"""Their softmax, of attention or of routers, is computed in single precision, whatever the model's is."""


def compare(
    explainer: Explainer,
    example: dict[str, Any],
    others: dict[str, Any],
    target: Any,
    tolerance: float = 1e-10,
) -> None:
    """Check that the compiled graph of an example gives for others what Python gives."""
    compiled = explainer.compile(**example, target=target, mode="inductor")
    assert graphs_of(compiled) == 1
    found, expected = (e(**others, target=target) for e in (compiled, explainer))
    assert_alike(found, expected, tolerance)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", SMALL)
def test_every_preset(name: str, preset: str) -> None:
    model, (x, other) = small(name, 2, 2)
    explainer = Explainer(model, rules=preset, bounds=BOUNDS if PRESETS[preset].needs_bounds else None)
    compiled = explainer.compile(x, target=1, mode="inductor")
    assert graphs_of(compiled) == 1
    assert_same(compiled(other, target=3), explainer(other, target=3))


@pytest.mark.parametrize(
    "target", [None, [2, 0], targets.RunnerUp(2), targets.Contrastive(1), targets.LogOdds(0)], ids=str
)
def test_targets(target: Any) -> None:
    explainer, x = Explainer(Small(), rules="epsilon-gamma-flat"), torch.rand(2, 1, 6, 6, **DOUBLE)
    compiled = explainer.compile(x, target=target, mode="inductor")
    assert graphs_of(compiled) == 1
    assert_same(compiled(x * 0.5, target=target), explainer(x * 0.5, target=target))


@pytest.mark.parametrize("name", ["index", "index_add", "scatter_reduce", "topk", "max_pool"])
def test_gradients_that_write_to_elements(name: str) -> None:
    """Inductor may fuse them in another order each time: see `relprop.runs.inductor`."""
    layer, parts = nn.Linear(16, 12).double(), torch.tensor([0, 1, 1, 4, 2, 2, 0, 3, 3, 3, 1, 4])

    def model(x: Tensor) -> Tensor:
        h = layer(x).relu()
        if name == "max_pool":
            return F.max_pool2d(x.view(-1, 1, 4, 4).relu() + h.sum(), 2).flatten(1)
        if name == "index":
            return h[:, torch.tensor([3, 1, 1, 0, 5])]
        if name == "index_add":
            return torch.zeros_like(h[:, :5]).index_add(1, parts, h)
        if name == "topk":
            return h.topk(5)[0]
        return torch.zeros_like(h[:, :5]).scatter_reduce(1, parts.expand(len(x), -1), h, "amax")

    x, others = torch.rand(2, 3, 16, **DOUBLE)
    for _ in range(3):
        torch.compiler.reset()
        compare(Explainer(model, rules="epsilon"), {"x": x}, {"x": others}, 1)


@pytest.mark.parametrize(("name", "rules"), PAIRS)
def test_a_network_of_pictures(name: str, rules: str) -> None:
    model, x, target = NETWORKS[name].make(torch.float64)
    explainer = Explainer(model, rules=RULES[rules], bounds=BOUNDS if rules.endswith("box") else None)
    (argument,) = explainer(x, target=target).inputs
    compare(explainer, {argument: x}, {argument: x.roll(1, -1)}, target)


@pytest.mark.parametrize("preset", ["attnlrp", "cp-lrp", "epsilon"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_family_of_transformers(name: str, preset: str) -> None:
    model, arguments, target = FAMILIES[name].make(torch.float64)
    tolerance = 1e-5 if name in PARTLY_SINGLE else 1e-10
    compare(Explainer(model, rules=preset), dict(arguments), other_values(arguments), target, tolerance)
