"""`relprop text`: what it prints and writes, and how it ends."""

import json
import sys

import pytest

import tiny_language_models as tiny
from relprop.cli import main
from relprop.cli.commands import app as whole
from relprop.cli.text import text
from relprop.errors import FileError, InputError, ModelError, RuleError
from shell import error_of, runner
from tiny_language_models import FRANCE

run = runner(text)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return f"hf:{tiny.gpt2(tmp_path_factory.mktemp('gpt2'))}"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return f"hf:{tiny.bert_classifier(tmp_path_factory.mktemp('bert'))}"


def test_every_token_has_a_line_where_there_are_no_colours(classifier):
    result = run(classifier, "The film was not bad", "--target", "positive", "--against", "negative")
    assert result.exit_code == 0, result.output
    heading, *lines, note = result.stdout.splitlines()
    assert note.startswith("(the longest bar is the largest relevance of a token of the text; [")
    assert heading.startswith(f"{classifier}: positive and not negative, score difference ")
    assert [line.split()[1] for line in lines] == ["[CLS]", "'The'", "'", "'", "'", "'", "[SEP]"]


def test_words(classifier):
    lines = run(classifier, "unbelievable", "--words").stdout.splitlines()
    assert "'unbelievable'" in lines[2]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "2"]
    assert "a word of the text" in lines[4]


def test_a_device(classifier):
    assert run(classifier, "bad", "--device", "cpu").stdout == run(classifier, "bad").stdout
    told = str(error_of(run(classifier, "bad", "--device", "gpu")))
    assert told == "--device gpu: it is no device. Give one such as 'cpu' or 'cuda:0'."


def test_words_and_generations(gpt2):
    lines = run(gpt2, "That film is", "--words", "--generate", "2").stdout.splitlines()
    assert "2 tokens after a prompt of 3 words" in lines[0]
    told = json.loads(run(gpt2, "That film is", "--words", "--generate", "2", "--json").stdout)
    assert [token["text"] for token in told["tokens"]][:3] == ["That", " film", " is"]
    assert [answer["place"] for answer in told["answers"]] == [3, 4]


def test_without_a_target_it_is_the_best_one_against_another(gpt2):
    best = json.loads(run(gpt2, FRANCE, "--json").stdout)["answers"][0]["target"]
    told = json.loads(run(gpt2, FRANCE, "--against", " Berlin", "--json").stdout)
    assert told["answers"][0]["target"] == f"{best} and not ' Berlin'"


@pytest.mark.parametrize("rules", ["deep-taylor", "epsilon-gamma-box", "ZBox()"])
def test_rules_for_pixels_are_refused(gpt2, rules):
    error = error_of(run(gpt2, FRANCE, "--rules", rules))
    assert isinstance(error, RuleError)
    assert str(error) == (
        f"--rules {rules}: these rules have a box rule, which needs the bounds of pixels. Take a preset for "
        "texts: cp-lrp, attnlrp, epsilon."
    )


def test_rules_that_are_none_and_those_of_the_help(gpt2):
    assert "there is no preset 'attnlrb'" in str(error_of(run(gpt2, FRANCE, "--rules", "attnlrb")))
    for rules in ("attnlrp", "Gamma(0.25)", "gradient-times-input"):
        assert run(gpt2, FRANCE, "--rules", rules).exit_code == 0
    told = " ".join(run("--help").stdout.replace("│", " ").split())
    assert "a preset, such as attnlrp;" in told
    assert "deep-taylor" not in told


def test_programs_get_json_and_nothing_else(gpt2):
    result = run(gpt2, FRANCE, "--target", " Paris", "--rules", "epsilon", "--json")
    told = json.loads(result.stdout)
    assert (told["model"], told["rules"]) == (gpt2, "epsilon")
    assert told["answers"][0]["target"] == "' Paris'"
    assert len(told["answers"][0]["relevance"]) == 5


def test_generations(gpt2):
    told = json.loads(run(gpt2, FRANCE, "--generate", "3", "--json").stdout)
    assert [len(answer["relevance"]) for answer in told["answers"]] == [8, 8, 8]
    lines = run(gpt2, FRANCE, "--continuation", " Paris is").stdout.splitlines()
    assert lines[1].startswith("' Paris', score ")
    assert lines[3].startswith("' is', score ")


def test_the_page_is_written_whole(gpt2, tmp_path):
    page = tmp_path / "new" / "page.html"
    result = run(gpt2, FRANCE, "--at", "-2", "--html", page)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == str(page)
    assert page.read_text().endswith("</html>\n")
    assert [file.name for file in page.parent.iterdir()] == ["page.html"]
    error = error_of(run(gpt2, FRANCE, "--html", tmp_path / "page.png"))
    assert str(error) == f"--html {tmp_path / 'page.png'}: give a name that ends in .html."


def test_text_from_stdin(gpt2):
    import typer
    from typer.testing import CliRunner

    app = typer.Typer()
    app.command()(text)
    result = CliRunner().invoke(app, [gpt2, "-", "--json"], input=f"{FRANCE}\n")
    assert "".join(token["text"] for token in json.loads(result.stdout)["tokens"]) == FRANCE
    error = error_of(CliRunner().invoke(app, [gpt2, "-"], input=b"bad \xff"))
    assert isinstance(error, FileError)
    assert str(error).startswith("stdin is not text in utf-8: ")


def test_warnings_are_on_stderr(classifier):
    results = [run(classifier, "bad", "--target", str(label), "--json") for label in range(3)]
    negative = [r for r in results if json.loads(r.stdout)["answers"][0]["score"] < 0]
    assert negative, "of random weights some scores are below zero"
    assert all(r.stderr.startswith("warning: the explained score is negative") for r in negative)
    assert not [r for r in results if r not in negative and r.stderr]


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        (["", "--json"], InputError, "the text is empty"),
        ([FRANCE, "--target", " unbad"], InputError, "target ' unbad' is 4 tokens"),
        ([FRANCE, "--at", "9"], InputError, "at 9 is out of range"),
        ([FRANCE, "--generate", "-1"], InputError, "--generate -1: give the number of tokens to generate"),
        ([FRANCE, "--generate", "999"], InputError, "positions. Shorten it by"),
    ],
)
def test_errors_say_what_to_do(gpt2, arguments, error, told):
    found = error_of(run(gpt2, *arguments))
    assert isinstance(found, error)
    assert told in str(found)


def test_errors_of_models():
    assert isinstance(error_of(run("gpt2", FRANCE)), ModelError)
    assert isinstance(error_of(run("hf:./nothing", FRANCE)), FileError)


def test_the_program_ends_with_its_status(gpt2, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["relprop", "text", gpt2, ""])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: the text is empty: there is nothing to explain. Give some text.\n"
    )


def test_interrupted(gpt2, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("relprop.cli.work.text.explain_text", interrupt)
    monkeypatch.setattr(sys, "argv", ["relprop", "text", gpt2, FRANCE])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted: nothing was explained\n"


def test_the_command_is_known():
    assert "text" in {command.callback.__name__ for command in whole.registered_commands}
