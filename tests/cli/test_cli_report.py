"""`relprop explain --html`: one page of all pictures, and what it refuses to replace."""

import gc
import importlib
import os
import re
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import relprop
from page_content import Elements, data_of, relevance_in
from relprop.cli.explain import explain
from relprop.cli.work import report
from relprop.errors import FileError, InputError
from relprop.models import resolve
from relprop.view.picture import read_picture
from shell import raising, runner

# By name, because the package has a function called explain.
command = importlib.import_module("relprop.cli.work.explain")

OWN = """
import torch
from torch import nn

NASTY = "<img src=x onerror=alert(1)></script>"

def net():
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*body, nn.Linear(4, 3))
    model[-1].bias.data.copy_(torch.tensor([3.0, 2.0, -4.0]))
    model.input_size = 16
    model.classes = ["ant", "bee", NASTY]
    return model
"""

run = runner(explain)
raised = raising(run)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model of one's own; the folder has three pictures."""
    (tmp_path / "own.py").write_text(OWN)
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (20, 20, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return "own.py:net"


def written(name: str = "report.html") -> str:
    return Path(name).read_text(encoding="utf-8")


def a_one() -> str:
    """Draw a one, and return the name of its file."""
    ink = np.full((28, 28), 255, np.uint8)
    ink[4:24, 12:16] = 0
    Image.fromarray(ink).resize((140, 140)).save("one.png")
    return "one.png"


def test_a_page_has_every_picture_with_its_prediction_and_its_relevance(own: str) -> None:
    result = run(own, "0.png", "1.png", "2.png", "--html", "report.html")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "report.html"
    assert result.stdout.count("sum of relevance") == 3
    assert "heatmap" not in result.stdout
    assert not list(Path().glob("*-heatmap.png"))
    data = data_of(written())
    assert data["model"] == own
    assert [(item["number"], item["label"]) for item in data["items"]] == [
        (1, "0.png"),
        (2, "1.png"),
        (3, "2.png"),
    ]
    model = resolve(own)
    for place, item in enumerate(data["items"]):
        x = model.prepare(read_picture(f"{place}.png"), "x").x
        explanation = relprop.explain(model.module, x, bounds=model.bounds)
        probability = float(explanation.output.softmax(1).max())
        assert item["facts"] == [
            ["Predicted", "ant"],
            ["Probability", f"{probability:.2f}"],
            ["Weights", model.weights],
        ]
        assert item["caption"] == f"ant, probability {probability:.2f}"
        R = explanation.relevance[0].double().numpy()
        np.testing.assert_allclose(relevance_in(data, place), R, atol=np.abs(R).max() / 32767)
    assert f"<title>What {own} looks at, in 3 pictures</title>" in written()
    assert [link["href"] for link in Elements(written()).named("a")] == ["#1", "#2", "#3"]


def test_the_best_classes_are_toggles_and_warnings_are_told(own: str) -> None:
    result = run(own, "0.png", "--top", 3, "--html", "report.html")
    [item] = data_of(written())["items"]
    assert [found["target"] for found in item["maps"]] == [
        "ant",
        "bee",
        "<img src=x onerror=alert(1)></script>",
    ]
    assert [found["name"][:8] for found in item["maps"]] == ["ant, pro", "bee, pro", "<img src"]
    assert [len(found["notes"]) for found in item["maps"]] == [0, 0, 1]
    [note] = item["maps"][2]["notes"]
    assert note.startswith("The explained score is negative. Relevance")
    assert "warnings for 1 of 3 explanations" in written()
    assert note.endswith("by --target.")
    assert "warning: 0.png (<img" in result.stderr
    found = Elements(written())
    assert len(found.named("img")) == 1
    assert "onerror" not in found.named("img")[0]


def test_another_class_is_explained_beside_what_is_predicted(own: str) -> None:
    run(own, "0.png", "--target", "bee", "--html", "report.html")
    [item] = data_of(written())["items"]
    assert item["caption"].startswith("ant, probability")
    assert item["caption"].endswith("; explained: bee")
    assert "<title>What makes own.py:net say bee?</title>" in written()


def test_heatmaps_are_written_too_if_their_place_is_given(own: str) -> None:
    result = run(own, "0.png", "1.png", "--html", "new/report.html", "--out", "maps")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in Path("maps").iterdir()) == ["0-heatmap.png", "1-heatmap.png"]
    assert len(data_of(written("new/report.html"))["items"]) == 2


