"""Plans change nothing: models end what they begin, errors are those in Python, what is not used is freed."""

import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

import relprop
from by_graph import Small, assert_same, pictures
from by_plan import Counted, Model, assert_by_plan, early, in_python, layers, rows, with_plan
from networks import DOUBLE
from relprop import Explainer
from relprop.engine.surroundings import AttentionInParts
from relprop.errors import InputError, ModelError
from relprop.rules import Gamma
from relprop.targets import Part

__all__ = ["early"]

pytestmark = [
    pytest.mark.usefixtures("early"),
    pytest.mark.filterwarnings("ignore:the explained score is negative"),
]


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


@pytest.mark.parametrize("was", [True, False])
def test_whether_attention_layers_are_kernels(was: bool) -> None:
    settings, fails = [], False
    enabled = torch.backends.mha.get_fastpath_enabled

    def step(_: Model, h: Tensor) -> Tensor:
        settings.append(enabled())
        if fails:
            raise KeyboardInterrupt
        return h.relu()

    explainer = with_plan(Model(step), rows())
    torch.backends.mha.set_fastpath_enabled(was)
    try:
        explainer(rows())
        fails = True
        with pytest.raises(KeyboardInterrupt):
            explainer(rows())
        assert (settings[-2:], enabled()) == ([False, False], was)
        one, other = AttentionInParts(), AttentionInParts()
        with one, other:
            one.__exit__()
            assert not enabled()  # another thread's run goes on
        assert enabled() == was
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_an_interrupt_while_attention_layers_become_kernels_again(monkeypatch: pytest.MonkeyPatch) -> None:
    mha = torch.backends.mha
    guard, set_enabled = AttentionInParts(), mha.set_fastpath_enabled

    def interrupted(enabled: bool) -> None:
        monkeypatch.setattr(mha, "set_fastpath_enabled", set_enabled)
        raise KeyboardInterrupt

    guard.__enter__()
    monkeypatch.setattr(mha, "set_fastpath_enabled", interrupted)
    with pytest.raises(KeyboardInterrupt):
        guard.__exit__()
    guard.__exit__()
    assert mha.get_fastpath_enabled()


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


class _Count:
    """Of an object that is no part of the model."""

    runs = 0


COUNT = _Count()


@pytest.mark.parametrize(
    "step",
    [lambda x: x.sigmoid() if x.sum() > 0 else x.tanh(), lambda x: x.sigmoid()],
    ids=["it branches", "it does not"],
)
def test_how_often_the_model_runs(step: Callable[[Tensor], Tensor]) -> None:
    layer, COUNT.runs = nn.Linear(4, 3).double(), 0

    def model(x: Tensor) -> Tensor:
        COUNT.runs += 1
        return layer(step(x))

    explainer = Explainer(model, rules="epsilon")
    for number in range(100):
        explainer(rows(seed=number).abs() * (-1) ** number)
    assert 100 < COUNT.runs <= 108


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
        "torch.manual_seed(0)  # a plan that is made of a batch without negative values is for such batches\n"
        "explainer = relprop.Explainer(torch.nn.Linear(4, 3), rules='epsilon')\n"
        "for _ in range(4): explainer(torch.randn(2, 4), target=1)\n"
        "(kind,) = explainer._plans._kinds.values()\n"
        "assert kind.is_proven\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
