"""Training: deterministic, clean about what it is given and what it leaves behind; the command around it."""

import dataclasses
import importlib
import json
from importlib import resources

import pytest
import safetensors
import torch
import typer
from typer.testing import CliRunner

from relprop.cli.train import train as train_command
from relprop.data import mnist
from relprop.errors import FileError, InputError, ModelError
from relprop.tutorial.train import SETTINGS, Affine, error_rate, save, settings_for, train
from relprop.zoo import BUNDLED, load_weights, text_format

# By name, because the package may well have a function called train.
command = importlib.import_module("relprop.cli.work.train")

NETWORKS = pytest.mark.parametrize("network", ["mlp", "cnn"])


@pytest.fixture(scope="module")
def digits():
    """Test digits that play the training set: nothing that is measured here is published."""
    data = mnist.test_set()
    return mnist.MNIST(data.images[:900], data.labels[:900])


@pytest.fixture
def small_steps(monkeypatch):
    """Few digits make a small batch; tests run side by side, so each takes one core."""
    for network, settings in SETTINGS.items():
        monkeypatch.setitem(SETTINGS, network, dataclasses.replace(settings, batch=50, threads=1))


def weights(model):
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def test_settings_are_the_tutorials():
    assert settings_for("mlp").epochs == 100
    assert settings_for("mlp").augmentation is not None
    assert settings_for("cnn").epochs == 10
    assert settings_for("cnn").augmentation is None
    assert settings_for("cnn", epochs=3) == dataclasses.replace(SETTINGS["cnn"], epochs=3)


@pytest.mark.usefixtures("small_steps")
@NETWORKS
def test_it_learns(network, digits):
    model = train(network, digits, epochs=4, holdout=300)
    held_out = mnist.MNIST(digits.images[600:], digits.labels[600:])
    error = error_rate(model, BUNDLED[SETTINGS[network].model].prepare, held_out)
    assert error < 0.4  # guessing gives 0.9
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.usefixtures("small_steps")
@NETWORKS
def test_a_seed_decides_and_torchs_state_is_left_alone(network, digits):
    torch.manual_seed(7)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    first = train(network, digits, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    torch.manual_seed(8)
    with torch.no_grad():
        assert torch.equal(weights(train(network, digits, epochs=1)), weights(first))
    assert not torch.equal(weights(train(network, digits, epochs=1, seed=1)), weights(first))


@pytest.mark.usefixtures("small_steps")
def test_held_out_digits_take_no_part(digits):
    alone = train("cnn", mnist.MNIST(digits.images[:600], digits.labels[:600]), epochs=1)
    scrambled = mnist.MNIST(digits.images, digits.labels.clone())
    scrambled.labels[600:] = 0
    assert torch.equal(weights(train("cnn", scrambled, epochs=1, holdout=300)), weights(alone))


@pytest.mark.usefixtures("small_steps")
def test_progress(digits):
    heard = []
    model = train("mlp", digits, epochs=2, test=digits, progress=heard.append)
    per_epoch = 900 // 50
    assert [p.step for p in heard] == list(range(1, 2 * per_epoch + 1))
    assert {p.steps for p in heard} == {2 * per_epoch}
    assert [p.epoch for p in heard] == [1] * per_epoch + [2] * per_epoch
    assert [p.error is None for p in heard[: per_epoch + 1]] == [True] * (per_epoch - 1) + [False] * 2
    assert heard[-1].error == error_rate(model, BUNDLED["mnist-mlp"].prepare, digits)
    assert heard[-1].loss < heard[0].loss


@pytest.mark.usefixtures("small_steps")
def test_error_is_measured_on_the_held_out(digits):
    heard = []
    model = train("cnn", digits, epochs=1, holdout=300, test=digits, progress=heard.append)
    held_out = mnist.MNIST(digits.images[600:], digits.labels[600:])
    assert heard[-1].error == error_rate(model, BUNDLED["mnist-cnn"].prepare, held_out)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"network": "rnn"}, ModelError, r"cannot train 'rnn'\. There are: mlp, cnn\."),
        ({"epochs": 0}, InputError, r"cannot train for 0 epochs: at least 1"),
        ({"holdout": 900}, InputError, r"cannot hold out 900 of 900 images: take 0 to 899"),
        ({"holdout": -1}, InputError, r"cannot hold out -1 of 900 images"),
        ({"seed": -1}, InputError, r"the seed -1 is out of range"),
    ],
)
def test_what_it_refuses(digits, arguments, kind, message):
    with pytest.raises(kind, match=message):
        train(arguments.pop("network", "mlp"), digits, **arguments)


