"""Plans hold for what they were made of: other weights, modules and rules are seen."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import relprop
from by_graph import assert_same
from by_plan import Counted, Model, assert_by_plan, early, in_python, layers, rows, with_plan
from networks import DOUBLE
from relprop import Explainer
from relprop.operations import TABLE
from relprop.places import First, Kind, Where
from relprop.rules import Epsilon, Gamma, ZBox
from relprop.targets import At

__all__ = ["early"]

pytestmark = [
    pytest.mark.usefixtures("early"),
    pytest.mark.filterwarnings("ignore:the explained score is negative"),
]


# ---- the model changes ----


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
