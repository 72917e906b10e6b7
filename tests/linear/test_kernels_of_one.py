"""Convolutions with a kernel of one go back as a matrix at each place: the same numbers, in less time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from alike import near
from counting import Calls
from networks import DOUBLE
from relprop.linear.maps import Convolution
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, ZPlus

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "1d": lambda: nn.Conv1d(4, 6, 1),
    "2d": lambda: nn.Conv2d(4, 6, 1, bias=False),
    "3d": lambda: nn.Conv3d(4, 6, 1),
    "strides": lambda: nn.Conv2d(4, 6, 1, stride=(2, 3)),
    "stride and dilation": lambda: nn.Conv1d(4, 6, 1, stride=2, dilation=3),
    "padding": lambda: nn.Conv2d(4, 6, 1, padding=1),
    "groups": lambda: nn.Conv2d(4, 6, 1, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 1, stride=2),
}
BY_PLACE = ("1d", "2d", "3d", "strides", "stride and dilation")


def case(name: str) -> tuple[nn.Module, Tensor]:
    layer: Any = LAYERS[name]().double()
    x = torch.randn(3, 4, *[7] * len(layer.kernel_size), **DOUBLE)
    return nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3, **DOUBLE)), x


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rule", [Epsilon(0.1), ZPlus(), Gamma(0.25), AlphaBeta(2, 1), Flat()])
def test_relevance_is_that_of_the_transposed_convolution(
    name: str, rule: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = case(name)
    model(x)
    found = relprop.explain(model, x, target=1, rules=rule)
    monkeypatch.setattr(Convolution, "_is_by_place", lambda *_: False)
    near(found.relevance, relprop.explain(model, x, target=1, rules=rule).relevance)


@pytest.mark.parametrize("name", LAYERS)
def test_no_convolution_goes_back_where_a_matrix_does(name: str) -> None:
    layer: Any = LAYERS[name]().double()
    x = torch.randn(3, 4, *[7] * len(layer.kernel_size), **DOUBLE)
    map_ = Convolution(
        layer.stride,
        layer.padding,
        layer.dilation,
        isinstance(layer, nn.ConvTranspose2d),
        layer.output_padding,
        layer.groups,
        layer.kernel_size,
    )
    with torch.no_grad():
        z = map_.apply(x, layer.weight)
        with Calls() as calls:
            map_.transpose(z, layer.weight, x.shape)
    assert (calls.of["convolution"] == 0) is (name in BY_PLACE)
