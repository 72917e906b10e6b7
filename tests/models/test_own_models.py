"""Models of the user's own: a function in a Python file."""

import sys

import pytest
import torch
from PIL import Image

import relprop
from bit_by_bit import same_values
from pictures import PHOTOGRAPHS
from relprop.errors import InputError, ModelError
from relprop.models import resolve


@pytest.fixture
def photograph():
    return Image.open(PHOTOGRAPHS / "cat.png")


OWN = """
import torch
from torch import nn
from beside import CLASSES

def make():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model.input_size, model.mean, model.std = (20, 30), (0.5, 0.4, 0.3), torch.tensor([0.1, 0.2, 0.5])
    model.classes = CLASSES
    return model

def bare(channels=3):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Flatten())

def grey(): return bare(1)

class Bare(nn.Module):
    pass

def number(): return 3
def needs(size): return size
def broken():
    return 1 / 0

made = make()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "beside.py").write_text("CLASSES = ['left', 'right']\n")
    yield tmp_path / "own.py"
    sys.modules.pop("beside", None)


def test_a_function_in_a_file_and_what_its_model_says_of_itself(own, photograph):
    before = list(sys.path)
    model = resolve(f"{own}:make")
    assert sys.path == before
    prepared = model.prepare(photograph, "cat.png")
    assert prepared.x.shape == (1, 3, 20, 30)
    assert prepared.picture.shape == (20, 30, 3)
    levels = torch.from_numpy(prepared.picture).permute(2, 0, 1) / 255
    torch.testing.assert_close(prepared.x[0, 2], (levels[2] - 0.3) / 0.5)
    assert model.classes == ("left", "right")
    torch.testing.assert_close(model.bounds[1][0], 5.0)
    assert model.weights == "as make made them"
    assert relprop.explain(model.module, prepared.x, bounds=model.bounds).preset == "epsilon-gamma-box"


def test_options_go_before_what_the_model_says(own, photograph):
    model = resolve(f"{own}:make", size=(8, 8), mean=[0.0], std=[2.0], classes=["a", "b"])
    assert model.bounds == ((0, 0, 0), (0.5, 0.5, 0.5)), "one number is for all channels"
    model = resolve(f"{own}:make", size=(8, 8), mean=[0, 0, 0], std=[1, 1, 1], classes=["a", "b"])
    assert model.prepare(photograph, "cat.png").x.shape == (1, 3, 8, 8)
    assert model.classes == ("a", "b")
    assert model.bounds == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("number", ["0.5", "torch.tensor(0.5)", "(0.5,)"])
def test_a_single_number_is_for_all_channels(own, number):
    own.write_text(f"{OWN}\ndef single():\n    model = make()\n    model.mean = {number}\n    return model\n")
    assert resolve(f"{own}:single").bounds[0] == pytest.approx((-5, -2.5, -1))


def test_grey_pictures_for_models_of_one_channel(own, photograph):
    x = resolve(f"{own}:grey", size=(8, 8)).prepare(photograph, "cat.png").x
    assert x.shape == (1, 1, 8, 8)
    assert 0 <= x.min() < x.max() <= 1


def test_the_same_function_gives_the_same_weights(own):
    assert same_values(*(resolve(f"{own}:make").module.state_dict() for _ in range(2)))
    assert resolve(f"{own}:made").classes == ("left", "right")


def test_weights_for_a_model_of_ones_own(own, tmp_path):
    state = {name: value + 1 for name, value in resolve(f"{own}:make").module.state_dict().items()}
    torch.save({"model": state}, tmp_path / "weights.pt")
    model = resolve(f"{own}:make", weights=tmp_path / "weights.pt")
    assert same_values(model.module.state_dict(), state)
    assert model.weights == str(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "",
            r"own\.py: name the function that makes the model\. Did you mean .*:make\? It defines make, b",
        ),
        (":mak", r"own\.py:mak: there is no function 'mak' in .*own\.py\. Did you mean .*own\.py:make\?"),
        (
            ":broken",
            r"broken failed at .*own\.py, line 23: ZeroDivisionError: division by zero\. relprop runs the",
        ),
        (
            ":needs",
            r"needs failed at .*own\.py: TypeError: needs\(\) missing 1 required .* without arguments",
        ),
        (":number", r"number returned int\. It must return a torch\.nn\.Module\."),
        (
            ":bare",
            r"bare: give the size of its pictures, by --size 224 \(height and width\) or by an attribute",
        ),
    ],
)
def test_functions_that_make_no_model(own, name, message):
    with pytest.raises(ModelError, match=message):
        resolve(f"{own}{name}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys\nsys.exit('no')", r"failed at .*bad\.py, line 2: SystemExit: no"),
        ("a = = 1", r"failed at .*bad\.py, line 1: SyntaxError: invalid syntax"),
        (
            "\n\nimport nothing_of_the_kind",
            r"failed at .*bad\.py, line 3: ModuleNotFoundError: No module named",
        ),
        ("a = 1", r"there is no function 'make' in .*bad\.py\. It defines no function\."),
    ],
)
def test_files_that_do_not_run(tmp_path, text, message):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(ModelError, match=message):
        resolve(f"{tmp_path / 'bad.py'}:make")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match=r"none\.py:make: there is no file .*none\.py\. Check the name and"):
        resolve(f"{tmp_path / 'none.py'}:make")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"std": (0.5, 0.25)},
            r":make: --std is 0\.5,0\.25; give 3 numbers, one for each channel, or one number for all\.",
        ),
        ({"size": (0, 3)}, r"input_size is \(0, 3\); give height and width, \(224, 224\)"),
        ({"std": (0, 1, 1)}, r"std=\(0\.0, 1\.0, 1\.0\) divides by zero"),
    ],
)
def test_preprocessing_that_has_no_meaning(own, options, message):
    with pytest.raises((ModelError, InputError), match=message):
        resolve(f"{own}:make", mean=(0, 0, 0), **options)
