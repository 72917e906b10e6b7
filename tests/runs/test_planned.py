"""Plans: after a few explanations the calls of the model are compared, and a graph gives what Python gave."""

import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import relprop
from by_graph import Small, assert_same, pictures
from by_plan import Counted, assert_by_plan, early, in_python, with_plan
from networks import DOUBLE
from relprop import PRESETS, Explainer
from relprop.errors import InputError, ModelError
from relprop.operations import TABLE
from relprop.places import First, Kind, Where
from relprop.rules import Epsilon, Gamma, ZBox
from relprop.runs import following, planned, tracing
from relprop.runs.marks import Look
from relprop.targets import At, Contrastive, LogOdds, Part

__all__ = ["early"]

pytestmark = [
    pytest.mark.usefixtures("early"),
    pytest.mark.filterwarnings("ignore:the explained score is negative"),
]

BOUNDS = (0.0, 1.0)


def rows(samples: int = 2, seed: int = 0, width: int = 4) -> Tensor:
    return torch.randn(samples, width, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def layers(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), *(between or [nn.ReLU()]), nn.Linear(6, 3)).double().eval()


class Model(nn.Module):
    """Two layers, and what a test puts between them."""

    def __init__(self, between: Callable[["Model", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.between = between
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(self.between(self, self.first(x)))
        return scores


# ---- it is the same ----


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["small", "mnist-cnn", "mnist-mlp"])
def test_every_preset(name: str, preset: str) -> None:
    model = Small() if name == "small" else relprop.load(name).double().eval()
    size = {"small": (1, 6, 6), "mnist-cnn": (1, 32, 32), "mnist-mlp": (784,)}[name]
    x, other = (torch.rand(2, *size, **DOUBLE) for _ in range(2))
    explainer = Counted(model, rules=preset, bounds=BOUNDS if PRESETS[preset].needs_bounds else None)
    for _ in range(3):
        explainer(x, target=1)
    if isinstance(explainer.rules, relprop.rules.gradients.Baseline):
        assert explainer._plans is None
        return
    assert_by_plan(explainer, x, target=1)
    assert_by_plan(explainer, other, target=3)


def test_the_first_ones_are_in_python_and_the_model_runs_twice_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned, "AFTER", 8)
    runs = 0

    def count(model: Model, h: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        return h.relu()

    explainer = Counted(Model(count), rules="epsilon")
    for number in range(12):
        explainer(rows(seed=number))
    assert (explainer.in_python, runs) == (10, 14)  # the tenth to compare with


def test_many_calls_are_needed_for_each_shape() -> None:
    explainer = with_plan(layers(), rows())
    before = explainer.in_python
    explainer(rows(3))
    assert explainer.in_python == before + 1
    assert_by_plan(explainer, rows())


def test_targets() -> None:
    explainer = with_plan(Small(), pictures(), target=0)
    assert_by_plan(explainer, pictures(seed=1), target=4)
    for target in (None, [1, 2], Contrastive(1), LogOdds(2)):
        for _ in range(3):
            explainer(pictures(), target=target)
        assert_by_plan(explainer, pictures(seed=1), target=target)


def test_targets_at_a_position_and_of_a_part() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 6).double()
    x, other = (torch.randn(2, 5, 4, **DOUBLE) for _ in range(2))
    explainer = with_plan(layer, x, target=At(-1, 2))
    assert_by_plan(explainer, other, target=At(-1, 5))
    explainer = with_plan(lambda x: {"a": layer(x).mean(1)}, x, target=Part("a", 2))
    assert_by_plan(explainer, other, target=Part("a", 5))


def test_a_target_of_the_user_is_computed_in_python() -> None:
    """What it depends on is not known."""
    explainer, weight = Counted(layers(), rules="epsilon"), [1.0]

    def target(output: Tensor) -> Tensor:
        return weight[0] * output[:, 0]

    for factor in (1.0, 2.0, 3.0, 4.0):
        weight[0] = factor
        assert torch.equal(explainer(rows(), target=target).score, factor * layers()(rows())[:, 0])


def test_what_is_recorded() -> None:
    options: dict[str, Any] = {"record": ["first", "second"], "parameters": "*", "per_operation": True}
    explainer = with_plan(Small(), pictures(), rules="epsilon-gamma-flat", **options)
    found = assert_by_plan(explainer, pictures(seed=1), **options)
    expected = in_python(explainer, pictures(seed=1), **options)
    for of in ("inner", "parameters"):
        pairs = {name: (R, getattr(expected, of)[name]) for name, R in getattr(found, of).items()}
        assert pairs
        for one, other in pairs.values():
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert found.ledger.operations.keys() == expected.ledger.operations.keys()


def test_several_targets_and_progress() -> None:
    explainer, calls = Counted(Small(), rules="epsilon"), list[tuple[int, int]]()
    for _ in range(4):
        calls.clear()
        found = explainer.each(pictures(), targets=[0, 1], progress=lambda done, of: calls.append((done, of)))
    assert explainer.in_python == 4  # the third one for other values, too
    assert calls == [(1, 2), (2, 2)]
    for number, each in enumerate(found):
        assert_same(each, in_python(explainer, pictures(), target=number))


def test_ids_and_arguments_by_name() -> None:
    torch.manual_seed(0)
    table, layer = nn.Embedding(9, 4).double(), nn.Linear(4, 3).double()

    def model(ids: Tensor, *, mask: Tensor, parts: dict[str, Any]) -> Tensor:
        return layer((table(ids) * mask[..., None]).sum(1) * parts["weight"])

    def given(seed: int) -> dict[str, Any]:
        ids = torch.randint(9, (2, 5), generator=torch.Generator().manual_seed(seed))
        return {"ids": ids, "mask": (ids > 2).double(), "parts": {"weight": torch.ones(2, 1, **DOUBLE)}}

    explainer = with_plan(model, **given(0), target=1)
    assert_by_plan(explainer, **given(1), target=2)


def written_in_place(_: Model, h: Tensor) -> Tensor:
    return h.add_(1).mul_(h).relu_()


def written_through_a_view(_: Model, h: Tensor) -> Tensor:
    kept = h.sigmoid()
    kept[:, :2].mul_(kept[:, 2:4])
    return kept * h


def written_over_what_is_kept(_: Model, h: Tensor) -> Tensor:
    product = h * h.sigmoid()
    nn.functional.silu(h, inplace=True)
    return product + h


def written_after_a_view(_: Model, h: Tensor) -> Tensor:
    part = h[:, :3]
    product = torch.cat([part * part, part.tanh()], 1)
    h.tanh_()
    return product + h + torch.cat([part, part], 1)


def written_to_another(_: Model, h: Tensor) -> Tensor:
    out = torch.empty_like(h)
    torch.sigmoid(h, out=out)
    return out * h


def of_several(_: Model, h: Tensor) -> Tensor:
    one, two, three = h.chunk(3, 1)
    return torch.cat([one * two, two * three, torch.stack([one, three]).amax(0)], 1)


def of_numbers(_: Model, h: Tensor) -> Tensor:
    scale = torch.tensor([0.5, 2.0, 1.0], **DOUBLE)
    return h * torch.cat([scale, scale]) + torch.arange(6, **DOUBLE) + torch.zeros_like(h) + h.new_ones(6)


def of_its_data(_: Model, h: Tensor) -> Tensor:
    return h * h.data.sigmoid() + h.detach()


def of_a_weight_and_its_views(model: Model, h: Tensor) -> Tensor:
    weight = model.last.weight
    return h @ weight.t() @ weight + h * weight[0] + nn.functional.linear(h, weight) @ weight


def attending(_: Model, h: Tensor) -> Tensor:
    return nn.functional.scaled_dot_product_attention(h[None], h[None], h[None])[0]


STEPS = [
    *(written_in_place, written_through_a_view, written_over_what_is_kept, written_after_a_view),
    *(written_to_another, of_several, of_numbers, of_its_data, of_a_weight_and_its_views, attending),
]


@pytest.mark.parametrize("rules", ["epsilon", "attnlrp", "cp-lrp", "epsilon-gamma-flat"])
@pytest.mark.parametrize("step", STEPS)
def test_steps(step: Callable[[Model, Tensor], Tensor], rules: str) -> None:
    explainer = with_plan(Model(step), rows(), rules=rules)
    for seed in (1, 2, 3):
        assert_by_plan(explainer, rows(seed=seed))


def test_nothing_is_copied_where_a_whole_tensor_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = 0

    def copied(tensor: Tensor) -> Tensor:
        nonlocal copies
        copies += 1
        return tensor.clone()

    monkeypatch.setattr(following, "copied", copied)
    for step, expected in ((written_over_what_is_kept, 0), (written_after_a_view, 2)):
        explainer = with_plan(Model(step), rows())
        copies = 0
        explainer(rows())
        assert copies == expected


# ---- the model decides otherwise ----


def test_a_model_that_branches() -> None:
    explainer = with_plan(Model(lambda _, h: h.relu() if h.sum() > 0 else h.tanh()), rows().abs())
    for seed in range(8):
        assert_same(explainer(rows(seed=seed)), in_python(explainer, rows(seed=seed)))


FLAGS = {"scale": 2.0}
"""What a model looks at, and no part of it tells."""


def by_factor(_: Model, h: Tensor) -> Tensor:
    return h.sigmoid() * FLAGS["scale"]


def by_name(_: Model, h: Tensor) -> Tensor:
    return torch.add(h, h.sigmoid(), alpha=FLAGS["scale"])


def by_order(_: Model, h: Tensor) -> Tensor:
    one, other = (h, h.sigmoid()) if FLAGS["scale"] == 2 else (h.sigmoid(), h)
    return one - other


def by_operation(_: Model, h: Tensor) -> Tensor:
    return h.relu() if FLAGS["scale"] == 2 else h.tanh()


def by_list(_: Model, h: Tensor) -> Tensor:
    parts = [h[:, :3], h[:, 3:].sigmoid()]
    return torch.cat(parts if FLAGS["scale"] == 2 else parts[::-1], 1)


def by_number_of_calls(_: Model, h: Tensor) -> Tensor:
    return h.sigmoid().tanh() if FLAGS["scale"] == 2 else h.sigmoid()


@pytest.mark.parametrize(
    "step",
    [by_factor, by_name, by_order, by_operation, by_list, by_number_of_calls],
    ids=lambda f: f.__name__,
)
def test_what_the_model_looks_at_elsewhere(step: Callable[[Model, Tensor], Tensor]) -> None:
    explainer = with_plan(Model(step), rows())
    before = explainer(rows())
    try:
        FLAGS["scale"] = 3.0
        found = explainer(rows())
        assert_same(found, in_python(explainer, rows()))
        assert not torch.equal(found.output, before.output)
    finally:
        FLAGS["scale"] = 2.0
    assert_by_plan(explainer, rows(seed=1))


def test_a_model_that_ends_early() -> None:
    """All its calls are those of the plan, as far as they go."""
    torch.manual_seed(0)
    first, last = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
    explainer = with_plan(lambda x: last(first(x)) if FLAGS["scale"] == 2 else first(x), rows())
    try:
        FLAGS["scale"] = 3.0
        assert_same(explainer(rows()), in_python(explainer, rows()))
    finally:
        FLAGS["scale"] = 2.0


RETURNED: dict[str, Callable[[Tensor, Tensor, bool], Any]] = {
    "tensor": lambda a, b, first: a if first else b,
    "order": lambda a, b, first: (a, b) if first else (b, a),
    "name": lambda a, b, first: {"a": a, "b": b} if first else {"b": a, "a": b},
    "kind": lambda a, b, first: (a, b) if first else [a, b],
    "more": lambda a, b, first: (a,) if first else (a, b),
    "number": lambda a, b, first: (a, 1) if first else (a, 2),
}


@pytest.mark.parametrize("what", RETURNED)
def test_a_model_that_makes_the_same_calls_and_returns_something_else(what: str) -> None:
    torch.manual_seed(0)
    one, two = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()

    def model(x: Tensor) -> Any:
        a, b = one(x), two(x)
        return RETURNED[what](a, b, FLAGS["scale"] == 2)

    target = None if what == "tensor" else Part("a" if what == "name" else 0)
    explainer = with_plan(model, rows(), target=target)
    before = explainer.in_python
    try:
        FLAGS["scale"] = 3.0
        found = explainer(rows(), target=target)
        assert_same(found, in_python(explainer, rows(), target=target))
        assert type(found.output) is type(model(rows()))
    finally:
        FLAGS["scale"] = 2.0
    assert explainer.in_python == before + 2


def test_a_model_that_returns_what_is_not_looked_into() -> None:
    class Output:
        def __init__(self, scores: Tensor) -> None:
            self.scores = scores

    model = layers()
    explainer = Counted(lambda x: Output(model(x)), rules="epsilon")
    for _ in range(4):
        explainer(rows(), target=Part("scores"))
    assert explainer.refused == "the model returns Output, and what is in it is not known"


def test_modules_that_make_the_same_calls() -> None:
    """Of two modules with one weight the rules are those of the module that is called."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
            self.two.weight, self.two.bias = self.one.weight, self.one.bias

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.last((self.one if FLAGS["scale"] == 2 else self.two)(x))
            return scores

    rules = [("one", Gamma(0.5)), ("*", Epsilon(0.1))]
    explainer = with_plan(Tied().double().eval(), rows(), rules=rules)
    before = explainer(rows())
    try:
        FLAGS["scale"] = 3.0
        with pytest.warns(UserWarning, match="an entry of the composite has no effect"):
            found = explainer(rows())
        assert not torch.allclose(found.relevance, before.relevance)
    finally:
        FLAGS["scale"] = 2.0


def test_a_recorded_module_that_returns_another_tensor() -> None:
    parts: list[Tensor] = []

    class Inner(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            parts[:] = h.sigmoid(), h.tanh()
            return parts[0] if FLAGS["scale"] == 2 else parts[1]

    inner = Inner().eval()

    def step(_: Model, h: Tensor) -> Tensor:
        inner(h)
        return parts[0] * parts[1]

    model = Model(step)
    model.inner = inner
    explainer = with_plan(model, rows(), record=["inner"])
    assert_by_plan(explainer, rows(seed=1), record=["inner"])
    before = explainer.in_python
    try:
        FLAGS["scale"] = 3.0
        explainer(rows(), record=["inner"])
    finally:
        FLAGS["scale"] = 2.0
    assert explainer.in_python == before + 1


def test_a_model_that_differs_now_and_then_keeps_its_plan() -> None:
    explainer = with_plan(Model(by_factor), rows())
    try:
        for number in range(1, 60):
            FLAGS["scale"] = 3.0 if number % 20 == 0 else 2.0
            explainer(rows())
        assert_by_plan(explainer, rows())
        for number in range(30):
            FLAGS["scale"] = 3.0 if number % 2 == 0 else 2.0
            explainer(rows())
        assert explainer.refused == "the model makes other calls from batch to batch"
    finally:
        FLAGS["scale"] = 2.0


def test_numbers_that_the_model_looks_at_and_does_not_compute_with() -> None:
    def step(_: Model, h: Tensor) -> Tensor:
        assert h.abs().max().item() < 1e9
        return h.relu() if h.isfinite().all() else h

    explainer = with_plan(Model(step), rows())
    for seed in range(4):
        assert_by_plan(explainer, rows(seed=seed))


def test_memory_is_freed_while_the_model_runs() -> None:
    alive: list[bool] = []

    def step(_: Model, h: Tensor) -> Tensor:
        passing = torch.ones(6, **DOUBLE).cos()  # no relevance comes here
        value, h = weakref.ref(passing), h * passing
        del passing
        h = h.sigmoid()
        alive.append(value() is not None)
        return h

    explainer = with_plan(Model(step), rows(), rules="cp-lrp")
    alive.clear()
    explainer(rows())
    assert alive == [False]


def test_a_plan_that_gives_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    real = planned.replayed

    def wrong(*args: Any) -> Any:
        found = real(*args)
        for each in found.results:
            each.explanation.inputs["input"].mul_(1.01)
        return found

    monkeypatch.setattr(planned, "replayed", wrong)
    explainer = Counted(layers(), rules="epsilon")
    for _ in range(4):
        assert_same(explainer(rows()), in_python(explainer, rows()))
    assert explainer.refused == "by the plan, relevance of input 'input' differs"


def test_a_graph_that_would_keep_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of weights that are computed anew in each call."""
    explainer = Counted(Model(lambda model, h: h * model.last.weight.sigmoid().mean(0)), rules="epsilon")
    monkeypatch.setattr(tracing, "_MOST", 40)
    for _ in range(4):
        explainer(rows())
    assert explainer.refused == "its constants take more than 3.73e-08 GiB"


def test_warnings_are_those_in_python() -> None:
    """Of integers without relevance, the model runs with others to see whether the score depends on them."""
    torch.manual_seed(0)
    layer, weight = nn.Linear(4, 3).double(), torch.randn(5, 3, **DOUBLE)

    def model(x: Tensor, kind: Tensor) -> Tensor:
        return layer(x) * (torch.stack([(kind == k).double() for k in range(5)], 1) @ weight)

    given = rows(), torch.tensor([1, 3])
    for explainer in (Explainer(model, rules="epsilon"), Explainer(model, rules="epsilon", plan=False)):
        for _ in range(5):
            with pytest.warns(UserWarning, match="by code that relprop does not follow"):
                explainer(*given, target=1)


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        (torch.ones(3), torch.ones(3), ""),
        (torch.ones(3), torch.ones(3) + 1e-7, ""),
        (torch.ones(3), torch.ones(3) * 1.01, "there are other values"),
        (torch.tensor([1.0, torch.nan, torch.inf]), torch.tensor([1.0, torch.nan, torch.inf]), ""),
        (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0]), "there are other values"),
        (torch.arange(3), torch.arange(3) + 1, "there are other integers"),
        (torch.ones(2, 2).tril().bool(), torch.ones(2, 2).bool(), "there are other integers"),
        (torch.ones(3, 2), torch.ones(2, 3).t(), "a tensor lies in memory as"),
        (torch.ones(3), torch.ones(3, **DOUBLE), "a tensor lies in memory as"),
        (torch.ones(0), torch.ones(0), ""),
    ],
)
def test_looks_at_values(one: Tensor, other: Tensor, differs: str) -> None:
    found = Look.at(one).differs(Look.at(other))
    assert found.startswith(differs)
    assert bool(found) == bool(differs)


