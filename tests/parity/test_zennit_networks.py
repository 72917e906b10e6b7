"""zennit's composites on whole networks, with its canonizers, against relprop's presets on the bare model."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import zennit_parts as parts
from rules_as_in_zennit import AlphaBetaWithoutExchange
from torch import Tensor, nn
from zennit import composites as zennit  # after zennit_parts, which makes it importable
from zennit import rules as hooks
from zennit.canonizers import NamedMergeBatchNorm, SequentialMergeBatchNorm
from zennit.torchvision import ResNetCanonizer, VGGCanonizer
from zennit.types import AvgPool, BatchNorm, Convolution, Linear

from relprop import PRESETS, Composite, explain
from relprop.places import First, Kind
from relprop.rules import Epsilon, Flat, WSquare, ZBox, ZPlus
from zoo_networks import BOUNDS, NETWORKS

exactly = parts.exactly

# zennit can leave out biases in all layers or none; relprop's presets have them in dense layers.
DENSE = (nn.Linear, hooks.Epsilon(1e-6))
NO_BIAS = {"zero_params": "bias", "stabilizer": exactly}
EXCHANGED = (Convolution, parts.alpha_beta_with_exchange(2, 1))
FLAT = (First() & Kind("convolution"), Flat())
EPSILON = ("*", Epsilon(1e-6))

# name: zennit's composite without its canonizers, relprop's rules.
COMPOSITES: dict[str, tuple[Callable[..., Any], Any]] = {
    # zennit's composites as they come
    "EpsilonPlus": (
        partial(zennit.EpsilonPlus, stabilizer=exactly),
        Composite([(Kind("convolution"), ZPlus("absorb")), EPSILON]),
    ),
    "EpsilonPlusFlat": (
        partial(zennit.EpsilonPlusFlat, stabilizer=exactly),
        Composite([FLAT, (Kind("convolution"), ZPlus("absorb")), EPSILON]),
    ),
    "EpsilonAlpha2Beta1": (
        partial(zennit.EpsilonAlpha2Beta1, stabilizer=exactly),
        Composite([(Kind("convolution"), AlphaBetaWithoutExchange(2, 1, "absorb")), EPSILON]),
    ),
    "EpsilonAlpha2Beta1Flat": (
        partial(zennit.EpsilonAlpha2Beta1Flat, stabilizer=exactly),
        Composite([FLAT, (Kind("convolution"), AlphaBetaWithoutExchange(2, 1, "absorb")), EPSILON]),
    ),
    "EpsilonGammaBox": (
        partial(zennit.EpsilonGammaBox, *BOUNDS, stabilizer=exactly),
        PRESETS["epsilon-gamma-box"].with_bounds(*BOUNDS),
    ),
    "ExcitationBackprop": (
        partial(zennit.ExcitationBackprop, stabilizer=exactly),
        Composite([("*", ZPlus("absorb"))]),
    ),
    # relprop's presets as they come
    "epsilon": (
        lambda **more: zennit.LayerMapComposite(
            [*zennit.layer_map_base(exactly), (Linear, DENSE[1])], **more
        ),
        PRESETS["epsilon"],
    ),
    "epsilon-plus": (
        partial(zennit.EpsilonPlus, layer_map=[DENSE], stabilizer=exactly),
        PRESETS["epsilon-plus"],
    ),
    "epsilon-plus-flat": (
        partial(zennit.EpsilonPlusFlat, layer_map=[DENSE], stabilizer=exactly),
        PRESETS["epsilon-plus-flat"],
    ),
    "epsilon-alpha2-beta1": (
        partial(zennit.EpsilonAlpha2Beta1, layer_map=[DENSE, EXCHANGED], stabilizer=exactly),
        PRESETS["epsilon-alpha2-beta1"],
    ),
    "epsilon-alpha2-beta1-flat": (
        partial(zennit.EpsilonAlpha2Beta1Flat, layer_map=[DENSE, EXCHANGED], stabilizer=exactly),
        PRESETS["epsilon-alpha2-beta1-flat"],
    ),
    "deep-taylor": (
        lambda **more: zennit.SpecialFirstLayerMapComposite(
            [*zennit.layer_map_base(exactly), (Linear, hooks.ZPlus(**NO_BIAS))],
            [(Linear, hooks.ZBox(*BOUNDS, exactly))],
            **more,
        ),
        PRESETS["deep-taylor"].with_bounds(*BOUNDS),
    ),
}


def average_pooled() -> tuple[nn.Module, Tensor, list[int]]:
    """A plain convolutional network with average pooling, its input and the explained classes."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 32),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(32, 10),
    )
    x = torch.empty(2, 3, 32, 32, dtype=torch.float64).uniform_(*BOUNDS)
    return model.double().eval(), x, [3, 7]


