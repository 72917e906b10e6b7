"""`relprop explain` with the models that people bring, and with Ctrl-C."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import relprop
from relprop.cli.explain import explain
from relprop.cli.work.answers import answers
from relprop.errors import ModelError
from relprop.models import resolve
from shell import raising, runner

# By name, because the package has a function called explain.
command = importlib.import_module("relprop.cli.work.explain")

OWN = """
import torch
import torch.nn.functional as F
from torch import nn

def sized(model):
    model.input_size = 16
    return model

def plain(outputs=4, channels=3):
    body = [nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return sized(nn.Sequential(*body, nn.Linear(8, outputs)))

def one():
    model = plain(1)
    model[-1].bias.data.fill_(-0.001)
    model[-1].weight.data.zero_()
    return model

def positive():
    model = plain()
    model[-1].bias.data.copy_(torch.tensor([3.0, -2.0, -3.0, 2.0]))
    return model

def double(): return plain().double()
def half(): return plain().half()
def script(): return torch.jit.script(plain())
def traced(): return torch.jit.trace(plain(), torch.zeros(1, 3, 16, 16))
def four(): return plain(channels=4)

def flat():
    model = sized(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4)))
    model.mean, model.std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    return model

def flat_grey():
    return sized(nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 4)))

class Focus(nn.Module):
    input_size = 16
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(12, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(F.relu(self.conv(F.pixel_unshuffle(x, 2))).mean((2, 3)))

class FocusGrey(Focus):
    mean = std = (0.5,)

    def forward(self, x):
        return super().forward(x.expand(-1, 3, -1, -1))

class Two(nn.Module):
    input_size = 16

    def forward(self, x, meta):
        return x.mean((2, 3)) + meta

class Fails(nn.Module):
    input_size = 16

    def forward(self, x):
        raise LookupError("the table\\nis empty.")

class FailsLater(nn.Module):
    input_size = 16

    def forward(self, x):
        if torch.is_grad_enabled():
            raise LookupError("not with gradients")
        return x.mean((2, 3))

class Named(nn.Module):
    input_size = 16
    classes = ["left", "right"]

    def forward(self, x):
        return x.mean((2, 3))
"""


run = runner(explain)


raised = raising(run)


@pytest.fixture
def own(tmp_path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(OWN.splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("name", "said", "place"),
    [
        ("Two", r"TypeError: Two\.forward\(\) missing 1 required positional argument: 'meta'", ""),
        ("Fails", "LookupError: the table is empty", "the table"),
        ("FailsLater", "LookupError: not with gradients", "not with"),
        ("four", r"RuntimeError: .* expected input\[1, 3, 16, 16\] to have 4 channels, but got 3.*", ""),
    ],
)
def test_what_a_model_raises_is_an_error_that_says_where_to_look(own, cat, name, said, place):
    error = raised(f"{own}:{name}", cat)
    assert isinstance(error, ModelError)
    line = f", line {line_of(place)}" if place else ""
    assert re.fullmatch(
        rf"\S*own\.py:{name} fails on an input of shape \(1, 3, 16, 16\), float32: {said}\. The model "
        rf"gets this tensor as its only argument\. Look at \S*own\.py{line}\. --size gives the pictures "
        r"another size\.",
        str(error),
    ), error


def test_an_error_of_relprop_itself_is_not_called_the_models(own, cat, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(relprop.Explainer, "__call__", broken)
    assert isinstance(run(f"{own}:plain", cat).exception, ZeroDivisionError)


@pytest.mark.parametrize(("name", "dtype"), [("double", torch.float64), ("half", torch.float16)])
def test_the_input_has_the_type_of_the_weights(own, cat, name, dtype):
    assert resolve(f"{own}:{name}").prepare(Image.open(cat), "").x.dtype == dtype
    result = run(f"{own}:{name}", cat)
    assert result.exit_code == 0, result.output


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning"
)  # models of that kind are there all the same
@pytest.mark.parametrize("name", ["script", "traced"])
def test_scripted_and_traced_programs_are_explained(own, cat, name):
    result = run(f"{own}:{name}", cat, "--size", 16)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("name", "channels"), [("Focus", 3), ("FocusGrey", 1), ("flat", 3), ("flat_grey", 1), ("plain", 3)]
)
def test_colour_or_grey_is_found_and_box_rules_work(own, cat, name, channels):
    model = resolve(f"{own}:{name}")
    x = model.prepare(Image.open(cat), "").x
    assert x.shape == (1, channels, 16, 16)
    found = relprop.explain(model.module, x, target=0, rules="epsilon-gamma-box", bounds=model.bounds)
    assert str(found.rules[0].rule).startswith("ZBox(")
    assert found.ledger.gap.max() < 1e-4
    result = run(f"{own}:{name}", cat)
    assert result.exit_code == 0, result.output


def test_bounds_of_flattened_pictures_are_those_of_each_pixels_channel(own):
    model = resolve(f"{own}:flat")
    low, high = model.bounds
    assert low.shape == high.shape == (3, 16, 16)
    for channel, (mean, std) in enumerate(zip((0.5, 0.4, 0.3), (0.2, 0.3, 0.25), strict=True)):
        torch.testing.assert_close(low[channel], torch.full((16, 16), -mean / std))
        torch.testing.assert_close(high[channel], torch.full((16, 16), (1 - mean) / std))


def test_bounds_hold_for_all_channels_where_they_are_rearranged(own):
    low, high = resolve(f"{own}:Focus").bounds
    assert (low, high) == pytest.approx((-2.5, 2.8))


def test_a_single_score_is_no_probability(own, cat):
    result = run(f"{own}:one", cat)
    assert "cat.png: class 0, score -0.001; sum of relevance 0.00 (" in result.stdout
    assert "probability" not in result.stdout
    (only,) = answers(torch.tensor([[2.0]]), resolve(f"{own}:one"))
    assert (only.line, only.label) == ("class 0, score 2.00", "class 0, score 2")


def test_one_number_is_for_all_channels_and_another_count_is_blamed_on_the_option(own, cat):
    assert run(f"{own}:Focus", cat, "--std", ".2", "--mean", ".5").exit_code == 0
    said = str(raised(f"{own}:Focus", cat, "--mean", ".5,.4"))
    assert said.endswith(
        "Focus: --mean is 0.5,0.4; give 3 numbers, one for each channel, or one number for all."
    )


def test_attributes_of_another_count_are_blamed_themselves(own, cat):
    own.write_text(OWN + "\nFocus.std = (0.5, 0.5)\n")
    assert "Focus: its attribute std is (0.5, 0.5); give 3 numbers" in str(raised(f"{own}:Focus", cat))


def test_names_for_another_number_of_classes(own, cat, tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    error = raised(f"{own}:plain", cat, "--classes", tmp_path / "names.txt")
    assert isinstance(error, ModelError)
    assert ":plain gives scores of 4 classes, but 5 names are given. Give one for each, by --classes" in str(
        error
    )
    assert ":Named gives scores of 3 classes, but 2 names" in str(raised(f"{own}:Named", cat))


def test_a_warning_of_several_classes_names_them_once(own, cat):
    result = run(f"{own}:positive", cat, "--top", 4)
    lines = [line for line in result.stderr.splitlines() if "score is negative" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"warning: {cat} (class 1, class 2): the explained score is negative")
    alone = run(f"{own}:positive", cat, "--target", 1).stderr
    assert alone.startswith(f"warning: {cat}: the explained score is negative")


def test_what_has_no_rule_is_not_said_to_be_in_the_program(own, cat, tmp_path):
    rules = tmp_path / "mine.toml"
    rules.write_text('[[rules]]\nkind = "convolution"\nrule = "Gamma"\n')
    told = str(raised(f"{own}:plain", cat, "--rules", rules))
    assert told.splitlines()[1:] == [
        f"  - linear in module '4': no entry of {rules} matches; end its rules with [[rules]] and "
        'rule = "Epsilon" or the like'
    ]


# Ctrl-C


def test_ctrl_c_tells_how_many_pictures_are_done(own, cat, monkeypatch):
    pictures = [Path(shutil.copy(cat, cat.with_name(f"{n}.png"))) for n in range(4)]
    pictures[0].write_bytes(b"no picture")
    real = command.explain_picture

    def pressed(model, picture, *rest):
        if picture == pictures[2]:
            raise KeyboardInterrupt
        return real(model, picture, *rest)

    monkeypatch.setattr(command, "explain_picture", pressed)
    result = run(f"{own}:plain", *pictures)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "interrupted: 1 of 4 pictures done"
    assert result.stderr.startswith("error: ")
    assert "1.png: class" in result.stdout
    assert [p.name for p in cat.parent.glob("*-heatmap.png")] == ["1-heatmap.png"]


def test_the_package_can_be_run_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "relprop", "rules", "Flat"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Flat(")
    done = subprocess.run([sys.executable, "-m", "relprop", "rules", "Flet"], capture_output=True, text=True)
    assert (done.returncode, done.stderr[:7]) == (2, "error: ")


def test_the_help_says_what_rules_can_be():
    # In one line, however it is broken in the terminal.
    told = " ".join(re.sub(r"[│|]", " ", run("--help").output).split())
    assert "a preset, such as deep-taylor; a rule, such as 'Gamma(0.25)'; or a TOML or JSON file." in told
