"""Autograd functions and modules that are declared as a whole: one operation, into which nobody looks."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

import relprop
from networks import DOUBLE, close, linear
from relprop.errors import CoverageError, InputError, ModelError
from relprop.operations import Gate

RULES = ["epsilon", "epsilon-plus-flat", "cp-lrp", "attnlrp"]
ONE, TWO, HEAD, X = linear(5, 6), linear(6, 6), linear(6, 3), torch.randn(3, 5, **DOUBLE)


class ByNumPy(Function):
    """SiLU, and no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        values = x.detach().numpy()
        return torch.from_numpy(values / (1 + np.exp(-values)))


class Blur(Function):
    """In the style without a context, with a gradient."""

    @staticmethod
    def forward(x: Tensor, amount: float) -> Tensor:  # type: ignore[override]
        return torch.from_numpy(x.detach().numpy() + amount * np.roll(x.detach().numpy(), 1, -1))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.amount = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return grad + ctx.amount * grad.roll(-1, -1), None


class Spike(Function):
    """As in spiking networks, whose own gradient is a surrogate."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: float = 0.0) -> Tensor:  # type: ignore[override]
        return (x > threshold).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return grad, None


class Fake(nn.Module):
    """A module with parameters that rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(8.0, **DOUBLE))

    def forward(self, x: Tensor, *, times: float = 1.0) -> Tensor:
        return (x * self.scale).round() / self.scale * times


