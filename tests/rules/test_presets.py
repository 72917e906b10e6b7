"""Presets do what their sources say."""

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close
from relprop.places import First
from relprop.rules import AveragePooling, Epsilon, Gamma, ZBox
from relprop.rules.presets import PRESETS

# VGG-16: channels of its convolutions, here 1/32 of them; "M" is a max-pooling.
VGG_16: list[Any] = [2, 2, "M", 4, 4, "M", 8, 8, 8, "M", 16, 16, 16, "M", 16, 16, 16, "M"]


class Vgg(nn.Module):
    """The layers of VGG-16, numbered as there: features 0 to 30, then three dense ones."""

    def __init__(self, *, inplace: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for entry in VGG_16:
            if entry == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU(inplace=inplace)]
                channels = entry
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(
            *(nn.Linear(64, 20), nn.ReLU(inplace=inplace), nn.Dropout()),
            *(nn.Linear(20, 20), nn.ReLU(inplace=inplace), nn.Dropout()),
            nn.Linear(20, 5),
        )
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.normal_(layer.bias, std=0.1)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(2, 3, 64, 64, **DOUBLE) * 4 - 2


def test_vgg_2019_gives_each_layer_of_vgg_16_the_rule_of_its_source(picture: Tensor) -> None:
    """Montavon et al. 2019, and their tutorial: layer 0 zB, 1-16 γ = 1/4, 17-30 ε = 1/4 rms, from 31 on 0."""
    applied = relprop.explain(Vgg(), picture, rules="vgg-2019", bounds=(-2, 2)).rules
    found = {a.path: a.rule for a in applied}
    expected: dict[str, Any] = {}
    for number, layer in enumerate(Vgg().features):
        if isinstance(layer, nn.MaxPool2d):
            expected[f"features.{number}"] = AveragePooling()
        elif isinstance(layer, nn.Conv2d):
            rule = ZBox(-2, 2) if number == 0 else Gamma(0.25) if number <= 16 else Epsilon(0.25, of="rms")
            expected[f"features.{number}"] = rule
    expected |= {f"classifier.{number}": Epsilon(0) for number in (0, 3, 6)}
    assert found == expected
    assert list(found) == list(expected)
    assert len(expected) == 13 + 5 + 3


def test_vgg_2019_layer_by_layer_from_the_formulas(picture: Tensor) -> None:
    """The tutorial's step, R = a·∂/∂a Σ z·(R/z), over ρ(w), ρ(b) and z + ε."""
    torch.manual_seed(1)
    model = Vgg(inplace=False)
    e = relprop.explain(model, picture[:1], target=3, rules="vgg-2019", bounds=(-2, 2))
    layers = [*model.features, model.avgpool, nn.Flatten(), *model.classifier]
    values = [picture[:1]]
    for layer in layers:
        values.append(layer(values[-1]).detach())
    R = values[-1] * torch.eye(5, **DOUBLE)[3]
    for number in reversed(range(1, len(layers))):
        layer, a = layers[number], values[number].clone().requires_grad_()
        if isinstance(layer, (nn.ReLU, nn.Dropout)):
            continue
        layer = nn.AvgPool2d(2) if isinstance(layer, nn.MaxPool2d) else layer
        if isinstance(layer, nn.Conv2d) and number <= 16:
            w, b = layer.weight, layer.bias
            z = torch.conv2d(a, w + 0.25 * w.clamp(min=0), b + 0.25 * b.clamp(min=0), padding=1)
        else:
            z = layer(a)
        if isinstance(layer, nn.Conv2d) and number > 16:
            # The sign of z keeps the denominator from zero; the tutorial has z ≥ 0 where relevance is.
            z = z + torch.copysign(0.25 * z.square().mean().sqrt(), z).detach()
        s = torch.where(z == 0, 0, R / z).detach()
        (c,) = torch.autograd.grad((z * s).sum(), a)
        R = (a * c).detach()
    layer, a = layers[0], values[0].clone().requires_grad_()
    low, high = (torch.full_like(a, v, requires_grad=True) for v in (-2.0, 2.0))
    w = layer.weight
    z = torch.conv2d(a, w, padding=1) - torch.conv2d(low, w.clamp(min=0), padding=1)
    z = z - torch.conv2d(high, w.clamp(max=0), padding=1)
    a_c, low_c, high_c = torch.autograd.grad((z * (R / z).detach()).sum(), (a, low, high))
    close(e.relevance, (a * a_c + low * low_c + high * high_c).detach())


def test_vgg_2019_knows_no_other_samples(picture: Tensor) -> None:
    """The root mean square is each sample's own: batching must not change a result."""
    model = Vgg()
    both = relprop.explain(model, picture, target=1, rules="vgg-2019", bounds=(-2, 2))
    for number in range(2):
        alone = relprop.explain(model, picture[[number]], target=1, rules="vgg-2019", bounds=(-2, 2))
        close(both.relevance[[number]], alone.relevance)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_excitation_starts_from_one_whatever_the_score(scale: float) -> None:
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False)).double().eval()
    with torch.no_grad():
        model[0].weight.abs_()
        model[2].weight.abs_()
        model[2].weight *= scale
    x = torch.rand(3, 6, **DOUBLE)
    e = relprop.explain(model, x, rules="excitation")
    one = torch.ones(3, **DOUBLE)
    close(e.relevance.sum(1), one)
    close(e.ledger.seed, one)
    assert e.ledger.gap.max() < 1e-12
    close(e.score, model(x).amax(1))
    # z+ of the score itself is the same map, times the score.
    deep = relprop.explain(model, x, rules=relprop.rules.ZPlus())
    close(e.relevance * e.score[:, None], deep.relevance)


