"""`Explainer.compile`: graphs give what the explainer gives, or are not used."""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from by_graph import SMALL, Small, assert_by_graph, assert_same, graphs_of, pictures, small
from networks import DOUBLE
from relprop import PRESETS, Explainer
from relprop.errors import InputError, ModelError
from relprop.rules import Epsilon, Gamma

pytestmark = pytest.mark.filterwarnings("ignore:the explained score is negative")

BOUNDS = (0.0, 1.0)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", SMALL)
def test_every_preset(name: str, preset: str) -> None:
    model, (x, other, more) = small(name, 2, 2, 3)
    explainer = Explainer(model, rules=preset, bounds=BOUNDS if PRESETS[preset].needs_bounds else None)
    compiled = explainer.compile(x, target=1)
    assert_by_graph(explainer, compiled, x, target=1)
    assert_by_graph(explainer, compiled, other, target=3)
    assert_by_graph(explainer, compiled, more, target=3, graphs=2)


@pytest.mark.parametrize("preset", PRESETS)
def test_few_values_are_looked_at(preset: str) -> None:
    """Whether inputs are finite, non-negative, within the bounds; whether a ReLU stops all relevance."""
    model, x = relprop.load("mnist-cnn").eval(), torch.rand(2, 1, 32, 32)
    explainer = Explainer(model, rules=preset, bounds=BOUNDS if PRESETS[preset].needs_bounds else None)
    compiled = explainer.compile(x, target=1)
    assert compiled._graphs is not None
    (kind,) = compiled._graphs._kinds.values()
    assert kind.graphs[0].traced.guards <= 6


# ---- what is explained ----


@pytest.fixture
def explainer() -> Explainer:
    return Explainer(Small(), rules="epsilon-gamma-flat")


def test_targets(explainer: Explainer) -> None:
    """Classes are free. Another kind of target has a graph of its own."""
    targets = relprop.targets
    compiled = explainer.compile(pictures(), target=0)
    assert_by_graph(explainer, compiled, pictures(), target=4)
    assert_by_graph(explainer, compiled, pictures(), target=[4, 1], graphs=2)
    assert_by_graph(explainer, compiled, pictures(), target=[0, 0])
    assert_by_graph(explainer, compiled, pictures(), graphs=3)  # the best class of each
    assert_by_graph(explainer, compiled, pictures(seed=5))
    several = (targets.Contrastive(2), targets.RunnerUp(2), targets.LogOdds(2))
    for count, target in enumerate(several, 4):
        assert_by_graph(explainer, compiled, pictures(), target=target, graphs=count)
        assert_by_graph(explainer, compiled, pictures(), target=type(target)(3))


def test_several_targets(explainer: Explainer) -> None:
    compiled, done = explainer.compile(pictures(), target=0), []
    for _ in range(2):
        found = compiled.each(pictures(), targets=[1, 2], progress=lambda *numbers: done.append(numbers))
        for one, other in zip(found, explainer.each(pictures(), targets=[1, 2]), strict=True):
            assert_same(one, other)
    assert done == [(1, 2), (2, 2)] * 2
    assert graphs_of(compiled) == 2


def test_what_is_recorded(explainer: Explainer) -> None:
    compiled = explainer.compile(pictures(), target=0)
    options = {"target": 2, "record": "second", "parameters": "second.weight", "per_operation": True}
    for seed in (0, 1):
        found, expected = (e(pictures(seed=seed), **options) for e in (compiled, explainer))
        assert_same(found, expected)
        torch.testing.assert_close(found.inner["second"], expected.inner["second"])
        torch.testing.assert_close(dict(found.parameters), dict(expected.parameters))
        torch.testing.assert_close(found.ledger.operations, expected.ledger.operations)
    assert graphs_of(compiled) == 2