def test_augmentation_keeps_to_its_limits():
    images = torch.full([200, 1, 28, 28], -1.0)
    images[:, :, 12:16, 12:16] = 1.0  # a square in the middle
    still = Affine(rotation=0, shear=0, scale=0, shift=0)(images, torch.Generator().manual_seed(0))
    torch.testing.assert_close(still, images)
    moved = Affine(rotation=0, shear=0, scale=0, shift=0.25)(images, torch.Generator().manual_seed(0))
    mass = (moved + 1).sum(dim=1)
    centre = (mass.sum(dim=1) * torch.arange(28)).sum(dim=1) / mass.sum(dim=(1, 2)) - 13.5
    assert centre.abs().max() <= 7.0 + 1e-3  # a quarter of 28
    assert centre.max() > 6
    assert centre.min() < -6
    turned = Affine(rotation=0.2, shear=0, scale=0, shift=0)(images, torch.Generator().manual_seed(0))
    assert not torch.equal(turned, images)
    torch.testing.assert_close(
        (turned + 1).sum(dim=(1, 2, 3)), (images + 1).sum(dim=(1, 2, 3)), rtol=0.02, atol=0
    )
    assert turned.min() >= -1
    assert turned.max() <= 1


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = BUNDLED["mnist-mlp"].build()
    for name in ("first", "second"):
        save(model, tmp_path / name, SETTINGS["mlp"], seed=3, holdout=10)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    with safetensors.safe_open(tmp_path / "first", "pt") as file:
        made = json.loads(file.metadata()["training"])
    assert (made["seed"], made["holdout"], made["torch"]) == (3, 10, torch.__version__)


@NETWORKS
def test_the_packages_weights_were_made_with_these_settings(network):
    file = resources.files("relprop.data") / "files" / f"{SETTINGS[network].model}.safetensors"
    with safetensors.safe_open(str(file), "pt") as weights:
        made = json.loads(weights.metadata()["training"])
    assert made["settings"] == dataclasses.asdict(SETTINGS[network])
    assert (made["seed"], made["holdout"]) == (0, 0)


@pytest.fixture
def relprop_train(digits, small_steps, monkeypatch, tmp_path):
    """Run the command in an empty folder on few digits."""
    monkeypatch.setattr(command, "training_set", lambda folder, progress: digits)
    monkeypatch.setattr(command, "test_set", lambda: digits)
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(train_command)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_command_writes_weights_and_text(relprop_train, tmp_path, digits):
    result = relprop_train("cnn", "--epochs", "1", "--text", "text")
    assert result.exit_code == 0, result.output
    model = BUNDLED["mnist-cnn"].build()
    load_weights(model, tmp_path / "mnist-cnn.safetensors")
    assert torch.equal(weights(model), weights(train("cnn", digits, epochs=1)))
    state = text_format.read(tmp_path / "text", "mnist-cnn")
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    error = error_rate(model, BUNDLED["mnist-cnn"].prepare, digits)
    assert "cnn epoch 1/1, loss" in result.output
    assert f"{error:.2%} error: {round(error * 900)} of 900 test digits not recognised" in result.output
    assert "weights in mnist-cnn.safetensors and, as text, in text/cnn" in result.output
    assert "relprop tutorial --weights text" in result.output
    assert "relprop train mlp --text text" in result.output


def test_command_with_held_out_digits(relprop_train, tmp_path):
    result = relprop_train("mlp", "--epochs", "1", "--holdout", "300", "--out", "new/here.safetensors")
    assert result.exit_code == 0, result.output
    assert "of 300 held-out digits not recognised" in result.output
    assert "held-out error" in result.output
    assert "test" not in result.output
    assert [path.name for path in tmp_path.rglob("*.*")] == ["here.safetensors"]


def test_ctrl_c_leaves_what_was_there(relprop_train, tmp_path, monkeypatch):
    def press(watch, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(command._Watch, "__call__", press)
    (tmp_path / "mnist-mlp.safetensors").write_text("from before")
    result = relprop_train("mlp", "--text", "text")
    assert result.exit_code == 130
    assert result.stderr == "interrupted: the training of mlp stopped, and nothing was written\n"
    assert (tmp_path / "mnist-mlp.safetensors").read_text() == "from before"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mnist-mlp.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--out", "folder.safetensors"],
            r"cannot write folder.safetensors: it is a folder\. Name a file with --out, such as folder",
        ),
        (["--out", "digit.png"], r"--out digit.png: weights are written as safetensors"),
        (
            ["--out", "file/weights.safetensors"],
            r"cannot write into file: .*Choose another folder with --out",
        ),
        (["--text", "file"], r"cannot write into file/mlp: .*Choose another folder with --text"),
    ],
)
def test_outputs_are_checked_before_the_training(relprop_train, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(command, "train_network", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").write_text("a file where a folder should be")
    result = relprop_train("mlp", *arguments)
    with pytest.raises(FileError, match=message):
        raise result.exception


def test_command_shows_downloads(relprop_train, monkeypatch, digits):
    def downloaded(folder, progress):
        progress("train-images-idx3-ubyte", 10, 20)
        progress("train-images-idx3-ubyte", 20, 20)
        return digits

    monkeypatch.setattr(command, "training_set", downloaded)
    result = relprop_train("mlp", "--epochs", "1")
    assert result.exit_code == 0, result.output
