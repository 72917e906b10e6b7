"""`relprop explain` on photographs and on models of all kinds: what it prints, writes and refuses."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import relprop
from relprop.cli.explain import explain
from relprop.cli.work.answers import answers
from relprop.errors import CoverageError, FileError, InputError, ModelError
from relprop.models import resolve
from shell import raising, runner
from torchvision_shim import import_torchvision

NET = "efficientnet-lite0"

# By name, because the package has a function called explain.
command = importlib.import_module("relprop.cli.work.explain")

OWN = """
import torch
from torch import nn

class Segmentation(nn.Module):
    input_size = (16, 16)
    classes = ["__background__", "red", "blue", "never"]

    def forward(self, x):
        red, blue = x[:, :1], x[:, 2:]
        return {"out": torch.cat([red * 0 + 0.4, red, blue, -1 - red], 1)}

class Scores(nn.Module):
    input_size = 8

    def forward(self, x):
        return x.flatten(1)[:, :4]

class Strange(nn.Module):
    input_size = 8

    def forward(self, x):
        return x.atan2(torch.ones(())).sum((2, 3))

class Sequence(nn.Module):
    input_size = 8

    def forward(self, x):
        return x.sum(1)
"""


@dataclass
class Named:
    """As much of a model as its answers need."""

    classes: tuple[str, ...] | None
    name: str = "net"
    digits: bool = False


run = runner(explain)


raised = raising(run)


@pytest.fixture
def own(tmp_path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def text(path: Path) -> dict[str, str]:
    with Image.open(path) as heatmap:
        return dict(heatmap.text)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("epsilon-gamma-box", r"0\.12; the rest was absorbed on the way \(docs/ledger\.md\): bias 9\.03"),
        ("gradient-times-input", r"-?[\d.]+, not conserved [\d.]+"),
    ],
)
def test_where_most_of_the_score_was_absorbed_that_is_said(cat, rules, told):
    assert re.search(rf"; sum of relevance {told} \({rules}\); ", run(NET, cat, "--rules", rules).stdout)


def test_a_photograph_becomes_a_labelled_heatmap_and_a_line(cat):
    result = run(NET, cat, "--rules", "epsilon-plus-flat")
    assert result.exit_code == 0, result.output
    found = re.fullmatch(
        r"\S*cat\.png: tiger cat \(class 282\), probability 0\.38, score ([\d.]+); sum of relevance ([\d.]+)"
        r".*: bias [\d.]+ \(epsilon-plus-flat\); \S*cat-heatmap\.png\n",
        result.stdout,
    )
    assert found, result.stdout
    about = text(cat.with_name("cat-heatmap.png"))
    assert about["Title"] == "Relevance of the pixels for class tiger cat"
    assert about["Class"] == about["Predicted class"] == "tiger cat"
    assert about["Target"].startswith("tiger cat (class 282), probability 0.38, score 9.1")
    assert (about["Model"], about["Weights"], about["Rules"]) == (
        NET,
        "the trained ones that relprop provides",
        "epsilon-plus-flat",
    )
    assert float(about["Score"]) == pytest.approx(float(found[1]), abs=0.01)
    assert float(about["Sum of relevance"]) == pytest.approx(float(found[2]), abs=0.01)


def test_the_picture_stands_beside_its_heatmap_or_under_it(cat, tmp_path):
    run(NET, cat, "--out", tmp_path / "heatmap.png")
    run(NET, cat, "--view", "overlay", "--out", tmp_path / "overlay.png")
    heatmap, overlay = (
        np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("heatmap", "overlay")
    )
    seen = resolve(NET).prepare(Image.open(cat), "").picture
    assert heatmap.shape == overlay.shape
    _, left = place(seen, heatmap)
    different = (heatmap != overlay).any((0, 2))
    assert not different[: left + 224].any()
    assert different[left + 224 :].any()


def place(picture: np.ndarray, sheet: np.ndarray) -> tuple[int, int]:
    """Find where a picture is in a larger one."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)[:, :, 0]
    offsets = np.argwhere((windows[:, :, ::16, ::16] == picture[::16, ::16]).all((2, 3, 4)))
    ((top, left),) = offsets.tolist()
    np.testing.assert_array_equal(sheet[top : top + len(picture), left : left + picture.shape[1]], picture)
    return top, left


