"""The tutorial on real MNIST: what is computed, and the command from end to end."""

import importlib
import math
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import oracle
import relprop
from relprop.cli.commands import app
from relprop.data import mnist
from relprop.errors import FileError
from relprop.tutorial.steps import (
    PUBLISHED,
    STEPS,
    SUCCESSOR,
    TASKS,
    BatchEpsilon,
    compute,
    load_networks,
    maps_of,
    measure,
    sensitivity,
)
from relprop.zoo import BUNDLED, text_format

# By name, because the package has a function called tutorial.
command = importlib.import_module("relprop.cli.work.tutorial")

DIGITS = [2, 1, 0, 6, 8, 8, 0, 3, 8, 9, 4, 6]
PICTURES = ["data", *(step.name for step in STEPS)]
STEP = {step.name: step for step in STEPS}
NETWORKS = pytest.mark.parametrize("network", ["mlp", "cnn"])


@pytest.fixture(scope="module")
def networks():
    return load_networks()


@pytest.fixture(scope="module")
def result(networks):
    return compute(networks)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run the command once, in an empty folder; give that folder and what was printed."""
    folder = tmp_path_factory.mktemp("ran")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(app, ["tutorial"])
    assert done.exit_code == 0, done.output
    return folder, done.stdout


def run(*arguments):
    return CliRunner().invoke(app, ["tutorial", *map(str, arguments)])


def pixels(path):
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


# What is computed


def test_the_digits_are_the_tutorials(result):
    assert result.labels.tolist() == DIGITS
    assert result.images.shape == (12, 1, 28, 28)
    assert (result.images.min(), result.images.max()) == (-1, 1)


def test_both_networks_recognise_more_than_the_tutorials(result):
    assert result.errors["mnist-mlp"].rate <= 0.0075
    assert result.errors["mnist-cnn"].rate <= 0.0065
    assert {error.digits for error in result.errors.values()} == {10_000}


def test_the_test_error_counts_what_is_not_recognised(networks):
    data = mnist.MNIST(mnist.test_set().images[:500], mnist.test_set().labels[:500].clone())
    assert measure("mnist-cnn", networks["mnist-cnn"], data).wrong < 10
    data.labels[:] = (data.labels + 1) % 10
    counted = measure("mnist-cnn", networks["mnist-cnn"], data)
    assert counted.wrong > 490
    assert counted.rate == counted.wrong / 500


@NETWORKS
def test_deep_taylor_maps_are_positive_and_sum_to_the_score(result, network):
    maps = result.maps[f"{network}-deeptaylor"]
    torch.testing.assert_close(maps.sums, maps.scores.clamp(min=0), rtol=1e-10, atol=0)
    assert (maps.scores > 0).all()
    assert maps.relevance.min() >= 0


def test_alpha_beta_maps_have_both_signs_and_the_same_sum(result):
    maps = result.maps["cnn-alphabeta"]
    torch.testing.assert_close(maps.sums, maps.scores.clamp(min=0), rtol=1e-10, atol=0)
    assert maps.relevance.min() < -0.1 * maps.relevance.max()


def test_every_ledger_closes(result):
    for maps in result.maps.values():
        if maps.step.rules is not None:
            assert maps.gap.shape == (12,)
            assert maps.gap.max() < 1e-12


@pytest.mark.parametrize("name", ["mlp-deeptaylor", "cnn-deeptaylor", "cnn-alphabeta", "mlp-successor"])
def test_a_class_that_the_network_speaks_against_has_an_empty_map(networks, name):
    step = STEP[name]
    images, _ = mnist.tutorial_sample()
    network = networks[step.model]
    worst = network(BUNDLED[step.model].prepare(images)).argmin(1)
    maps = maps_of(step, network, images, worst)
    assert (maps.scores < 0).all()
    assert not maps.relevance.any()


@pytest.mark.parametrize("step", STEPS[:5], ids=lambda step: step.name)
def test_maps_are_those_of_the_tutorials_way_of_computing(result, networks, step):
    maps, prepare = result.maps[step.name], BUNDLED[step.model].prepare
    expected = oracle.maps(
        step.model.removeprefix("mnist-"),
        step.rules or "sensitivity",
        networks[step.model].state_dict(),
        prepare(result.images),
        result.labels,
    )
    # The oracle's addends of 1e-9 move results by about as much.
    np.testing.assert_allclose(maps.relevance, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())


def test_the_gradient_of_sensitivity_is_the_slope(networks):
    network = networks["mnist-cnn"]
    x = BUNDLED["mnist-cnn"].prepare(mnist.tutorial_sample()[0][:1]).double()
    double = BUNDLED["mnist-cnn"].build().double()
    double.load_state_dict(network.state_dict())
    maps, scores = sensitivity(double, x, torch.tensor([2]))
    step = torch.zeros_like(x)
    step[0, 0, 16, 15] = 1e-6
    with torch.no_grad():
        slope = (double(x + step) - double(x - step))[0, 2] / 2e-6
        assert scores[0] == double(x)[0, 2]
    assert float(maps[0, 0, 16, 15]) == pytest.approx(float(slope) ** 2, rel=1e-5)


def successor_by_hand(parameters, x, labels):
    """Compute the successor's example from its equations, dense, for rows of pixels (N, 784)."""
    w = {n: parameters[f"l{n}.weight"].double().numpy().T for n in (1, 2, 3)}
    b = {n: parameters[f"l{n}.bias"].double().numpy() for n in (1, 2, 3)}
    first = np.maximum(x @ w[1] + b[1], 0)
    second = np.maximum(first @ w[2] + b[2], 0)
    z = second @ w[3] + b[3]
    R = np.maximum(z, 0) * np.eye(10)[labels]
    contributions = second[:, :, None] * w[3]
    R = (contributions * (R / (z + 0.1 * np.sqrt(np.mean(z**2)) + 1e-9))[:, None]).sum(2)
    favoured = w[2] + 0.1 * np.maximum(w[2], 0)
    contributions = first[:, :, None] * favoured
    total = contributions.sum(1) + b[2] + 0.1 * np.maximum(b[2], 0)
    R = (contributions * (R / (total + 1e-9))[:, None]).sum(2)
    contributions = x[:, :, None] * w[1] + np.maximum(w[1], 0) - np.minimum(w[1], 0)
    return (contributions * (R / contributions.sum(1))[:, None]).sum(2)


