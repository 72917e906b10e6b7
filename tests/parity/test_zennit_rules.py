"""Each rule against zennit's, over every linear layer, alone and in pairs; and what stands between layers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import zennit_parts as parts
from comparing import relative_difference
from rules_as_in_zennit import AlphaBetaWithoutExchange
from torch import Tensor, nn
from zennit import rules as zennit  # after zennit_parts, which makes it importable
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite, NameMapComposite, layer_map_base
from zennit.core import Composite as Hooks
from zennit.core import Stabilizer
from zennit.layer import Sum

from cases import CASES
from relprop import Composite, explain
from relprop.places import First
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus

# torch says so itself wherever a convolution with an even kernel is padded to the same size.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

exactly = parts.exactly
LAYERS = [
    name for name, case in CASES.items() if isinstance(case.module(), (nn.Linear, nn.modules.conv._ConvNd))
]

# name: relprop's rule, zennit's. Only ε has the same name for the same amount; the others divide exactly.
RULES: dict[str, tuple[Any, Any]] = {
    "LRP-0": (Epsilon(0), zennit.Epsilon(exactly)),
    "ε": (Epsilon(0.3), zennit.Epsilon(0.3)),
    "ε, no bias": (Epsilon(0.3, "ignore"), zennit.Epsilon(0.3, zero_params="bias")),
    "ε of rms": (Epsilon(0.3, of="rms"), zennit.Epsilon(Stabilizer(0.3, norm_scale=True))),
    "γ": (Gamma(0.25), zennit.Gamma(0.25, exactly)),
    "large γ": (Gamma(100), zennit.Gamma(100, exactly)),
    "γ, no bias": (Gamma(0.25, "ignore"), parts.gamma_without_bias(0.25)),
    "z+": (ZPlus("absorb"), zennit.ZPlus(exactly)),
    "z+, no bias": (ZPlus(), zennit.ZPlus(exactly, zero_params="bias")),
    "z+ as α1β0": (ZPlus("absorb"), zennit.AlphaBeta(1, 0, exactly)),
    "α2β1": (AlphaBeta(2, 1, "absorb"), parts.alpha_beta_with_exchange(2, 1)),
    "α2β1, no bias": (AlphaBeta(2, 1), parts.alpha_beta_with_exchange(2, 1, zero_params="bias")),
    "α1.5β0.5": (AlphaBeta(1.5, 0.5), parts.alpha_beta_with_exchange(1.5, 0.5, zero_params="bias")),
    "zennit's α2β1": (AlphaBetaWithoutExchange(2, 1, "absorb"), zennit.AlphaBeta(2, 1, exactly)),
    "zennit's α2β1, no bias": (
        AlphaBetaWithoutExchange(2, 1),
        zennit.AlphaBeta(2, 1, exactly, zero_params="bias"),
    ),
    "w²": (WSquare(), zennit.WSquare(exactly, zero_params="bias")),
    "flat": (Flat(), zennit.Flat(exactly)),
    "zB": (ZBox(-5.0, 5.5), zennit.ZBox(-5.0, 5.5, exactly)),
}

# Pointwise functions through which zennit passes relevance unchanged.
ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU6(),
    nn.LeakyReLU(),
    nn.PReLU(),
    nn.Hardtanh(),
    nn.Threshold(0.1, 0.0),
    nn.ELU(),
    nn.CELU(),
    nn.SELU(),
    nn.GELU(),
    nn.SiLU(),
    nn.Hardswish(),
    nn.Tanh(),
    nn.Softsign(),
]

POOLINGS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.AvgPool1d(3, 2, padding=1), (3, 8)),
    (nn.AvgPool2d(2), (3, 6, 6)),
    (nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), (3, 6, 6)),
    (nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), (3, 5, 5)),
    (nn.AvgPool3d(2), (2, 4, 4, 4)),
    (nn.AdaptiveAvgPool1d(3), (2, 7)),
    (nn.AdaptiveAvgPool2d(3), (2, 7, 5)),
    (nn.AdaptiveAvgPool2d(5), (2, 3, 3)),
    (nn.AdaptiveAvgPool3d(2), (2, 3, 3, 3)),
    (nn.MaxPool1d(2), (2, 6)),
    (nn.MaxPool2d(3, 2, padding=1), (2, 6, 6)),
    (nn.AdaptiveMaxPool2d(2), (2, 5, 5)),
]

Agree = Callable[[Any, Tensor], None]


def both(model: nn.Module, x: Tensor, rules: Any, hooks: Any) -> tuple[Any, Tensor]:
    """The relevance by relprop and by zennit, started from coefficients of both signs."""
    c = torch.randn_like(model(x))
    composite = hooks if isinstance(hooks, Hooks) else parts.everywhere(hooks)
    return explain(model, x, target=c, rules=rules).relevance, parts.relevance(model, x, composite, c)


@pytest.mark.parametrize("sign", ["signed", "nonnegative"])
@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("name", RULES)
def test_one_layer(name: str, case: str, sign: str, assert_agree: Agree) -> None:
    x = CASES[case].input(nonnegative=sign == "nonnegative")
    assert_agree(*both(CASES[case].module(), x, *RULES[name]))


@pytest.mark.parametrize("case", LAYERS)
def test_gamma_of_2019(case: str, assert_agree: Agree) -> None:
    x = CASES[case].input(nonnegative=True)
    assert_agree(*both(CASES[case].module(), x, Gamma(0.25, favour="positive"), parts.gamma_of_2019(0.25)))


# Layers that zennit's canonizer merges with the scales of other outputs, or not at all: the batch norm behind
# a dense layer over a sequence is one of its steps, and a grouped transposed convolution has another layout.
UNMERGED = ["dense over a sequence", "conv_transpose2d grouped"]


@pytest.mark.parametrize("case", [case for case in LAYERS if case not in UNMERGED])
@pytest.mark.parametrize("name", RULES)
def test_one_layer_and_batch_norm(name: str, case: str, assert_agree: Agree) -> None:
    """Folded by relprop as it runs, merged by zennit's canonizer; scales of both signs."""
    layer, x = CASES[case].module(), CASES[case].input(nonnegative=False)
    z = layer(x)
    norms = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    norm: Any = norms[z.dim()](z.shape[1]).double()
    with torch.no_grad():
        for value in (norm.weight, norm.bias, norm.running_mean):
            value.normal_()
        norm.running_var.uniform_(0.5, 2)
    model, c = nn.Sequential(layer, norm).eval(), torch.randn_like(z)
    rules, hook = RULES[name]
    found = explain(model, x, target=c, rules=rules).relevance
    merged = parts.everywhere(hook, canonizers=[SequentialMergeBatchNorm()])
    assert_agree(found, parts.relevance(model, x, merged, c))


