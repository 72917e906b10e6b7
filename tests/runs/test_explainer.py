"""`Explainer`, `explain_each`, arguments of the model by `kwargs`, and modules in the place of paths."""

import threading
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
    assert relprop.Explainer(nn.Linear(4, 3).eval())(torch.rand(2, 4)).preset == "epsilon-plus-flat"
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
        InputError, match=r"the tensor of shape \(2,\) is no parameter of the model; they are"
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
