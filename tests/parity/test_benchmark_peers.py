"""What `make bench` times is the same relevance, where the libraries agree on the formula."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from comparing import relative_difference, require
from torch import nn

sys.path.append(str(Path(__file__).parents[2]))

require("zennit", "1.0.0")
require("captum", "0.9.0")

from benchmarks.case import Subject  # noqa: E402
from benchmarks.ways import WAYS  # noqa: E402

from torchvision_shim import import_torchvision  # noqa: E402


def vgg() -> Subject:
    """A plain network in double precision, without biases, in which stabilisers do little."""
    torch.manual_seed(0)
    model = import_torchvision().models.vgg11(num_classes=5).double().eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            module.bias.zero_()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    return Subject(model, x, 3, lambda y: y[:, 3], bounds=(0.0, 1.0), canonizer="VGGCanonizer")


@pytest.fixture(scope="module")
def subject() -> Subject:
    return vgg()


@pytest.mark.parametrize("rules", ["epsilon", "z+", "gamma", "alpha2-beta1", "epsilon-gamma-box"])
def test_zennit_explains_what_relprop_explains(subject: Subject, rules: str) -> None:
    own = WAYS["relprop"](subject, rules)()
    _, found = WAYS["zennit"](subject, rules)()
    scores = own.score[:, None, None, None]
    assert relative_difference(found * scores, own.relevance) < 1e-2


def test_captum_explains_what_relprop_explains(subject: Subject) -> None:
    own = WAYS["relprop"](subject, "epsilon")()
    assert relative_difference(WAYS["captum"](subject, "epsilon")(), own.relevance) < 1e-2


@pytest.mark.skipif(find_spec("autolrp") is None, reason="needs autolrp: make bench")
@pytest.mark.filterwarnings("ignore:'relu.inplace=True.' runs as inplace=False for LRP")
@pytest.mark.parametrize("rules", ["epsilon", "gamma"])
def test_autolrp_explains_what_relprop_explains(subject: Subject, rules: str) -> None:
    own = WAYS["relprop"](subject, rules)()
    found = WAYS["autolrp"](subject, rules)() * own.score.sum()  # it begins with 1 for the sum of the scores
    assert relative_difference(found, own.relevance) < 1e-2


def test_the_model_is_as_it_was(subject: Subject) -> None:
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    for way in ("zennit", "captum"):
        WAYS[way](subject, "epsilon")()
    assert all(torch.equal(value, before[name]) for name, value in subject.model.state_dict().items())
    assert not any(module._forward_hooks or hasattr(module, "rule") for module in subject.model.modules())
