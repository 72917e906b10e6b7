"""Custom functions, compiled and scripted modules, and operators of other libraries."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from alike import same_relevance
from networks import DOUBLE
from relprop.errors import CoverageError, ModelError
from relprop.rules import Epsilon


def test_a_librarys_own_operator_is_not_taken_for_torchs() -> None:
    library = torch.library.Library("relprop_test", "DEF")
    library.define("relu(Tensor x) -> Tensor")
    library.impl("relu", lambda x: x.relu() ** 2, "CPU")
    with pytest.raises(CoverageError, match=r"relprop_test::relu in module"):
        relprop.explain(lambda x: torch.ops.relprop_test.relu(x), torch.randn(2, 4))
    library.define("squared(Tensor x) -> Tensor")
    library.impl("squared", lambda x: x.relu() ** 2, "CompositeImplicitAutograd")
    x = torch.rand(2, 4)
    e, expected = (
        relprop.explain(f, x, target=1) for f in (torch.ops.relprop_test.squared, lambda x: x.relu() ** 2)
    )
    torch.testing.assert_close(e.relevance, expected.relevance)
    e = relprop.explain(lambda x: torch.ops.aten.relu.default(x * 1.0), torch.ones(2, 4), target=1)
    torch.testing.assert_close(e.relevance.sum(1), torch.ones(2))


def test_a_compiled_model() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(2, 6, **DOUBLE)
    compiled(x)
    e = same_relevance(compiled, model, x)
    assert [a.path for a in e.rules] == ["0", "2"]


@pytest.mark.filterwarnings("ignore:Using `torch.compile\\(module\\)` when there are global hooks")
def test_a_compiled_part_of_a_model() -> None:
    inner = nn.Sequential(nn.Linear(6, 6), nn.ReLU()).double()
    model = nn.Sequential(inner, nn.Linear(6, 3).double()).eval()
    compiled = nn.Sequential(torch.compile(inner, backend="eager"), model[1]).eval()
    x = torch.randn(2, 6, **DOUBLE)
    compiled(x)
    e = same_relevance(compiled, model, x)
    assert [a.path for a in e.rules] == ["0.0", "1"]


KERNELS = torch.library.Library("relprop_hints", "DEF")

KERNELS.define("flash_attn(Tensor q, Tensor k, Tensor v) -> Tensor")
KERNELS.impl("flash_attn", lambda q, k, v: (q @ k.mT).softmax(-1) @ v, "CPU")


class Attention(nn.Module):
    """A kernel of another library."""

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = torch.ops.relprop_hints.flash_attn(x, x, x)
        return attended


def test_a_foreign_kernel_of_attention_has_a_remedy() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Attention(), nn.Flatten()).eval()
    message = (
        r"relprop_hints::flash_attn in module '1' at .*attn_implementation='sdpa', or call F\.scaled_dot"
    )
    with pytest.raises(CoverageError, match=message):
        relprop.explain(model, torch.randn(2, 3, 4), rules="attnlrp")


class Square(torch.autograd.Function):
    """A custom function, with a backward that says something else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.full_like(gradient, torch.nan)


class Custom(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Square.apply(x)


def test_a_custom_function_is_what_its_forward_computes() -> None:
    first, last, x = nn.Linear(4, 4).eval(), nn.Linear(4, 3).eval(), torch.randn(2, 4)
    e = relprop.explain(nn.Sequential(first, Custom(), last).eval(), x, target=1, rules=Epsilon(0.1))
    expected = relprop.explain(lambda x: last(first(x) * first(x)), x, target=1, rules=Epsilon(0.1))
    torch.testing.assert_close(e.relevance, expected.relevance)


def test_a_custom_function_that_is_called_without_gradient_is_a_constant() -> None:
    class Cutting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.custom = Custom()

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return self.custom(x)

    with pytest.raises(ModelError, match=r"runs under torch.no_grad\(\)"):
        relprop.explain(nn.Sequential(Cutting(), nn.Linear(4, 3)).eval(), torch.randn(2, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_module_is_what_it_was_scripted_from() -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    first, last, x = nn.Linear(4, 4).eval(), nn.Linear(4, 3).eval(), torch.randn(2, 4)
    e, expected = (
        relprop.explain(nn.Sequential(first, part, last).eval(), x, target=1, rules=Epsilon(0.1))
        for part in (torch.jit.script(inner), inner)
    )
    torch.testing.assert_close(e.relevance, expected.relevance)


def test_what_a_custom_function_overwrites_is_overwritten() -> None:
    class Overwriting(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.mark_dirty(x)
            x[:, 1:].zero_()
            return x

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

    linear, x = nn.Linear(4, 4).double().eval(), torch.randn(2, 4, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        z = linear(x)
        Overwriting.apply(z)
        return z

    e = relprop.explain(model, x, target=lambda y: y.sum(1), rules=Epsilon(0.1))
    expected = relprop.explain(linear, x, target=0, rules=Epsilon(0.1))
    torch.testing.assert_close(e.relevance, expected.relevance)
    torch.testing.assert_close(e.output, model(x))
