"""`relprop coverage`: what it prints, and its exit status."""

import json
import sys

import pytest
import torch
from PIL import Image

import relprop
import tiny_language_models as tiny
from relprop.cli import main
from relprop.cli.commands import app as whole
from relprop.cli.coverage import coverage
from relprop.errors import FileError, InputError, ModelError, RuleError
from relprop.models import resolve
from shell import error_of, raising, runner
from torchvision_shim import import_torchvision

OWN = """
import torch
from torch import nn

class Covered(nn.Sequential):
    input_size = (12, 10)

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(320, 2))

class Gaps(nn.Module):
    input_size = 8

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x).atan2(torch.ones(())).nextafter(torch.ones(())).sum((2, 3))

class Sized(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :4]

class Cut(nn.Module):
    input_size = 8

    def forward(self, x):
        return x.mean((2, 3)).detach()

class Fails(nn.Module):
    input_size = 8

    def forward(self, x):
        raise KeyError("no such thing.")
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


run = runner(coverage)


raised = raising(run)


def test_a_covered_model_has_a_table_and_status_0(own):
    result = run(f"{own}:Covered")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{own}:Covered, weights: as Covered made them; input: noise, 1x3x12x10"
    assert [line.split()[:3] for line in lines[2:-1]] == [
        ["operation", "calls", "first"],
        ["conv2d", "1", "0"],
        ["batch_norm", "1", "1"],
        ["relu", "1", "2"],
        ["flatten", "1", "3"],
        ["linear", "1", "4"],
    ]
    assert lines[4].endswith(" part of conv2d")
    assert lines[-1] == "5 of 5 calls covered (100 %), rules: epsilon-gamma-box"


def test_gaps_come_first_and_give_status_1_and_a_remedy(own):
    result = run(f"{own}:Gaps")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[3].split(maxsplit=3) == [
        "atan2",
        "1",
        "(root)",
        "NOT COVERED: no entry in the operation table",
    ]
    assert lines[4].startswith("nextafter ")
    assert "2 of 4 calls covered (50 %)" in result.stdout
    assert "explain(..., accept=['atan2', 'nextafter'])" in lines[-1]


def test_what_only_other_rules_can_mend_is_not_to_be_accepted(own, tmp_path):
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rules]]\npath = "head"\nrule = "Epsilon"\n')
    result = run(f"{own}:Covered", "--rules", rules)
    assert result.exit_code == 1
    assert f"NOT COVERED: no entry of {rules} matches" in result.stdout
    assert 'end its rules with [[rules]] and rule = "Epsilon" or the like' in result.stdout
    assert "accept" not in result.stdout


def test_programs_get_every_call(own):
    result = run(f"{own}:Gaps", "--json", "--rules", "epsilon")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["rules"] == "epsilon"
    assert told["input"] == [1, 3, 8, 8]
    assert told["complete"] is False
    assert [(call["path"], call["operation"], call["covered"]) for call in told["calls"]] == [
        ("conv", "conv2d", True),
        ("", "atan2", False),
        ("", "nextafter", False),
        ("", "sum", True),
    ]
    assert told["calls"][0]["how"] == "Epsilon(epsilon=1e-06)"
    whole = json.loads(run(f"{own}:Covered", "--json").stdout)
    assert whole["complete"] is True
    assert whole["weights"] == "as Covered made them"


def test_a_model_of_which_nothing_is_explained_has_status_1_and_the_reason(own):
    result = run(f"{own}:Cut")
    assert result.exit_code == 1
    assert "(100 %)" in result.stdout
    assert "NOTHING IS EXPLAINED: the explained score does not depend on the input" in result.stdout
    told = json.loads(run(f"{own}:Cut", "--json").stdout)
    assert told["complete"] is False
    assert "detach in module" in told["nothing"]


@pytest.mark.parametrize("name", ["mnist-mlp", "mnist-cnn", "efficientnet-lite0"])
def test_bundled_models_need_no_weights(name, monkeypatch):
    monkeypatch.setattr("relprop.zoo.fit", lambda *_: pytest.fail("weights are read"))
    result = run(name, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["weights"] == "random"
    assert told["input"][1:] == list(relprop.zoo.BUNDLED[name].shape)


@pytest.mark.parametrize(
    ("name", "bounded"), [("torchvision:squeezenet1_1", True), ("timm:test_resnet.r160_in1k", True)]
)
def test_models_of_other_libraries_need_no_weights_either(name, bounded):
    import_torchvision()
    result = run(name)
    assert result.exit_code == 0, result.output
    first, *_, last = result.stdout.splitlines()
    assert first.startswith(f"{name}, weights: random (coverage does not depend on them); input: noise, 1x3x")
    assert "(100 %), rules: epsilon-gamma-box" in last
    assert ("ZBox(" in result.stdout) is bounded


def test_a_picture_and_weights_can_be_given(own, tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "red.png")
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(320, 2),
    )
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    result = run(
        f"{own}:Covered",
        "--picture",
        tmp_path / "red.png",
        "--weights",
        tmp_path / "weights.pt",
        "--rules",
        "Gamma(2)",
    )
    assert result.exit_code == 0, result.output
    first = result.stdout.splitlines()[0]
    assert f"weights: {tmp_path / 'weights.pt'}; input: {tmp_path / 'red.png'}, 1x3x12x10" in first
    assert "Gamma(gamma=2)" in result.stdout


def test_the_same_noise_each_time_and_the_random_numbers_of_others_stay():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = run("mnist-cnn").stdout, run("mnist-cnn").stdout
    assert first == second
    assert torch.get_rng_state().equal(before)


def test_a_model_of_ones_own_is_given_its_size(own):
    assert run(f"{own}:Sized", "--size", "6x5").stdout.startswith(f"{own}:Sized, weights")
    assert "1x3x6x5" in run(f"{own}:Sized", "--size", "6x5").stdout
    assert isinstance(raised(f"{own}:Sized"), ModelError)
    assert isinstance(raised("mnist-cnn", "--size", "64"), InputError)


def test_a_model_that_fails_is_an_error_that_says_so(own):
    error = raised(f"{own}:Fails")
    line = OWN.splitlines().index('        raise KeyError("no such thing.")') + 1
    assert isinstance(error, ModelError)
    assert str(error) == (
        f"{own}:Fails fails on an input of shape (1, 3, 8, 8), float32: KeyError: 'no such thing.'. "
        "The model gets this tensor as its only argument. "
        f"Look at {own}, line {line}. --size gives the pictures another size."
    )


def test_the_table_shows_long_bounds_to_four_digits_and_python_gets_all(own):
    model = resolve(f"{own}:Covered", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    x = model.prepare(Image.new("RGB", (12, 12)), "").x
    table = str(relprop.coverage(model.module, x, bounds=model.bounds))
    assert "ZBox(low=(-2.118, -2.036, -1.804), high=(2.249, 2.429, 2.64))" in table
    (first, *_) = relprop.coverage(model.module, torch.zeros(1, 3, 12, 10), bounds=model.bounds).crossings
    assert f"low=({model.bounds[0][0]}, " in first.how


def test_other_errors_keep_their_words(tmp_path):
    assert isinstance(raised("mnist-cnn", "--rules", "epsilon-gama-box"), RuleError)
    assert "is a plain gradient" in str(raised("mnist-cnn", "--rules", "squared-gradient"))
    assert isinstance(raised("mnist-cnn", "--picture", tmp_path / "no.png"), FileError)
    assert "Did you mean" in str(raised("mnist-cnm"))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["coverage", "mnist-mlp"], 0), (["coverage", "mnist-nothing"], 2), (["rules", "nothing"], 2)],
)
def test_the_program_ends_with_its_status(arguments, status, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["relprop", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code or 0) == status
    assert capsys.readouterr().err.startswith("error: ") is (status == 2)


def test_both_commands_are_known():
    assert {command.callback.__name__ for command in whole.registered_commands} >= {"rules", "coverage"}


# ---- language models ----


@pytest.fixture(scope="module", params=["gpt2", "bert_classifier", "t5"])
def language_model(request, tmp_path_factory):
    return f"hf:{getattr(tiny, request.param)(tmp_path_factory.mktemp(request.param))}"


def test_language_models_are_told_of(language_model):
    result = runner(coverage)(language_model, "--rules", "attnlrp")
    assert result.exit_code == 0, result.output
    heading, _, _, *lines = result.stdout.splitlines()
    assert heading.startswith(f"{language_model}, weights: random (coverage does not depend on them); inp")
    assert "tokens, 1x" in heading
    assert any(line.split()[-1] == "Uniform()" for line in lines)
    assert lines[-1].endswith("(100 %), rules: attnlrp")


def test_a_text_of_ones_own(language_model):
    result = runner(coverage)(language_model, "--text", "the film was good", "--json")
    assert json.loads(result.stdout)["complete"]
    assert json.loads(result.stdout)["input"][0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["hf:folder", "--size", "32"],
            "hf:folder is a language model: give --text, not --picture or --size",
        ),
        (
            ["mnist-cnn", "--text", "good"],
            "mnist-cnn reads no text: --text is for language models",
        ),
    ],
)
def test_texts_and_pictures_are_told_apart(arguments, message):
    assert message in str(error_of(runner(coverage)(*arguments)))