@pytest.mark.parametrize(("before", "after"), [(0.0, -0.0), (1, True), (2, 2.0)])
def test_numbers_that_are_equal_and_not_the_same(before: Any, after: Any) -> None:
    number = [before]
    explainer = with_plan(Model(lambda _, h: h.sigmoid() + number[0]), rows())
    number[0] = after
    count = explainer.in_python
    explainer(rows())
    assert explainer.in_python == count + 1


def test_other_tensors_of_the_model() -> None:
    """The same calls on another tensor, which is no part of the model."""
    weights = [torch.ones(100, 6, **DOUBLE), torch.full((100, 6), 2.0, **DOUBLE)]
    explainer = with_plan(Model(lambda _, h: h * weights[0].mean(0)), rows())
    weights.reverse()
    assert_same(explainer(rows()), in_python(explainer, rows()))


def test_weights_that_take_turns() -> None:
    """The trace and the run that is recorded have computed with others."""
    weights = [torch.full((100, 6), number, **DOUBLE) for number in (1.0, 2.0)]

    def turn(_: Model, h: Tensor) -> Tensor:
        weights.reverse()
        return h * weights[0].mean(0)

    explainer = Counted(Model(turn), rules="epsilon")
    outputs = [explainer(rows()).output for _ in range(7)]
    assert explainer.refused == "the model computes with other tensors from call to call"
    assert not torch.equal(outputs[-1], outputs[-2])


