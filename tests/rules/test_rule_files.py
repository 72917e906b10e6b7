"""Rules as text and in files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import relprop
from networks import DOUBLE, batch_norm, network
from relprop import Composite, places
from relprop.errors import CoverageError, FileError, RuleError
from relprop.places import Depth, First, Kind, Layer, Operation
from relprop.rules import Absolute, AlphaBeta, AveragePooling, BySize, Epsilon, Flat, Gamma, ZBox, ZPlus
from relprop.rules.book import RULES
from relprop.rules.files import read_rules, rule_from_text
from relprop.rules.presets import PRESETS

TOML = """
start = "one"

[[rules]]
first = true
rule = "ZBox"
low = [-1, -2]
high = 3.5

[[rules]]
path = "layer4.*"
kind = "convolution"
rule = "Gamma"
gamma = 0.1
favour = "positive"

[[rules]]
layer = "Conv2d"
depth = [1, 6]
first = false
rule = "AlphaBeta"
alpha = 3
beta = 2

[[rules]]
operation = "batch_norm"
rule = "Absolute"

[[rules]]
kind = "sum"
rule = "BySize"

[[rules]]
rule = "Epsilon"
of = "rms"
"""

COMPOSITE = Composite(
    [
        (First(), ZBox((-1, -2), 3.5)),
        (places.Path("layer4.*") & Kind("convolution"), Gamma(0.1, favour="positive")),
        (Depth(1) & Layer(nn.Conv2d) & Depth(1, 6), AlphaBeta(3, 2)),
        (Operation("batch_norm"), Absolute()),
        (Kind("sum"), BySize()),
        ("*", Epsilon(of="rms")),
    ],
    start="one",
)


def written(tmp_path: Path, content: Any, name: str = "rules.toml") -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_file_is_the_composite_that_python_writes(tmp_path: Path) -> None:
    assert read_rules(written(tmp_path, TOML)) == COMPOSITE
    import tomllib

    assert read_rules(written(tmp_path, tomllib.loads(TOML), "rules.json")) == COMPOSITE


def chosen(path: Any, **options: Any) -> list[str]:
    """Which rules the operations of a network get."""
    torch.manual_seed(0)
    x = torch.randn(2, 2, 6, 6, **DOUBLE)
    return [str(a) for a in relprop.explain(network(), x, target=1, rules=path, **options).rules]


@pytest.mark.parametrize("as_path", [True, False])
def test_explain_reads_files(tmp_path: Path, as_path: bool) -> None:
    path = written(
        tmp_path,
        {
            "rules": [
                {"rule": "ZBox", "first": True},
                {"rule": "Flat", "path": "3"},
                {"rule": "ZPlus", "kind": "convolution", "path": "9*"},
                {"rule": "BySize", "path": "9"},
                {"rule": "Epsilon", "kind": "dense"},
                {"rule": "Absolute", "kind": "normalisation"},
                {"rule": "Gamma", "gamma": 0.5},
            ]
        },
        "rules.json",
    )
    name = path if as_path else str(path)
    assert chosen(name, bounds=(-9, 9)) == [
        "0: conv2d: ZBox(low=-9, high=9)",
        "3: conv2d: Flat()",
        "6: conv2d: Gamma(gamma=0.5)",
        "9.branch.0: conv2d: ZPlus()",
        "9: add: BySize()",
        "10: batch_norm: Absolute()",
        "11: conv2d: Gamma(gamma=0.5)",
        "15: linear: Epsilon(epsilon=1e-06)",
    ]
    explanation = relprop.explain(network(), torch.randn(2, 2, 6, 6, **DOUBLE), rules=name, bounds=(-9, 9))
    assert explanation.preset == str(path)
    with pytest.raises(RuleError, match="has a box rule, which needs the smallest and largest value"):
        chosen(name)


def test_a_batch_norm_can_be_named_by_its_operation(tmp_path: Path) -> None:
    entry = {"rule": "Absolute", "operation": "batch_norm"}
    path = written(tmp_path, {"rules": [entry, {"rule": "Epsilon"}]}, "rules.json")
    model = nn.Sequential(nn.ReLU(), batch_norm(2), nn.Flatten(), nn.Linear(8, 3)).double().eval()
    rules = relprop.explain(model, torch.randn(2, 2, 2, 2, **DOUBLE), rules=path).rules
    assert [str(a) for a in rules] == ["1: batch_norm: Absolute()", "3: linear: Epsilon(epsilon=1e-06)"]


def test_what_a_preset_says_follows(tmp_path: Path) -> None:
    text = 'preset = "excitation"\n[[rules]]\nfirst = true\nrule = "Flat"\n'
    assert read_rules(written(tmp_path, text)) == Composite([(First(), Flat()), ("*", ZPlus())], start="one")
    assert read_rules(written(tmp_path, 'preset = "vgg-2019"')) == PRESETS["vgg-2019"]
    changed = read_rules(written(tmp_path, 'preset = "excitation"\nstart = "score"'))
    assert changed.start == "score"


ENTRIES = [
    ('rule = "Gama"', "there is no rule 'Gama'. Did you mean Gamma.* The rules are: Eps"),
    ('rule = "zzz"', "there is no rule 'zzz'. The rules are"),
    (
        'rule = "Gamma"\ngama = 1',
        "unknown key 'gama'. Did you mean 'gamma'. Where a rule applies is said by first, path",
    ),
    ('rule = "Gamma"\ngamma = -1', "Gamma.gamma=-1.: gamma must be a finite number"),
    ('rule = "Gamma"\ngamma = "big"', "Gamma.gamma='big'.: gamma must be a finite number"),
    (
        'rule = "AlphaBeta"\nalpha = "two"',
        r"AlphaBeta\(alpha=.two., beta=1.0\): alpha and beta must be finite numbers",
    ),
    ('rule = "ZBox"\nlow = [0, "a"]\nhigh = 1', r"ZBox\(low=.0, .a.\]\): give a number, a sequence"),
    ('rule = "ZBox"\nlow = 0', "ZBox.* give both bounds"),
    ("gamma = 1", r"\{'gamma': 1\} has no rule: add rule = \"Epsilon\""),
    ("rule = 3", ".* has no rule"),
    ('rule = "Flat"\nkind = "conv"', "kind = 'conv': give one of convolution, dense, product, sum"),
    ('rule = "Flat"\nkind = ["dense"]', r"kind = \['dense'\]: give one of convolution, dense"),
    ('rule = "Flat"\nkind = "sum"', "Flat is no rule for operations of the kind sum"),
    ('rule = "BySize"\nkind = "dense"', "BySize is no rule for operations of the kind dense"),
    ('rule = "Flat"\nlayer = "Conv9d"', "layer = 'Conv9d' is no class of torch.nn, such as \"Conv2d\""),
    ('rule = "Flat"\nlayer = "functional"', "layer = 'functional' is no class of torch.nn"),
    ('rule = "Flat"\nlayer = 2', "layer = 2 is no class of torch.nn"),
    ('rule = "Flat"\ndepth = 3', r"depth = 3: give a pair such as \[1, 6\]"),
    ('rule = "Flat"\ndepth = [1, 2, 3]', r"depth = \[1, 2, 3\]: give a pair"),
    ('rule = "Flat"\ndepth = [1.5, true]', "depth = .*: give a pair"),
    ('rule = "Flat"\nfirst = 1', "first = 1: give true or false"),
    ('rule = "Flat"\npath = 4', 'path = 4: give a glob such as "layer4'),
    ('rule = "Flat"\noperation = ["a"]', r"operation = \['a'\]: give a name such as \"conv2d\""),
]


@pytest.mark.parametrize(("entry", "message"), ENTRIES)
def test_entries_without_meaning_are_refused_with_their_number(
    tmp_path: Path, entry: str, message: str
) -> None:
    path = written(tmp_path, f'[[rules]]\nrule = "Flat"\n[[rules]]\n{entry}')
    with pytest.raises(RuleError, match=f"entry 2: {message}") as error:
        read_rules(path)
    assert str(error.value).startswith(f"{path}, entry 2: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules = [3]", "entry 1: 3 has no rule"),
        ("rules = 3", r"write a list of \[\[rules\]\], each with rule"),
        ('rule = "Gamma"', "unknown key 'rule'. The keys are rules, preset, start"),
        ('preset = "epsilonn"', "there is no preset 'epsilonn'. Did you mean 'epsilon'"),
        ("preset = 3", "preset = 3: give a preset's name"),
        ('start = "two"\n[[rules]]\nrule = "Flat"', "start='two': give 'score' or 'one'"),
    ],
)
def test_files_without_meaning_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        read_rules(written(tmp_path, text))


CONVOLUTIONS = {
    "toml": '[[rules]]\nkind = "convolution"\nrule = "Gamma"',
    "json": '{"rules": [{"kind": "convolution", "rule": "Gamma"}]}',
}
LAST = {"toml": '[[rules]] and rule = "Epsilon"', "json": '{"rule": "Epsilon"}'}


@pytest.mark.parametrize("form", CONVOLUTIONS)
def test_a_file_without_an_entry_for_the_rest_is_named_with_the_remedy(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"mine.{form}"
    path.write_text(CONVOLUTIONS[form])
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 3)).eval()
    with pytest.raises(CoverageError) as raised:
        relprop.explain(model, torch.ones(1, 1, 3, 3), rules=path)
    message = str(raised.value)
    assert f"linear in module '2' at {__file__}:" in message
    assert message.endswith(f": no entry of {path} matches; end its rules with {LAST[form]} or the like")
    [gap] = relprop.coverage(model, torch.ones(1, 1, 3, 3), rules=str(path)).gaps
    assert gap.how.startswith(f"NOT COVERED: no entry of {path} matches")


def test_the_remedy_works(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'{CONVOLUTIONS["toml"]}\n[[rules]]\nrule = "Epsilon"\n')
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 3)).eval()
    assert len(relprop.explain(model, torch.ones(1, 1, 3, 3), rules=path).rules) == 2


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    def refused(path: Path, message: str) -> None:
        with pytest.raises(FileError, match=message):
            relprop.explain(nn.Linear(4, 3).eval(), torch.randn(2, 4), rules=str(path))

    refused(tmp_path / "none.toml", r"cannot read the rules in .*none\.toml: No such file or directory")
    refused(written(tmp_path, "[[rules"), r"rules\.toml is no TOML file: ")
    refused(written(tmp_path, "{", "rules.json"), r"rules\.json is no JSON file: ")
    (tmp_path / "rules.toml").write_bytes(b"\xff\xfe")
    refused(tmp_path / "rules.toml", r"rules\.toml is no TOML file: ")
    written(tmp_path, "[3, 4]", "list.json")
    with pytest.raises(RuleError, match=r"list\.json: write a list of"):
        read_rules(tmp_path / "list.json")


# ---- one rule as text ----


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Gamma(0.25)", Gamma(0.25)),
        (" Gamma( gamma = 1e-1 ) ", Gamma(0.1)),
        ("Epsilon(0.25, of='rms')", Epsilon(0.25, of="rms")),
        ("Epsilon(0.01, 'distribute')", Epsilon(0.01, bias="distribute")),
        ("ZBox((-1, -2), [3, 4])", ZBox((-1, -2), (3, 4))),
        ("ZBox(-1.5, +2)", ZBox(-1.5, 2)),
        ("ZPlus", ZPlus()),
        ("AveragePooling()", AveragePooling()),
    ],
)
def test_rules_as_text(text: str, rule: Any) -> None:
    assert rule_from_text(text) == rule


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_read_as_it_is_printed(name: str) -> None:
    rule = RULES[name]()
    assert rule_from_text(str(rule)) == rule == rule_from_text(name)


def test_explain_takes_a_rule_as_text() -> None:
    model, x = nn.Linear(4, 3).eval(), torch.randn(2, 4)
    e = relprop.explain(model, x, rules="Gamma(0.3)")
    assert [a.rule for a in e.rules] == [Gamma(0.3)]
    assert e.preset == "Gamma(0.3)"
    assert [a.rule for a in relprop.explain(model, x, rules="Flat").rules] == [Flat()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Gama(0.25)", "there is no rule 'Gama'. Did you mean Gamma"),
        ("Gamma(0.25", "there is no preset 'Gamma.0.25'|is no rule; write it as Gamma"),
        ("Gamma(0.25, 1, 2, 3)", "Gamma: .*positional arguments.* Write it as Gamma"),
        ("Gamma(x)", "give plain numbers and words as the rule's parameters"),
        ("Gamma(1 + relprop)", "give plain numbers and words as the rule's parameters"),
        ("Gamma(*[1])", "give plain numbers and words as the rule's parameters"),
        ("Gamma({[]: 1})", "give plain numbers and words as the rule's parameters"),
        ("Gamma(**{'gamma': 1})", "Gamma: got an unexpected keyword argument 'None'"),
        ("torch.Gamma(1)", "'torch.Gamma.1.' is no rule; write it as Gamma"),
        ("Gamma(1)(2)", "is no rule; write it as Gamma"),
        ("lambda: 0 or f()", "is no rule; write it as Gamma"),
    ],
)
def test_texts_without_meaning_are_refused(text: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        relprop.explain(nn.Linear(4, 3).eval(), torch.randn(2, 4), rules=text)


@pytest.mark.parametrize(
    "text",
    [
        "Gamma(open({!r}, 'w').write('x'))",
        "Gamma(__import__('pathlib').Path({!r}).touch())",
        "Gamma(gamma=[open({!r}, 'w') for _ in '1'])",
        "(lambda: open({!r}, 'w'))()",
        "Gamma(f'{{open({!r}, 0)}}')",
    ],
)
def test_nothing_is_executed(tmp_path: Path, text: str) -> None:
    witness = tmp_path / "executed"
    text = text.format(str(witness))
    with pytest.raises(RuleError):
        relprop.explain(nn.Linear(4, 3).eval(), torch.randn(2, 4), rules=text)
    path = written(tmp_path, {"rules": [{"rule": text}]}, "rules.json")
    with pytest.raises(RuleError, match=r"rules\.json, entry 1: "):
        read_rules(path)
    assert not witness.exists()
