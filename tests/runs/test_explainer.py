"""`Explainer`, `explain_each`, arguments of the model by `kwargs`, and modules in the place of paths."""

import threading
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close, network
from relprop.errors import InputError, ModelError, RuleError
from relprop.rules import Epsilon, Gamma
from relprop.targets import Contrastive


def same(a: relprop.Explanation, b: relprop.Explanation) -> None:
    assert torch.equal(a.relevance, b.relevance)
    assert torch.equal(a.score, b.score)
    assert (a.preset, a.rules) == (b.preset, b.rules)
    assert str(a.ledger) == str(b.ledger)
    assert a.inner.calls.keys() == b.inner.calls.keys()
    for path in a.inner:
        assert torch.equal(a.inner[path], b.inner[path])
    assert a.parameters.keys() == b.parameters.keys()
    for name in a.parameters:
        assert torch.equal(a.parameters[name], b.parameters[name])


OPTIONS: dict[str, dict[str, Any]] = {
    "a target": {"target": 2},
    "all that is kept": {"target": 1, "record": "3", "parameters": "3.weight", "per_operation": True},
    "conditions": {"target": 1, "conditions": {"3": 0}, "record": ["3", "6"]},
    "a start": {"start": "6", "target": 3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("rules", ["epsilon-plus-flat", Gamma(0.25)], ids=str)
def test_an_explainer_explains_as_explain_does(x: Tensor, options: dict[str, Any], rules: Any) -> None:
    model = network()
    explainer = relprop.Explainer(model, rules=rules)
    for batch in (x, x[:1], x):
        same(explainer(batch, **options), relprop.explain(model, batch, rules=rules, **options))


def test_several_targets_of_an_explainer(x: Tensor) -> None:
    model, done = network(), []
    targets = [0, Contrastive(3), None]
    found = relprop.Explainer(model, rules=Gamma()).each(
        x, targets=targets, progress=lambda *each: done.append(each)
    )
    assert done == [(1, 3), (2, 3), (3, 3)]
    expected = relprop.explain_each(model, x, targets=targets, rules=Gamma())
    assert len(found) == len(expected) == 3
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_the_default_rules_are_those_for_the_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 3)).eval()
    explainer = relprop.Explainer(model)
    assert explainer(torch.randint(7, (2, 3))).preset == "cp-lrp"
    assert relprop.Explainer(nn.Linear(4, 3).eval())(torch.rand(2, 4)).preset == "epsilon-gamma-flat"
    bounded = relprop.Explainer(nn.Linear(4, 3).eval(), bounds=(0, 1))
    assert bounded(torch.rand(2, 4)).preset == "epsilon-gamma-box"
    assert repr(bounded) == "Explainer(Linear, rules='epsilon-gamma-box')"
    assert "ZBox(low=0, high=1)" in repr(bounded.rules)


def test_what_is_wrong_is_said_when_an_explainer_is_made() -> None:
    model = network()
    with pytest.raises(RuleError, match="there is no preset 'epsilonn'"):
        relprop.Explainer(model, rules="epsilonn")
    with pytest.raises(RuleError, match="has a box rule, which needs"):
        relprop.Explainer(model, rules="deep-taylor")
    with pytest.raises(InputError, match="'nowhere' is no module of the model"):
        relprop.Explainer(model, checkpoint="nowhere")
    with pytest.raises(ModelError, match="the model is in training mode"):
        relprop.Explainer(network().train())
    explainer = relprop.Explainer(model)
    model.train()
    with pytest.raises(ModelError, match="the model is in training mode"):
        explainer(torch.rand(2, 2, 6, 6, **DOUBLE))


@pytest.mark.parametrize(
    ("model", "which"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.Dropout(), nn.BatchNorm1d(3)), "'1' and 1 more"),
        (nn.Sequential(OrderedDict({"block 1": nn.Dropout()})), "'block 1'"),
        (nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.Dropout())), "'0.1'"),
        (nn.Dropout(), "the model itself"),
    ],
)
def test_the_modules_in_training_mode_are_named(model: nn.Module, which: str) -> None:
    with pytest.raises(ModelError) as error:
        relprop.Explainer(model)
    assert str(error.value) == (
        f"the model is in training mode ({which}), where dropout and batch statistics change its output: "
        "call model.eval() before explaining."
    )


