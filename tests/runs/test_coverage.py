"""Which rule each operation gets, and what is not covered, before anything is explained."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE, network
from relprop.errors import InputError, ModelError, RuleError
from relprop.rules import BySize, Epsilon, Gamma, ZBox


class Angles(nn.Module):
    """Something unknown, three times at one place."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = x.atan2(torch.ones((), **DOUBLE))
        return x ** (torch.arange(x.shape[1]) - 1)


class Doubled(torch.autograd.Function):
    """A custom function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2


class Custom(nn.Module):
    """A module of such a function."""

    def forward(self, x: Tensor) -> Tensor:
        return Doubled.apply(x)


def test_a_covered_model() -> None:
    found = relprop.coverage(
        network(),
        torch.randn(2, 2, 6, 6, **DOUBLE),
        rules=[("*", BySize()), ("3", Gamma(0.1)), ("*", Epsilon())],
    )
    assert found.complete
    assert found.gaps == ()
    how = [(c.path, c.operation, c.how) for c in found.crossings]
    assert how[:5] == [
        ("0", "conv2d", "Epsilon(epsilon=1e-06)"),
        ("1", "batch_norm", "part of conv2d"),
        ("2", "relu", "pointwise"),
        ("3", "conv2d", "Gamma(gamma=0.1)"),
        ("4.sigmoid", "sigmoid", "pointwise"),
    ]
    assert ("9", "add", "BySize()") in how
    assert ("9.branch.1", "batch_norm", "part of conv2d") in how
    within = {c.path: c.within for c in found.crossings if c.within is not None}
    assert within["1"] == "0"
    assert within["9.branch.1"] == "9.branch.0"
    assert ("10", "batch_norm", "normalisation") in how
    assert ("14", "flatten", "rearranging") in how
    assert how[-1] == ("15", "linear", "Epsilon(epsilon=1e-06)")
    printed = str(found).splitlines()
    assert printed[0].split() == ["operation", "calls", "first", "in", "crossed", "by"]
    assert printed[-1] == f"{len(how)} of {len(how)} calls covered (100 %), rules: composite"
    row = next(line for line in printed if line.startswith("conv2d") and "Epsilon" in line)
    assert row.split() == ["conv2d", "4", "0", "Epsilon(epsilon=1e-06)"]


def test_gaps_are_no_error_and_come_first() -> None:
    model = (
        nn.Sequential(nn.Linear(4, 4), Angles(), nn.Linear(4, 4), Custom(), nn.Linear(4, 3)).double().eval()
    )
    found = relprop.coverage(model, torch.randn(2, 4, **DOUBLE), rules="epsilon")
    assert not found.complete
    gaps = [(c.path, c.operation, c.how) for c in found.gaps]
    assert gaps == [
        *[("1", "atan2", "NOT COVERED: no entry in the operation table")] * 3,
        (
            "1",
            "pow",
            "NOT COVERED: it is not finite at 0; covered are a constant base, and constant exponents that "
            "are not negative",
        ),
    ]
    assert [(c.path, c.how) for c in found.crossings if c.covered] == [
        ("0", "Epsilon(epsilon=1e-06)"),
        ("2", "Epsilon(epsilon=1e-06)"),
        ("3", "sums, products with constants"),
        ("4", "Epsilon(epsilon=1e-06)"),
    ]
    printed = str(found).splitlines()
    assert printed[1].split(maxsplit=3) == ["atan2", "3", "1", gaps[0][2]]
    assert [line.split()[0] for line in printed[2:-1]] == ["pow", "linear", "mul"]
    assert printed[-1] == "4 of 8 calls covered (50 %), rules: epsilon"
    with pytest.raises(relprop.errors.CoverageError, match="2 operations"):
        relprop.explain(model, torch.randn(2, 4, **DOUBLE), rules="epsilon")


def test_a_gap_that_is_met_again_is_no_covered_call() -> None:
    """The same line of the same module, which the errors of `explain` name once."""
    layer = Angles()
    found = relprop.coverage(lambda x: layer(layer(x)), torch.rand(2, 4, **DOUBLE), rules=Epsilon())
    assert [c.covered for c in found.crossings] == [False] * 8
    assert [(name, count) for name, _, count, _ in found.summary()] == [("atan2", 6), ("pow", 2)]


@pytest.mark.filterwarnings("ignore:.*torch.jit.:DeprecationWarning")
def test_scripted_modules_are_seen_into() -> None:
    scripted = torch.jit.trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval(), torch.randn(2, 4))
    model = nn.Sequential(nn.Linear(4, 4), scripted, nn.Linear(4, 3)).eval()
    found = relprop.coverage(model, torch.randn(2, 4), rules="epsilon")
    assert found.complete
    assert [c.operation for c in found.crossings] == ["linear", "linear", "relu", "linear"]


def test_an_operation_without_a_rule_is_a_gap() -> None:
    found = relprop.coverage(nn.Linear(4, 3).eval(), torch.randn(2, 4), rules=[(nn.Conv2d, Gamma())])
    (gap,) = found.gaps
    assert (gap.operation, gap.path) == ("linear", "")
    assert "no entry of the composite matches" in gap.how
    assert "(root)" in str(found)


def test_rules_and_arguments_are_as_for_explain() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, a: Tensor, *, scale: int, b: Tensor) -> Tensor:
            return self.linear(a * scale + b)

    inputs = {"scale": 2, "b": torch.rand(2, 4)}
    found = relprop.coverage(Two().eval(), torch.rand(2, 4), **inputs, rules="deep-taylor", bounds=(0, 1))
    assert found.preset == "deep-taylor"
    assert [c.how for c in found.crossings if c.operation == "linear"] == [str(ZBox(0, 1))]
    assert relprop.coverage(Two().eval(), torch.rand(2, 4), **inputs).preset == "epsilon-gamma-flat"
    assert relprop.coverage(lambda x: x * 2.0, torch.rand(2, 4)).complete


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"rules": "squared-gradient"},
            RuleError,
            "'squared-gradient' is a plain gradient, which covers",
        ),
        ({"rules": "epsilonn"}, RuleError, "there is no preset 'epsilonn'"),
        ({"rules": "deep-taylor"}, RuleError, "has a box rule, which needs"),
        (
            {"model": nn.Sequential(nn.Dropout(), nn.Linear(4, 3))},
            ModelError,
            "the model is in training mode",
        ),
        ({"x": torch.ones(2, 4, dtype=torch.int64)}, InputError, "nothing to explain"),
        ({"x": torch.ones(4)}, InputError, "has no dimension for samples"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(change: dict[str, Any], error: Any, message: str) -> None:
    model, x = change.pop("model", nn.Linear(4, 3).eval()), change.pop("x", torch.randn(2, 4))
    with pytest.raises(error, match=message):
        relprop.coverage(model, x, **change)


# ---- where explain finds nothing to explain ----


def all_without_gradient(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x @ torch.ones(4, 3)


def all_but_the_head(x: Tensor) -> Tensor:
    return torch.nn.functional.linear(x.detach().relu(), torch.ones(3, 4))


def of_its_shape(x: Tensor) -> Tensor:
    return torch.ones(len(x), 3)


def beside_the_logits(x: Tensor) -> dict[str, Tensor]:
    return {"hidden": x * 2, "logits": of_its_shape(x)}


def counted(x: Tensor) -> Tensor:
    return torch.nn.functional.embedding(x.long().cumsum(1) % 5, torch.ones(5, 3)).sum(1)


NOTHING = [
    (all_without_gradient, torch.float32, r"does not depend on the input .*\n  - matmul in .*no_grad"),
    (all_but_the_head, torch.float32, r"does not depend on the input .*\n  - detach in .*makes a constant"),
    (of_its_shape, torch.float32, "does not depend on the input through recorded operations"),
    (beside_the_logits, torch.float32, "does not depend on the input through recorded operations"),
    (
        counted,
        torch.int64,
        r"integers that the model does not look up: x of shape \(2, 4\).*\n  - cumsum in ",
    ),
    (of_its_shape, torch.int64, r"integers that the model does not look up: x of shape \(2, 4\)"),
]


@pytest.mark.parametrize(("model", "dtype", "message"), NOTHING)
def test_coverage_is_incomplete_where_explain_finds_nothing(model: Any, dtype: Any, message: str) -> None:
    x = torch.ones(2, 4, dtype=dtype)
    with pytest.raises((ModelError, InputError), match=message) as error:
        relprop.explain(model, x)
    found = relprop.coverage(model, x)
    assert not found.complete
    assert found.gaps == ()
    # In the same words; the lines of the two calls differ in the test alone.
    assert found.nothing == str(error.value)
    assert str(found).endswith(f"NOTHING IS EXPLAINED: {found.nothing}")


def test_coverage_of_an_output_of_another_kind_says_nothing_of_it() -> None:
    class Own:
        def __init__(self, y: Tensor) -> None:
            self.y = y

    found = relprop.coverage(lambda x: Own(x * 2), torch.ones(2, 4))
    assert found.complete
    assert found.nothing == ""
    assert "NOTHING" not in str(found)


def test_coverage_of_a_buffer_that_the_model_writes_to_is_complete() -> None:
    buffer = torch.zeros(2, 4)

    def model(x: Tensor) -> Tensor:
        return buffer.copy_(x)

    assert relprop.coverage(model, torch.ones(2, 4)).complete


def test_nothing_stays_behind_also_after_an_error() -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.register_buffer("seen", torch.zeros(2, 4))

        def forward(self, x: Tensor) -> Tensor:
            self.seen.copy_(x)
            if bool((x > 100).any()):
                raise ValueError("too large")
            return self.linear(self.seen)

    model, x = Writing().eval(), torch.randn(2, 4)
    state, given = copy.deepcopy(model.state_dict()), x.clone()
    attributes = [set(vars(m)) for m in model.modules()]
    assert relprop.coverage(model, x, rules="epsilon").complete
    with pytest.raises(ValueError, match="too large"):
        relprop.coverage(model, x + 1000, rules="epsilon")
    assert torch.equal(x, given)
    assert not x.requires_grad
    assert [set(vars(m)) for m in model.modules()] == attributes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items() if k != "seen")
    assert not model.seen.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    # No mode is left on: plain torch computes plain gradients.
    leaf = torch.randn(2, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(leaf.tanh().sum(), leaf)
    torch.testing.assert_close(gradient, 1 - leaf.tanh() ** 2)