def test_the_successors_example_is_its_equations(result, networks):
    expected = successor_by_hand(
        networks["mnist-mlp"].state_dict(), result.images.double().numpy().reshape(12, 784), DIGITS
    )
    found = result.maps["mlp-successor"].relevance.reshape(12, 784).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())


def test_only_the_successors_maps_depend_on_the_digits_beside(result, networks):
    images, labels = mnist.tutorial_sample()
    for name in ("mlp-deeptaylor", "mlp-successor"):
        alone = maps_of(STEP[name], networks["mnist-mlp"], images[:1], labels[:1]).relevance[0]
        difference = float((alone - result.maps[name].relevance[0]).abs().max() / alone.abs().max())
        assert difference > 1e-3 if name == "mlp-successor" else difference < 1e-12


def test_batch_epsilon_on_numbers():
    layer = torch.nn.Linear(2, 2).requires_grad_(False).double().eval()
    layer.weight[:] = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    layer.bias[:] = torch.tensor([1.0, 0.0])
    x = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    explanation = relprop.explain(layer, x, target=0, rules=BatchEpsilon(0.5))
    # z is 4 and 3, and 1 and 0: the mean square is 26/4. What z_0 = 4 gives the inputs: 1 and 2 parts.
    stabilised = 4 + 0.5 * math.sqrt(26 / 4)
    np.testing.assert_allclose(explanation.relevance, [[4 / stabilised, 8 / stabilised], [0, 0]], rtol=1e-9)
    assert set(explanation.ledger.absorbed) == {"bias", "epsilon"}
    assert float(explanation.ledger.gap.max()) < 1e-15
    without = torch.nn.Linear(2, 2, bias=False).requires_grad_(False).double().eval()
    assert "bias" not in relprop.explain(without, x[:1], target=0, rules=BatchEpsilon(0.5)).ledger.absorbed