def test_negative_scores_have_a_true_minus_sign(own: str) -> None:
    options = ("--top", 10, "--html", "report.html", "--out", "x.png")
    assert run("mnist-cnn", a_one(), *options).exit_code == 0
    maps = data_of(written())["items"][0]["maps"]
    assert min(found["score"] for found in maps) < 0
    for found in maps:
        sign = "\N{MINUS SIGN}" if found["score"] < 0 else ""
        assert found["name"].endswith(f", score {sign}{abs(found['score']):.4g}")


def test_a_digit_has_no_margin_and_no_probability(own: str) -> None:
    assert run("mnist-cnn", a_one(), "--html", "report.html").exit_code == 0
    [item] = data_of(written())["items"]
    assert item["shape"] == [1, 28, 28]
    assert [name for name, _ in item["facts"]] == ["Predicted", "Weights"]


def test_a_picture_that_cannot_be_read_is_an_entry_with_its_error(own: str) -> None:
    Path("b.png").write_text("no picture")
    result = run(own, "0.png", "b.png", "c.png", "1.png", "--html", "report.html")
    assert result.exit_code == 2
    assert result.stderr.count("error: ") == 2
    assert "2 of 4 pictures could not be explained.\n" in result.stderr
    items = data_of(written())["items"]
    assert [bool(item["error"]) for item in items] == [False, True, True, False]
    assert [item["number"] for item in items] == [1, 2, 3, 4]
    assert items[1]["error"].startswith("cannot read b.png: it is not a picture")
    assert '<p class="about">2 of 4 pictures could not be explained</p>' in written()
    assert len(Elements(written()).named("img")) == 2


def test_ctrl_c_writes_what_was_found_so_far(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = command.explain_picture

    def pressed(model, picture, *rest):
        if picture.name == "2.png":
            raise KeyboardInterrupt
        return real(model, picture, *rest)

    monkeypatch.setattr(command, "explain_picture", pressed)
    result = run(own, "0.png", "1.png", "2.png", "--html", "report.html")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "interrupted: 2 of 3 pictures done"
    assert '<p class="about">interrupted: 2 of 3 pictures done</p>' in written()
    assert [item["label"] for item in data_of(written())["items"]] == ["0.png", "1.png"]
    Path("report.html").unlink()
    result = run(own, "2.png", "0.png", "--html", "report.html")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[0] == "no report.html: no picture was explained."
    assert not Path("report.html").exists()


def test_ctrl_c_keeps_an_earlier_page(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run(own, "0.png", "1.png", "2.png", "--html", "report.html")
    before = written()
    real = command.explain_picture

    def pressed(model, picture, *rest):
        if picture.name == "1.png":
            raise KeyboardInterrupt
        return real(model, picture, *rest)

    monkeypatch.setattr(command, "explain_picture", pressed)
    for _ in range(2):  # the page of the last run that was interrupted is replaced
        result = run(own, "0.png", "1.png", "--html", "report.html")
        assert result.exit_code == 130
        assert result.stdout.splitlines()[-1] == "report-interrupted.html"
        assert result.stderr.splitlines() == [
            "report.html is still that of an earlier run: what was done is in report-interrupted.html.",
            "interrupted: 1 of 2 pictures done",
        ]
    assert written() == before
    assert "interrupted: 1 of 2 pictures done</p>" in written("report-interrupted.html")
    Path("report-interrupted.html").write_text("mine")
    error = raised(own, "0.png", "--html", "report.html")
    assert str(error).startswith("report-interrupted.html exists and was not made by relprop")


def test_one_picture_is_no_plural(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "explain_picture", pressed)
    result = run(own, "0.png", "--html", "report.html")
    assert result.stderr.splitlines()[-1] == "interrupted: 0 of 1 picture done"


def test_where_no_picture_was_explained_an_earlier_page_stays(own: str) -> None:
    Path("broken.png").write_text("no picture")
    result = run(own, "broken.png", "--html", "report.html")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "no report.html: no picture was explained."
    assert not Path("report.html").exists()
    run(own, "0.png", "--html", "report.html")
    before = written()
    result = run(own, "broken.png", "none.png", "--html", "report.html")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-2:] == [
        "report.html is still that of an earlier run: no picture was explained.",
        "2 of 2 pictures could not be explained.",
    ]
    assert written() == before


def test_heatmaps_that_are_not_written_can_have_one_name(own: str) -> None:
    with Image.open("0.png") as picture:
        picture.save("0.bmp")
    assert run(own, "0.png", "0.bmp", "--html", "report.html").exit_code == 0
    assert [item["label"] for item in data_of(written())["items"]] == ["0.png", "0.bmp"]
    error = raised(own, "0.png", "0.bmp", "--html", "report.html", "--out", "maps")
    assert "would both be maps/0-heatmap.png" in str(error)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="/proc of Linux, which takes no files")