def test_threads_may_share_an_explainer(x: Tensor) -> None:
    model = network()
    explainer = relprop.Explainer(model, rules=Gamma(0.25))
    batches = [x + i for i in range(6)]
    expected = [relprop.explain(model, batch, target=1, rules=Gamma(0.25)) for batch in batches]
    found: dict[int, relprop.Explanation] = {}

    def work(number: int) -> None:
        found[number] = explainer(batches[number], target=1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for number, one in enumerate(expected):
        same(found[number], one)


class Named(nn.Module):
    """Its arguments have the names of options."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3, **DOUBLE)

    def forward(self, x: Tensor, start: float = 0.0, target: Any = None, rules: str = "") -> Tensor:
        y: Tensor = self.linear(x) * (1 + start) + (len(rules) if target is None else target)
        return y


def test_a_model_s_argument_that_is_called_as_an_option() -> None:
    model, x = Named().eval(), torch.rand(2, 4, **DOUBLE)
    plain = relprop.explain(model, x, rules=Epsilon(), kwargs={})
    assert plain.preset.startswith("Epsilon")
    with pytest.raises(InputError) as error:
        relprop.explain(model, x, start=1.0)  # type: ignore[arg-type]
    assert str(error.value) == (
        "start= is an option of explain and an argument of the model. If the model is to get it, write "
        "kwargs={'start': ...}. If explain is to get it, add kwargs={}."
    )
    for ask in (
        lambda: relprop.explain(model, x, rules="epsilon"),
        lambda: relprop.explain_each(model, x, targets=[1], rules="epsilon"),
        lambda: relprop.coverage(model, x, rules="epsilon"),
    ):
        with pytest.raises(InputError, match=r"rules= is an option of .* and an argument of the model"):
            ask()
    explainer = relprop.Explainer(model, rules="epsilon")  # which is no call of the model
    doubled = explainer(x, kwargs={"start": 1.0, "target": 7.0})
    close(doubled.score, 2 * model(x).max(1).values + 7)
    # Given by position, it is clear.
    close(explainer(x, 1.0, 7.0, target=1).score, 2 * model(x)[:, 1] + 7)
    as_option = explainer(x, target=1, kwargs={"start": 1.0})
    close(as_option.score, 2 * model(x)[:, 1])


def test_arguments_that_are_given_twice_or_are_none() -> None:
    model, x = Named().eval(), torch.rand(2, 4, **DOUBLE)
    with pytest.raises(
        InputError, match=r"gain= is given twice, in kwargs and as an argument\. Leave one out\."
    ):
        relprop.explain(lambda x, gain=1: x * gain, x, gain=2, kwargs={"gain": 3})
    with pytest.raises(InputError, match=r"kwargs=3: give the model's arguments by name, as a dictionary"):
        relprop.explain(model, x, kwargs=3)  # type: ignore[arg-type]


def test_several_targets_are_for_explain_each(x: Tensor) -> None:
    with pytest.raises(InputError, match=r"targets=.*explain_each\(model, \.\.\., targets=\[\.\.\.\]\)"):
        relprop.explain(network(), x, targets=[0, 1])


@pytest.mark.parametrize("as_function", [False, True])
def test_modules_are_taken_in_the_place_of_paths(x: Tensor, as_function: bool) -> None:
    module = network()

    def function(x: Tensor) -> Tensor:
        y: Tensor = module(x)
        return y

    model: Any = function if as_function else module
    rules = Gamma(0.25)
    by_path = relprop.explain(model, x, target=1, rules=rules, record=["3", "6"], conditions={"4": [0, 1]})
    by_module = relprop.explain(
        model, x, target=1, rules=rules, record=[module[3], "6"], conditions={module[4]: [0, 1]}
    )
    assert list(by_path.inner) == list(by_module.inner) == ["3", "6"]
    same(by_path, by_module)
    same(
        relprop.explain(model, x, target=1, rules=rules, record="3"),
        relprop.explain(model, x, target=1, rules=rules, record=module[3]),
    )
    same(
        relprop.explain(model, x, target=2, rules=rules, start="6"),
        relprop.explain(model, x, target=2, rules=rules, start=module[6]),
    )
    same(
        relprop.explain(model, x, target=2, rules=rules, start=("6", 0)),
        relprop.explain(model, x, target=2, rules=rules, start=(module[6], 0)),
    )
    by_entry = relprop.explain(model, x, target=1, rules=[(module[3], Epsilon(1)), ("*", rules)])
    same(relprop.explain(model, x, target=1, rules=[("3", Epsilon(1)), ("*", rules)]), by_entry)


def test_parameters_themselves(x: Tensor) -> None:
    model = network()
    by_name = relprop.explain(model, x, target=1, rules=Gamma(), parameters=["3.weight", "6.weight"])
    for given in ([model[3].weight, "6.weight"], [model[3].weight, model[6].weight]):
        same(relprop.explain(model, x, target=1, rules=Gamma(), parameters=given), by_name)
    alone = relprop.explain(model, x, target=1, rules=Gamma(), parameters=model[3].weight)
    assert list(alone.parameters) == ["3.weight"]
    with pytest.raises(
        InputError, match=r"the tensor of shape \(2,\) is no parameter of the model, nor a mod"
    ):
        relprop.explain(model, x, target=1, rules=Gamma(), parameters=torch.zeros(2))


def test_modules_that_are_none_of_the_model(x: Tensor) -> None:
    stranger = nn.ReLU()
    for options in ({"record": stranger}, {"conditions": {stranger: 0}}, {"start": stranger}):
        (name,) = options
        with pytest.raises(InputError, match=rf"{name}=<ReLU> matches no module that ran; the paths are '0'"):
            relprop.explain(network(), x, target=1, rules=Epsilon(), **options)  # type: ignore[arg-type]


def test_what_was_used_can_be_cited(x: Tensor) -> None:
    model = network()
    entries = relprop.explain(model, x, target=1, rules="epsilon-plus-flat").cite().split("\n\n")
    keys = [entry.partition("{")[2].partition(",")[0] for entry in entries]
    assert keys == [
        *("bach2015pixel", "kohlbrenner2020towards", "lapuschkin2019unmasking", "montavon2017explaining"),
    ]
    assert entries[0] == (
        "@article{bach2015pixel,\n"
        "  author    = {Sebastian Bach and Alexander Binder and Grégoire Montavon and "
        "Frederick Klauschen and Klaus-Robert Müller and Wojciech Samek},\n"
        "  title     = {{On Pixel-Wise Explanations for Non-Linear Classifier Decisions by "
        "Layer-Wise Relevance Propagation}},\n"
        "  year      = {2015},\n"
        "  journal   = {PLOS ONE},\n"
        "  volume    = {10},\n"
        "  number    = {7},\n"
        "  pages     = {e0130140},\n"
        "}"
    )
    own = relprop.explain(model, x, target=1, rules=Gamma()).cite()
    assert own.count("@") == 2
    assert "montavon2019layer" in own
    assert "andeol2021learning" in own
    baseline = relprop.explain(model, x, target=1, rules="squared-gradient").cite()
    assert "simonyan2014deep" in baseline


def test_each_argument_has_a_name_of_its_own() -> None:
    x, a, b, s = (torch.full((1, 2), float(v), **DOUBLE) for v in (1, 2, 3, 4))

    def several(x: Tensor, *rest: Tensor, scale: Tensor) -> Tensor:
        return x + 10 * rest[0] + 100 * rest[1] + 1000 * scale

    e = relprop.explain(several, x, a, b, scale=s, target=0, rules=Epsilon())
    assert e.output.tolist() == [[4321.0, 4321.0]]
    assert {name: R[0, 0].item() for name, R in e.inputs.items()} == {
        "x": 1.0,
        "rest0": 20.0,
        "rest1": 300.0,
        "scale": 4000.0,
    }

    def same_name(x: Tensor, /, **more: Tensor) -> Tensor:
        return x + 10 * more["x"]

    e = relprop.explain(same_name, x, x=a, target=0, rules=Epsilon())
    assert e.output.tolist() == [[21.0, 21.0]]
    assert {name: R[0, 0].item() for name, R in e.inputs.items()} == {"x": 1.0, "x=": 20.0}


def test_options_that_are_given_by_position() -> None:
    model, x = nn.Linear(4, 3).eval(), torch.rand(2, 4)
    for ask in (lambda: relprop.explain(model, x, 3), lambda: relprop.Explainer(model)(x, "epsilon")):
        with pytest.raises(
            InputError, match=r"2 arguments are given by position, and the model takes 1\. Opt"
        ):
            ask()


def test_options_of_the_other_kind() -> None:
    model, x = nn.Linear(4, 3).eval(), torch.rand(2, 4)
    with pytest.raises(
        InputError, match=r"explainer\(\.\.\., rules=\.\.\.\): .* Give it to Explainer\(model, rules="
    ):
        relprop.Explainer(model)(x, rules="epsilon")
    with pytest.raises(InputError, match=r"It is for each call: explainer\(x, target=\.\.\.\)\."):
        relprop.Explainer(model, target=3)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"an explainer has no such argument\. zennit's composite= is rules= here"
    ):
        relprop.Explainer(model, composite=3)  # type: ignore[arg-type]
    with pytest.raises(
        ModelError, match=r"the model is the class Linear; make one, as in Linear\(\.\.\.\)\.eval"
    ):
        relprop.Explainer(nn.Linear)


def test_names_of_options_behind_those_given_by_position() -> None:
    x = torch.rand(2, 4, **DOUBLE)

    def keyword_only(x: Tensor, *more: Tensor, target: float = 0) -> Tensor:
        return x + sum(more) + target

    for inputs in ((x,), (x, x), (x, x, x)):
        with pytest.raises(InputError, match="target= is an option of explain and an argument of the model"):
            relprop.explain(keyword_only, *inputs, target=1)
    compiled = torch.compile(Named().eval(), backend="eager")
    with pytest.raises(InputError, match="rules= is an option of explain and an argument of the model"):
        relprop.explain(compiled, x, rules="epsilon")


@pytest.mark.filterwarnings("ignore:Using `torch.compile.module.`:UserWarning")  # with hooks of the process
def test_a_compiled_module_within_the_model_counts_once(x: Tensor) -> None:
    plain, model = network(), network()
    inner = model[3]
    model[3] = torch.compile(model[3], backend="eager")
    options: dict[str, Any] = {"target": 1, "rules": Gamma(0.25)}
    half = torch.tensor([0.5] * 4, **DOUBLE)[:, None, None]
    expected = relprop.explain(plain, x, **options, conditions={"3": half}, record="3")
    for key in ("3", inner, model[3]):
        found = relprop.explain(model, x, **options, conditions={key: half}, record=[key])
        close(found.relevance, expected.relevance)
        close(found.inner["3"], expected.inner["3"])
    started = relprop.explain(model, x, target=1, rules=Gamma(), start=model[3])
    close(started.relevance, relprop.explain(plain, x, target=1, rules=Gamma(), start="3").relevance)


def test_rules_behind_the_start_are_not_said_to_be_used(x: Tensor) -> None:
    model = network()
    e = relprop.explain(model, x, target=1, start="3", rules=[(model[15], Gamma()), ("*", Epsilon())])
    assert {applied.path for applied in e.rules} == {"0", "3"}
    assert "montavon2019layer" not in e.cite()


def test_rules_that_can_be_read_once_and_presets_as_objects() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 3)).eval()
    e = relprop.explain(model, torch.randint(7, (2, 3)), rules=(entry for entry in [("*", Epsilon())]))
    assert len(e.rules) == 1
    named = relprop.explain(model, torch.randint(7, (2, 3)), rules=relprop.PRESETS["cp-lrp"])
    assert named.preset == "cp-lrp"
    assert "ali2022xai" in named.cite()


def test_baselines_tell_of_progress(x: Tensor) -> None:
    done: list[tuple[int, int]] = []
    relprop.explain_each(
        network(), x, targets=[0, 1], rules="squared-gradient", progress=lambda *each: done.append(each)
    )
    assert done == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"record": [nn.Linear]}, r"record=<class .*Linear'>: give a module of the model, or its path\."),
        ({"conditions": ["3"]}, r"conditions=\['3'\]: give a dictionary from modules"),
        ({"conditions": {3: 0}}, r"conditions=3: give a module of the model, or its path\."),
        (
            {"start": ("3", "6")},
            r"start=\('3', '6'\): give a module of the model, or its path, or \(module, call",
        ),
        (
            {"start": "9.*"},
            r"start='9\.\*' matches no module that ran; .* start= takes the path of one module",
        ),
        ({"parameters": nn.ReLU()}, r"ReLU\(\) is no parameter of the model, nor a module of it"),
    ],
)
def test_what_is_no_module_is_refused(x: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        relprop.explain(network(), x, target=1, rules=Epsilon(), **options)


def test_all_weights_of_a_module(x: Tensor) -> None:
    model = network()
    found = relprop.explain(model, x, target=1, rules=Gamma(), parameters=model[9])
    assert list(found.parameters) == list(
        relprop.explain(model, x, target=1, rules=Gamma(), parameters="9.*").parameters
    )
    assert len(found.parameters) > 0


def test_a_list_of_modules_stands_for_those_in_it() -> None:
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 3)])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    model, x = Layers().eval(), torch.rand(2, 4)
    found = relprop.explain(model, x, target=1, rules=Epsilon(), record=model.layers)
    assert list(found.inner) == ["layers.0", "layers.1"]