def by_version(model: nn.Sequential) -> None:
    with torch.no_grad():
        model[0].weight.mul_(1.5)


def by_data(model: nn.Sequential) -> None:
    model[0].weight.data.mul_(1.5)


def by_other_memory(model: nn.Sequential) -> None:
    model[0].weight.data = model[0].weight.data * 1.5


def by_a_new_parameter(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(model[0].weight.detach() * 1.5)


@pytest.mark.parametrize("rules", ["epsilon", Gamma(0.25)], ids=str)
@pytest.mark.parametrize("change", [by_version, by_data, by_other_memory, by_a_new_parameter])
def test_weights_that_change(change: Callable[[nn.Sequential], None], rules: Any) -> None:
    model = layers()
    explainer = with_plan(model, rows(), rules=rules)
    change(model)
    for _ in range(4):
        assert_same(explainer(rows()), in_python(explainer, rows()))
    assert_by_plan(explainer, rows(seed=1))  # there is a new plan


def test_a_model_that_changes_each_time_gets_no_plan_any_more() -> None:
    model = layers()
    explainer = Counted(model, rules="epsilon")
    for _ in range(12):
        explainer(rows())
        by_version(model)
    for _ in range(9):
        explainer(rows())
        explainer(rows())
        by_version(model)
    assert explainer.refused == "the model changes between explanations"


def test_modules_by_which_rules_are_chosen() -> None:
    """The same calls, of modules at other places."""
    rules = [("first", Gamma(0.5)), ("*", Epsilon(0.1))]
    model = nn.Sequential(OrderedDict(first=nn.Linear(4, 4), last=nn.Linear(4, 4))).double()
    explainer = with_plan(model, rows(), rules=rules)
    one, two = model
    model._modules.clear()
    model._modules.update(last=one, first=two)
    before = explainer.in_python
    assert_same(explainer(rows()), in_python(explainer, rows()))
    assert explainer.in_python == before + 2


def test_inputs_of_which_the_rules_depend() -> None:
    """γ takes another way where no input is negative."""
    explainer = with_plan(layers(), rows().abs(), rules=Gamma(0.25))
    for seed in range(5):
        assert_same(explainer(rows(seed=seed)), in_python(explainer, rows(seed=seed)))


def test_the_same_tensor_twice() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3).double()
    one, other = rows(), rows(seed=1)
    for first, second in (((one, one), (one, other)), ((one, other), (one, one))):
        explainer = with_plan(lambda a, b: layer(a * b), *first)
        assert_same(explainer(*second), in_python(explainer, *second))