def test_a_composite_of_ones_own_may_start_from_one_with_any_rules_and_targets() -> None:
    model, x = nn.Linear(6, 4).double().eval(), torch.randn(3, 6, **DOUBLE)
    rules = relprop.Composite([("*", Epsilon(0, bias="ignore"))], start="one")
    for target in (None, 2, relprop.targets.Contrastive(1), lambda y: y[:, 0] - y[:, 3]):
        e = relprop.explain(model, x, target=target, rules=rules)
        close(e.relevance.sum(1), torch.ones(3, **DOUBLE))
    several = relprop.explain_each(model, x, targets=[0, 1], rules=rules)
    for e in several:
        close(e.relevance.sum(1), torch.ones(3, **DOUBLE))


def test_bounds_leave_where_relevance_starts_alone() -> None:
    rules = relprop.Composite([(First(), ZBox()), ("*", Epsilon())], start="one")
    assert rules.with_bounds(0, 1).start == "one"
    with pytest.raises(relprop.errors.RuleError, match="a composite's start='score2': give 'score' or 'one'"):
        relprop.Composite([("*", Epsilon())], start="score2")


def test_the_presets_of_the_literature_are_all_there() -> None:
    assert set(PRESETS) >= {
        *("deep-taylor", "alpha2-beta1", "epsilon", "epsilon-plus", "epsilon-plus-flat"),
        *("epsilon-alpha2-beta1", "epsilon-alpha2-beta1-flat", "epsilon-gamma-box", "vgg-2019", "excitation"),
    }
    with pytest.raises(TypeError):
        PRESETS["mine"] = relprop.Composite([])  # type: ignore[index]


# ---- the default without bounds ----

ONE, TWO, NORM = nn.Linear(4, 6).double(), nn.Linear(6, 3).double(), nn.LayerNorm(4).double()
KERNEL = nn.Conv1d(1, 1, 3, padding=1).double()


def written_in_parts(x: Tensor) -> Tensor:
    hidden = torch.zeros(len(x), 6, **DOUBLE)
    hidden[:, :3], hidden[:, 3:] = ONE(x)[:, :3], ONE(x)[:, 3:]
    return TWO(hidden.relu_())


@pytest.mark.parametrize(
    "mlp",
    [
        nn.Sequential(ONE, nn.ReLU(), nn.Dropout(), TWO).eval(),
        lambda x: TWO(torch.addmm(ONE.bias, x, ONE.weight.T).clamp(min=0)),
        lambda x: TWO(F.silu(ONE(x)) + ONE(x).mean(1, keepdim=True)),
        lambda x: TWO(torch.cat([ONE(x)[:, :2], ONE(x)[:, 2:]], 1)),
        written_in_parts,
    ],
)
def test_a_multilayer_perceptron_gets_gamma_in_every_layer(mlp: Any) -> None:
    e = relprop.explain(mlp, torch.rand(2, 4, **DOUBLE))
    assert e.preset == "epsilon-gamma-flat"
    assert {str(applied.rule) for applied in e.rules} == {"Gamma(gamma=0.25)"}
    assert e.ledger.gap.max() < 1e-12


@pytest.mark.parametrize(
    "before",
    [
        lambda x: KERNEL(x[:, None])[:, 0],
        NORM,
        lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1).sqrt(),
        lambda x: x.tanh() * x.mean(1, keepdim=True),
        lambda x: x.softmax(1),
        lambda x: torch.einsum("nd,nd->nd", x, x.roll(1, 1)),
        lambda x: torch.segment_reduce(x.T, "sum", lengths=torch.ones(4, dtype=torch.int64)).T,
        lambda x: torch.zeros_like(x).index_add(1, torch.arange(4), x),
    ],
)
def test_other_dense_layers_get_epsilon(before: Any) -> None:
    """Those behind a convolution, a normalisation, a product or a softmax, in whatever order branches run."""
    x = torch.rand(2, 4, **DOUBLE)
    for model in (lambda x: TWO(ONE(before(x)) + ONE(x)), lambda x: TWO(ONE(x) + ONE(before(x)))):
        e = relprop.explain(model, x, target=0)
        dense = [str(applied.rule) for applied in e.rules if applied.operation == "linear"]
        assert sorted(dense) == ["Epsilon(epsilon=1e-06)", "Epsilon(epsilon=1e-06)", "Gamma(gamma=0.25)"]
        assert dense[-1] == "Epsilon(epsilon=1e-06)"


def test_a_network_of_convolutions_has_flat_gamma_and_epsilon(picture: Tensor) -> None:
    e = relprop.explain(Vgg().double().eval(), picture, target=0)
    rules = [str(applied.rule).partition("(")[0] for applied in e.rules]
    assert rules == ["Flat"] + ["Gamma"] * 12 + ["Epsilon"] * 3


@pytest.mark.filterwarnings("default:rules='vgg-2019'")
def test_vgg_2019_is_for_sixteen_layers(picture: Tensor) -> None:
    def network(layers: int) -> nn.Sequential:
        return nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(layers)), nn.Flatten(1)).double().eval()

    def explain(layers: int) -> None:
        relprop.explain(network(layers), picture, target=0, rules="vgg-2019", bounds=(-9, 9))

    with pytest.warns(UserWarning, match="for networks of up to 16 linear operations, and this one has 17"):
        explain(17)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", relprop.errors.ScoreWarning)
        explain(16)