@pytest.mark.parametrize("upper", RULES)
@pytest.mark.parametrize("lower", RULES)
@pytest.mark.filterwarnings("ignore:.*outside of the bounds")
def test_two_layers(lower: str, upper: str, assert_agree: Agree) -> None:
    """Any rule below any: relevance also lands on neurons that are zero and goes on from there."""
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 2, stride=2)).double().eval()
    x = torch.randn(3, 2, 6, 6, dtype=torch.float64)
    rules = Composite([("0", RULES[lower][0]), ("2", RULES[upper][0])])
    hooks = NameMapComposite([(["0"], RULES[lower][1]), (["1"], zennit.Pass()), (["2"], RULES[upper][1])])
    assert_agree(*both(model, x, rules, hooks))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda module: type(module).__name__)
@pytest.mark.parametrize("name", ["ε", "γ", "zennit's α2β1", "flat"])
def test_pass(name: str, activation: nn.Module, assert_agree: Agree) -> None:
    """Coefficients with secants f(x)/x, and slots, are zennit's Pass."""
    model = nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 3)).double().eval()
    assert_agree(*both(model, torch.randn(4, 6, dtype=torch.float64), *RULES[name]))


@pytest.mark.parametrize(("pooling", "shape"), POOLINGS, ids=str)
@pytest.mark.parametrize("relu", [False, True])
def test_norm(pooling: nn.Module, shape: tuple[int, ...], relu: bool, assert_agree: Agree) -> None:
    """The plain gradient of a coefficient is zennit's Norm; that of a maximum needs none."""
    model = nn.Sequential(nn.ReLU(), pooling) if relu else nn.Sequential(pooling)
    hooks = LayerMapComposite(layer_map_base(exactly))
    assert_agree(*both(model.double().eval(), torch.randn(2, *shape, dtype=torch.float64), Epsilon(0), hooks))


class Residual(nn.Module):
    """x + f(x), spelled with zennit's module for sums or as one does."""

    def __init__(self, marked: bool) -> None:
        super().__init__()
        self.layer, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()
        self.sum = Sum() if marked else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.layer(x))
        total: Tensor = x + y if self.sum is None else self.sum(torch.stack([x, y], -1))
        return total


@pytest.mark.parametrize("name", ["LRP-0", "ε", "γ", "z+", "zennit's α2β1"])
def test_residual_sum(name: str, assert_agree: Agree) -> None:
    """relprop needs no mark at the sum, zennit does; then they agree."""
    plain = nn.Sequential(Residual(marked=False), Residual(marked=False), nn.Conv2d(3, 2, 6))
    marked = nn.Sequential(Residual(marked=True), Residual(marked=True), nn.Conv2d(3, 2, 6))
    plain, marked = plain.double().eval(), marked.double().eval()
    marked.load_state_dict(plain.state_dict())
    x, c = torch.randn(2, 3, 6, 6, dtype=torch.float64), torch.randn(2, 2, 1, 1, dtype=torch.float64)
    rules, hook = RULES[name]
    found = explain(plain, x, target=c, rules=rules).relevance
    assert_agree(found, parts.relevance(marked, x, parts.everywhere(hook), c))


def test_bounds_per_channel(assert_agree: Agree) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3)).double().eval()
    low, high = (-1.5, -1.0), (1.0, 2.0)
    x = torch.rand(2, 2, 5, 5, dtype=torch.float64) - 0.5
    shaped = (torch.tensor(v, dtype=torch.float64).reshape(1, 2, 1, 1) for v in (low, high))
    box = zennit.ZBox(*shaped, stabilizer=exactly)
    hooks = NameMapComposite([(["0"], box), (["1"], zennit.Pass()), (["2"], zennit.Epsilon(0.1))])
    assert_agree(*both(model, x, Composite([(First(), ZBox(low, high)), ("*", Epsilon(0.1))]), hooks))


def test_the_comparison_notices_a_thousandth() -> None:
    x = CASES["conv2d"].input(nonnegative=False)
    for rules, hook in [
        (Epsilon(0.3003), zennit.Epsilon(0.3)),
        (Gamma(0.25025), zennit.Gamma(0.25, exactly)),
        (ZBox(-5.005, 5.5), zennit.ZBox(-5.0, 5.5, exactly)),
    ]:
        assert relative_difference(*both(CASES["conv2d"].module(), x, rules, hook)) > 1e-8