# ---- there is no plan ----


class _Setting:
    scale = 1.0
    runs = 0


SETTING = _Setting()


def scaled(output: Tensor) -> Tensor:
    return output[:, 0] * SETTING.scale


def test_a_target_that_looks_at_something() -> None:
    explainer = Counted(layers(), rules="epsilon")
    for scale in (1.0, 2.0, 3.0, 4.0, 5.0):
        SETTING.scale = scale
        assert torch.equal(explainer(rows(), target=scaled).score, scale * layers()(rows())[:, 0])


class Keeps(Model):
    def __init__(self, keep: Callable[["Keeps", Tensor], None]) -> None:
        super().__init__(lambda _, h: h.relu())
        self.kept: list[Tensor] = []
        self.count = 0
        self.keep = keep

    def forward(self, x: Tensor) -> Tensor:
        self.keep(self, x)
        return super().forward(x)


def appending(model: Keeps, x: Tensor) -> None:
    model.kept.append(x)


def counting(model: Keeps, x: Tensor) -> None:
    model.count += 1000  # Python has one object for each small number


@pytest.mark.parametrize("keep", [appending, counting])
def test_a_model_that_keeps_something_runs_as_often_as_it_is_explained(
    keep: Callable[[Keeps, Tensor], None],
) -> None:
    model = Keeps(keep)
    explainer = Counted(model, rules="epsilon")
    for _ in range(5):
        explainer(rows())
    assert explainer.refused == "the model keeps something of each call"
    assert len(model.kept) + model.count // 1000 == 5


