"""What the user's program computes around an explanation, or while it runs, is as it would be without it."""

import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.torch_version import TorchVersion
from torch.utils.flop_counter import FlopCounterMode

import relprop
from relprop import Explainer
from relprop.errors import InputError
from relprop.linear.operation import Incoming, LinearOperation, Propagated
from relprop.rules import Epsilon

pytestmark = pytest.mark.filterwarnings("ignore:the explained score is negative")

x = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def test_training_after_an_explanation_with_cached_parametrizations() -> None:
    def gradients(*, explained: bool) -> list[Tensor | None]:
        model = network()
        parametrizations.weight_norm(model[0])
        model.eval()
        with parametrize.cached():
            if explained:
                Explainer(model, rules="epsilon")(x, target=0)
            model(x).square().sum().backward()
        assert parametrize._cache_enabled == 0
        return [weight.grad for weight in model.parameters()]

    for found, expected in zip(gradients(explained=True), gradients(explained=False), strict=True):
        assert found is not None
        assert torch.equal(found, expected)


def test_an_error_leaves_parametrizations_cached() -> None:
    model = network()
    with parametrize.cached():
        with pytest.raises(InputError, match="out of range"):
            Explainer(model, rules="epsilon")(x, target=7)
        assert parametrize._cache_enabled == 1
    assert parametrize._cache_enabled == 0


@pytest.mark.parametrize("rules", ["epsilon", "gradient-times-input"])
def test_a_callback_of_progress_trains(rules: str) -> None:
    trained = []

    def progress(_done: int, _all: int) -> None:
        other = nn.Linear(2, 1)
        other(torch.ones(3, 2)).sum().backward()
        trained.append(other.weight.grad)

    Explainer(network(), rules=rules).each(x, targets=[0, 1], progress=progress)
    assert len(trained) == 2
    assert all([torch.equal(grad, torch.full((1, 2), 3.0)) for grad in trained])


def may_have_threads() -> bool:
    """Whether a backward on a GPU may be in threads of torch's own, where nothing is known of a run."""
    return torch._C._is_multithreading_enabled()


@dataclass(frozen=True)
class Noting(Epsilon):
    """Notes whether the backward that applies it may be in another thread than the run."""

    noted: ClassVar[list[bool]] = []

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        self.noted.append(may_have_threads())
        return super().__call__(op, incoming)


def test_relevance_is_propagated_in_the_thread_of_the_run() -> None:
    Noting.noted.clear()
    relprop.explain(network(), x, target=0, rules=Noting())
    Explainer(network(), rules=Noting()).each(x, targets=[0, 1])
    with relprop.propagating(Noting()):
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(network()(leaf)[:, 0].sum(), leaf)
    assert Noting.noted == [False] * 8
    assert may_have_threads()


def test_flops_are_counted() -> None:
    model = network()
    expected = relprop.explain(model, x, target=0)
    with FlopCounterMode(display=False) as counted:
        found = relprop.explain(model, x, target=0)
    assert torch.equal(found.relevance, expected.relevance)
    assert counted.get_total_flops() > 0


WITHIN_COMPILED_CODE = """
import torch
from torch import nn

import relprop
from relprop.errors import InputError

model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval(), torch.rand(5, 4)


def relevance(x):
    return relprop.explain(model, x, target=0, rules="epsilon").relevance


try:
    torch.compile(relevance, backend="eager")(x)
except InputError as error:
    assert "Put @torch.compiler.disable before a function of your own" in str(error)
else:
    raise AssertionError("no error")
apart = torch.compiler.disable(relevance)
compiled = torch.compile(lambda x: apart(x * 1) * 2, backend="eager")
assert torch.equal(compiled(x), relevance(x) * 2)
"""


@pytest.mark.skipif(
    TorchVersion(torch.__version__) < "2.7",
    reason="the compiler of torch 2.6 fails by itself on such a function",
)
def test_a_compiled_function_that_explains() -> None:
    # In a process of its own: the compiler looks into relprop's caches, from which others may be collected.
    subprocess.run([sys.executable, "-W", "ignore", "-c", WITHIN_COMPILED_CODE], check=True)
