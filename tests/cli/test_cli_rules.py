"""`relprop rules`: every rule with formula and source, every preset with its list."""

import json
import re

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

import relprop
from relprop.cli.rules import rules
from relprop.errors import FileError, RuleError
from relprop.places import Depth
from relprop.rules import book
from relprop.rules.book import BASELINES, GROUPS, RULES
from relprop.rules.files import rule_from_text
from relprop.rules.presets import PRESET_SOURCES, PRESETS
from relprop.rules.rule import PrintedRule
from relprop.rules.sources import REFERENCES
from shell import raising


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(rules)
    return CliRunner().invoke(app, list(arguments))


def printed(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


raised = raising(run)


def spaceless(text: str) -> str:
    """Take what is printed as one line, as it is before it is wrapped."""
    return " ".join(text.split())


# The book


def test_every_rule_of_the_package_is_in_the_book():
    exported = {
        v for v in vars(relprop.rules).values() if isinstance(v, type) and issubclass(v, PrintedRule)
    } - {PrintedRule}
    assert set(RULES.values()) == exported


def test_every_preset_has_a_source():
    assert list(PRESET_SOURCES) == list(PRESETS)


def test_every_source_that_is_named_has_a_title_and_every_title_is_named():
    told = [*map(book.description, [*RULES.values(), *BASELINES.values()]), *PRESET_SOURCES.values()]
    named = {name for text in told for name in re.findall(r"\w+ et al\. \d{4}", spaceless(text))}
    assert named == set(REFERENCES)
    assert list(REFERENCES) == sorted(REFERENCES)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule is not relprop.rules.ZBox])
def test_a_rule_is_written_as_it_is_read(name):
    written = book.written(RULES[name])
    assert rule_from_text(written) == RULES[name]()


# All of it


def test_all_rules_presets_and_baselines_are_printed():
    text = printed()
    for rule in RULES.values():
        assert book.written(rule) in spaceless(text)
        assert book.formula(rule) in spaceless(text)
    for name, composite in PRESETS.items():
        assert f"\n{name}: {PRESET_SOURCES[name]}" in text
        for where, rule in book.entries(composite):
            assert re.search(rf"^    {re.escape(where)} +{re.escape(rule)}$", text, re.MULTILINE)
    for baseline in BASELINES:
        assert f"\n{baseline}\n" in text


def test_letters_defaults_and_the_form_of_files_are_told():
    text = spaceless(printed())
    assert text.startswith("Letters as in the literature: input x, weight w, bias b, output z = x·w + b,")
    assert "Montavon et al. 2019; the default if bounds of the input are given" in text
    assert "2020; the default if no bounds of the input are given" in text
    assert "A file is data: nothing in it is executed." in text


def test_lines_fit_a_screen():
    assert max(map(len, printed().partition("RULES AS TEXT")[0].splitlines())) <= book.WIDTH


# One of them


@pytest.mark.parametrize("name", ["Gamma", "gamma", " GAMMA", "Gamma(0.25)"])
def test_one_rule_is_told_in_full(name):
    text = printed(name)
    assert spaceless(text).startswith(
        "Gamma(gamma: float = 0.25, bias: Literal['absorb', 'ignore', 'distribute']"
    )
    assert "\n    Args:\n        gamma: γ, 0 or larger.\n" in text
    assert "Presets with it: epsilon-gamma-box, epsilon-gamma-flat, vgg-2019, attnlrp-vit.\n" in text
    assert "Everywhere: explain(..., rules=relprop.rules.Gamma()); at the shell --rules Gamma" in text
    assert f"Andéol et al. 2021: {REFERENCES['Andéol et al. 2021']}" in spaceless(text)


@pytest.mark.parametrize("name", [*RULES, *PRESETS, *BASELINES])
def test_each_is_found_by_its_name(name):
    text = printed(name)
    assert text.startswith(f"{name}{'(' if name in RULES else ':' if name in PRESETS else ''}")