def test_a_place_that_takes_no_page_is_known_first(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "explain_picture", lambda *_: pytest.fail("a picture was explained"))
    error = raised(own, "0.png", "--html", "/proc/x.html")
    assert isinstance(error, FileError)
    assert str(error) == "cannot write /proc/x.html: No such file or directory. Choose another folder."


def test_running_again_replaces_the_page_by_the_same_bytes(own: str) -> None:
    run(own, "0.png", "--html", "report.html")
    first = Path("report.html").read_bytes()
    assert run(own, "0.png", "1.png", "--html", "report.html").exit_code == 0
    assert Path("report.html").read_bytes() != first
    assert run(own, "0.png", "--html", "report.html").exit_code == 0
    assert Path("report.html").read_bytes() == first


def test_what_relprop_did_not_write_is_not_replaced(own: str) -> None:
    Path("mine.html").write_text("<!DOCTYPE html><p>mine")
    error = raised(own, "0.png", "--html", "mine.html")
    assert isinstance(error, FileError)
    assert str(error) == (
        "mine.html exists and was not made by relprop, which replaces only its own pages. Move it, or choose "
        "another name with --html."
    )
    assert Path("mine.html").read_text() == "<!DOCTYPE html><p>mine"
    Path("folder.html").mkdir()
    assert "cannot write folder.html: it is not an ordinary file" in str(
        raised(own, "0.png", "--html", "folder.html")
    )
    Path("link.html").symlink_to("0.png")
    before = Path("0.png").read_bytes()
    error = raised(own, "0.png", "--html", "link.html")
    assert isinstance(error, InputError)
    assert str(error) == "--html link.html: this is one of the pictures given. Choose another name."
    assert Path("0.png").read_bytes() == before
    assert str(raised(own, "0.png", "--html", "a.png")) == "--html a.png: give a name that ends in .html."


def test_pictures_of_one_name_are_told_apart(own: str) -> None:
    Path("other").mkdir()
    shutil.copy("0.png", "other/0.png")
    run(own, "0.png", "other/0.png", "1.png", "--html", "report.html")
    assert [item["label"] for item in data_of(written())["items"]] == ["0.png", "other/0.png", "1.png"]


@pytest.mark.skipif(os.name == "nt", reason="names of files as on Unix")
def test_names_of_files_that_are_hostile_or_no_utf_8(own: str) -> None:
    names = [os.fsdecode(name) for name in (b"a\xffb.png", b"c\x1b[31m.png", b'<img src=x>&".png')]
    for name in names:
        shutil.copy("0.png", name)
    assert run(own, *names, "--html", "report.html").exit_code == 0
    data = data_of(written())
    assert [item["label"] for item in data["items"]] == [
        r"a\udcffb.png",
        r"c\x1b[31m.png",
        '<img src=x>&".png',
    ]
    assert len(Elements(written()).named("img")) == 3


def test_channels_are_summed_where_all_would_not_fit(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Three channels for three classes of two pictures take 197 kB, and half of the page is for them.
    monkeypatch.setattr(report, "MOST_BYTES", 300_000)
    options = ("--top", 3, "--size", 64, "--html", "report.html")
    assert run(own, "0.png", "1.png", *options).exit_code == 0
    [item, other] = data_of(written())["items"]
    assert item["shape"] == other["shape"] == [1, 64, 64]
    assert item["facts"][-1] == ["Channels", "summed, so that all pictures fit into the page"]
    assert run(own, "0.png", *options).exit_code == 0
    assert data_of(written())["items"][0]["shape"] == [3, 64, 64]


def test_a_page_that_would_be_too_large_is_refused_after_one_picture(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MOST_BYTES", 9_000)
    result = run(own, "0.png", "1.png", "2.png", "--html", "report.html")
    assert result.stdout.count("sum of relevance") == 1
    assert re.fullmatch(
        r"--html report.html: 3 pictures would take 0 MB, and a page has 0 MB at most. [12] of them fit. "
        r"Give fewer pictures, or fewer classes with --top.",
        str(result.exception),
    )
    assert not Path("report.html").exists()


def test_what_was_found_of_a_picture_is_not_kept(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, found, alive = command.explain_picture, [], []

    def watched(*arguments):
        gc.collect()
        alive.append(sum(each() is not None for each in found))
        finding = real(*arguments)
        found.append(weakref.ref(finding))
        return finding

    monkeypatch.setattr(command, "explain_picture", watched)
    pictures = [shutil.copy("0.png", f"copy-{number}.png") for number in range(5)]
    assert run(own, *pictures, "--html", "report.html").exit_code == 0
    assert alive == [0, 1, 1, 1, 1]  # the last one alone
