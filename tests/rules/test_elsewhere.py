"""Names of other libraries: what errors say of them, and that what they say to type runs."""

import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import relprop
from relprop.errors import InputError, ModelError, RuleError
from relprop.rules import Gamma, ZPlus
from relprop.rules.book import RULES, all_about
from relprop.rules.choice import resolve
from relprop.rules.elsewhere import ALSO_OF_MODELS, no_attribute, plainly, told, told_of
from relprop.rules.elsewhere_names import LIBRARIES, Here

OPTIONS = [
    name for name, p in inspect.signature(relprop.explain).parameters.items() if p.kind is p.KEYWORD_ONLY
]


def entries(kind: str) -> list[Any]:
    return [
        pytest.param(library, name, here, id=f"{library}: {name}")
        for library, lists in LIBRARIES.items()
        for names, here in getattr(lists, kind).items()
        for name in names.split()
    ]


class Small(nn.Module):
    """Has modules of the names that the table uses as examples."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.layer, self.fc = nn.Conv2d(4, 2, 3), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layer(self.features(x)).flatten(1))


@pytest.fixture
def names() -> dict[str, Any]:
    """What stands for itself in what is to be typed."""
    torch.manual_seed(0)
    model, x = Small().eval(), torch.rand(2, 3, 8, 8)
    explanation = relprop.explain(model, x)
    numbers = {"low": -5.0, "high": 5.0, "epsilon": 0.1, "gamma": 0.5, "alpha": 2, "beta": 1}
    return {"relprop": relprop, "nn": nn, "model": model, "x": x, "explanation": explanation} | numbers


def run(typed: str, names: dict[str, Any]) -> None:
    """Run what the table says to type, and take a rule, a composite or a place that it gives."""
    model, x = names["model"], names["x"]
    if re.match(r"\w+=", typed):
        options = eval(f"dict({typed})", names)
        assert options.keys() <= set(OPTIONS)
        relprop.explain(model, x, **options)
        return
    value = eval(typed, names)
    if isinstance(value, relprop.rules.other.NonlinearRule):
        value = [("*", value), ("*", relprop.rules.Epsilon())]
    if isinstance(value, relprop.places.Place):
        value = [(value, relprop.rules.Gamma()), ("*", relprop.rules.Epsilon())]
    if isinstance(value, (list, relprop.Composite, *RULES.values())):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*has no effect", UserWarning)
            relprop.explain(model, x, rules=value)


@pytest.mark.parametrize(("library", "name", "here"), entries("names"))
def test_a_name_is_told_and_what_it_says_runs(
    library: str, name: str, here: Here, names: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    said = told(name)
    assert (f"{name} is {here.typed} here" if here.typed else f"{name} has no counterpart here") in said
    assert library == "literature" or f"{library}'s {name} " in told(name, library=library)
    assert here.typed or here.note
    monkeypatch.chdir(tmp_path)
    if here.typed:
        run(here.typed, names)


@pytest.mark.parametrize(("library", "name", "here"), entries("arguments"))
def test_an_argument_is_told_and_what_it_says_is_there(
    library: str, name: str, here: Here, names: dict[str, Any]
) -> None:
    assert name not in OPTIONS
    said = told(name, "arguments", library)
    whose = "" if library == "literature" else f"{library}'s "
    assert said.startswith(f" {whose}{name}= ")
    assert here.typed in said
    assert here.note in said
    if here.typed.endswith("="):
        assert here.typed[:-1] in OPTIONS
    elif here.typed:
        run(here.typed, names)
    with pytest.raises(
        InputError, match=re.escape(f"explain(..., {name}=...): neither explain nor the model")
    ):
        relprop.explain(names["model"], names["x"], **{name: 1})


@pytest.mark.parametrize(("library", "name", "here"), entries("parameters"))
def test_a_parameter_of_a_rule_is_told_and_what_it_says_is_there(library: str, name: str, here: Here) -> None:
    assert told(name, "parameters", library).endswith(
        f"{name}= is {here.typed} here" + (f": {here.note}." if here.note else ".")
    )
    parameter = here.typed.partition("=")[0]
    assert any(parameter in inspect.signature(rule).parameters for rule in RULES.values())


def test_a_parameter_of_a_rule_in_python() -> None:
    unexpected = "got an unexpected keyword argument"
    with pytest.raises(TypeError, match=f"{unexpected} 'zero_params'. zennit's zero_params= is bias="):
        Gamma(0.25, zero_params="bias")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=f"{unexpected} 'set_bias_to_zero'. captum's set_bias_to_zero= is "):
        ZPlus(set_bias_to_zero=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=f"{unexpected} 'gama'$"):
        Gamma(gama=0.25)  # type: ignore[call-arg]
    assert list(inspect.signature(Gamma).parameters) == ["gamma", "bias", "favour"]


def test_a_rule_on_a_module_as_captum_has_it() -> None:
    model = Small().eval()
    model.layer.rule, model.fc.rule = Gamma(), ZPlus()
    refused = (
        r"the rule of module 'layer', its attribute `rule`, has no effect.* rules=\[\('layer', "
        r"relprop.rules.Gamma\(gamma=0.25\)\), \('fc', relprop.rules.ZPlus\(.*\)\), \(\"\*\", "
    )
    with pytest.raises(RuleError, match=refused):
        relprop.explain(model, torch.zeros(1, 3, 8, 8))
    model.layer.rule = made("captum.attr._utils.lrp_rules", "EpsilonRule")()
    with pytest.raises(RuleError, match=r"module 'layer'.*captum's EpsilonRule is relprop\.rules\.Epsilon"):
        relprop.explain(model, torch.zeros(1, 3, 8, 8))
    model.layer.rule, model.fc.rule = "my own", None
    resolve("epsilon")
    relprop.explain(model, torch.rand(1, 3, 8, 8), target=0, rules="epsilon")


def test_no_name_is_one_of_relprop_s_own() -> None:
    """Or it would never be asked for, except as an object of the library."""
    own = {*relprop.PRESETS, *relprop.rules.BASELINES}
    assert not [name for p in entries("names") for name in [p.values[1]] if name in own]


def test_every_preset_is_some_other_library_s() -> None:
    typed = " ".join(p.values[2].typed for p in entries("names"))
    named = set(re.findall(r'rules="([\w-]+)"', typed))
    own = {"epsilon", "alpha2-beta1", "epsilon-gamma-flat", "vgg-2019", "mamba-lrp"}
    assert {*relprop.PRESETS, *relprop.rules.BASELINES} - named == own


# What is given as text


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("EpsilonPlusFlat", r"zennit's EpsilonPlusFlat is rules=\"epsilon-plus-flat\" here"),
        ("EpsilonGammaBox", r"is rules=\"epsilon-gamma-box\", bounds=\(low, high\) here"),
        ("lrp.sequential_preset_a_flat", r"innvestigate's .*_a_flat is rules=\"epsilon-plus-flat\" here"),
        ("LRPEpsilon", r"innvestigate's LRPEpsilon is relprop\.rules\.Epsilon\(1e-7\) here\.$"),
        ("lrp.epsilon", r"innvestigate's lrp\.epsilon is relprop\.rules\.Epsilon\(1e-7\) here\.$"),
        ("lrp-0", r"^there is no preset 'lrp-0'\. lrp-0 is relprop\.rules\.Epsilon\(0\) here\.$"),
        ("LRP-0", r"^'LRP-0' is no rule\. LRP-0 is relprop\.rules\.Epsilon\(0\) here\.$"),
        ("lrp_0", r"lrp_0 is relprop\.rules\.Epsilon\(0\) here\.$"),
        ("LRP-ε", r"LRP-ε is relprop\.rules\.Epsilon\(1e-6\) here\.$"),
        ("lrp-epsilon", r"'lrp-epsilon'\. lrp-epsilon is relprop\.rules\.Epsilon\(1e-6\) here\.$"),
        ("lrp-gamma", r"lrp-gamma is relprop\.rules\.Gamma\(0\.25\) here\.$"),
        ("lrp-alpha-beta", r"lrp-alpha-beta is relprop\.rules\.AlphaBeta\(2, 1\) here: α - β is 1\.$"),
        ("alpha-beta", r"'alpha-beta'\. alpha-beta is relprop\.rules\.AlphaBeta\(2, 1\) here"),
        ("zplus", r"zplus is relprop\.rules\.ZPlus\(\) here\.$"),
        ("z-plus", r"z-plus is relprop\.rules\.ZPlus\(\) here\.$"),
        ("z+", r"z\+ is relprop\.rules\.ZPlus\(\) here\.$"),
        ("lrp-z", r"lrp-z is relprop\.rules\.Epsilon\(0\) here\.$"),
        ("deep_taylor.bounded", r"is rules=\"deep-taylor\", bounds=\(low, high\) here"),
        ("guided-backprop", r"guided-backprop has no counterpart here: it is a gradient and not LRP; rules="),
        ("Alpha1_Beta0_Rule", r"captum's Alpha1_Beta0_Rule is relprop\.rules\.ZPlus\(\) here"),
        ("EpsilonRule(1e-9)", r"captum's EpsilonRule is relprop\.rules\.Epsilon\(1e-9\) here\. innv"),
        ("Epsilon(eps=1)", r"'eps'\. eps= is epsilon= here\. Write it as Epsilon\("),
        ("ZPlus(zero_params='bias')", r"zennit's zero_params= is bias=\"ignore\" here\. Write it as ZPlus\("),
    ],
)  # fmt: skip
def test_rules_as_text(rules: str, said: str) -> None:
    with pytest.raises(RuleError, match=said) as error:
        resolve(rules)
    assert "Did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("epsilon-plas", "Did you mean 'epsilon-plus' or 'epsilon-plus-flat'"),
        ("epsilon_gamma_box", "Did you mean 'epsilon-gamma-box'"),
        ("deep_taylor", "Did you mean 'deep-taylor'"),
        ("attn_lrp", "Did you mean 'attnlrp'"),
        ("Gamma(0.25))", r"'Gamma\(0\.25\)\)' is no rule; write it as Gamma\(0\.25\)\."),
        ("Epsilom()", "Did you mean Epsilon"),
        ("Gamma(gama=1)", r"unexpected keyword argument 'gama'\. Write it as Gamma\("),
        ("1 + 1)", r"'1 \+ 1\)' is no rule; write it as Gamma\(0\.25\)\."),
    ],
)
def test_what_nobody_has_is_told_as_before(rules: str, said: str) -> None:
    with pytest.raises(RuleError, match=said):
        resolve(rules)


@pytest.mark.parametrize("text", ["relprop.rules.Gamma(0.5)", "rules.Gamma(0.5)", "Gamma(0.5)"])
def test_a_rule_as_text_may_be_written_in_full(text: str) -> None:
    _, composite = resolve(text)
    assert composite == relprop.Composite([("*", relprop.rules.Gamma(0.5))])


def test_in_files_of_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('preset = "EpsilonPlus"\n')
    with pytest.raises(RuleError, match="zennit's EpsilonPlus is rules="):
        resolve(path)
    path.write_text('[[rules]]\nrule = "GammaRule"\n')
    with pytest.raises(RuleError, match=r"entry 1: there is no rule 'GammaRule'\. captum's GammaRule is"):
        resolve(path)


def test_what_is_told_about_rules() -> None:
    with pytest.raises(RuleError, match=r"baseline 'LRP-0'\. LRP-0 is relprop\.rules\.Epsilon\(0\) here\.$"):
        all_about("LRP-0")
    with pytest.raises(RuleError, match="Did you mean epsilon-plus"):
        all_about("epsilon-plas")


# Objects of other libraries


def made(module: str, name: str, *bases: type) -> type:
    """A class as a library has it, which is not installed."""
    return type(name, bases, {"__module__": module})


THEIRS = made("captum.attr._utils.lrp_rules", "EpsilonRule")
WRITTEN = type("Mine", (made("zennit.composites", "LayerMapComposite"),), {})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (THEIRS(), r"captum's EpsilonRule is relprop\.rules\.Epsilon\(1e-9\) here\.$"),
        (
            made("lxt.explicit.rules", "EpsilonRule"),
            r"LXT's EpsilonRule is relprop\.rules\.Epsilon\(1e-8\) here\.$",
        ),
        (made("zennit.rules", "Gamma")(), r"zennit's Gamma is relprop\.rules\.Gamma\(0\.25\) here\.$"),
        (WRITTEN(), r"zennit's LayerMapComposite is relprop\.Composite\(\[\(nn\.Conv2d, "),
        (made("zennit.composites", "GuidedBackprop")(), "GuidedBackprop has no counterpart here"),
        (made("zennit.core", "Stabilizer")(), r"It is of zennit: docs/coming-from\.md"),
    ],
)
def test_objects(value: Any, said: str) -> None:
    assert re.search(said, told_of(value))
    with pytest.raises(RuleError, match=r"^rules=.* or a rule\. " + said):
        resolve(value)
    with pytest.raises(RuleError, match=r" in a composite is no rule\. " + said):
        relprop.Composite([("*", value)])


def test_objects_of_others_and_of_none() -> None:
    assert (
        told_of(nn.Linear)
        == told_of(relprop.rules.Epsilon())
        == told_of(made("mine.zennit", "Gamma")())
        == ""
    )
    with pytest.raises(RuleError, match=r"Epsilon'> in a composite is no rule\. Write Epsilon\(\)\.$"):
        relprop.Composite([("*", relprop.rules.Epsilon)])  # type: ignore[list-item]


def test_places_of_zennit() -> None:
    place = made("zennit.types", "Convolution")
    said = r"no place.*\. zennit's Convolution is relprop\.places\.Kind\(\"convolution\"\) here"
    with pytest.raises(RuleError, match=said):
        relprop.Composite([(place, relprop.rules.Gamma())])  # type: ignore[list-item]


def test_what_is_given_for_the_model() -> None:
    attribution = made("captum.attr._core.lrp", "LRP")()
    with pytest.raises(
        ModelError, match=r"is a LRP, which cannot be called; .* captum's LRP is relprop\.exp"
    ):
        relprop.explain(attribution, torch.rand(1, 2))


# Attributes and imports


@pytest.mark.parametrize("module", ["relprop", "relprop.rules"])
@pytest.mark.parametrize("name", ["EpsilonRule", "LRP", "EpsilonGammaBox", "GuidedBackprop"])
def test_attributes(module: str, name: str) -> None:
    place = relprop if module == "relprop" else relprop.rules
    assert not hasattr(place, name)
    with pytest.raises(AttributeError, match=rf"module '{module}' has no attribute '{name}'\. .*{name} "):
        getattr(place, name)
    with pytest.raises(
        ImportError, match=rf"cannot import name '{name}' from '{module}'\. .*{name} "
    ) as error:
        exec(f"from {module} import {name}")
    assert error.value.name == module


@pytest.mark.parametrize("module", ["relprop", "relprop.rules"])
def test_attributes_that_nobody_has(module: str) -> None:
    place = relprop if module == "relprop" else relprop.rules
    with pytest.raises(AttributeError, match=rf"^module '{module}' has no attribute 'Epsilom'$") as error:
        place.Epsilom  # noqa: B018
    assert (error.value.name, error.value.obj) == ("Epsilom", place)  # for tracebacks to offer near matches
    with pytest.raises(ImportError, match=rf"^cannot import name 'Epsilom' from '{module}' \("):
        exec(f"from {module} import Epsilom")
    with pytest.raises(ModuleNotFoundError):
        exec(f"import {module}.Epsilom")
    assert told("composite")  # a module of relprop.rules, which an import may ask for before it is there
    assert isinstance(no_attribute("relprop.rules", "composite"), AttributeError)
    assert not re.search("zennit", str(no_attribute("relprop.rules", "composite")))
    exec(f"from {module} import *")
    assert not hasattr(place, "lrp.z")


# Keyword arguments


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("composite", r"zennit's composite= is rules= here\.$"),
        ("attr_output", "zennit's attr_output= is target= here: a class"),
        ("return_convergence_delta", r"captum's .* is explanation\.ledger\.seed - explanation"),
        ("additional_forward_args", r"captum's .* is relprop\.explain\(model, x\) here"),
        ("baselines", "captum's baselines= has no counterpart here: LRP"),
        ("neuron_selection", "innvestigate's neuron_selection= is target= here"),
        (
            "epsilon",
            r"zennit's and innvestigate's epsilon= is rules=relprop\.rules\.Epsilon\(epsilon\) here\.$",
        ),
        ("monkey_patch", 'LXT\'s monkey_patch= is rules="attnlrp" here'),
        ("targt", r"Did you mean target=\.\.\.\?$"),
    ],
)
def test_keywords(name: str, said: str) -> None:
    x = torch.rand(1, 4)
    match = rf"explain\(\.\.\., {name}=\.\.\.\): neither explain nor the model has such an argument\. {said}"
    for ask in (relprop.explain, relprop.coverage):
        with pytest.raises(InputError, match=match):
            ask(nn.Linear(4, 2).eval(), x, **{name: 1})  # type: ignore[operator]


def test_a_model_s_own_argument_wins() -> None:
    def model(x: torch.Tensor, composite: float, epsilon: float = 0) -> torch.Tensor:
        return x * composite + epsilon

    x = torch.rand(1, 4)
    assert relprop.explain(model, x, composite=2.0, epsilon=0.5).output.equal(x * 2 + 0.5)


def test_a_model_that_takes_any_keyword() -> None:
    def model(x: torch.Tensor, **options: float) -> torch.Tensor:
        return x * options.get("gamma", 1) * options.get("depth", 1)

    x = torch.rand(1, 4)
    assert "gamma" in ALSO_OF_MODELS
    assert relprop.explain(model, x, gamma=2.0, depth=3.0).output.equal(x * 2 * 3)
    with pytest.raises(InputError, match=r"zennit's canonizers= has no counterpart here"):
        relprop.explain(model, x, canonizers=[])


def test_what_does_not_matter_in_a_name() -> None:
    assert plainly("lrp.Alpha_2-Beta 1") == plainly("LRP-α2β1") == "lrpalpha2beta1"
    assert plainly("z⁺") == plainly("z+") == plainly("ZPlus") == "zplus"
    assert plainly("w²") == plainly("WSquare") == "wsquare"
    assert plainly("zᴮ") == plainly("z_B") == "zb"
    assert told("ZBOX").startswith(" ZBOX is relprop.rules.ZBox(low, high) here: for the first layer")
    assert told("nothing of the kind") == told("") == ""