def test_a_class_by_its_name(cat):
    result = run(NET, cat, "--target", "egyptian CAT")
    assert re.search(
        r"tiger cat \(class 282\), probability 0\.38, score [\d.]+; explained Egyptian cat \(class 285\), "
        r"probability 0\.36, score [\d.]+; sum of relevance",
        result.stdout,
    ), result.output
    assert text(cat.with_name("cat-heatmap.png"))["Class"] == "Egyptian cat"


def test_the_best_classes_side_by_side(cat):
    result = run(NET, cat, "--top", 3)
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert [re.search(r"(\w+ )?(tiger cat|Egyptian cat|tabby) \(", line)[2] for line in lines] == [
        "tiger cat",
        "Egyptian cat",
        "tabby",
    ]
    assert [line.startswith("  explained ") for line in lines] == [False, True, True]
    heatmap = cat.with_name("cat-heatmap.png")
    assert lines[-1].endswith(f"; {heatmap}")
    with Image.open(heatmap) as picture:
        assert picture.width > 4 * 224
    about = text(heatmap)
    assert float(about["Score (tabby, probability 0.17)"]) > 5
    assert about["Software"].startswith("relprop")
    again = run(NET, cat, "--top", 3)
    assert again.stdout == result.stdout


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "cat",
            r"^--target cat: efficientnet-lite0 has no class of this name\. Near it are: tiger cat \(282\), ",
        ),
        (
            "expresso",
            r"has no class of this name\. Near it are: espresso \(967\)",
        ),
        ("zzzz", r"has no class of this name\. There are, for instance: tench, goldfish, "),
        ("CARDIGAN", r"Near it are: Cardigan \(264\), cardigan \(474\)"),
        (
            "1000",
            r"^--target 1000: the classes of efficientnet-lite0 are numbered 0 to 999\. Give one of them\.$",
        ),
    ],
)
def test_a_class_that_does_not_exist_is_refused_with_the_nearest(cat, target, message):
    error = raised(NET, cat, "--target", target)
    assert isinstance(error, InputError)
    assert re.search(message, str(error)), error
    assert [path.name for path in cat.parent.iterdir()] == ["cat.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--view", "heat"], r"--view heat: there is no such view\. Give heatmap or overlay\."),
        (["--top", 0], r"--top 0: give the number of classes to explain, 1 or more\."),
        (["--top", 2, "--target", 3], r"--target and --top: give one of them"),
        (["--size", "wide"], r"--size wide: give height and width in pixels, such as 224 or 224x320\."),
        (["--mean", "0.5;0.5"], r"--mean 0\.5;0\.5: give one number for each channel, separated by commas"),
        (["--size", 64], r"efficientnet-lite0 has its own preprocessing"),
    ],
)
def test_options_without_meaning_are_refused(cat, options, message):
    error = raised(NET, cat, *options)
    assert isinstance(error, InputError)
    assert re.search(message, str(error)), error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n \n", r"has no class names"),
        (b"\xff\xfe\xff", r"is not text in UTF-8"),
        (None, "No such"),
    ],
)
def test_names_of_classes_that_cannot_be_read(cat, tmp_path, content, message):
    if content is not None:
        (tmp_path / "names.txt").write_bytes(content)
    error = raised(NET, cat, "--classes", tmp_path / "names.txt")
    assert isinstance(error, FileError)
    assert re.search(message, str(error)), error


def test_digits_can_be_laid_over_and_compared_too(tmp_path):
    from relprop.data import mnist

    ink = Image.fromarray(255 - mnist.test_set().images[1318].numpy())
    ink.resize((140, 140)).save(tmp_path / "digit.png")
    for options in (["--view", "overlay"], ["--top", "2"]):
        result = run("mnist-cnn", tmp_path / "digit.png", *options)
        assert result.exit_code == 0, result.output
        assert "probability" not in result.stdout


def test_random_weights_give_the_same_heatmap_again(cat):
    import_torchvision()
    heatmap, found = cat.with_name("cat-heatmap.png"), []
    for _ in range(2):
        result = run("torchvision:squeezenet1_1", cat, "--weights", "random")
        assert result.exit_code == 0, result.output
        found.append(heatmap.read_bytes())
    assert found[0] == found[1]
    assert text(heatmap)["Weights"] == "random"


def test_names_of_classes_of_ones_own(cat, tmp_path):
    import_torchvision()
    (tmp_path / "names.txt").write_text("left\n\n right \n")
    result = run("torchvision:squeezenet1_1", cat, "--weights", "random", "--classes", tmp_path / "names.txt")
    assert re.search(r"cat\.png: (left|right) \(class [01]\), probability 0\.\d\d, score", result.stdout)


