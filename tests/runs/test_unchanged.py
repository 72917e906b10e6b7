"""Graphs of models that change between calls: each change is noticed, or the graph is not used."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from by_graph import Small, assert_by_graph, assert_same, graphs_of, pictures
from networks import DOUBLE
from relprop import Explainer
from relprop.rules import Epsilon, Gamma

pytestmark = pytest.mark.filterwarnings("ignore:the explained score is negative")


class Net(Small):
    """A network with numbers and a tensor among its attributes, and a module in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.mask = torch.ones(5, **DOUBLE)
        self.hidden = [nn.Linear(5, 5).double()]

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden[0](super().forward(x) * (self.mask * 2)) * self.scale


def change_in_place(model: Net) -> None:
    with torch.no_grad():
        model.second.weight.mul_(2)


def change_by_data(model: Net) -> None:
    model.second.weight.data[0] += 1


def change_a_buffer(model: Net) -> None:
    model.first[1].running_mean.add_(1)


def replace_a_parameter(model: Net) -> None:
    model.second.weight = nn.Parameter(model.second.weight.detach() + 1)


def replace_a_module(model: Net) -> None:
    model.second = nn.Conv2d(4, 4, 3, padding=1).double()


def load(model: Net) -> None:
    model.load_state_dict({name: t * 1.5 for name, t in model.state_dict().items()})


def give_other_memory(model: Net) -> None:
    model.second.weight.data = model.second.weight.detach() * 2


def replace_often(model: Net) -> None:
    """Let a later parameter be made where an earlier one was."""
    for _ in range(20):
        model.second.weight = None  # type: ignore[assignment]
        model.second.weight = nn.Parameter(torch.rand(4, 4, 3, 3, **DOUBLE))


def replace_an_activation(model: Net) -> None:
    model.first[2] = nn.Tanh()


def hook(model: Net) -> None:
    model.first.register_forward_hook(lambda module, inputs, output: output * 2)


def hook_before(model: Net) -> None:
    model.second.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))


def replace_a_forward(model: Net) -> None:
    model.second.forward = torch.exp  # type: ignore[assignment]


def replace_a_class(model: Net) -> None:
    model.second.__class__ = type("Doubled", (nn.Conv2d,), {"forward": lambda conv, x: 2 * x})  # type: ignore[assignment]


def change_a_number(model: Net) -> None:
    model.scale = 2.0


def replace_a_tensor(model: Net) -> None:
    model.mask = torch.rand(5, **DOUBLE)


def write_to_a_tensor(model: Net) -> None:
    model.mask.mul_(2)


def write_to_a_tensor_by_data(model: Net) -> None:
    model.mask.data.mul_(2)


def replace_what_a_list_holds(model: Net) -> None:
    model.hidden[0] = nn.Linear(5, 5).double()


class Holding:
    """An object that is called, and holds a module."""

    def __init__(self, models: list[Net]) -> None:
        self.models = models

    def __call__(self, x: Tensor) -> Tensor:
        return self.models[0](x)


CHANGES = [
    *(change_in_place, change_by_data, change_a_buffer, replace_a_parameter, replace_a_module, load),
    *(give_other_memory, replace_often, replace_an_activation, hook, hook_before, replace_a_forward),
    *(change_a_number, replace_a_tensor, write_to_a_tensor, write_to_a_tensor_by_data),
    replace_what_a_list_holds,
    replace_a_class,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("held", ["module", "closure", "partial", "method", "object"])
def test_a_changed_model_is_noticed(change: Callable[[Net], None], held: str) -> None:
    model = Net()
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "module": model,
        "closure": lambda x: model(x),
        "partial": partial(lambda x, net: net(x), net=model),
        "method": model.forward,
        "object": Holding([model]),
    }
    explainer = Explainer(functions[held], rules="epsilon-gamma-flat")
    compiled = explainer.compile(pictures(), target=0)
    before = compiled(pictures(), target=0)
    change(model)
    assert_by_graph(explainer, compiled, pictures(), target=0)
    assert not torch.equal(before.relevance, compiled(pictures(), target=0).relevance)


def test_what_a_function_holds_is_replaced() -> None:
    model, weight, held = Net(), torch.rand(5, 3, **DOUBLE), {"bias": torch.rand(3, **DOUBLE)}
    explainer = Explainer(lambda x: model(x) @ weight + held["bias"], rules=Epsilon(1e-3))
    compiled = explainer.compile(pictures(), target=0)
    before = compiled(pictures(), target=0)
    for change in ("module", "tensor", "entry"):
        if change == "module":
            model = Net()
            change_in_place(model)
        elif change == "tensor":
            weight = weight * 2
        else:
            held["bias"] = held["bias"] * 2
        assert_by_graph(explainer, compiled, pictures(), target=0)
        after = compiled(pictures(), target=0)
        assert not torch.equal(before.score, after.score)
        before = after


made_later = Net()