def test_rules_and_presets_of_one_name_are_told_apart_by_their_case():
    assert printed("Epsilon").startswith("Epsilon(")
    assert printed("epsilon").startswith("epsilon: Bach et al. 2015\n")


@pytest.mark.parametrize("name", RULES)
def test_the_call_that_is_offered_works(name):
    line = next(line for line in printed(name).splitlines() if "explain(" in line)
    call, _, at_the_shell = line.partition("; at the shell --rules ")
    rules = eval(call.partition("rules=")[2].removesuffix(")"), {"relprop": relprop})
    model = relprop.load("mnist-mlp")
    for given in [rules, *([at_the_shell] if at_the_shell else [])]:
        assert relprop.coverage(model, torch.zeros(1, 1, 28, 28), rules=given, bounds=(-1, 1)).complete


def test_a_rule_for_other_operations_names_them():
    text = printed("BySize")
    assert "Presets with it: none." in text
    assert "In a list, for operations of the kind sum only: " in text
    assert "In a list, for" not in printed("Flat")


def test_a_preset_is_told_with_its_list():
    text = printed("vgg-2019")
    assert text.startswith(
        "vgg-2019: Montavon et al. 2019, as their tutorial has it for VGG-16\n    first   "
    )
    assert "\n    depth 1 to 6    Gamma(gamma=0.25)\n" in text
    assert '\n    "*" (max-pool)  AveragePooling()\n' in text
    assert "explain(..., rules='vgg-2019'); at the shell --rules vgg-2019" in text
    assert "relevance starts from  one" in printed("excitation")


def test_a_file_of_rules_is_read_and_told(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"rules": [{"first": True, "rule": "Flat"}, {"rule": "Gamma", "gamma": 2}]}))
    assert printed(str(path)) == 'first  Flat()\n"*"    Gamma(gamma=2)\n'
    assert isinstance(raised(str(tmp_path / "other.toml")), FileError)


def test_places_are_told_in_words(tmp_path):
    path = tmp_path / "mine.toml"
    wheres = {
        'kind = "sum"': "of the kind sum",
        'operation = "conv2d"': "the operation conv2d",
        "first = false": "not first",
        "depth = [2, 6]": "depth 2 to 6",
        "depth = [4, 4]": "depth 4",
        'path = "layer4.*"\nlayer = "Conv2d"': '"layer4.*" and Conv2d',
    }
    rules = ["EqualShares" if "sum" in where else "Epsilon" for where in wheres]
    entries = [f'[[rules]]\n{where}\nrule = "{rule}"\n' for where, rule in zip(wheres, rules, strict=True)]
    path.write_text("\n".join(entries))
    told = [line.partition("  ")[0].removesuffix(" (sum)") for line in printed(str(path)).splitlines()]
    assert told == list(wheres.values())
    assert str(Depth(3)) == "depth 3 or more"


@pytest.mark.parametrize("text", ["", "rules = []", 'start = "one"'])
def test_a_file_without_rules_is_an_error(tmp_path, text):
    (tmp_path / "empty.toml").write_text(text)
    error = raised(str(tmp_path / "empty.toml"))
    assert isinstance(error, RuleError)
    assert re.search(r"empty\.toml has no rules\. Add \[\[rules\]\] with rule = ", str(error)), error


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Gama", "Gamma"),
        ("zplus2", "ZPlus"),
        ("epsilon-gama-box", "epsilon-gamma-box"),
        ("squared_gradient", "squared-gradient"),
    ],
)
def test_near_matches_are_offered(name, near):
    error = raised(name)
    assert isinstance(error, RuleError)
    assert re.match(
        rf"there is no rule, preset or baseline '{name}'\. Did you mean [^.]*\b{near}\b", str(error)
    )


def test_what_is_nothing_like_a_rule_gets_the_whole_list():
    error = str(raised("qqqq"))
    assert "Did you mean" not in error
    for name in (*RULES, *PRESETS, *BASELINES):
        assert name in error


def test_every_group_has_rules():
    assert all(GROUPS.values())
    assert sum(map(len, GROUPS.values())) == len(RULES)