def test_arguments_by_name_and_in_containers() -> None:
    layer, head = nn.Linear(3, 4).double(), nn.Linear(4, 2).double()

    def model(
        batch: dict[str, Tensor], *, scale: float = 1.0, attention_mask: Tensor | None = None
    ) -> Tensor:
        h = layer(batch["x"]).relu() * scale
        return head(h if attention_mask is None else h * attention_mask)

    explainer = Explainer(model, rules=Epsilon(1e-3))
    x, mask = torch.randn(2, 3, **DOUBLE), torch.tensor([[1.0, 0, 1, 1]], **DOUBLE)
    compiled = explainer.compile({"x": x}, target=1)
    assert_by_graph(explainer, compiled, {"x": -x}, target=0)
    assert_by_graph(explainer, compiled, {"x": x}, target=0, scale=2.0, graphs=2)
    assert_by_graph(explainer, compiled, {"x": x}, target=0, kwargs={"attention_mask": mask}, graphs=3)
    assert_by_graph(explainer, compiled, {"x": x}, target=0, attention_mask=1 - mask)


def test_ids() -> None:
    embedding, head = nn.Embedding(9, 4).double(), nn.Linear(4, 3).double()
    explainer = Explainer(lambda ids: head(embedding(ids).relu().mean(1)), rules="cp-lrp")
    compiled = explainer.compile(torch.tensor([[1, 2, 3]]), target=1)
    assert_by_graph(explainer, compiled, torch.tensor([[4, 8, 0]]), target=2)


def test_plain_gradients_too() -> None:
    explainer = Explainer(Small(), rules="gradient-times-input")
    compiled = explainer.compile(pictures(), target=1)
    assert_by_graph(explainer, compiled, pictures(seed=3), target=2)


# ---- memory ----


def written_parts(x: Tensor) -> Tensor:
    """Write to views of a tensor that is made of nothing, and add to it."""
    made = torch.zeros(len(x), 4, **DOUBLE)
    view = made[:, 1:3]
    view.copy_(x[:, :2])
    made[:, 3] += x[:, 2] * 2
    return made


def added_constant(x: Tensor) -> Tensor:
    """Overwrite a constant between two uses."""
    constant = torch.ones(3, **DOUBLE)
    first = x * constant
    constant.mul_(5)
    return torch.cat([first, x * constant], 1)[:, :4]


def out_and_in_place(x: Tensor) -> Tensor:
    made = torch.empty(len(x), 3, **DOUBLE)
    torch.mul(x, 2, out=made)
    made.add_(x).relu_()
    return torch.cat([made, x[:, :1]], 1)


