"""The bundled models: their layers, their weights and what happens when these do not fit."""

import pytest
import safetensors.torch
import torch
from torch.nn import functional

from relprop import zoo
from relprop.data import mnist
from relprop.errors import FileError, ModelError
from relprop.zoo.mnist import SumPool2d, cnn, mlp, pad

MODELS = pytest.mark.parametrize("name", ["mnist-mlp", "mnist-cnn"])


def test_layers_of_the_mlp():
    model = mlp()
    assert list(dict(model.named_children())) == ["flatten", "l1", "relu1", "l2", "relu2", "l3"]
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == {
        "l1.weight": (300, 784),
        "l1.bias": (300,),
        "l2.weight": (100, 300),
        "l2.bias": (100,),
        "l3.weight": (10, 100),
        "l3.bias": (10,),
    }
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(model(images), model(images.reshape(2, 784)))


def test_layers_of_the_cnn():
    model = cnn()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items() if "weight" in name}
    assert shapes == {
        "c1.weight": (10, 1, 5, 5),
        "c2.weight": (25, 10, 5, 5),
        "c3.weight": (100, 25, 4, 4),
        "c4.weight": (10, 100, 1, 1),
    }
    sides = []
    x = torch.rand(2, 1, 32, 32)
    for layer in model:
        x = layer(x)
        sides.append(x.shape[-1])
    assert sides == [28, 28, 14, 10, 10, 5, 2, 2, 1, 1, 10]


def test_pooling_is_half_the_sum_of_four():
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    kernel = torch.full((3, 1, 2, 2), 0.5, dtype=torch.float64)
    torch.testing.assert_close(SumPool2d()(x), functional.conv2d(x, kernel, stride=2, groups=3))
    assert repr(SumPool2d()) == "SumPool2d(0.5 * sum over 2x2, stride=2)"


def test_padding_is_black():
    images = torch.rand(2, 1, 28, 28)
    padded = pad(images)
    assert padded.shape == (2, 1, 32, 32)
    assert torch.equal(padded[:, :, 2:-2, 2:-2], images)
    assert padded.sum() == pytest.approx(float(images.sum()) - 2 * (32 * 32 - 28 * 28), rel=1e-5)


@MODELS
def test_what_the_registry_says_fits_the_model(name):
    found = zoo.BUNDLED[name]
    images, labels = mnist.tutorial_sample()
    x = found.prepare(images)
    assert x.shape == (12, *found.shape)
    assert (x.min(), x.max()) == (found.low, found.high)
    scores = zoo.load(name)(x)
    assert scores.shape == (12, len(found.classes))
    assert [int(found.classes[i]) for i in scores.argmax(dim=1)] == labels.tolist()


@MODELS
def test_a_loaded_model_is_ready_to_be_explained(name):
    model = zoo.load(name)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist-cn", r"no bundled model is called 'mnist-cn'\. Did you mean mnist-cnn"),
        (
            "mlp",
            r"called 'mlp'\. Did you mean mnist-mlp\? There are: mnist-mlp, mnist-cnn, efficientnet-lite0\.",
        ),
        ("resnet50", r"no bundled model is called 'resnet50'\. There are: mnist-mlp, mnist-cnn, eff"),
    ],
)
def test_unknown_names_are_answered_with_known_ones(name, message):
    with pytest.raises(ModelError, match=message):
        zoo.load(name)


def saved(path, **changes):
    """Weights of an MLP in a file, after changes; None takes one away."""
    state = mlp().state_dict() | {name.replace("_", "."): value for name, value in changes.items()}
    safetensors.torch.save_file({name: value for name, value in state.items() if value is not None}, path)
    return path


def test_weights_are_loaded(tmp_path):
    bias = torch.arange(10.0)
    model = mlp()
    zoo.load_weights(model, saved(tmp_path / "weights.safetensors", l3_bias=bias))
    assert torch.equal(model.l3.bias, bias)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"l3_bias": torch.zeros(9)},
            r"l3\.bias has the shape \(9,\), should be \(10,\)\. Take weights that",
        ),
        (
            {"l3_bias": torch.zeros(10, dtype=torch.int64)},
            r"l3\.bias is torch\.int64, should be torch\.float32",
        ),
        ({"l3_bias": torch.full([10], torch.nan)}, r"l3\.bias contains values that are not finite"),
        (
            {"l3_bias": None, "l9_bias": torch.zeros(1)},
            r"fit the model: l3\.bias is missing; l9\.bias is not in",
        ),
    ],
    ids=["shape", "type", "nan", "names"],
)
def test_weights_that_do_not_fit_change_nothing(tmp_path, changes, message):
    model = mlp()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(FileError, match=message):
        zoo.load_weights(model, saved(tmp_path / "weights.safetensors", **changes))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("keep", [0, 4, 100, 5000])
def test_truncated_weights(tmp_path, keep):
    path = saved(tmp_path / "weights.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        FileError, match=r"weights\.safetensors is truncated, damaged or not a safetensors file: "
    ):
        zoo.load_weights(mlp(), path)


def test_weights_of_another_kind_are_not_executed(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(mlp(), path)
    with pytest.raises(FileError, match=r"weights\.pt is truncated, damaged or not a safetensors file"):
        zoo.load_weights(mlp(), path)


def test_missing_weights(tmp_path):
    with pytest.raises(FileError, match=r"cannot read the weights in .*none\.safetensors: No such file"):
        zoo.load_weights(mlp(), tmp_path / "none.safetensors")
    with pytest.raises(FileError, match=r"cannot read the weights in .*: Is a directory"):
        zoo.load_weights(mlp(), tmp_path)


@pytest.mark.parametrize(("name", "bar"), [("mnist-mlp", 75), ("mnist-cnn", 65)])
def test_of_10000_test_digits_no_more_are_wrong_than_promised(name, bar):
    data, found, model = mnist.test_set(), zoo.BUNDLED[name], zoo.load(name)
    with torch.no_grad():
        scores = [
            model(found.prepare(mnist.pixels(part)[:, None])) for part in torch.split(data.images, 1000)
        ]
    assert (torch.cat(scores).argmax(dim=1) != data.labels).sum() <= bar
