"""`relprop explain`: what it prints, what it writes, what it refuses."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

import relprop
from relprop.cli.explain import explain
from relprop.cli.work.explain import plan
from relprop.data import mnist
from relprop.errors import FileError, InputError, ModelError, RuleError
from relprop.view.digit import read_digit
from relprop.view.mosaic import mosaic
from relprop.zoo import bundled
from shell import raising

# Digits of the test set: a 1, a 0, an 8 and a 9.
DIGITS = [1318, 7221, 6137, 7322]


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(explain)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def draw(path: Path, index: int = 1318) -> Path:
    """Store a digit of the test set as black on white, enlarged."""
    ink = Image.fromarray(255 - mnist.test_set().images[index].numpy())
    ink.resize((140, 140)).save(path)
    return path


@pytest.fixture
def picture(tmp_path) -> Path:
    return draw(tmp_path / "my_digit.png")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_picture_becomes_a_heatmap_beside_it_and_a_line(picture, tmp_path):
    result = run("mnist-cnn", picture, "--rules", "deep-taylor")
    assert result.exit_code == 0, result.output
    numbers = r"class (\d), score ([\d.]+); sum of relevance ([\d.]+) \(deep-taylor\)"
    found = re.fullmatch(rf".*my_digit\.png: {numbers}; .*my_digit-heatmap\.png\n", result.stdout)
    assert found, result.stdout
    assert int(found[1]) == mnist.test_set().labels[1318]
    assert float(found[3]) == pytest.approx(float(found[2]), rel=0.01)
    assert names(tmp_path) == ["my_digit-heatmap.png", "my_digit.png"]


@pytest.mark.filterwarnings("ignore:the explained score is negative:relprop.errors.ScoreWarning")
@pytest.mark.parametrize("model", ["mnist-cnn", "mnist-mlp"])
def test_the_heatmap_is_the_digit_and_its_relevance_side_by_side(picture, model):
    result = run(model, picture, "--rules", "epsilon", "--target", 4)
    assert result.exit_code == 0, result.output
    found = bundled(model)
    digit = torch.from_numpy(read_digit(picture))[None, None]
    explanation = relprop.explain(relprop.load(model), found.prepare(digit), target=4, rules="epsilon")
    relevance = explanation.relevance
    if model == "mnist-cnn":
        relevance = relevance[..., 2:-2, 2:-2]
    with Image.open(picture.with_name("my_digit-heatmap.png")) as heatmap:
        pixels = np.asarray(heatmap)
        described = heatmap.text
    assert pixels.shape == (300, 600, 3)  # 28 · 10 pixels and a margin of 10 around each
    np.testing.assert_array_equal(pixels[:, :300], mosaic(digit, "grey", enlarge=10, border=1, rescale=False))
    np.testing.assert_array_equal(pixels[:, 300:], mosaic(relevance, enlarge=10, border=1))
    assert described["Model"] == model
    assert described["Rules"] == "epsilon"
    assert described["Title"] == "Relevance of the pixels for class 4"
    assert float(described["Score"]) == pytest.approx(float(explanation.output[0, 4]), rel=1e-4)
    assert float(described["Sum of relevance"]) == pytest.approx(float(explanation.relevance.sum()), rel=1e-3)


def test_another_class_can_be_explained(picture):
    own, other = run("mnist-cnn", picture), run("mnist-cnn", picture, "--target", 9, "--rules", "epsilon")
    assert "explained" not in own.stdout
    label = int(mnist.test_set().labels[1318])
    assert re.search(rf"class {label}, score [\d.]+; explained class 9, score -?[\d.]+; sum", other.stdout)


def test_without_rules_those_of_explain_are_taken_and_said(picture):
    assert f"({relprop.rules.presets.DEFAULT}); " in run("mnist-cnn", picture).stdout
    with Image.open(picture.with_name("my_digit-heatmap.png")) as heatmap:
        assert heatmap.text["Rules"] == relprop.rules.presets.DEFAULT


def test_running_again_replaces_the_heatmap_by_the_same_bytes(picture):
    heatmap = picture.with_name("my_digit-heatmap.png")
    assert run("mnist-cnn", picture).exit_code == 0
    first = heatmap.read_bytes()
    assert run("mnist-cnn", picture, "--rules", "epsilon").exit_code == 0
    assert heatmap.read_bytes() != first
    assert run("mnist-cnn", picture).exit_code == 0
    assert heatmap.read_bytes() == first


@pytest.mark.parametrize("out", [None, "holiday.png"])
def test_a_picture_that_relprop_did_not_make_is_not_replaced(picture, tmp_path, out):
    mine = tmp_path / (out or "my_digit-heatmap.png")
    draw(mine, 7221)
    before = mine.read_bytes()
    result = run("mnist-cnn", picture, *([] if out is None else ["--out", mine]))
    assert result.exit_code == 2
    assert f"{mine} exists and was not made by relprop, which replaces only its own pictures" in result.output
    assert mine.read_bytes() == before


def test_a_heatmap_is_no_jpeg(picture, tmp_path):
    with pytest.raises(
        InputError, match=r"--out .*map\.jpg: heatmaps are PNG files. Give a name that ends in .png"
    ):
        plan([picture], tmp_path / "map.jpg")


def test_weights_of_ones_own(picture, tmp_path):
    import safetensors.torch

    state = relprop.load("mnist-mlp").state_dict()
    state["l3.bias"] += 100 * torch.eye(10)[7]
    safetensors.torch.save_file(state, tmp_path / "my.safetensors")
    result = run("mnist-mlp", picture, "--weights", tmp_path / "my.safetensors")
    assert "class 7, score" in result.output
    with pytest.raises(FileError, match="do not fit the model"):
        raise run("mnist-cnn", picture, "--weights", tmp_path / "my.safetensors").exception


def test_several_pictures_go_to_a_folder_that_is_made(tmp_path):
    pictures = [draw(tmp_path / f"{index}.png", index) for index in DIGITS]
    result = run("mnist-cnn", *pictures, "--out", tmp_path / "new" / "maps")
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "new" / "maps") == sorted(f"{index}-heatmap.png" for index in DIGITS)
    labels = [mnist.test_set().labels[index].item() for index in DIGITS]
    assert [int(label) for label in re.findall(r"class (\d)", result.stdout)] == labels
    assert names(tmp_path) == sorted([*(f"{index}.png" for index in DIGITS), "new"])


def test_a_single_heatmap_can_be_named(picture, tmp_path):
    assert run("mnist-cnn", picture, "--out", tmp_path / "map.PNG").exit_code == 0
    assert names(tmp_path) == ["map.PNG", "my_digit.png"]


def test_one_bad_file_does_not_stop_the_others(tmp_path):
    (tmp_path / "b.png").write_text("no picture")
    pictures = [draw(tmp_path / "a.png"), tmp_path / "b.png", tmp_path / "c.png", draw(tmp_path / "d.png")]
    result = run("mnist-cnn", *pictures)
    assert result.exit_code == 2
    assert result.stdout.count("sum of relevance") == 2
    assert "b.png: it is not a picture" in result.stderr
    assert "c.png: there is no such file" in result.stderr
    assert result.stderr.count("error: ") == 2
    assert "2 of 4 pictures could not be explained.\n" in result.stderr
    assert names(tmp_path) == ["a-heatmap.png", "a.png", "b.png", "d-heatmap.png", "d.png"]


def test_a_heatmap_that_cannot_be_written_is_an_error_of_its_picture(picture, tmp_path):
    (tmp_path / "taken").touch()
    result = run("mnist-cnn", picture, "--out", tmp_path / "taken")
    assert result.exit_code == 2
    assert re.search(r"error: cannot write .*taken.my_digit-heatmap\.png", result.stderr)
    assert "pictures could not" not in result.stderr


raised = raising(run)


def test_an_unknown_model_is_refused_with_the_nearest(picture):
    error = raised("mnist-cmn", picture)
    assert isinstance(error, ModelError)
    assert "'mnist-cmn'. Did you mean mnist-cnn" in str(error)


@pytest.mark.parametrize("target", [-1, 10])
def test_a_class_that_does_not_exist_is_refused(picture, tmp_path, target):
    error = raised("mnist-cnn", picture, f"--target={target}")
    assert isinstance(error, InputError)
    assert str(error) == f"--target {target}: the classes of mnist-cnn are numbered 0 to 9. Give one of them."
    assert names(tmp_path) == ["my_digit.png"]


def test_unknown_rules_are_refused_with_the_nearest(picture, tmp_path):
    error = raised("mnist-cnn", picture, "--rules", "deep-tailor")
    assert isinstance(error, RuleError)
    assert "deep-taylor" in str(error)
    assert names(tmp_path) == ["my_digit.png"]


def test_a_picture_given_twice_is_explained_once():
    assert plan([Path("a.png"), Path("a.png")], None) == {Path("a.png"): Path("a-heatmap.png")}


def test_heatmaps_go_beside_their_pictures_or_into_the_folder():
    pictures = [Path("x/a.jpg"), Path("y/b.tar.png")]
    beside = [Path("x/a-heatmap.png"), Path("y/b.tar-heatmap.png")]
    assert list(plan(pictures, None).values()) == beside
    assert list(plan(pictures, Path("out")).values()) == [
        Path("out/a-heatmap.png"),
        Path("out/b.tar-heatmap.png"),
    ]


def test_a_folder_may_be_called_like_a_picture(tmp_path):
    folder = tmp_path / "maps.png"
    folder.mkdir()
    assert list(plan([Path("a.png"), Path("b.png")], folder).values())[1] == folder / "b-heatmap.png"


def test_one_name_for_several_heatmaps_is_refused():
    with pytest.raises(
        InputError, match=r"--out map\.png names one picture, but there are 2 to explain. Give a folder"
    ):
        plan([Path("a.png"), Path("b.png")], Path("map.png"))


def test_no_picture_given_is_replaced(picture, tmp_path):
    message = (
        r"the heatmap of .*my_digit\.png would replace .*my_digit\.png, one of the pictures given. Leave that"
    )
    with pytest.raises(InputError, match=message):
        plan([picture], picture)
    heatmap = draw(tmp_path / "my_digit-heatmap.png")
    content = heatmap.read_bytes()
    with pytest.raises(InputError, match=r"would replace .*-heatmap\.png"):
        plan([heatmap, picture], None)
    (tmp_path / "link.png").symlink_to(picture)
    with pytest.raises(InputError, match=r"would replace .*link\.png"):
        plan([picture], tmp_path / "link.png")
    assert isinstance(raised("mnist-cnn", picture, heatmap), InputError)
    assert heatmap.read_bytes() == content


def test_two_heatmaps_of_one_name_are_refused():
    with pytest.raises(
        InputError, match=r"heatmaps of x.3\.png and y.3\.png would both be out.3-heatmap\.png"
    ):
        plan([Path("x/3.png"), Path("y/3.png")], Path("out"))
    with pytest.raises(InputError, match=r"heatmaps of 3\.png and 3\.jpg would both be"):
        plan([Path("3.png"), Path("3.jpg")], None)


def test_a_second_run_on_everything_leaves_the_first_ones_heatmaps_out(picture, tmp_path):
    first = run("mnist-cnn", picture)
    heatmap = tmp_path / "my_digit-heatmap.png"
    assert first.exit_code == 0
    content = heatmap.read_bytes()
    second = run("mnist-cnn", *sorted(tmp_path.glob("*.png")))
    assert second.exit_code == 0
    assert second.output == first.output
    assert heatmap.read_bytes() == content
    assert len(list(tmp_path.glob("*.png"))) == 2


@pytest.mark.filterwarnings("ignore:the explained score is negative:relprop.errors.ScoreWarning")
def test_by_a_graph_it_says_and_draws_the_same(tmp_path):
    pictures = [draw(tmp_path / f"{index}.png", index) for index in DIGITS]
    once, again = (
        run("mnist-cnn", *pictures, "--out", tmp_path / name, *options)
        for name, options in (("eager", ()), ("compiled", ("--compile",)))
    )
    assert (once.exit_code, again.exit_code) == (0, 0), again.output
    assert once.stdout.replace("eager", "compiled") == again.stdout
    for index in DIGITS:
        one, other = (
            np.asarray(Image.open(tmp_path / n / f"{index}-heatmap.png")) for n in ("eager", "compiled")
        )
        np.testing.assert_array_equal(one, other)


def test_a_device(picture, tmp_path):
    expected = run("mnist-cnn", picture, "--out", tmp_path / "one.png").stdout
    found = run("mnist-cnn", picture, "--device", "cpu", "--out", tmp_path / "other.png").stdout
    assert found.replace("other.png", "one.png") == expected
    assert (tmp_path / "other.png").read_bytes() == (tmp_path / "one.png").read_bytes()


@pytest.mark.parametrize(
    ("device", "why"),
    [
        ("gpu", "it is no device"),
        pytest.param(
            "cuda",
            "there is no such device here (",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device here"),
        ),
    ],
)
def test_a_device_that_is_not_there(picture, device, why):
    told = str(raised("mnist-cnn", picture, "--device", device))
    assert told.startswith(f"--device {device}: {why}")
    assert told.endswith("Give one such as 'cpu' or 'cuda:0'.")
