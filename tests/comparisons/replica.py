"""The rules a second time: dense, slow, one sample at a time, straight from the formulas.

A linear operation is a matrix here, taken by Jacobian, so that one replica serves every operation. `w` is
(in, out).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Layer:
    """One linear operation at one sample:

    x (in,), w (in, out), b (out,), z (out,), connected (in, out) bool.
    """

    x: Tensor
    w: Tensor
    b: Tensor
    connected: Tensor

    @property
    def z(self) -> Tensor:
        return self.x @ self.w + self.b


def layer(function: Callable[[Tensor], Tensor], all_ones: Callable[[Tensor], Tensor], x: Tensor) -> Layer:
    """Take an affine function apart. `all_ones` is the function with all weights one and no bias."""

    def flat(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda v: f(v.reshape(1, *x.shape)).flatten()

    zero = torch.zeros(x.numel(), dtype=x.dtype)
    w = torch.autograd.functional.jacobian(flat(function), zero).T
    connected = torch.autograd.functional.jacobian(flat(all_ones), zero).T != 0
    with torch.no_grad():
        return Layer(x.flatten(), w, flat(function)(zero), connected)


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