def test_a_model_with_hooks() -> None:
    model, seen = layers(), list[Tensor]()
    model[0].register_forward_hook(lambda _module, _args, output: seen.append(output))
    explainer = Counted(model, rules="epsilon")
    for _ in range(5):
        explainer(rows())
    assert (explainer.refused, len(seen)) == ("modules have hooks, which may do anything", 5)


def test_a_hook_that_comes_later_is_called_once() -> None:
    model, seen = layers(), list[Tensor]()
    explainer = with_plan(model, rows())
    with model[0].register_forward_hook(lambda _module, _args, output: seen.append(output)):
        assert_by_plan(explainer, rows())
    assert torch.equal(seen[0], model[0](rows()))
    with model[0].register_forward_hook(lambda _module, _args, output: output * 2):
        assert_same(explainer(rows()), in_python(explainer, rows()))


REFUSED: dict[str, tuple[Callable[[Model, Tensor], Tensor], str]] = {
    "noise": (lambda _, h: h + torch.rand(6, **DOUBLE), "aten::rand draws random numbers"),
    "numpy": (lambda _, h: h * h.detach().numpy().mean(), "values that depend on the inputs leave torch"),
    "other shapes": (lambda _, h: h * h[h > 0].mean(), "the shape of what aten::index returns depends"),
    "shapes in place": (lambda _, h: h.unsqueeze_(1).squeeze(1), "the model changes shapes in place"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_plan(name: str) -> None:
    step, reason = REFUSED[name]
    explainer = Counted(Model(step), rules="epsilon")
    for seed in range(4):
        explainer(rows(seed=seed))
    assert explainer.refused.startswith(reason)
    before = explainer.in_python
    explainer(rows())
    assert explainer.in_python == before + 1


def test_control_flow_that_is_an_operation() -> None:
    def step(_: Model, h: Tensor) -> Tensor:
        chosen: Tensor = torch.cond(h.sum() > 0, torch.sin, torch.cos, (h,))
        return chosen

    explainer = Counted(Model(step), rules="epsilon")
    for seed in range(4):
        assert_same(explainer(rows(seed=seed)), in_python(explainer, rows(seed=seed)))
    assert explainer.refused


def test_a_model_that_writes_to_its_input() -> None:
    model = layers()
    explainer = Counted(lambda x: model(x.mul_(2)), rules="epsilon")
    for _ in range(5):
        x = rows()
        explainer(x)
        assert torch.equal(x, rows())  # it gets a copy
    assert explainer.refused == "the model writes to its inputs, or to tensors that it keeps"


def test_what_is_asked_for_otherwise() -> None:
    explainer = with_plan(Small(), pictures())
    before = explainer.in_python
    explainer(pictures(), conditions={"first": lambda relevance: relevance})
    x = pictures()
    with FlopCounterMode(display=False):
        explainer(x)
    assert explainer.in_python == before + 2


def test_it_may_be_unwanted() -> None:
    assert Explainer(Small(), plan=False)._plans is None
    with pytest.raises(InputError, match=r"Explainer\(..., plan='no'\): give True or False"):
        Explainer(Small(), plan="no")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"Give it to Explainer\(model, plan=...\)"):
        Explainer(Small())(pictures(), plan=False)


# ---- nothing is left behind ----


def test_errors_are_those_in_python() -> None:
    explainer = with_plan(layers(), rows(), target=1)
    with pytest.raises(InputError, match="target 7 is out of range: the output has 3 classes"):
        explainer(rows(), target=7)
    with pytest.raises(InputError, match="values that are NaN or infinite"):
        explainer(rows() * float("nan"), target=1)
    explainer = with_plan(Model(lambda _, h: h * 1e3), rows(), target=1)
    with pytest.raises(ModelError, match="score"):
        explainer(rows() * 1e307, target=1)
    torch.manual_seed(0)
    table = nn.Embedding(5, 4).double()
    explainer = with_plan(lambda ids: table(ids).sum(1), torch.ones(2, 3).long(), target=1)
    with pytest.raises(InputError, match="embedding has no row for some"):
        explainer(torch.full((2, 3), 9), target=1)
    assert_by_plan(explainer, torch.tensor([[0, 1, 2], [3, 4, 0]]), target=1)


def test_an_interrupt() -> None:
    interrupting = False

    def step(_: Model, h: Tensor) -> Tensor:
        if interrupting:
            raise KeyboardInterrupt
        return h.relu()

    explainer = with_plan(Model(step), rows())
    interrupting = True
    with pytest.raises(KeyboardInterrupt):
        explainer(rows())
    interrupting = False
    assert not _get_current_dispatch_mode_stack()
    assert torch.ones(1, requires_grad=True).exp().requires_grad
    assert_by_plan(explainer, rows())


def test_values_are_freed() -> None:
    values: list[weakref.ref[Tensor]] = []

    def step(_: Model, h: Tensor) -> Tensor:
        values.append(weakref.ref(h))
        return h.sigmoid() * h

    explainer = with_plan(Model(step), rows())
    explainer(rows())
    gc.collect()
    assert values
    assert not any(value() is not None for value in values)


def test_results_are_the_callers() -> None:
    model = layers()
    explainer = with_plan(model, rows())
    found = explainer(rows())
    for tensor in (found.output, found.relevance):
        tensor.zero_()
    assert_by_plan(explainer, rows())
    weight = model[0].weight.detach().clone()
    with torch.inference_mode():
        found = explainer(rows())
    assert not found.relevance.is_inference()
    assert torch.equal(model[0].weight, weight)


def test_training_goes_on() -> None:
    model = layers()
    explainer = with_plan(model, rows())
    loss = model(rows()).sum()
    explainer(rows())
    loss.backward()
    assert model[0].weight.grad is not None


@pytest.mark.parametrize("enabled", [True, False])
def test_gradients_switched_off_and_autocast(enabled: bool) -> None:
    model, x = layers().float(), rows().float()
    explainer = Explainer(model, rules="epsilon")
    with torch.set_grad_enabled(enabled), torch.autocast("cpu", enabled=enabled):
        results = [explainer(x) for _ in range(5)]
        assert all(torch.equal(each.relevance, results[0].relevance) for each in results)
    assert explainer(x).output.dtype == torch.float32


def test_threads_share_plans() -> None:
    explainer = Counted(Small(), rules="epsilon")
    expected = {seed: in_python(explainer, pictures(seed=seed)) for seed in range(8)}
    found: dict[int, list[relprop.Explanation]] = {seed: [] for seed in expected}

    def work(seeds: Iterator[int]) -> None:
        for seed in seeds:
            found[seed] += [explainer(pictures(seed=seed)) for _ in range(4)]

    threads = [threading.Thread(target=work, args=(iter([i, i + 4]),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, several in found.items():
        assert len(several) == 4
        for each in several:
            assert_same(each, expected[seed])
    (kind,) = explainer.kinds
    assert kind.plan is not None


def test_copies_make_plans_of_their_own() -> None:
    explainer = Explainer(Small(), rules="epsilon")
    for _ in range(4):
        explainer(pictures())
    for other in (pickle.loads(pickle.dumps(explainer)), copy.deepcopy(explainer)):
        assert not other._plans._kinds
        for _ in range(4):
            assert_same(other(pictures()), explainer(pictures()))


# ---- what a model begins, it ends ----


class Scaled(nn.Module):
    """A model that changes an attribute while it runs, and sets it back if nothing is raised meanwhile."""

    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.scale, self.step = nn.Linear(4, 3), 1.0, step
        self.register_buffer("count", torch.zeros(1))
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        self.scale = 0.5
        h = self.step(x) * self.scale
        self.scale = 1.0
        scores: Tensor = self.layer(h) * self.scale
        return scores


def branching(x: Tensor) -> Tensor:
    return x.relu() if x.sum() > 0 else x.tanh()


UNFOLLOWED: dict[str, Callable[[Tensor], Tensor]] = {
    "branches": branching,
    "shapes in place": lambda x: x.unsqueeze_(1).squeeze(1),
    "numpy": lambda x: x * float(x.detach().numpy().mean()),
    "other shapes": lambda x: x * x[x > 0].sum(),
    "noise": lambda x: x + torch.rand(4, **DOUBLE) * 0,
}


@pytest.mark.parametrize("step", UNFOLLOWED)
def test_nothing_is_raised_within_the_model(step: str) -> None:
    model = Scaled(UNFOLLOWED[step])
    explainer = Explainer(model, rules="epsilon")
    for x in (rows().abs(),) * 5 + (-rows().abs(),) * 2:
        found = explainer(x, target=1)
        assert model.scale == 1.0
        torch.testing.assert_close(found.relevance, in_python(explainer, x, target=1).relevance)


def test_what_a_run_beside_the_plan_writes_and_draws_is_taken_back() -> None:
    def states(plan: bool) -> tuple[float, float]:
        torch.manual_seed(1)
        model = Scaled(lambda x: x)

        def step(x: Tensor) -> Tensor:
            if x.sum() < 0:
                model.count.add_(1)
                torch.rand(3)
            return x

        model.step = step
        explainer = Explainer(model, rules="epsilon", plan=plan)
        for x in (rows().abs(),) * 5 + (-rows().abs(),) * 2:
            explainer(x, target=1)
        return model.count.item(), torch.rand(1).item()

    assert states(True) == states(False)


def test_all_parts_of_a_tensor_that_are_overwritten_are_taken_back() -> None:
    def counts(plan: bool) -> list[float]:
        model = Scaled(lambda x: x)
        model.register_buffer("several", torch.zeros(4, **DOUBLE))

        def step(x: Tensor) -> Tensor:
            if x.sum() < 0:
                model.several[:2].add_(1)
                model.several[1:].add_(1)
                model.several[1:].mul_(3)
            return x

        model.step = step
        explainer = Explainer(model, rules="epsilon", plan=plan)
        for x in (rows().abs(),) * 5 + (-rows().abs(),) * 2:
            explainer(x, target=1)
        return model.several.tolist()

    assert counts(True) == counts(False)


# ---- what else relevance depends on ----


def test_places_and_rules_of_the_user_have_no_plans() -> None:
    class Own(Epsilon):
        pass

    for rules in ([(Where(lambda site: True), Gamma(0.5)), ("*", Epsilon(0.1))], Own(0.1)):
        assert Explainer(layers(), rules=rules)._plans is None
    for rules in ([(nn.Linear, Gamma(0.5)), (~First() & Kind("linear"), Epsilon(0.1))], ZBox(-1, 1)):
        assert Explainer(layers(), rules=rules)._plans is not None


def test_entries_that_are_registered() -> None:
    model = Model(lambda _, h: h.cumsum(1))
    explainer = with_plan(model, rows())
    before = TABLE["cumsum"]
    try:
        relprop.register("cumsum", "identity")
        assert_same(explainer(rows()), in_python(explainer, rows()))
    finally:
        TABLE["cumsum"] = before


def test_parts_of_the_model_that_run_again_in_the_backward() -> None:
    layer = nn.Linear(4, 3).double()
    explainer = Counted(lambda x: layer(checkpoint(torch.relu, x, use_reentrant=False)), rules="epsilon")
    for x in (rows(), rows(), -rows(), rows()):
        assert_same(explainer(x, target=1), in_python(explainer, x, target=1))
    assert explainer.refused == "a part of the model runs again in the backward"


def test_operations_that_are_no_functions_of_their_arguments() -> None:
    scale = [1.0]

    @torch.library.custom_op("relprop_planned::scale", mutates_args=())
    def scaled_by(x: Tensor) -> Tensor:
        return x * scale[0]

    scaled_by.register_autograd(lambda ctx, gradient: gradient * scale[0])
    layer = nn.Linear(4, 3).double()
    explainer = Explainer(lambda x: layer(scaled_by(x) + x), rules="epsilon", accept="relprop_planned::scale")
    for factor in (1.0, 1.0, 1.0, 3.0):
        scale[0] = factor
        assert_same(explainer(rows(), target=1), in_python(explainer, rows(), target=1))


def test_a_weight_of_which_rows_become_columns() -> None:
    layer = nn.Linear(4, 4).double()
    explainer = with_plan(layer, rows())
    layer.weight.data = layer.weight.data.t()
    for _ in range(2):
        assert_same(explainer(rows()), in_python(explainer, rows()))


def test_weights_that_change_while_the_model_runs() -> None:
    one, other = (nn.Parameter(torch.randn(3, 4, **DOUBLE)) for _ in range(2))
    swaps = [False]

    def model(x: Tensor) -> Tensor:
        if swaps[0]:
            swaps[0] = False
            one.data, other.data = other.data, one.data
        return nn.functional.linear(x, one)

    explainer = with_plan(model, rows(), rules=Gamma(0.25))
    swaps[0] = True
    assert_same(explainer(rows()), in_python(explainer, rows()))


def test_other_tensors_of_equal_values() -> None:
    """Only what the model makes of numbers may be another tensor from call to call."""
    layer, ones, uses = nn.Linear(4, 3).double(), torch.ones(2, 4, **DOUBLE), [False]

    def model(x: Tensor, y: Tensor) -> Tensor:
        ratio = y / y
        _ = ratio * 2
        return layer(x * (ratio if uses[0] else ones))

    explainer = with_plan(model, rows(), rows(seed=1))
    uses[0] = True
    assert_same(explainer(rows(), rows(seed=1)), in_python(explainer, rows(), rows(seed=1)))

    zero = [0.0]
    explainer = with_plan(lambda x: layer(x * (1 - torch.signbit(torch.tensor([zero[0]])).double())), rows())
    zero[0] = -0.0
    assert not explainer(rows()).relevance.any()


def test_targets_of_classes_of_the_user() -> None:
    class Moving(At):
        place = 0

        def part(self, output: Any) -> Tensor:
            part: Tensor = output[:, self.place]
            return part

    layer, x = nn.Linear(4, 3).double(), torch.randn(2, 5, 4, **DOUBLE)
    explainer = Explainer(layer, rules="epsilon")
    for place in (0, 0, 0, 0, 1):
        Moving.place = place
        assert torch.equal(explainer(x, target=Moving(0, 1)).score, layer(x)[:, place, 1])


# ---- what belongs to whom ----


def test_the_model_gets_containers_and_inputs_of_its_own() -> None:
    layer, x = nn.Linear(4, 3).double(), rows()

    def model(x: Tensor, options: dict[str, Tensor]) -> Tensor:
        x.requires_grad_(True)
        return layer(x * options.pop("mask"))

    explainer, options = Counted(model, rules="epsilon"), {"mask": torch.ones(2, 4, **DOUBLE)}
    for _ in range(5):
        explainer(x, options, target=1)
    assert explainer.kinds[0].is_proven
    assert list(options) == ["mask"]
    assert not x.requires_grad


def test_results_share_no_memory() -> None:
    model = layers(nn.Dropout(), nn.ReLU())
    explainer = with_plan(model, rows(), record=["0", "1"])
    found = explainer(rows(), record=["0", "1"])
    found.inner["0"].zero_()
    assert found.inner["1"].any()
    target = Part("scores", 1)
    explainer = with_plan(lambda x: {"scores": model(x), "places": torch.arange(3)}, rows(), target=target)
    one, other = (explainer(rows(), target=target) for _ in range(2))
    one.output["places"].add_(100)
    assert other.output["places"].tolist() == [0, 1, 2]
    assert explainer(rows(), target=target).output["places"].tolist() == [0, 1, 2]


def test_model_and_weights_are_freed_with_the_explainer() -> None:
    gc.collect()
    gc.disable()
    try:
        model = layers()
        explainer = with_plan(model, rows(), rules=Gamma(0.25))
        explainer(rows(seed=1))
        alive = weakref.ref(model), weakref.ref(model[0].weight.untyped_storage())
        del model, explainer
        assert [each() for each in alive] == [None, None]
    finally:
        gc.enable()


def test_weights_of_before_are_freed() -> None:
    model = layers()
    explainer = with_plan(model, rows())
    before = weakref.ref(model[0].weight.untyped_storage())
    model.float()
    gc.collect()
    explainer(rows().float())
    assert before() is None


@pytest.mark.parametrize(
    "step",
    [lambda x: x.sigmoid() if x.sum() > 0 else x.tanh(), lambda x: x.sigmoid()],
    ids=["it branches", "it does not"],
)
def test_how_often_the_model_runs(step: Callable[[Tensor], Tensor]) -> None:
    layer, SETTING.runs = nn.Linear(4, 3).double(), 0

    def model(x: Tensor) -> Tensor:
        SETTING.runs += 1
        return layer(step(x))

    explainer = Explainer(model, rules="epsilon")
    for number in range(100):
        explainer(rows(seed=number).abs() * (-1) ** number)
    assert 100 < SETTING.runs <= 108


def test_a_model_that_keeps_statistics() -> None:
    model = Scaled(lambda x: x)
    model.kept = {"mean": 0.0}

    def step(x: Tensor) -> Tensor:
        model.kept["mean"] += 1000.5
        return x

    model.step = step
    explainer = Explainer(model, rules="epsilon")
    for _ in range(5):
        explainer(rows())
    assert model.kept["mean"] == 5 * 1000.5


def test_a_plan_imports_no_compiler() -> None:
    program = (
        "import sys, torch, relprop\n"
        "from relprop.runs import planned\n"
        "planned.AFTER = 1\n"
        "explainer = relprop.Explainer(torch.nn.Linear(4, 3), rules='epsilon')\n"
        "for _ in range(4): explainer(torch.randn(2, 4), target=1)\n"
        "(kind,) = explainer._plans._kinds.values()\n"
        "assert kind.is_proven\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
