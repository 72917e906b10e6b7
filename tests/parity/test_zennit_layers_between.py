"""Where relprop and zennit differ by what they see: sums, pooling, activations, which layer is first."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import zennit_parts as parts
from comparing import relative_difference
from single_layers import by_relprop, by_zennit, neuron, row
from torch import Tensor, nn
from zennit import composites
from zennit import rules as zennit  # after zennit_parts, which makes it importable

from relprop import PRESETS, Composite
from relprop.places import First, Kind
from relprop.rules import Epsilon, Flat, WSquare, ZBox

exactly = parts.exactly
Agree = Callable[[Any, Tensor], None]


def test_average_pooling_shares_by_contribution(assert_agree: Agree) -> None:
    """Without its Norm, as in a composite without the base, zennit shares an average's relevance evenly."""
    model, x = nn.AvgPool1d(2).eval(), row(1, 3)
    bare = composites.LayerMapComposite([])
    with_norm = composites.LayerMapComposite(composites.layer_map_base(exactly))
    assert_agree(by_relprop(model, x, Epsilon(0)), row(0.5, 1.5))
    assert_agree(by_zennit(model, x, bare), row(1, 1))
    assert_agree(by_zennit(model, x, with_norm), row(0.5, 1.5))


@pytest.mark.parametrize("rules", [Flat(), ZBox(-6.0, 6.0), WSquare()])
def test_an_average_of_zeros_keeps_its_relevance(rules: Any, assert_agree: Agree) -> None:
    """Flat, zB and w² put relevance on neurons that are zero; zennit's Norm loses it where all it averages
    are zero. relprop shares it evenly among these.
    """
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)]
    model, x = nn.Sequential(*layers).double().eval(), torch.randn(2, 2, 8, 8, dtype=torch.float64)
    assert (model[:3](x) == 0).any()
    hook = {
        Flat: zennit.Flat(exactly),
        ZBox: zennit.ZBox(-6.0, 6.0, exactly),
        WSquare: zennit.WSquare(exactly, zero_params="bias"),
    }[type(rules)]
    c = torch.ones(2, 3, dtype=torch.float64)
    found = by_relprop(model, x, rules, c)
    sharing = parts.everywhere(hook, (nn.AvgPool2d, parts.norm_with_zeros()))
    assert_agree(found, by_zennit(model, x, sharing, c))
    losing = by_zennit(model, x, hook, c)
    assert relative_difference(losing, found) > 0.01
    assert_agree(found.sum((1, 2, 3)), model(x).sum(1))
    assert ((losing - found).sum((1, 2, 3)).abs() > 1e-3).all()


class Residual(nn.Module):
    """x + relu(x·w), as one writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.relu = nn.Linear(2, 2, bias=False), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.relu(self.layer(x))
        return y


def test_a_residual_sum_needs_no_mark(assert_agree: Agree) -> None:
    """zennit sees modules only: past `+` each branch gets all of the relevance, unless a canonizer puts a
    module there. relprop's coefficient is the same for both branches, and relevance is shared.
    """
    model = nn.Sequential(Residual(), Residual(), nn.Linear(2, 1, bias=False)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    x = row(1, 2)
    assert_agree(by_relprop(model, x, Epsilon(0)).sum(1, keepdim=True), model(x))
    assert_agree(by_zennit(model, x, zennit.Epsilon(exactly)).sum(1, keepdim=True), 4 * model(x))


@pytest.mark.parametrize("function", [nn.Sigmoid(), nn.Softplus(), nn.Hardsigmoid()], ids=str)
def test_what_a_function_is_at_zero_is_not_the_inputs(function: nn.Module, assert_agree: Agree) -> None:
    """zennit passes all relevance through activations. relprop treats f(0) ≠ 0 as a bias, and reports it."""
    function, x, c = function.eval(), row(-1.5, 0.5, 2), row(1, 2, 3)
    passing = composites.LayerMapComposite(composites.layer_map_base(exactly))
    at_zero = function(torch.zeros(1, dtype=torch.float64))
    assert_agree(by_zennit(function, x, passing, c), c * function(x))
    assert_agree(by_relprop(function, x, Epsilon(0), c), c * (function(x) - at_zero))


def test_mish_is_an_activation(assert_agree: Agree) -> None:
    """zennit does not list nn.Mish, and silently takes its derivative times relevance."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Mish(), nn.Linear(4, 1)).double().eval()
    x = row(1, -1, 2)
    found = by_relprop(model, x, Epsilon(0.1))
    listed = parts.everywhere(zennit.Epsilon(0.1), (nn.Mish, zennit.Pass()))
    assert_agree(found, by_zennit(model, x, listed))
    assert relative_difference(by_zennit(model, x, zennit.Epsilon(0.1)), found) > 0.01