def test_the_successors_rules_prints_as_they_are():
    assert str(SUCCESSOR.entries[2]) == "(Path(glob='l3'), BatchEpsilon(epsilon=0.1))"


def test_the_networks_are_left_as_they_came(networks, result):
    for name, network in networks.items():
        state = relprop.load(name).state_dict()
        for key, value in network.state_dict().items():
            assert value.dtype == torch.float32
            assert torch.equal(value, state[key])


def test_maps_keep_the_margin_and_pictures_do_not(result):
    assert result.maps["cnn-deeptaylor"].relevance.shape == (12, 1, 32, 32)
    for maps in result.maps.values():
        assert maps.picture.shape == (12, 1, 28, 28)
        assert maps.relevance.dtype == torch.float64
        assert maps.seconds > 0
    cnn = result.maps["cnn-deeptaylor"]
    assert torch.equal(cnn.picture[:, :, 0, 0], cnn.relevance[:, :, 2, 2])


def test_progress_is_told_before_each_task(networks, monkeypatch):
    monkeypatch.setattr(
        "relprop.tutorial.steps.test_set", lambda: mnist.MNIST(torch.zeros(1, 28, 28), torch.zeros(1))
    )
    heard = []
    compute(networks, heard.append)
    assert heard == ["test error of mnist-mlp", "test error of mnist-cnn", *(step.name for step in STEPS)]
    assert len(heard) == TASKS


# The command


def test_it_makes_the_pictures_and_the_report_and_nothing_else(ran):
    made = sorted(path.relative_to(ran[0]).as_posix() for path in ran[0].rglob("*") if path.is_file())
    assert made == sorted(f"out/tutorial/{name}" for name in [*(f"{n}.png" for n in PICTURES), "report.html"])


def test_what_is_printed(ran, result):
    wrong = {name: error.wrong for name, error in result.errors.items()}
    assert ran[1].splitlines() == [
        f"Test error of the MLP: {wrong['mnist-mlp'] / 100:.2f} %, {wrong['mnist-mlp']} of 10000 digits "
        "(the tutorial's: 1.05 %).",
        f"Test error of the CNN: {wrong['mnist-cnn'] / 100:.2f} %, {wrong['mnist-cnn']} of 10000 digits "
        "(the tutorial's: 0.76 %).",
        "Open out/tutorial/report.html in a browser: every step with its formula, picture and figures.",
        "The pictures are beside it: data.png, mlp-sensitivity.png, mlp-deeptaylor.png, cnn-sensitivity.png, "
        "cnn-deeptaylor.png, cnn-alphabeta.png, mlp-successor.png.",
        "What to try next:",
        "  relprop explain mnist-cnn my_digit.png   a digit of your own",
        "  relprop train cnn                        the network from scratch, in one to two minutes",
        "  docs/tutorial.md                         the same steps in Python, for models of your own",
    ]


def test_progress_is_shown_on_a_terminal_only(tmp_path, monkeypatch, result):
    def told(networks, progress):
        progress("cnn-deeptaylor")
        return result

    monkeypatch.setattr(command, "compute", told)
    assert "cnn-deeptaylor\n" not in run("--out", tmp_path).stdout
    monkeypatch.setattr(command, "console", partial(Console, force_terminal=True, width=80))
    assert "cnn-deeptaylor\n" in run("--out", tmp_path).stdout


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_one_row_of_twelve(ran, name):
    picture = pixels(ran[0] / "out" / "tutorial" / f"{name}.png")
    assert picture.shape == (64, 768, 3)
    # Two pixels of white around each, and everything enlarged twice.
    tiles = picture.reshape(64, 12, 64, 3).transpose(1, 0, 2, 3)
    inner = np.zeros((64, 64), bool)
    inner[4:60, 4:60] = True
    assert (tiles[:, ~inner] == 255).all()
    np.testing.assert_array_equal(tiles[:, ::2, ::2], tiles[:, 1::2, 1::2])
    assert (tiles[:, inner] != 255).any(axis=(1, 2)).all()