@pytest.mark.parametrize("step", [written_parts, added_constant, out_and_in_place])
def test_memory_that_is_written_to(step: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    head = nn.Linear(4, 2).double()
    explainer = Explainer(lambda x: head(step(x)), rules=Epsilon(1e-3))
    compiled = explainer.compile(torch.randn(2, 3, **DOUBLE), target=1)
    for _ in range(3):
        assert_by_graph(explainer, compiled, torch.randn(2, 3, **DOUBLE), target=0)


def test_results_are_the_callers(explainer: Explainer) -> None:
    """What a caller does to them changes no later result."""
    compiled = explainer.compile(pictures(), target=0)
    expected = explainer(pictures(), target=0)
    for _ in range(2):
        found = compiled(pictures(), target=0)
        assert_same(found, expected)
        for tensor in (found.relevance, found.score, found.output, *found.ledger.absorbed.values()):
            tensor.fill_(7)


# ---- what depends on values ----


def test_a_model_that_branches_on_values() -> None:
    model, other = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    explainer = Explainer(lambda x: model(x) if x.sum() > 0 else other(x), rules=Epsilon(1e-3))
    x = torch.rand(2, 3, **DOUBLE)
    compiled = explainer.compile(x, target=0)
    assert_by_graph(explainer, compiled, x * 2, target=0)
    assert_by_graph(explainer, compiled, -x, target=0, graphs=2)
    assert_by_graph(explainer, compiled, -x * 3, target=0)
    assert_by_graph(explainer, compiled, x * 3, target=0)


def test_values_that_operations_of_a_graph_refuse() -> None:
    """The graph looks up rows that the part of the table does not have which the example needed."""
    table, head = nn.Embedding(9, 4).double(), nn.Linear(4, 3).double()

    def model(ids: Tensor) -> Tensor:
        return head(nn.functional.embedding(ids, table.weight[: int(ids.max()) + 1]).tanh().mean(1))

    explainer = Explainer(model, rules="cp-lrp")
    compiled = explainer.compile(torch.tensor([[1, 0, 1]]), target=1)
    assert_by_graph(explainer, compiled, torch.tensor([[0, 1, 1]]), target=1)
    assert_by_graph(explainer, compiled, torch.tensor([[5, 7, 0]]), target=1, graphs=2)
    assert_by_graph(explainer, compiled, torch.tensor([[7, 2, 0]]), target=1)


def test_numbers_of_values() -> None:
    """Each batch has others: after a few graphs there are no more."""
    model = nn.Linear(3, 2).double()
    explainer = Explainer(lambda x: model(x * float(x.max())), rules=Epsilon(1e-3))
    compiled = explainer.compile(torch.rand(2, 3, **DOUBLE), target=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for seed in range(6):
            x = torch.rand(2, 3, generator=torch.Generator().manual_seed(seed), **DOUBLE)
            assert_same(compiled(x, target=0), explainer(x, target=0))
    said = [str(w.message) for w in caught if "without a graph" in str(w.message)]
    assert said == [
        "the explanation is computed without a graph: what the model does depends on values, and differs "
        "from batch to batch. The result is the same."
    ]


def by_numpy(x: Tensor) -> Tensor:
    return x * torch.as_tensor(x.detach().numpy().max())


def by_list(x: Tensor) -> Tensor:
    return x * max(x.detach().flatten().tolist())


def by_mask(x: Tensor) -> Tensor:
    return x * x[x > 0.5].sum().detach()


def by_chance(x: Tensor) -> Tensor:
    return x + torch.rand(3, **DOUBLE)


def in_spite_of(x: Tensor) -> Tensor:
    """Catch what the trace raises."""
    try:
        return by_list(x)
    except Exception:
        return x


REFUSED = {
    by_numpy: r"values that depend on the inputs leave torch by numpy\(\)",
    by_list: r"values that depend on the inputs leave torch by tolist\(\)",
    by_mask: "the shape of what aten::index returns depends on values",
    by_chance: "aten::rand draws random numbers",
    in_spite_of: r"leave torch by tolist\(\)",
}


@pytest.mark.parametrize("step", REFUSED)
def test_what_a_graph_cannot_say(step: Callable[[Tensor], Tensor]) -> None:
    model = nn.Linear(3, 2).double()
    explainer = Explainer(lambda x: model(step(x)), rules=Epsilon(1e-3))
    x = torch.rand(2, 3, **DOUBLE)
    with pytest.warns(UserWarning, match="computed without a graph: .*" + REFUSED[step]):
        compiled = explainer.compile(x, target=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*without a graph")  # it is said once
        torch.manual_seed(0)
        found = compiled(x * 2, target=1)
    torch.manual_seed(0)
    assert_same(found, explainer(x * 2, target=1))


def test_a_model_that_writes_to_its_buffers() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2).double()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.layer(x)

    model = Counting().eval()
    with pytest.warns(UserWarning, match="the model writes to a tensor that it keeps, such as a buffer"):
        compiled = Explainer(model, rules=Epsilon(1e-3)).compile(torch.rand(2, 3, **DOUBLE), target=0)
    before = float(model.calls)
    compiled(torch.rand(2, 3, **DOUBLE), target=0)
    assert float(model.calls) == before + 1


def test_options_that_are_not_part_of_a_graph(explainer: Explainer) -> None:
    compiled = explainer.compile(pictures(), target=0)
    with pytest.warns(UserWarning, match="without a graph: start= and conditions= are not part of a graph"):
        found = compiled(pictures(), target=1, start="second")
    assert_same(found, explainer(pictures(), target=1, start="second"))


def test_a_graph_that_gives_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if values were lost to the trace in a way that nobody thought of."""
    monkeypatch.setattr("relprop.runs.tape._LEAVES", frozenset())
    model = nn.Linear(3, 2).double()
    explainer = Explainer(lambda x: model(by_list(x)), rules=Epsilon(1e-3))
    x = torch.rand(2, 3, **DOUBLE)
    x[0, 0] = 3.0
    with pytest.warns(UserWarning, match="graph gives another relevance of input 'x'"):
        compiled = explainer.compile(x, target=0)
    assert graphs_of(compiled) == 0


# ---- errors ----


def test_without_an_example(explainer: Explainer) -> None:
    compiled = explainer.compile()
    assert graphs_of(compiled) == 0
    assert_by_graph(explainer, compiled, pictures(seed=1), target=2, graphs=1)
    assert_by_graph(explainer, compiled, pictures(seed=2), target=3)
    in_pieces = explainer.compile(dynamic=True)
    assert_by_graph(explainer, in_pieces, pictures(samples=3), target=2, graphs=1)
    assert_by_graph(explainer, in_pieces, pictures(samples=7), target=2)


def test_examples_and_modes_without_meaning(explainer: Explainer) -> None:
    with pytest.raises(InputError, match=r"explainer.compile\(target=3\): give an example of the model's"):
        explainer.compile(target=3)
    with pytest.raises(InputError, match="give mode='replay' or mode='inductor'"):
        explainer.compile(pictures(), target=0, mode="fast")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError) as caught:
        explainer.compile(torch.rand(2, 3, **DOUBLE), target=0)
    assert "This is the model's own error" in "".join(caught.value.__notes__)
    with pytest.raises(InputError, match="target 9 is out of range: the output has 5 classes"):
        explainer.compile(pictures(), target=9)
    blocks = Explainer(Small(), rules="epsilon", checkpoint="second")
    with pytest.raises(InputError, match="has checkpoint=, which saves memory by computing again"):
        blocks.compile(pictures(), target=0)


def test_errors_of_a_replay_are_those_without_a_graph(explainer: Explainer) -> None:
    compiled = explainer.compile(pictures(), target=0)
    with pytest.raises(InputError, match="target 9 is out of range: the output has 5 classes"):
        compiled(pictures(), target=9)
    compiled(pictures(), target=[0, 1])
    with pytest.raises(InputError, match="target has 3 classes for 2 samples"):
        compiled(pictures(), target=[0, 1, 2])
    wrong = pictures()
    wrong[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="input 'x' has 1 values that are NaN or infinite"):
        compiled(wrong, target=0)
    compiled.model.train()
    with pytest.raises(ModelError, match="training mode"):
        compiled(pictures(), target=0)
    compiled.model.eval()
    assert_by_graph(explainer, compiled, pictures(seed=4), target=0)


def test_warnings_of_a_replay_are_those_without_a_graph() -> None:
    explainer = Explainer(nn.Sequential(nn.Linear(3, 2)).double().eval(), rules="epsilon")
    x = torch.randn(4, 3, **DOUBLE)
    scores = explainer.model(x)[:, 0]
    compiled = explainer.compile(x[scores > 0], target=0)
    low = x[scores < 0][:1].expand(int((scores > 0).sum()), -1).contiguous()
    with pytest.warns(relprop.errors.ScoreWarning, match="the explained score is negative"):
        compiled(low, target=0)


def test_it_says_what_it_is(explainer: Explainer) -> None:
    assert repr(explainer.compile(pictures(), target=0)).endswith(".compile(..., mode='replay')")


# ---- threads ----


def test_threads_share_graphs(explainer: Explainer) -> None:
    compiled = explainer.compile(pictures(), target=0)
    expected = [explainer(pictures(n, seed=n), target=1) for n in range(1, 5)]
    failed: list[Any] = []

    def work() -> None:
        try:
            for n in (1, 2, 3, 4) * 3:
                assert_same(compiled(pictures(n, seed=n), target=1), expected[n - 1])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert graphs_of(compiled) <= 5


def test_rules_of_the_user_are_part_of_a_graph() -> None:
    explainer = Explainer(Small(), rules=[("first.0", Gamma(1.0)), ("*", Epsilon(1e-2))])
    compiled = explainer.compile(pictures(), target=0)
    assert_by_graph(explainer, compiled, pictures(seed=9), target=2)