# Models of one's own


def test_a_segmentation_explains_the_pixels_that_a_class_has(own, tmp_path):
    levels = np.zeros((16, 16, 3), np.uint8)
    levels[:, :4, 0], levels[:4, 8:, 2] = 255, 255
    Image.fromarray(levels).save(tmp_path / "flag.png")
    result = run(f"{own}:Segmentation", tmp_path / "flag.png", "--rules", "epsilon")
    assert (
        "flag.png: red (class 1) on 25% of the picture, score 64.00; sum of relevance 64.00 ("
        in result.stdout
    )
    result = run(f"{own}:Segmentation", tmp_path / "flag.png", "--rules", "epsilon", "--target", "blue")
    assert (
        "explained blue (class 2) on 12% of the picture, score 32.00; sum of relevance 32.00" in result.stdout
    )
    result = run(f"{own}:Segmentation", tmp_path / "flag.png", "--rules", "epsilon", "--target", "never")
    assert result.exit_code == 2
    assert "--target 3: " in result.stderr
    assert (
        "finds this class at no pixel. Give one that it finds: red (class 1) on 25% of the picture"
        in result.stderr
    )


def test_the_background_of_a_segmentation_comes_last():
    output, model = torch.zeros(1, 2, 4, 4), Named(("__background__", "cat"))
    output[0, 1, 0, 0] = 1
    assert [answer.title for answer in answers({"out": output}, model)] == ["cat", "__background__"]
    assert [answer.area for answer in answers(output, model)] == [True, True]


def test_probabilities_stay_what_they_are():
    (first, *_) = answers(torch.tensor([[0.1, 0.7, 0.2]]), Named(None))
    assert (first.line, first.label) == (
        "class 1, probability 0.70, score 0.70",
        "class 1, probability 0.70",
    )
    (first, *_) = answers(torch.tensor([[0.1, 1.7, 0.2]]), Named(("a", "b", "c")))
    share = float(torch.tensor([0.1, 1.7, 0.2]).softmax(0)[1])
    assert first.line == f"b (class 1), probability {share:.2f}, score 1.70"


@pytest.mark.parametrize("target", ["4", "cat"])
def test_a_model_whose_classes_have_no_names(own, cat, target):
    result = run(f"{own}:Scores", cat, "--target", target)
    said = result.stderr or str(result.exception)
    if target == "4":
        assert "--target 4: the classes of" in said
        assert "are numbered 0 to 3. Give one of them." in said
    else:
        assert (
            "have no names. Give the number of a class, or the names of all classes with --classes FILE."
            in said
        )


def test_an_output_that_is_no_class_is_refused(own, cat):
    result = run(f"{own}:Sequence", cat)
    assert result.exit_code == 2
    assert "own.py:Sequence returns a tensor of shape (1, 8, 8). This command explains class" in result.stderr


def test_what_is_not_covered_ends_the_run(own, cat):
    error = raised(f"{own}:Strange", cat)
    assert isinstance(error, CoverageError)
    assert "atan2" in str(error)


def test_a_model_that_is_not_there_is_known_before_any_picture_is_read(tmp_path):
    assert isinstance(raised("resnet18", tmp_path / "none.png"), ModelError)


def test_warnings_come_at_the_end_with_the_name_of_the_picture(cat, monkeypatch):
    import warnings

    def warning(*arguments, **options):
        warnings.warn("the books do not close", stacklevel=1)
        return honest(*arguments, **options)

    honest = relprop.Explainer.__call__
    monkeypatch.setattr(relprop.Explainer, "__call__", warning)
    result = run(NET, cat)
    assert result.exit_code == 0
    assert result.stderr == f"warning: {cat}: the books do not close\n"


def test_the_progress_bar_waits_until_there_is_something_to_wait_for(cat, monkeypatch):
    started = []
    real = command.progress_bar

    def bar(*arguments):
        made = real(*arguments)
        made.start = lambda: started.append(True)
        return made

    monkeypatch.setattr(command, "progress_bar", bar)
    assert run(NET, cat).exit_code == 0
    assert started == []
    monkeypatch.setattr(command, "PATIENCE", -1.0)
    assert run(NET, cat).exit_code == 0
    assert started == [True]
