"""Deformable convolution, which is torchvision's: here it is written straight from the formula."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relprop
from alike import same_relevance
from networks import DOUBLE, linear
from relprop.errors import CoverageError
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, ZPlus

SCHEMA = (
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, int stride_h, "
    "int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int groups, int offset_groups, "
    "bool use_mask) -> Tensor"
)
RULES = [Epsilon(0.1), ZPlus(), Gamma(0.3), AlphaBeta(2, 1), "attnlrp", "cp-lrp"]


def straight(x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, *options: Any) -> Tensor:
    """Element by element."""
    step_y, step_x, pad_y, pad_x, dilation_y, dilation_x, groups, offset_groups, use_mask = options
    samples, channels = x.shape[:2]
    out, own, *kernel = weight.shape
    high, wide = offset.shape[2:]
    z = bias.view(1, -1, 1, 1).expand(samples, out, high, wide).clone()
    for n in range(samples):
        for o in range(out):
            for c in range(own):
                channel = o // (out // groups) * own + c
                of_group = channel // (channels // offset_groups)
                for k in range(kernel[0] * kernel[1]):
                    for i in range(high):
                        for j in range(wide):
                            at = of_group * kernel[0] * kernel[1] + k
                            y = i * step_y - pad_y + k // kernel[1] * dilation_y + offset[n, 2 * at, i, j]
                            u = j * step_x - pad_x + k % kernel[1] * dilation_x + offset[n, 2 * at + 1, i, j]
                            value = between(x[n, channel], float(y.detach()), float(u.detach()))
                            value = value * mask[n, at, i, j] if use_mask else value
                            z[n, o, i, j] += weight[o, c].flatten()[k] * value
    return z


def between(image: Tensor, y: float, x: float) -> Any:
    """The image at a place between pixels, with zeros around it."""
    total: Any = 0.0
    for row in (int(y // 1), int(y // 1) + 1):
        for column in (int(x // 1), int(x // 1) + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                total = total + (1 - abs(y - row)) * (1 - abs(x - column)) * image[row, column]
    return total


@pytest.fixture(scope="module")
def op() -> Iterator[Any]:
    if hasattr(torch.ops.torchvision, "deform_conv2d"):
        yield torch.ops.torchvision.deform_conv2d
        return
    with torch.library._scoped_library("torchvision", "FRAGMENT") as library:
        library.define(SCHEMA)
        library.impl("deform_conv2d", straight, "CompositeExplicitAutograd")
        yield torch.ops.torchvision.deform_conv2d


X, W = torch.randn(2, 4, 5, 4, **DOUBLE), torch.randn(2, 2, 3, 2, **DOUBLE)
B, SHIFTS = torch.randn(2, **DOUBLE), torch.randn(2, 24, 3, 3, **DOUBLE)
NO_MASK = torch.zeros(2, 0, **DOUBLE)
MASK = torch.rand(2, 12, 3, 3, **DOUBLE)


@pytest.mark.parametrize("geometry", [(1, 1, 0, 0, 1, 1), (2, 1, 1, 0, 1, 1), (1, 1, 1, 1, 1, 2)])
def test_it_computes_what_the_formula_says(op: Any, geometry: tuple[int, ...]) -> None:
    size = F.conv2d(X[:, :2], W, None, geometry[:2], geometry[2:4], geometry[4:]).shape[2:]
    shifts, mask = torch.randn(2, 24, *size, **DOUBLE), torch.rand(2, 12, *size, **DOUBLE)
    expected = straight(X, W, shifts, mask, B, *geometry, 2, 2, True)
    with relprop.propagating(Epsilon(0)):
        leaf = X.clone().requires_grad_()
        found = op(leaf, W, shifts, mask, B, *geometry, 2, 2, True)
        (c,) = torch.autograd.grad(found.sum(), leaf)
    torch.testing.assert_close(found.detach(), expected)
    torch.testing.assert_close((c * X).sum() + B.sum() * found[:, 0].numel(), expected.sum())


@pytest.mark.parametrize("rules", [*RULES, Flat()], ids=str)
def test_without_shifts_it_is_a_convolution(op: Any, rules: Any) -> None:
    last = linear(18, 3)
    still, none = torch.zeros_like(SHIFTS[:, :12]), NO_MASK
    same_relevance(
        lambda x: last(op(x, W, still, none, B, 1, 1, 0, 0, 1, 1, 2, 1, False).flatten(1)),
        lambda x: last(F.conv2d(x, W, B, groups=2).flatten(1)),
        X,
        rules,
        target=1,
    )


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_whole_shifts_move_the_image(op: Any, rules: Any) -> None:
    down = torch.zeros(2, 12, 3, 3, **DOUBLE)
    down[:, ::2] = 1
    same_relevance(
        lambda x: op(x, W, down, NO_MASK, B, 1, 1, 0, 0, 1, 1, 2, 1, False).flatten(1),
        lambda x: F.conv2d(F.pad(x, (0, 0, 0, 1))[:, :, 1:], W, B, groups=2).flatten(1),
        X,
        rules,
        target=1,
    )


def test_shifts_get_nothing_and_a_mask_is_a_gate(op: Any) -> None:
    def model(x: Tensor, frozen: Tensor) -> Tensor:
        shifts, mask = frozen.mean() * SHIFTS, torch.sigmoid(frozen.mean() + MASK)
        return op(x, W, shifts, mask, B, 1, 1, 0, 0, 1, 1, 2, 2, True).flatten(1)

    same_relevance(lambda x: model(x, x), lambda x: model(x, x.detach()), X, Epsilon(0.1), target=1)


def test_an_image_that_is_a_constant_is_a_gap(op: Any) -> None:
    with pytest.raises(CoverageError, match="only its shifts, its mask or its weight depend on the input"):
        relprop.explain(
            lambda s: op(X, W, s, MASK, B, 1, 1, 0, 0, 1, 1, 2, 2, True).flatten(1), SHIFTS, target=1
        )
