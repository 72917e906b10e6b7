"""relprop's maps against the tutorial's way of computing, on its twelve digits; and what they show."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import oracle
import relprop
from relprop.data.mnist import tutorial_sample
from relprop.zoo import BUNDLED

METHODS = {
    "mlp": ["sensitivity", "deep-taylor", "alpha2-beta1"],
    "cnn": ["sensitivity", "deep-taylor", "alpha2-beta1"],
}
CASES = [(name, method) for name, methods in METHODS.items() for method in methods]


BOUNDS = (-1, 1)
"""Of the pixels of both networks."""


def sample(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A trained network, the tutorial's digits as it takes them, and their classes."""
    images, labels = tutorial_sample()
    bundled = BUNDLED[f"mnist-{name}"]
    return relprop.load(bundled.name), bundled.prepare(images), labels


def trailing_relu(labels: Tensor) -> Any:
    return lambda output: output.relu().gather(1, labels[:, None]).squeeze(1)


def relprop_maps(model: nn.Module, x: Tensor, labels: Tensor, method: str) -> Tensor:
    if method == "sensitivity":
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(model(leaf).gather(1, labels[:, None]).sum(), leaf)[0] ** 2
    return relprop.explain(model, x, rules=method, target=trailing_relu(labels), bounds=BOUNDS).relevance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "method"), CASES)
def test_maps_are_those_of_the_tutorial(name: Any, method: Any, dtype: torch.dtype) -> None:
    model, x, labels = sample(name)
    expected = oracle.maps(name, method, model.state_dict(), x.double(), labels)
    found = relprop_maps(model.to(dtype), x.to(dtype), labels, method)
    largest = np.abs(expected).max()
    assert np.abs(found.numpy() - expected).max() <= 1e-6 * largest


@pytest.mark.parametrize("rules", ["deep-taylor", "alpha2-beta1"])
@pytest.mark.parametrize("name", METHODS)
def test_relevance_sums_to_the_score_of_each_digit(name: str, rules: str) -> None:
    model, x, labels = sample(name)
    e = relprop.explain(model, x, target=trailing_relu(labels), rules=rules, bounds=BOUNDS)
    torch.testing.assert_close(e.relevance.flatten(1).sum(1), e.score, rtol=1e-4, atol=1e-4)
    assert e.ledger.gap.max() < 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_deep_taylor_is_nowhere_negative(name: str) -> None:
    model, x, labels = sample(name)
    assert relprop_maps(model, x, labels, "deep-taylor").min() >= 0


@pytest.mark.parametrize("preset", relprop.PRESETS)
@pytest.mark.parametrize("name", METHODS)
def test_every_preset_closes_its_ledger_on_real_digits(name: str, preset: str) -> None:
    model, x, labels = sample(name)
    single = relprop.explain(model, x, target=labels, rules=preset, bounds=BOUNDS)
    assert single.ledger.gap.max() < 1e-4
    assert not single.ledger.mixed  # rounding errors are no mixture of samples
    e = relprop.explain(model.double(), x.double(), target=labels, rules=preset, bounds=BOUNDS)
    assert e.ledger.gap.max() < 1e-9


def test_a_negative_score_gives_an_empty_map() -> None:
    model, x, _ = sample("cnn")
    worst = model(x).argmin(1)
    assert (model(x).gather(1, worst[:, None]) < 0).all()
    assert not relprop_maps(model, x, worst, "deep-taylor").any()


def test_the_cnn_keeps_closer_to_the_stroke_than_the_mlp() -> None:
    """The tutorial's comparison: how much deep Taylor relevance lies on the digit's ink, or next to it."""
    shares = {}
    for name in METHODS:
        model, x, labels = sample(name)
        R = relprop_maps(model, x, labels, "deep-taylor")
        near = torch.nn.functional.max_pool2d(x, 3, 1, 1) > -0.5
        shares[name] = float((R * near).sum() / R.sum())
    assert shares["cnn"] > shares["mlp"]


def test_the_default_rules_are_said_in_the_result() -> None:
    model, x, _ = sample("cnn")
    e = relprop.explain(model, x, bounds=BOUNDS)
    assert e.preset == "epsilon-gamma-box"
    assert [str(a) for a in e.rules] == [
        "c1: conv2d: ZBox(low=-1, high=1)",
        "c2: conv2d: Gamma(gamma=0.25)",
        "c3: conv2d: Gamma(gamma=0.25)",
        "c4: conv2d: Gamma(gamma=0.25)",
    ]
    assert "rules epsilon-gamma-box: 4 operations, ledger balances to" in repr(e)
    for same in (model, copy.deepcopy(model), nn.Sequential(model), nn.Sequential(*model.children())):
        without = relprop.explain(same, x)
        assert without.preset == "epsilon-gamma-flat"