class Masked(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * (mask > 0) * mask.tanh()


class Leaky(nn.Module):
    """Two of them differ in a number that is no argument."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, self.slope * x)


class NoBackward(Function):
    """Of each element, without a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * x


class Summed(Function):
    """No function of single elements, without a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.cumsum(1)


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


class OfDictionary(nn.Module):
    def forward(self, given: dict[str, Tensor]) -> Tensor:
        return 2 * given["x"]


relprop.register(ByNumPy, "pointwise")
relprop.register(NoBackward, "linear")
relprop.register(Summed, "linear")
relprop.register(Halves, "pointwise")
relprop.register(OfDictionary, "linear")
relprop.register(Blur, "linear")
relprop.register(Spike, "identity")
relprop.register(Fake, "identity")
relprop.register(Masked, Gate("mask"))
relprop.register(Leaky, "pointwise")


class Network(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return HEAD(self.function(TWO(self.function(ONE(x)))))


def explained(function: Any, rules: Any = "epsilon", x: Tensor = X) -> relprop.Explanation:
    e = relprop.explain(Network(function).eval(), x, target=1, rules=rules)
    assert torch.equal(e.output, Network(function)(x))
    assert e.ledger.gap.max() < 1e-9
    return e


masked, leaky, other = Masked(), Leaky(0.1), Leaky(-0.5)

WHOLE = {
    "a function by NumPy": (ByNumPy.apply, F.silu),
    "a linear one": (lambda h: Blur.apply(h, 0.5), lambda h: h + 0.5 * h.roll(1, -1)),
    "a linear one of each element, without a backward": (NoBackward.apply, lambda h: 2 * h),
    "a gate": (lambda h: masked(h, h.flip(1)), lambda h: h * (h.flip(1).relu().tanh()).detach()),
    "a gate by its name": (
        lambda h: masked(mask=h.flip(1), x=h),
        lambda h: h * (h.flip(1).relu().tanh()).detach(),
    ),
    "modules of one class": (
        lambda h: other(leaky(h)),
        lambda h: (lambda a: torch.where(a > 0, a, -0.5 * a))(F.leaky_relu(h, 0.1)),
    ),
    "in a chain": (lambda h: 2 * ByNumPy.apply(h + 1) - h, lambda h: 2 * F.silu(h + 1) - h),
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", WHOLE)
def test_it_is_what_it_was_declared_to_be(name: str, rules: str) -> None:
    whole, spelled = WHOLE[name]
    if "gate" in name and rules == "attnlrp":
        rules = "epsilon"
    found, expected = explained(whole, rules), explained(spelled, rules)
    close(found.relevance, expected.relevance)
    close(explained(whole, rules, X[1:2]).relevance, found.relevance[1:2])


@pytest.mark.parametrize("whole", [lambda h: Spike.apply(h, 0.1), lambda h: Fake()(h, times=2.0)])
def test_relevance_stays_on_its_element(whole: Any) -> None:
    """Layer by layer, by LRP-0, from the values that the model has."""
    weights = [layer.weight.detach() for layer in (ONE, TWO, HEAD)]
    z1 = ONE(X).detach()
    a1 = whole(z1).detach()
    z2 = TWO(a1).detach()
    a2 = whole(z2).detach()
    R = HEAD(a2)[:, 1:2].detach() * torch.tensor([[0.0, 1.0, 0.0]], **DOUBLE)
    for x, z, weight in ((a2, HEAD(a2).detach(), weights[2]), (a1, z2, weights[1]), (X, z1, weights[0])):
        R = x * ((R / z) @ weight)
    close(explained(whole, relprop.rules.Epsilon(0)).relevance, R)


def test_without_an_explanation_and_for_subclasses_it_is_the_function_itself() -> None:
    class Sub(Spike):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
            return 2 * x

    assert torch.equal(Sub.apply(X), 2 * X)
    leaf = X.clone().requires_grad_()
    Spike.apply(leaf).sum().backward()
    assert torch.equal(leaf.grad, torch.ones_like(X))
    e = relprop.explain(lambda x: HEAD(TWO(Sub.apply(ONE(x)))), X, target=1, rules="epsilon")
    close(
        e.relevance, relprop.explain(lambda x: HEAD(TWO(2 * ONE(x))), X, target=1, rules="epsilon").relevance
    )


def test_a_plain_gradient_is_that_of_the_operations_in_it() -> None:
    found, expected = (
        relprop.explain(Network(f).eval(), X, target=1, rules="gradient-times-input").relevance
        for f in (leaky, lambda h: F.leaky_relu(h, 0.1))
    )
    close(found, expected)
    with pytest.raises(ModelError, match=r"detach in module .*: makes a constant"):
        relprop.explain(Network(ByNumPy.apply).eval(), X, target=1, rules="gradient-times-input")


def test_runs_with_all_that_explain_offers() -> None:
    model = Network(Fake()).eval()
    expected = relprop.explain(model, X, target=1, rules="epsilon", record="function")
    assert all(R.any() for R in expected.inner.calls["function"])
    found = relprop.explain(model, X, target=1, rules="epsilon", checkpoint="function")
    assert torch.equal(found.relevance, expected.relevance)
    explainer = relprop.Explainer(model, rules="epsilon")
    compiled = explainer.compile(X[:2], target=1)
    close(compiled(X[1:], target=1).relevance, explainer(X[1:], target=1).relevance)


def test_it_is_one_operation_in_coverage_and_a_word_may_be_taken_back() -> None:
    class Own(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
            return (2 * x.sigmoid()).round()

    with pytest.raises(ModelError, match=r"relprop\.register\(Own, 'identity'\)"):
        explained(Own.apply)
    relprop.register(Own, "identity")
    assert relprop.coverage(Network(Own.apply).eval(), X).complete
    first = explained(Own.apply).relevance
    relprop.register(Own, "pointwise")
    assert not torch.allclose(first, explained(Own.apply).relevance)


def test_what_is_not_true_of_it_is_told() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1, keepdim=True)

    class Writing(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
            return x.clamp_(min=0)

    relprop.register(Mean, "pointwise")
    with pytest.raises(CoverageError, match=r"Mean in module .*is no function of one tensor's elements"):
        relprop.explain(lambda x: HEAD(ONE(x) * Mean()(ONE(x))), X, target=1, rules="epsilon")
    relprop.register(Writing, "pointwise")
    with pytest.raises(InputError, match=r"register\(Writing, \.\.\.\): Writing writes to its input"):
        relprop.explain(lambda x: HEAD(Writing.apply(ONE(x))), X, target=1, rules="epsilon")
    with pytest.raises(InputError, match=r"register\(Mean, 'pointwse'\): say 'pointwise'"):
        relprop.register(Mean, "pointwse")
    with pytest.raises(InputError, match="Or give the class of an autograd function or of a module"):
        relprop.register(torch.relu, "pointwise")  # type: ignore[arg-type]


def test_the_coverage_has_a_declared_class() -> None:
    class Thrice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 3

    relprop.register(Thrice, "linear")
    covered = relprop.coverage(nn.Sequential(Thrice(), nn.Linear(3, 2)).eval(), torch.rand(2, 3))
    assert [(c.operation, c.how) for c in covered.crossings][:1] == [("Thrice", "as it was declared")]
    assert len(covered.crossings) == 2


REFUSED = {
    "no backward": (
        Summed.apply,
        "it has no backward; give Summed a static method backward(ctx, grad), which returns the gradient "
        "of each argument",
    ),
    "not pointwise": (
        Halves(),
        "it was registered as 'pointwise', but is no function of single elements: for zeros of another shape "
        "it raises IndexError",
    ),
    "how it is registered": (Halves(), "as by relprop.register(Halves, 'pointwise') or 'linear'"),
    "how it is accepted": (Halves(), "explain(..., accept=['Halves'])"),
    "a dictionary": (
        lambda h: OfDictionary()({"x": h}),
        "register(OfDictionary, ...): OfDictionary takes tensors in a dictionary, and what is declared takes "
        "them as arguments, or in lists.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_crossed_as_declared_is_refused(name: str) -> None:
    function, said = REFUSED[name]
    with pytest.raises(relprop.RelpropError) as raised:
        explained(function)
    assert said in str(raised.value)
