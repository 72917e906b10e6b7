"""Plans hold for the calls that they were made of: models that decide otherwise are seen."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from by_graph import assert_same
from by_plan import Counted, Model, assert_by_plan, early, in_python, layers, rows, with_plan
from networks import DOUBLE
from relprop import Explainer
from relprop.rules import Epsilon, Gamma
from relprop.runs import graphs, planned, tracing
from relprop.runs.marks import Look
from relprop.targets import Part

__all__ = ["early"]

pytestmark = [
    pytest.mark.usefixtures("early"),
    pytest.mark.filterwarnings("ignore:the explained score is negative"),
]


def test_a_model_that_branches() -> None:
    explainer = with_plan(Model(lambda _, h: h.relu() if h.sum() > 0 else h.tanh()), rows().abs())
    for seed in range(8):
        assert_same(explainer(rows(seed=seed)), in_python(explainer, rows(seed=seed)))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("inplace", [False, True])
def test_poolings_are_computed_once(dimensions: int, inplace: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    convolution, pooling = ((nn.Conv2d, nn.MaxPool2d), (nn.Conv3d, nn.MaxPool3d))[dimensions - 2]
    layers = convolution(1, 2, 3), nn.ReLU(inplace), pooling(2), nn.Flatten(), nn.LazyLinear(3)
    model = nn.Sequential(*layers).double().eval()
    pictures = torch.randn(2, 2, 1, *[8] * dimensions, **DOUBLE)
    in_graph: list[str] = []

    def runnable(module: fx.GraphModule) -> Callable[..., Any]:
        in_graph.extend(str(node.target) for node in module.graph.nodes if "pool" in str(node.target))
        return graphs.runnable(module)

    monkeypatch.setattr(planned, "runnable", runnable)
    explainer = with_plan(model, pictures[0], rules="epsilon-plus", target=1)
    assert in_graph == [f"aten.max_pool{dimensions}d_with_indices_backward.default"]
    assert_by_plan(explainer, pictures[1], target=1)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_a_pooling_of_a_quantised_constant() -> None:
    quantised = torch.quantize_per_tensor(torch.rand(1, 1, 4, 4), 0.1, 0, torch.quint8)

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.is_busy = nn.Linear(4, 3), False
            self.double().eval()

        def forward(self, x: Tensor) -> Tensor:
            assert not self.is_busy
            self.is_busy = True
            weights = nn.functional.max_pool2d(quantised, 2).dequantize().double()
            scores = self.last((nn.functional.max_pool2d(x, 2) * weights).flatten(1))
            self.is_busy = False
            return scores

    explainer = Explainer(Pooled(), rules="epsilon")
    for seed in range(4):
        picture = rows(seed=seed, width=16).view(2, 1, 4, 4)
        assert_same(explainer(picture, target=1), in_python(explainer, picture, target=1))


def test_a_pooling_whose_indices_the_model_takes() -> None:
    def pooled(_: Model, h: Tensor) -> Tensor:
        map_ = h[:, None, None]
        values, indices = nn.functional.max_pool2d(map_, (1, 2), return_indices=True)
        again = nn.functional.max_pool2d(map_ + indices.sum(), (1, 2))
        return torch.cat([values, again], -1).flatten(1)

    explainer = with_plan(Model(pooled), rows())
    for seed in range(3):
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