def densenet() -> tuple[nn.Module, Tensor, Any]:
    """DenseNet-121 with the functions between its parts as modules, for zennit to see them."""
    made: Any = NETWORKS["densenet121"].make(torch.float64)
    model, x, classes = made
    parts = model.features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.classifier
    return nn.Sequential(*parts).eval(), x, classes


def densenet_canonizer() -> NamedMergeBatchNorm:
    """Only these batch norms follow a convolution; by the order of modules more of them seem to."""
    layers = [
        name for name, _ in densenet()[0].named_modules() if name.rpartition(".")[2].startswith("denselayer")
    ]
    return NamedMergeBatchNorm(
        [(["0.conv0"], "0.norm0"), *(([f"{name}.conv1"], f"{name}.norm2") for name in layers)]
    )


# name: the network unless it is as in the zoo test, its canonizer.
NETWORKS_HERE: dict[str, tuple[Any, Any]] = {
    "average pooling": (average_pooled, None),
    "alexnet": (None, None),
    "vgg16": (None, None),
    "vgg16_bn": (None, VGGCanonizer),
    "squeezenet1_1": (None, None),
    "googlenet": (None, SequentialMergeBatchNorm),
    "resnet18": (None, ResNetCanonizer),
    "resnet50": (None, ResNetCanonizer),
    "densenet121": (densenet, densenet_canonizer),
}


@pytest.fixture(scope="module", params=NETWORKS_HERE)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Any, Any]:
    """One network at a time: module, input, classes, canonizers."""
    torch.manual_seed(0)
    make, canonizer = NETWORKS_HERE[request.param]
    made = NETWORKS[request.param].make(torch.float64) if make is None else make()
    return *made, canonizer and [canonizer()]


@pytest.mark.parametrize("name", COMPOSITES)
def test_network(name: str, network: Any, assert_agree: Callable[[Any, Tensor], None]) -> None:
    model, x, classes, canonizers = network
    composite, rules = COMPOSITES[name]
    one_hot = nn.functional.one_hot(torch.tensor(classes), 10).double()
    found = explain(model, x, target=classes, rules=rules).relevance
    modified = composite(canonizers=canonizers)
    # Where a batch norm stays alone: see test_batch_norm_that_is_not_merged. Merged ones are the identity.
    modified.layer_map.insert(0, (BatchNorm, hooks.Epsilon(exactly)))
    assert_agree(found, parts.relevance(model, x, modified, one_hot))


def test_excitation(network: Any, assert_agree: Callable[[Any, Tensor], None]) -> None:
    """This preset starts from 1, as zennit does when it is given a one-hot vector."""
    model, x, classes, canonizers = network
    one_hot = nn.functional.one_hot(torch.tensor(classes), 10).double()
    composite = zennit.ExcitationBackprop(canonizers=canonizers, **NO_BIAS)
    composite.layer_map.insert(0, (BatchNorm, hooks.Epsilon(exactly)))
    found = explain(model, x, target=classes, rules="excitation").relevance
    assert_agree(found, parts.relevance(model, x, composite, one_hot / model(x).detach()))


ON_ZEROS = {
    "flat": (Flat(), hooks.Flat(exactly)),
    "w²": (WSquare(), hooks.WSquare(**NO_BIAS)),
    "zB": (ZBox(-50.0, 50.0), hooks.ZBox(-50.0, 50.0, exactly)),
}


@pytest.mark.parametrize("name", ON_ZEROS)
@pytest.mark.parametrize("network", ["average pooling", "vgg16_bn", "squeezenet1_1"], indirect=True)
def test_rules_of_first_layers_in_all_layers(
    name: str, network: Any, assert_agree: Callable[[Any, Tensor], None]
) -> None:
    """Relevance lies on neurons that are zero all the way down."""
    model, x, classes, canonizers = network
    rules, hook = ON_ZEROS[name]
    composite = parts.everywhere(hook, (AvgPool, parts.norm_with_zeros()), canonizers=canonizers)
    one_hot = nn.functional.one_hot(torch.tensor(classes), 10).double()
    found = explain(model, x, target=classes, rules=rules).relevance
    assert_agree(found, parts.relevance(model, x, composite, one_hot))