def colour(value):
    """The tutorial's colour of a value in [-1, 1], as 8-bit red, green and blue."""
    size = abs(value)
    dark = max(size - 0.3, 0) / 0.7
    own, other = 0.9 - 0.5 * dark, 0.9 - 0.5 * min(size, 0.3) / 0.3 - 0.4 * dark
    return [round(255 * level) for level in ((own, other, other) if value >= 0 else (other, other, own))]


@pytest.mark.parametrize("name", PICTURES[1:])
def test_colours_are_the_tutorials_at_every_tenth_pixel(ran, result, name):
    picture = pixels(ran[0] / "out" / "tutorial" / f"{name}.png")
    values = result.maps[name].relevance.squeeze(1).numpy()
    margin = (values.shape[1] - 28) // 2
    # The largest magnitude of all twelve maps has the last colour.
    values = values[:, margin : margin + 28, margin : margin + 28]
    values = values / np.abs(values).max()
    places = list(np.ndindex(values.shape))[::10]
    places += [np.unravel_index(np.abs(values).argmax(), values.shape)]
    for digit, row, column in places:
        found = picture[4 + 2 * row, 64 * digit + 4 + 2 * column]
        np.testing.assert_allclose(found, colour(values[digit, row, column]), atol=1)
    strongest = pixels(ran[0] / "out" / "tutorial" / f"{name}.png").reshape(-1, 3).tolist()
    assert [102, 0, 0] in strongest or [0, 0, 102] in strongest


def test_the_digits_are_grey(ran, result):
    picture = pixels(ran[0] / "out" / "tutorial" / "data.png")
    grey = mnist.test_set().images[8915].numpy()
    np.testing.assert_array_equal(picture[4:60:2, 4:60:2], np.stack([grey] * 3, axis=-1))
    assert picture[4, 4].tolist() == [0, 0, 0]


def test_the_files_say_what_they_show(ran):
    with Image.open(ran[0] / "out" / "tutorial" / "cnn-alphabeta.png") as picture:
        assert picture.text["Title"].startswith(
            "Twelve heatmaps in a row, of the digits 2, 1, 0, 6, 8, 8, 0, 3, 8, 9, 4, 6. CNN, α2β1"
        )
        assert picture.text["Software"] == f"relprop {relprop.__version__}"


@pytest.mark.parametrize("name", PICTURES)
def test_the_documentations_pictures_are_those_of_the_command(ran, name):
    shown = pixels(oracle.PAGE.parent / "images" / f"{name}.png")
    made = pixels(ran[0] / "out" / "tutorial" / f"{name}.png")
    # Another processor may round another way where a value lies between two levels.
    np.testing.assert_allclose(made.astype(int), shown, atol=1)


