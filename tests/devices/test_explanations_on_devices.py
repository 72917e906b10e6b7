"""An explanation on a GPU is the one that the CPU gives, in Python, by a plan and by a graph."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from networks_on_devices import EVERY_PRESET, SMALL, Split, Subject, explainer, picture, require_same, text
from torch import Tensor

import relprop
from other_networks import KINDS
from relprop import Explainer, Explanation
from relprop.calls.nested import map_tensors
from relprop.errors import CoverageError, ModelError
from relprop.rules import Epsilon
from torchs_own_samples import Sampled, functions, samples
from transformer_families import FAMILIES
from zoo_networks import NETWORKS

pytestmark = pytest.mark.usefixtures("early_plans")


def in_every_way(subject: Subject, rules: str) -> list[Explanation]:
    """Explanations in Python, by the plan if there is one, and by a graph."""
    eager, given = explainer(subject, rules), (subject.target, subject.arguments)
    results = [eager(*subject.inputs, target=given[0], kwargs=given[1]) for _ in range(4)]
    graph = eager.compile(*subject.inputs, target=given[0], kwargs=given[1])
    return [results[0], results[-1], graph(*subject.inputs, target=given[0], kwargs=given[1])]


def refused(explainer: Explainer) -> list[str]:
    """Why there are no plans for what was explained, or "" for each plan."""
    return [] if explainer._plans is None else [kind.refused for kind in explainer._plans._kinds.values()]


@pytest.mark.parametrize(("name", "rules"), EVERY_PRESET)
def test_every_preset(device: str, name: str, rules: str) -> None:
    subject = SMALL[name]()
    expected = in_every_way(subject, rules)[0]
    moved = subject.on(device)
    for found in in_every_way(moved, rules):
        require_same(found, expected)


@pytest.mark.parametrize("name", SMALL)
def test_plans_are_made_where_the_cpu_makes_them(device: str, name: str) -> None:
    subject = SMALL[name]()
    reasons = []
    for each in (subject, subject.on(device)):
        explain = explainer(each, "epsilon")
        for _ in range(4):
            explain(*each.inputs, target=1)
        reasons.append(refused(explain))
    assert reasons[0] == reasons[1]
    assert name == "series" or reasons[1] == [""]


@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("rules", ["epsilon", "epsilon-gamma-box", "deep-taylor", "attnlrp"])
def test_a_model_on_two_devices(device: str, rules: str, returns: bool) -> None:
    subject = picture()
    parts = copy.deepcopy(subject.model)
    split = replace(subject, model=Split(parts[:5], parts[5:], device, returns=returns).eval())
    expected = in_every_way(subject, rules)[0]
    for found in in_every_way(split, rules):
        torch.testing.assert_close(found.relevance, expected.relevance, rtol=0, atol=1e-12)
        assert found.ledger.largest_gap < 1e-9


PARTS: dict[str, Callable[[Any, Tensor, str], Any]] = {
    "a plain gradient": lambda m, x, _: relprop.explain(m, x, target=1, rules="gradient-times-input").inputs,
    "inner values": lambda m, x, _: dict(relprop.explain(m, x, target=1, record=["4"]).inner),
    "several targets": lambda m, x, _: [e.inputs for e in relprop.explain_each(m, x, targets=[0, 1, 2])],
    "checkpoints": lambda m, x, _: relprop.explain(m, x, target=1, checkpoint=["4"]).inputs,
    "parameters": lambda m, x, _: dict(
        relprop.explain(m, x, target=1, rules="epsilon", parameters=[m[0].weight, m[9].weight]).parameters
    ),
    "classes as a list": lambda m, x, _: relprop.explain(m, x, target=[0, 1, 2, 3]).inputs,
    "classes on the CPU": lambda m, x, _: relprop.explain(m, x, target=torch.arange(4)).inputs,
    "classes on the device": lambda m, x, d: relprop.explain(m, x, target=torch.arange(4, device=d)).inputs,
    "the runner-up": lambda m, x, _: relprop.explain(m, x, target=relprop.targets.RunnerUp()).inputs,
    "bounds on the CPU": lambda m, x, _: (
        relprop.explain(
            m, x, rules="epsilon-gamma-box", bounds=(x.cpu()[0, :, :1, :1] * 0, x.cpu()[0, :, :1, :1] * 0 + 1)
        ).inputs
    ),
    "conditions": lambda m, x, _: relprop.explain(m, x, target=1, conditions={"4": [1, 2]}).inputs,
    "operations": lambda m, x, _: dict(relprop.explain(m, x, target=1, per_operation=True).ledger.operations),
    "samples": lambda m, x, _: relprop.explain(m, x, target=1)[1:3].inputs,
    "an array": lambda m, x, _: torch.tensor(relprop.explain(m, x, target=1).numpy()),
    "the CPU again": lambda m, x, _: relprop.explain(m, x, target=1).to("cpu").inputs,
    "batches of any size": lambda m, x, _: [
        compiled(x[:n], target=1).inputs
        for compiled in [Explainer(m).compile(x[:2], dynamic=True)]
        for n in (2, 3, 4)
    ],
}
"""What an explanation may hold, by model, input and device."""


@pytest.mark.parametrize("name", PARTS)
def test_all_that_an_explanation_holds(device: str, name: str) -> None:
    subject = picture()
    moved = subject.on(device)
    expected = PARTS[name](subject.model, subject.inputs[0], "cpu")
    found = PARTS[name](moved.model, moved.inputs[0], device)
    torch.testing.assert_close(map_tensors(Tensor.cpu, found), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("suffix", ["png", "svg", "html", "safetensors"])
def test_files_of_explanations(device: str, tmp_path: Any, suffix: str) -> None:
    moved = picture().on(device)
    explanation = relprop.explain(moved.model, moved.inputs[0], target=1)
    path = tmp_path / f"explanation.{suffix}"
    explanation.save(path)
    assert path.stat().st_size > 0
    if suffix == "safetensors":
        loaded = relprop.load_explanation(path).relevance
        assert torch.equal(loaded, explanation.to("cpu").relevance)


def test_relevance_by_autograd(device: str) -> None:
    moved = picture().on(device)
    expected = relprop.explain(moved.model, moved.inputs[0], target=1, rules="epsilon")
    with relprop.propagating("epsilon"):
        x = moved.inputs[0].clone().requires_grad_()
        (c,) = torch.autograd.grad(moved.model(x)[:, 1].sum(), x)
    torch.testing.assert_close(c * x.detach(), expected.relevance)


def test_ids_on_the_device(device: str) -> None:
    subject = text()
    moved = subject.on(device)
    expected = relprop.explain(subject.model, *subject.inputs, target=1)
    require_same(relprop.explain(moved.model, *moved.inputs, target=1), expected)


# ---- every network that the project knows ----


@pytest.mark.parametrize("name", KINDS)
def test_networks_of_other_kinds(device: str, name: str) -> None:
    model, arguments = KINDS[name].make()
    compare(device, Subject(model, [], arguments, KINDS[name].target), "epsilon")


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_transformers(device: str, name: str) -> None:
    family = FAMILIES[name]
    model, arguments, target = family.make(family.dtypes[-1])
    compare(device, Subject(model, [], arguments, target), "attnlrp", family.dtypes[-1])


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_pictures(device: str, name: str) -> None:
    model, x, target = NETWORKS[name].make(torch.float64)
    compare(device, Subject(model, [x], {}, target), "epsilon-gamma-flat")


def compare(device: str, subject: Subject, rules: str, dtype: torch.dtype = torch.float64) -> None:
    """Compare explanations on the CPU and on the device, if the device can run the model."""
    moved = subject.on(device)
    with torch.no_grad():
        try:
            moved.model(*moved.inputs, **moved.arguments)
        except (RuntimeError, NotImplementedError) as error:
            pytest.skip(f"the model itself does not run on this device: {error}")
    expected = explainer(subject, rules)
    found = explainer(moved, rules)
    one, other = (
        [e(*s.inputs, target=s.target, kwargs=s.arguments) for _ in range(4)]
        for e, s in ((expected, subject), (found, moved))
    )
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    for each in (other[0], other[-1]):
        require_same(each, one[0], tolerance)
    assert refused(found) == refused(expected)


FUNCTIONS = 8
"""Tests that share torch's functions, so that several processes can."""


