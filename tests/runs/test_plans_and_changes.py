"""Plans hold for what they were made of: other models, weights and rules are seen, and some have no plan."""

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import relprop
from by_graph import Small, assert_same, pictures
from by_plan import Counted, Model, assert_by_plan, early, in_python, layers, rows, with_plan
from networks import DOUBLE
from relprop import Explainer
from relprop.errors import InputError
from relprop.operations import TABLE
from relprop.places import First, Kind, Where
from relprop.rules import Epsilon, Gamma, ZBox
from relprop.runs import planned, tracing
from relprop.runs.marks import Look
from relprop.targets import At, Part

__all__ = ["early"]

pytestmark = [
    pytest.mark.usefixtures("early"),
    pytest.mark.filterwarnings("ignore:the explained score is negative"),
]


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


# ---- there is no plan ----


class _Setting:
    scale = 1.0


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
