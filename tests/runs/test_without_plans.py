"""What has no plan, and is computed in Python."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from by_graph import Small, assert_same, pictures
from by_plan import Counted, Model, assert_by_plan, early, in_python, layers, rows, with_plan
from networks import DOUBLE
from relprop import Explainer
from relprop.errors import InputError

__all__ = ["early"]

pytestmark = [
    pytest.mark.usefixtures("early"),
    pytest.mark.filterwarnings("ignore:the explained score is negative"),
]


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