def test_weights_in_the_tutorials_format_give_the_same_pictures(ran, tmp_path):
    for name in PUBLISHED:
        text_format.write(tmp_path / "weights", name, relprop.load(name))
    done = run("--weights", tmp_path / "weights", "--out", tmp_path / "new" / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == ran[1].splitlines()[0]
    for name in PICTURES:
        first = ran[0] / "out" / "tutorial" / f"{name}.png"
        assert (tmp_path / "new" / "out" / f"{name}.png").read_bytes() == first.read_bytes()
    assert f"the weights in the folder {tmp_path / 'weights'}" in (
        tmp_path / "new" / "out" / "report.html"
    ).read_text(encoding="utf-8")


# What it refuses, and what it leaves behind


@pytest.fixture
def no_computing(monkeypatch):
    monkeypatch.setattr(command, "compute", lambda *_: pytest.fail("computed"))


@pytest.fixture
def quick(monkeypatch, result):
    """Let the command take what was computed already."""
    monkeypatch.setattr(command, "compute", lambda *_: result)


@pytest.mark.usefixtures("no_computing")
def test_a_folder_without_weights(tmp_path):
    done = run("--weights", tmp_path, "--out", tmp_path / "out")
    with pytest.raises(FileError, match=r"mlp/l1-W\.txt is missing\. A folder of the tutorial's weights has"):
        raise done.exception
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_computing")
def test_weights_of_another_network(tmp_path):
    for name in PUBLISHED:
        text_format.write(tmp_path / "weights", name, relprop.load(name))
    (tmp_path / "weights" / "cnn" / "c4-1x1x100x10-B.txt").write_text("1 2 3")
    done = run("--weights", tmp_path / "weights", "--out", tmp_path / "out")
    with pytest.raises(FileError, match=r"c4-1x1x100x10-B\.txt contains 3 numbers, should contain 10"):
        raise done.exception


@pytest.mark.usefixtures("no_computing")
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file", r"cannot write into .*file: it is a file\. Name a folder with --out\."),
        ("file/below", r"cannot write .*report\.html: Not a directory\. Choose another folder\."),
        ("/proc/nowhere", r"cannot write /proc/nowhere/report\.html: .*Choose another folder\."),
    ],
)
def test_an_output_folder_that_cannot_be_written_is_known_before_computing(tmp_path, out, message):
    (tmp_path / "file").write_text("a file where a folder should be")
    done = run("--out", tmp_path / out)
    with pytest.raises(FileError, match=message):
        raise done.exception
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("at", ["computing", "third picture", "report"])
def test_ctrl_c_leaves_nothing_half_written(tmp_path, monkeypatch, at):
    def press(*_):
        raise KeyboardInterrupt

    save, written = command.save_png, []

    def press_at_the_third(path, *rest):
        written.append(path.name)
        press() if len(written) == 3 else save(path, *rest)

    name, replacement = {
        "computing": ("compute", press),
        "third picture": ("save_png", press_at_the_third),
        "report": ("report", press),
    }[at]
    monkeypatch.setattr(command, name, replacement)
    earlier = '<meta name="generator" content="relprop 0.3.0">of an earlier run'
    (tmp_path / "report.html").write_text(earlier)
    done = run("--out", tmp_path)
    assert done.exit_code != 0
    assert (tmp_path / "report.html").read_text() == earlier
    pictures = {"computing": 0, "third picture": 2, "report": 7}[at]
    assert len(list(tmp_path.iterdir())) == 1 + pictures


@pytest.mark.usefixtures("quick")
def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "save_png", full)
    done = run("--out", tmp_path / "out")
    message = (
        r"cannot write .*out/report\.html: No space left on device\. Make room there, or choose another place"
    )
    with pytest.raises(FileError, match=message):
        raise done.exception
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.setattr(command, "save_png", lambda *_: (_ for _ in ()).throw(FileError("of the picture")))
    assert str(run("--out", tmp_path / "out").exception) == "of the picture"


@pytest.mark.usefixtures("quick")
def test_running_again_gives_the_same_bytes(ran, tmp_path):
    assert run("--out", tmp_path).exit_code == 0
    assert run("--out", tmp_path).exit_code == 0
    for name in PICTURES:
        first = ran[0] / "out" / "tutorial" / f"{name}.png"
        assert (tmp_path / f"{name}.png").read_bytes() == first.read_bytes()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["data.png", "report.html"])
def test_a_file_that_relprop_did_not_make_is_not_replaced(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    done = run("--out", tmp_path)
    with pytest.raises(FileError, match=rf"{name} exists and was not made by relprop"):
        raise done.exception
    assert [path.name for path in tmp_path.iterdir()] == [name]
