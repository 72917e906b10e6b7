"""Functions that a model gives torch, as to `torch.cond` and `torch.vmap`, are seen as its other parts."""

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close, linear

ONE, HEAD, X = linear(4, 5), linear(5, 3), torch.randn(3, 4, **DOUBLE)
RULES = ["epsilon", "epsilon-plus-flat", "cp-lrp", "attnlrp"]
STATE = torch.zeros(5, **DOUBLE)


def hidden(x: Tensor) -> Tensor:
    return ONE(x).relu()


def over_rows(function: Callable[..., Any], x: Tensor) -> Any:
    return import_module("torch._higher_order_ops").map(function, x)  # which older versions do not have


def scan(function: Callable[..., Any], first: Tensor, x: Tensor) -> Any:
    return import_module("torch._higher_order_ops.scan").scan(function, first, x)


def while_loop(*arguments: Any) -> Any:
    return import_module("torch._higher_order_ops.while_loop").while_loop(*arguments)


def summed(carried: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    return carried + row, carried + row


def repeated(x: Tensor) -> Tensor:
    count, h = while_loop(lambda i, h: i < 2, lambda i, h: (i + 1, h.relu() * 2), (torch.tensor(0), ONE(x)))
    return h + 0 * count


SPELLED: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "vmap": (lambda x: torch.vmap(hidden)(x), hidden),
    "vmap in parts": (lambda x: torch.vmap(hidden, chunk_size=2)(x), hidden),
    "functionalize": (lambda x: torch.func.functionalize(hidden)(x), hidden),
    "jvp": (lambda x: torch.func.jvp(hidden, (x,), (torch.ones_like(x),))[0], hidden),
    "cond": (lambda x: torch.cond(torch.tensor(True), hidden, torch.tanh, (x,)), hidden),
    "cond on values": (lambda x: torch.cond(x.sum() > 1e9, lambda x: -hidden(x), hidden, (x,)), hidden),
    "while_loop": (repeated, lambda x: hidden(x) * 4),
    "map": (lambda x: over_rows(hidden, x), hidden),
    "scan": (lambda x: scan(summed, STATE, hidden(x))[1], lambda x: hidden(x).cumsum(0)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", SPELLED)
def test_it_is_what_its_functions_are(name: str, rules: str) -> None:
    way, plain = SPELLED[name]
    found, expected = (
        relprop.explain(lambda x, f=f: HEAD(f(x)), X, target=lambda y: y[:, 1].sum(), rules=rules)
        for f in (way, plain)
    )
    assert expected.relevance.any()
    close(found.relevance, expected.relevance)
    for sink, amounts in expected.ledger.absorbed.items():
        torch.testing.assert_close(found.ledger.absorbed[sink], amounts)
    assert "linear" in [
        c.operation for c in relprop.coverage(lambda x: HEAD(way(x)), X, rules=rules).crossings
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_derivative_within_a_model_is_an_error_or_a_gap_with_a_remedy() -> None:
    def tangent(x: Tensor) -> Tensor:
        return HEAD(torch.func.jvp(lambda x: ONE(x).tanh(), (x,), (torch.ones_like(x),))[1])

    with pytest.raises(
        relprop.errors.CoverageError, match=r"tanh_backward in module .*\n.*relprop\.register"
    ):
        relprop.explain(tangent, X, target=1, rules="epsilon")
    assert not relprop.coverage(tangent, X, rules="epsilon").complete
    with pytest.raises(relprop.RelpropError, match="relprop cannot run this model"):
        relprop.explain(lambda x: HEAD(ONE(torch.func.grad(lambda x: hidden(x).sum())(x))), X, target=1)


def test_a_choice_of_a_module_is_exported_and_explained() -> None:
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.head = ONE, HEAD

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.cond(x.sum() > -1e9, self.then, self.otherwise, (x,)))

        def then(self, x: Tensor) -> Tensor:
            return self.one(x).relu()

        def otherwise(self, x: Tensor) -> Tensor:
            return self.one(x).tanh()

    model = Choosing().eval()
    expected = relprop.explain(lambda x: HEAD(hidden(x)), X, target=1, rules="epsilon").relevance
    close(relprop.explain(model, X, target=1, rules="epsilon").relevance, expected)
    exported = torch.export.export(model, (X,)).module()
    close(relprop.explain(exported, X, target=1, rules="epsilon").relevance, expected)


PROGRAM = """
import sys, torch, relprop
from torch import nn

one, two = nn.Linear(4, 3).eval(), nn.Linear(4, 3).eval()
model = lambda x: torch.cond(x.sum() > -1e9, one, two, (x,))
assert "torch._dynamo" not in sys.modules
explain = relprop.coverage if sys.argv[1] == "coverage" else relprop.explain
print(explain(model, torch.randn(2, 4), rules="epsilon"))
"""


@pytest.mark.parametrize("what", ["explain", "coverage"])
def test_a_model_that_imports_the_compiler(what: str) -> None:
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, what], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert "linear" in said.stdout or "1 operation" in said.stdout


def test_the_model_runs_as_before_after_it_was_explained() -> None:
    """In a process of its own, which has not imported the compiler before."""
    program = """
import torch, warnings, relprop
warnings.simplefilter("ignore")
torch.manual_seed(0)
layer, head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
def model(x):
    return head(torch.cond(x.sum() > 0, lambda x: layer(x).relu(), lambda x: layer(x).tanh(), (x,)))
x = torch.rand(2, 4)
e = relprop.explain(model, x, target=1, rules="epsilon")
torch.testing.assert_close(model(x), head(layer(x).relu()))
torch.testing.assert_close(e.output, model(x))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