@pytest.mark.parametrize("part", range(FUNCTIONS))
def test_torchs_own_functions(device: str, part: int) -> None:
    listed, wrong, compared = functions(), [], 0
    for name in sorted(listed)[part::FUNCTIONS]:
        for sampled in list(samples(listed[name]))[::3]:
            moved = on(device, sampled)
            try:
                expected = relprop.explain(sampled, sampled.x, target=weighed, rules=Epsilon(0))
                leaf = moved.x.clone().requires_grad_()
                torch.autograd.grad(weighed(moved(leaf)).sum(), leaf)
            except (CoverageError, ModelError, RuntimeError, NotImplementedError):
                continue  # it is refused on the CPU, too, or the device does not have it
            found = relprop.explain(moved, moved.x, target=weighed, rules=Epsilon(0))
            compared += 1
            size = max(float(expected.relevance.abs().max()), 1e-9)
            if float((found.relevance.cpu() - expected.relevance).abs().max()) > 1e-9 * size:
                wrong.append(name)
    assert not wrong
    assert compared > 50


def on(device: str, sampled: Sampled) -> Sampled:
    """Return a call with arguments on a device."""
    sample = sampled.sample

    def moved(value: Any) -> Any:
        return map_tensors(lambda t: t.detach().to(device), value)

    given = type(sample)(
        moved(sample.input), args=tuple(moved(list(sample.args))), kwargs=moved(dict(sample.kwargs))
    )
    return Sampled(sampled.op, given)


def weighed(y: Tensor) -> Tensor:
    """A score of all outputs, in which each has another weight."""
    return (y * torch.linspace(1, 2, y.shape[1], dtype=y.dtype, device=y.device)).sum(1)
