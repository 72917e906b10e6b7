"""The rules a second time: dense, slow, one sample at a time, straight from the formulas.

A linear operation is a matrix here, taken by Jacobian, so that one replica serves every operation. `w` is
(in, out).
"""

from typing import Any

import torch
from torch import Tensor

from relprop.rules import Absolute, AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus
from relprop.testing.dense import DenseLayer as Layer


def epsilon(layer: Layer, R: Tensor, *, epsilon: float, bias: str) -> Tensor:
    z = layer.x @ layer.w if bias == "ignore" else layer.z
    den = z + epsilon * torch.where(z >= 0, 1.0, -1.0).to(z)
    return _sum(layer, layer.x[:, None] * layer.w, den, R, bias, layer.b)


def gamma(layer: Layer, R: Tensor, *, gamma: float, bias: str) -> Tensor:
    contributions = layer.x[:, None] * layer.w
    z = contributions.sum(0) if bias == "ignore" else layer.z
    up = z >= 0
    favoured = torch.where(up, contributions.clamp(min=0), contributions.clamp(max=0))
    b = layer.b + gamma * torch.where(up, layer.b.clamp(min=0), layer.b.clamp(max=0))
    weighed = contributions + gamma * favoured
    den = weighed.sum(0) + (0 if bias == "ignore" else b)
    return _sum(layer, weighed, den, R, bias, b)


def gamma_positive(layer: Layer, R: Tensor, *, gamma: float, bias: str) -> Tensor:
    w, b = layer.w + gamma * layer.w.clamp(min=0), layer.b + gamma * layer.b.clamp(min=0)
    contributions = layer.x[:, None] * w
    den = contributions.sum(0) + (0 if bias == "ignore" else b)
    return _sum(layer, contributions, den, R, bias, b)


def alpha_beta(layer: Layer, R: Tensor, *, alpha: float, beta: float, bias: str) -> Tensor:
    contributions = layer.x[:, None] * layer.w
    total = torch.zeros_like(layer.x)
    bp, bn = layer.b.clamp(min=0), layer.b.clamp(max=0)
    positive, negative = contributions.clamp(min=0), contributions.clamp(max=0)
    use = bias != "ignore"
    P, N = positive.sum(0) + use * bp, negative.sum(0) + use * bn
    for j in range(len(R)):
        a, b = (alpha, beta) if P[j] > 0 and N[j] < 0 else (1.0, 0.0) if P[j] > 0 else (0.0, -1.0)
        share = torch.zeros((), dtype=R.dtype)
        if P[j] > 0:
            total += a * positive[:, j] / P[j] * R[j]
            share = share + a * bp[j] / P[j] * R[j]
        if N[j] < 0:
            total -= b * negative[:, j] / N[j] * R[j]
            share = share - b * bn[j] / N[j] * R[j]
        if bias == "distribute":
            connected = layer.connected[:, j].to(R)
            total += share * connected / connected.sum().clamp(min=1)
    return total


def z_plus(layer: Layer, R: Tensor, *, bias: str) -> Tensor:
    contributions = (layer.x[:, None] * layer.w).clamp(min=0)
    b = layer.b.clamp(min=0)
    P = contributions.sum(0)
    return _sum(layer, contributions, P + (0 if bias == "ignore" else b), R, bias, b)


def absolute(layer: Layer, R: Tensor, *, bias: str) -> Tensor:
    contributions = (layer.x[:, None] * layer.w).abs()
    b = layer.b.abs()
    return _sum(layer, contributions, contributions.sum(0) + (0 if bias == "ignore" else b), R, bias, b)


def z_box(layer: Layer, R: Tensor, *, low: Tensor, high: Tensor) -> Tensor:
    w = layer.w
    contributions = (
        layer.x[:, None] * w
        - low.flatten()[:, None] * w.clamp(min=0)
        - high.flatten()[:, None] * w.clamp(max=0)
    )
    return _sum(layer, contributions, contributions.sum(0), R, "ignore", layer.b)


def w_square(layer: Layer, R: Tensor) -> Tensor:
    return _sum(layer, layer.w**2, (layer.w**2).sum(0), R, "ignore", layer.b)


def flat(layer: Layer, R: Tensor) -> Tensor:
    ones = layer.connected.to(R)
    return _sum(layer, ones, ones.sum(0), R, "ignore", layer.b)


def _sum(layer: Layer, contributions: Tensor, den: Tensor, R: Tensor, bias: str, share: Tensor) -> Tensor:
    quotient = torch.where(den == 0, 0.0, R / den)
    total = (contributions * quotient).sum(1)
    if bias == "distribute":
        connected = layer.connected.to(R)
        total = total + (connected / connected.sum(0).clamp(min=1) * (share * quotient)).sum(1)
    return total


BIAS_MODES = ["absorb", "ignore", "distribute"]


# name: rule, replica, the replica's parameters
RULES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "LRP-0": (Epsilon(0), epsilon, {"epsilon": 0.0, "bias": "absorb"}),
    "w²": (WSquare(), w_square, {}),
    "flat": (Flat(), flat, {}),
    **{
        f"{name}, bias {bias}": (rule(*values, bias=bias), function, {**parameters, "bias": bias})
        for bias in BIAS_MODES
        for name, rule, values, function, parameters in [
            ("ε", Epsilon, (0.3,), epsilon, {"epsilon": 0.3}),
            ("γ", Gamma, (0.25,), gamma, {"gamma": 0.25}),
            ("large γ", Gamma, (100.0,), gamma, {"gamma": 100.0}),
            ("α2β1", AlphaBeta, (2.0, 1.0), alpha_beta, {"alpha": 2.0, "beta": 1.0}),
            ("α1.5β0.5", AlphaBeta, (1.5, 0.5), alpha_beta, {"alpha": 1.5, "beta": 0.5}),
            ("z+", ZPlus, (), z_plus, {}),
            ("|z|", Absolute, (), absolute, {}),
        ]
    },
}

# Those of hidden layers, where relevance lands on activations that are zero.
HIDDEN: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "flat": (Flat(), flat, {}),
    "w²": (WSquare(), w_square, {}),
    "zB": (
        ZBox(-4.0, 4.0),
        z_box,
        {"low": torch.tensor(-4.0).double(), "high": torch.tensor(4.0).double()},
    ),
    "ε, distributed": (Epsilon(0.3, "distribute"), epsilon, {"epsilon": 0.3, "bias": "distribute"}),
    "γ": (Gamma(0.25), gamma, {"gamma": 0.25, "bias": "absorb"}),
    "αβ": (AlphaBeta(2, 1), alpha_beta, {"alpha": 2.0, "beta": 1.0, "bias": "ignore"}),
}


def assert_agree(actual: Tensor, desired: Tensor) -> None:
    """To a relative 1e-10 of the largest value: rounding errors of float64 and nothing more."""
    assert (actual - desired).abs().max() <= 1e-10 * desired.abs().max()