def test_globals_of_functions_within() -> None:
    global made_later
    explainer = Explainer(lambda x: (lambda: made_later(x))(), rules=Epsilon(1e-3))
    compiled = explainer.compile(pictures(), target=0)
    made_later = Net()
    change_in_place(made_later)
    assert_by_graph(explainer, compiled, pictures(), target=0)


class Table(nn.Module):
    """Makes a table when it first meets a longer input, as for positions."""

    def __init__(self) -> None:
        super().__init__()
        self.length, self.table = 0, torch.zeros(0, **DOUBLE)
        self.layer = nn.Linear(3, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.length:
            self.length, self.table = len(x), torch.arange(len(x), **DOUBLE)
        return self.layer(x + self.table[: len(x), None])


def test_what_a_model_makes_once_is_no_obstacle() -> None:
    explainer = Explainer(Table().eval(), rules=Epsilon(1e-3))
    compiled = explainer.compile(torch.rand(2, 3, **DOUBLE), target=0)
    assert graphs_of(compiled) == 1
    assert_by_graph(explainer, compiled, torch.rand(4, 3, **DOUBLE), target=0, graphs=2)
    assert_by_graph(explainer, compiled, torch.rand(2, 3, **DOUBLE), target=0, graphs=2)


class Remembering(nn.Module):
    """Adds a small part of what it saw in the last call."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.last, self.calls = how, torch.zeros(2, **DOUBLE), 0
        self.layer = nn.Linear(3, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        out = y + 1e-9 * self.last * (1 + self.calls)
        if self.how == "written to":
            self.last.copy_(y.detach()[0])
        elif self.how == "written to by constants":
            self.last.add_(1)
        elif self.how == "replaced":
            self.last = y.detach()[0]
        else:
            self.calls += 1
        return out


REMEMBERED = {
    "written to": "the model writes to a tensor that it keeps, such as a buffer",
    "written to by constants": "the model writes to a tensor that it keeps, such as a buffer",
    "replaced": "the model writes to its own parameters, buffers or attributes",
    "counted": "the model writes to its own parameters, buffers or attributes",
}


@pytest.mark.parametrize("how", REMEMBERED)
def test_a_model_that_remembers_has_no_graph(how: str) -> None:
    explainer = Explainer(Remembering(how).eval(), rules=Epsilon(1e-3))
    with pytest.warns(UserWarning, match="without a graph: " + REMEMBERED[how]):
        compiled = explainer.compile(torch.rand(2, 3, **DOUBLE), target=0)
    assert graphs_of(compiled) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_model() -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double().eval())
    explainer = Explainer(model, rules=Epsilon(1e-3))
    compiled = explainer.compile(torch.rand(2, 3, **DOUBLE), target=0)
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert_by_graph(explainer, compiled, torch.rand(2, 3, **DOUBLE), target=0)


@pytest.mark.parametrize(
    "weight",
    [
        torch.randn(12, 10, **DOUBLE),
        torch.randn(40, 40, **DOUBLE).T,
        torch.randn(64, 65, **DOUBLE)[:, :1],
        torch.randn(3, 40, 40, **DOUBLE)[:, 3:30, ::2].flatten(0, 1),
    ],
    ids=["small", "transposed", "a column", "with gaps"],
)
def test_one_value_of_a_small_weight(weight: Tensor) -> None:
    model = nn.Linear(weight.shape[1], len(weight), bias=False)
    model.weight = nn.Parameter(weight.detach())
    x = torch.rand(1, weight.shape[1], **DOUBLE)
    explainer = Explainer(model.eval(), rules=Gamma(0.25))
    compiled = explainer.compile(x, target=0)
    model.weight.data[0, 0] += 10
    assert_same(compiled(x, target=0), explainer(x, target=0))
    assert torch.equal(compiled(x, target=0).output, model(x).detach())


def test_hooks_of_all_modules_are_noticed() -> None:
    explainer = Explainer(Small(), rules=Epsilon(1e-3))
    compiled = explainer.compile(pictures(), target=0)
    hook = register_module_forward_hook(lambda module, given, output: output * 0.5)
    try:
        assert_by_graph(explainer, compiled, pictures(), target=0, graphs=1)
        assert torch.equal(compiled(pictures(), target=0).output, explainer.model(pictures()).detach())
    finally:
        hook.remove()
    assert_by_graph(explainer, compiled, pictures(), target=0, graphs=1)


def test_what_a_model_keeps_of_a_call_is_of_the_example() -> None:
    class Keeps(Small):
        def forward(self, x: Tensor) -> Tensor:
            self.last = x.detach() * 1
            return super().forward(x)

    model = Keeps()
    Explainer(model, rules=Epsilon(1e-3)).compile(pictures(), target=0)
    assert torch.equal(model.last * 1, pictures())


def test_modules_that_find_their_size() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3)).double().eval()
    explainer = Explainer(model, rules=Epsilon(1e-3))
    assert_by_graph(explainer, explainer.compile(pictures(), target=0), pictures(seed=1), target=0)
