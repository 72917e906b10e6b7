"""An explanation on a GPU is the one that the CPU gives, in Python, by a plan and by a graph."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import get_ident
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import relprop
from by_plan import Counted
from networks_on_devices import (
    EVERY_PRESET,
    SMALL,
    Split,
    Subject,
    explainer,
    picture,
    require_close,
    require_same,
)
from other_networks import KINDS
from relprop import Explainer, Explanation
from relprop.calls.nested import map_tensors, tensors_in
from relprop.errors import CoverageError, ModelError
from relprop.linear.operation import Incoming, LinearOperation, Propagated
from relprop.rules import Epsilon
from relprop.runs.given import Given
from relprop.runs.wanted import Wanted
from relprop.targets.given import as_target
from torchs_own_samples import Sampled, functions, samples, weighed
from transformer_families import FAMILIES
from zoo_networks import NETWORKS

pytestmark = pytest.mark.usefixtures("early")


def in_every_way(subject: Subject, rules: str) -> list[Explanation]:
    """Explanations in Python, by the plan if there is one, and by a graph."""
    explain, named = explainer(subject, rules), {"target": subject.target, "kwargs": subject.arguments}
    results = [explain(*subject.inputs, **named) for _ in range(4)]
    graph = explain.compile(*subject.inputs, **named)
    return [results[0], results[-1], graph(*subject.inputs, **named)]


def refused(explainer: Counted) -> list[str]:
    """Why there are no plans for what was explained, or "" for each plan."""
    return [kind.refused for kind in explainer.kinds]


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
    pairs = list(zip(tensors_in(found), tensors_in(expected), strict=True))
    assert pairs
    for one, other in pairs:
        require_close(one, other, 1e-10)


def test_an_explanation_goes_back_to_the_cpu(device: str) -> None:
    moved = picture().on(device)
    found = relprop.explain(moved.model, *moved.inputs, target=1)
    assert torch.equal(found.to("cpu").relevance, found.relevance.cpu())
    assert found.to("cpu").ledger.seed.device.type == "cpu"
    assert torch.equal(torch.tensor(found.numpy()), found.relevance.cpu())


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


# ---- every network that the project knows ----


@pytest.mark.parametrize("name", KINDS)
def test_networks_of_other_kinds(device: str, name: str) -> None:
    model, arguments = KINDS[name].make()
    compare(device, name, Subject(model, [], arguments, KINDS[name].target), "epsilon")


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_transformers(device: str, name: str) -> None:
    family = FAMILIES[name]
    model, arguments, target = family.make(family.dtypes[-1])
    compare(device, name, Subject(model, [], arguments, target), "attnlrp", family.dtypes[-1])


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_pictures(device: str, name: str) -> None:
    model, x, target = NETWORKS[name].make(torch.float64)
    compare(device, name, Subject(model, [x], {}, target), "epsilon-gamma-flat")


CANNOT = {
    "sasrec": "this network makes its positions on the CPU",
    **{
        f"{name}-{attention}-grouped_mm": "torch.histc does not count integers on a CPU, and so not here"
        for name in ("mixtral", "qwen3-moe")
        for attention in ("eager", "sdpa")
    },
}
"""What does not run on the device, and why."""


def compare(device: str, name: str, subject: Subject, rules: str, dtype: torch.dtype = torch.float64) -> None:
    """Compare explanations on the CPU and on the device."""
    if name in CANNOT:
        pytest.skip(CANNOT[name])
    moved = subject.on(device)
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


def test_autocast_on_the_device_is_noticed(device: str) -> None:
    goals = [as_target(1)]
    x = torch.ones(2, 3, device=device)

    def key() -> Any:
        return Given.of((x,), {}, goals, Wanted((), None, None, (), per_operation=False)).key

    before = key()
    torch.set_autocast_enabled(device, True)
    try:
        assert key() != before
    finally:
        torch.set_autocast_enabled(device, False)
    assert key() == before


class Thread(torch.autograd.Function):
    """Returns its operand. Its backward notes the thread."""

    noted: ClassVar[list[int]] = []

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        Thread.noted.append(get_ident())
        return gradient


@dataclass(frozen=True)
class NotingThread(Epsilon):
    """Notes the thread of the backward that applies it."""

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        Thread.noted.append(get_ident())
        return super().__call__(op, incoming)


def test_relevance_is_propagated_in_the_thread_of_the_run(device: str) -> None:
    """Torch computes a gradient on this device in another thread."""
    Thread.noted.clear()
    moved = picture().on(device)
    x = moved.inputs[0].clone().requires_grad_()
    torch.autograd.grad(Thread.apply(moved.model(x))[:, 1].sum(), x)
    assert get_ident() not in Thread.noted
    Thread.noted.clear()
    relprop.explain(moved.model, *moved.inputs, target=1, rules=NotingThread())
    assert set(Thread.noted) == {get_ident()}


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
            R = expected.relevance
            size = float(R[R.isfinite()].abs().max()) if bool(R.isfinite().any()) else 0.0
            close = torch.allclose(
                found.relevance.cpu(), R, rtol=0, atol=1e-9 * max(size, 1e-9), equal_nan=True
            )
            if found.relevance.device.type == "cpu" or not close:
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