def test_batch_norm_that_is_not_merged(assert_agree: Agree) -> None:
    """zennit passes relevance through a batch norm that does not follow a linear layer; the shift counts as
    the input's. relprop reports it, with the plain gradient of the affine function.
    """
    norm: Any = nn.BatchNorm1d(2).double().eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2, 3]))
        norm.bias.copy_(torch.tensor([1, -1]))
        norm.running_var.fill_(1 - norm.eps)
    model, x = nn.Sequential(nn.ReLU(), norm, neuron([1, 1], bias=0)).eval(), row(1, 2)
    # 2·1 + 1 and 3·2 - 1
    assert_agree(by_zennit(model, x, zennit.Epsilon(exactly)), row(3, 5))
    assert_agree(by_relprop(model, x, Epsilon(0)), row(2, 6))
    affine = parts.everywhere(zennit.Epsilon(0.5), (nn.BatchNorm1d, zennit.Epsilon(exactly)))
    assert_agree(by_relprop(model, x, Epsilon(0.5)), by_zennit(model, x, affine))


class Unordered(nn.Module):
    """Runs the layer that was assigned last first."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.pool = nn.ReLU(), nn.AdaptiveAvgPool1d(1)
        self.last, self.hidden, self.entry = nn.Linear(4, 3), nn.Conv1d(4, 4, 3), nn.Conv1d(2, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.pool(self.relu(self.hidden(self.relu(self.entry(x))))).flatten(1))
        return y


def test_the_first_layer_is_the_one_that_runs_first(assert_agree: Agree) -> None:
    """zennit takes the layer that was assigned to the model first; relprop the one that meets the input."""
    model = Unordered().double().eval()
    x, c = torch.randn(2, 2, 6, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    by_name = composites.NameMapComposite(
        [
            (["relu"], zennit.Pass()),
            (["pool"], zennit.Norm(exactly)),
            (["last"], zennit.Epsilon(1e-6)),
            (["hidden"], zennit.ZPlus(exactly)),
            (["entry"], zennit.Flat(exactly)),
        ]
    )
    assert_agree(by_relprop(model, x, PRESETS["epsilon-plus-flat"], c), by_zennit(model, x, by_name, c))
    composite, state = composites.EpsilonPlusFlat(), dict[str, Any]()
    chosen = {name: composite.mapping(state, name, module) for name, module in model.named_modules()}
    assert [name for name, hook in chosen.items() if isinstance(hook, zennit.Flat)] == ["last"]


def test_presets_on_a_network_without_convolutions(assert_agree: Agree) -> None:
    """EpsilonPlusFlat has flat for any first layer, EpsilonGammaBox the box for a first convolution.

    relprop's presets of these names have flat for a first convolution, and the box, which is about what the
    input can be, for any layer that meets the input.
    """
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)).double().eval()
    x = row(0.5, -0.5, 1, 0.2)
    everywhere = zennit.Epsilon(1e-6)
    assert_agree(by_relprop(model, x, PRESETS["epsilon-plus-flat"]), by_zennit(model, x, everywhere))
    flat = composites.EpsilonPlusFlat(stabilizer=exactly)
    assert_agree(
        by_relprop(model, x, Composite([(First(), Flat()), (Kind("dense"), Epsilon())])),
        by_zennit(model, x, flat),
    )
    box = composites.EpsilonGammaBox(-1, 1, stabilizer=exactly)
    without = Composite([(First() & Kind("convolution"), ZBox(-1.0, 1.0)), (Kind("dense"), Epsilon())])
    with pytest.warns(UserWarning, match="no effect: .first and of the kind convolution"):
        assert_agree(by_relprop(model, x, without), by_zennit(model, x, box))
    boxed = composites.EpsilonGammaBox(
        -1, 1, stabilizer=exactly, first_map=[(nn.Linear, zennit.ZBox(-1, 1, exactly))]
    )
    found = by_relprop(model, x, PRESETS["epsilon-gamma-box"].with_bounds(-1.0, 1.0))
    assert_agree(found, by_zennit(model, x, boxed))
    for ours, theirs in [
        (PRESETS["epsilon-plus-flat"], flat),
        (PRESETS["epsilon-gamma-box"].with_bounds(-1.0, 1.0), box),
    ]:
        assert relative_difference(by_relprop(model, x, ours), by_zennit(model, x, theirs)) > 0.01
