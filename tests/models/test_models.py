"""Models by the names that users give them: where they come from, how pictures become their input."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import relprop
from bit_by_bit import same_values
from pictures import PHOTOGRAPHS
from relprop.data.imagenet import class_names
from relprop.errors import InputError, ModelError
from relprop.models import resolve, torchvision_models
from relprop.models.model import Normalisation
from relprop.view.photograph import centre
from torchvision_shim import import_torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def torchvision():
    return import_torchvision()


@pytest.fixture
def photograph():
    return Image.open(PHOTOGRAPHS / "cat.png")


# Names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mnist-cmn",
            r"^there is no model 'mnist-cmn'\. Did you mean mnist-cnn or mnist-mlp\? A model is one of:",
        ),
        (
            "resnet18",
            r"Did you mean torchvision:resnet18 or timm:resnet18\? A model is one of: mnist-mlp, mnist-c",
        ),
        ("torchvison:vgg16", r"no model 'torchvison:vgg16'\. Did you mean torchvision:vgg16\?"),
        (
            "hub:vgg16",
            r"no model 'hub:vgg16'\. A model is one of: .*, torchvision:NAME, timm:NAME, path\.py:func",
        ),
    ],
)
def test_unknown_names_are_answered_with_known_ones(name, message):
    with pytest.raises(ModelError, match=message):
        resolve(name)


@pytest.mark.parametrize("name", ["mnist-mlp", "mnist-cnn", "efficientnet-lite0"])
def test_bundled_models_come_with_all_that_is_known_of_them(name):
    model = resolve(name)
    assert (model.name, model.weights) == (name, "the trained ones that relprop provides")
    assert same_values(model.module.state_dict(), relprop.load(name).state_dict())
    assert model.bounds == (-1, 1)
    assert len(model.classes) == (10 if name.startswith("mnist") else 1000)
    assert not model.module.training


def test_what_only_models_of_ones_own_take_is_refused():
    with pytest.raises(
        InputError, match=r"efficientnet-lite0 has its own preprocessing. Leave out size, mean and"
    ):
        resolve("efficientnet-lite0", size=(64, 64))
    with pytest.raises(InputError, match=r"mnist-cnn has 10 classes, but 2 names are given"):
        resolve("mnist-cnn", classes=["a", "b"])


def test_random_weights_are_always_the_same_and_leave_the_users_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (resolve("mnist-cnn", weights="random") for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert same_values(first.module.state_dict(), second.module.state_dict())
    assert not same_values(first.module.state_dict(), relprop.load("mnist-cnn").state_dict())
    assert first.weights == "random"


def test_other_libraries_are_imported_only_when_asked_for():
    code = "import relprop.models, sys; relprop.models.resolve('mnist-cnn'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torchvision", "timm", "PIL"} & set(modules.split())


# Photographs


def test_the_shorter_side_is_resized_and_the_centre_cut_out():
    picture = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (100, 1)))
    cut = np.asarray(centre(picture, resize=100, crop=(50, 60)))
    assert cut.shape == (50, 60, 3)
    np.testing.assert_array_equal(cut[0, :, 0], np.arange(70, 130))
    assert centre(picture, resize=50, crop=(50, 50)).size == (50, 50)


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3)])
def test_narrow_pictures_do_not_fill_the_memory(size):
    assert centre(Image.new("RGB", size), resize=256, crop=(224, 224)).size == (224, 224)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "I;16", "F"])
def test_pictures_of_every_mode_are_read(mode):
    picture = Image.new("F", (40, 30), 7.0) if mode == "F" else Image.new(mode, (40, 30))
    assert centre(picture, resize=20, crop=(20, 20)).mode == "RGB"


def test_transparent_pictures_are_shown_on_white():
    cut = centre(Image.new("RGBA", (40, 30), (0, 0, 0, 0)), resize=20, crop=(20, 20))
    assert np.asarray(cut).min() == 255


def test_what_is_shown_is_what_the_model_sees(photograph):
    prepared = resolve("efficientnet-lite0").prepare(photograph, "cat.png")
    levels = torch.from_numpy(prepared.picture).permute(2, 0, 1) / 255
    torch.testing.assert_close(prepared.x[0], 2 * levels - 1)


def test_normalisation_and_its_bounds():
    normalisation = Normalisation(MEAN, STD)
    images = torch.rand(2, 3, 4, 4)
    x = normalisation.apply(images)
    torch.testing.assert_close(x[:, 1], (images[:, 1] - 0.456) / 0.224)
    torch.testing.assert_close(normalisation.undo(x), images)
    low, high = normalisation.bounds
    torch.testing.assert_close(torch.tensor(low), normalisation.apply(torch.zeros(1, 3, 1, 1)).flatten())
    torch.testing.assert_close(torch.tensor(high), normalisation.apply(torch.ones(1, 3, 1, 1)).flatten())


# torchvision


def test_torchvision_has_its_own_preprocessing_classes_and_bounds(torchvision, photograph):
    model = resolve("torchvision:squeezenet1_1", weights="random")
    own = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    prepared = model.prepare(photograph, "cat.png")
    assert torch.equal(prepared.x[0], own.transforms()(photograph))
    assert model.classes == tuple(own.meta["categories"]) == class_names()
    assert model.bounds == Normalisation(MEAN, STD).bounds
    assert prepared.picture.shape == (224, 224, 3)
    with torch.no_grad():
        assert model.module(prepared.x).shape == (1, 1000)


def test_names_of_classes_set_the_number_of_outputs(torchvision):
    model = resolve("torchvision:googlenet", weights="random", classes=["a", "b", "c"])
    assert model.classes == ("a", "b", "c")
    assert model.module.fc.out_features == 3
    assert model.module.transform_input
    assert model.module.aux1 is None


def test_segmentation_networks_load_no_weights_of_their_backbone(torchvision):
    model = resolve("torchvision:lraspp_mobilenet_v3_large", weights="random")
    assert model.classes[:2] == ("__background__", "aeroplane")
    with torch.no_grad():
        assert model.module(torch.zeros(1, 3, 64, 64))["out"].shape == (1, 21, 64, 64)


def test_trained_weights_are_taken_from_where_torch_keeps_them(torchvision, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        ModelError,
        match=r"^torchvision:squeezenet1_1: its trained weights are not on this machine: there is no .*che"
        r"ckpoints.squeezenet1_1-b8a52dc0\.pth\. Download https://.*pth to that path, or give a file with "
        r"--weights FILE\. --weights random takes",
    ):
        resolve("torchvision:squeezenet1_1")
    state = {
        name: torch.full_like(value, 0.5)
        for name, value in torchvision.models.squeezenet1_1().state_dict().items()
    }
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")
    model = resolve("torchvision:squeezenet1_1")
    assert same_values(model.module.state_dict(), state)
    assert model.weights == "torchvision's SqueezeNet1_1_Weights.IMAGENET1K_V1"


def test_weights_decide_about_auxiliary_outputs(torchvision, tmp_path):
    name = "deeplabv3_mobilenet_v3_large"
    for auxiliary in (False, True):
        made = torchvision.models.get_model(name, weights=None, weights_backbone=None, aux_loss=auxiliary)
        torch.save(made.state_dict(), tmp_path / "weights.pt")
        found = resolve(f"torchvision:{name}", weights=tmp_path / "weights.pt")
        assert same_values(found.module.state_dict(), made.state_dict())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Resnet-18", r"called 'Resnet-18'\. Did you mean torchvision:resnet18"),
        (
            "fasterrcnn_resnet50_fpn",
            r"Its model of this name is for another task, which is not covered\. It has \d+: alexnet, ",
        ),
        ("nothing_of_the_kind", r"called 'nothing_of_the_kind'\. It has \d+: alexnet, "),
    ],
)
def test_unknown_networks_of_torchvision(torchvision, name, message):
    with pytest.raises(ModelError, match=message):
        resolve(f"torchvision:{name}", weights="random")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("operator torchvision::nms does not exist"),
            r"^torchvision is installed but does not work with torch \d.*: operator torchvision::nms does "
            r"not exist\. It was built for another torch",
        ),
        (
            ModuleNotFoundError("No module named 'torchvision'", name="torchvision"),
            r"^models of torchvision need torchvision, which is not installed: pip install torchvision$",
        ),
    ],
)
def test_torchvision_that_does_not_work(monkeypatch, error, message):
    def fail(name):
        raise error

    monkeypatch.setattr(torchvision_models.importlib, "import_module", fail)
    with pytest.raises(ModelError, match=message):
        resolve("torchvision:resnet18")


def test_an_error_inside_torchvision_is_not_taken_for_a_missing_one(monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr(torchvision_models.importlib, "import_module", fail)
    with pytest.raises(ModuleNotFoundError, match="numpy"):
        resolve("torchvision:resnet18")


# timm


def test_timm_has_its_own_preprocessing(torchvision, photograph):
    import timm

    model = resolve("timm:lcnet_050", weights="random")
    settings = timm.data.resolve_data_config({}, model=model.module)
    assert torch.equal(model.prepare(photograph, "").x[0], timm.data.create_transform(**settings)(photograph))
    assert model.classes == class_names()
    assert model.bounds == Normalisation(tuple(settings["mean"]), tuple(settings["std"])).bounds
    assert resolve("timm:lcnet_050", weights="random", classes=["a", "b"]).module.num_classes == 2


def test_timm_brings_no_weights(torchvision):
    with pytest.raises(
        ModelError, match=r"^timm:lcnet_050: the package timm has no weights\. Give a file with --w"
    ):
        resolve("timm:lcnet_050")
    with pytest.raises(ModelError, match=r"^timm has no model called 'lcnet_55'\. Did you mean timm:lcnet_"):
        resolve("timm:lcnet_55")


def test_timm_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"need timm, which is not installed: pip install timm$"):
        resolve("timm:resnet18")
