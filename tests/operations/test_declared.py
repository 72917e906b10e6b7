"""Operations that are declared by one word, with the name that an error prints."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relprop
from alike import same_relevance
from networks import DOUBLE, linear
from relprop.errors import CoverageError, InputError
from relprop.operations import WORDS, Gate
from relprop.rules import Epsilon, Flat, Gamma, ZPlus
from relprop.testing import check_operation

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), **DOUBLE)
RULES = [Epsilon(0.1), ZPlus(), Gamma(0.3), Flat(), "attnlrp", "cp-lrp"]


pytestmark = pytest.mark.usefixtures("table")


@pytest.fixture(scope="module")
def ops() -> Iterator[Any]:
    """Operations of another library: some with a gradient, and some without."""
    with torch.library._scoped_library("declared", "DEF") as library:
        library.define("soft_clip(Tensor x) -> Tensor")
        library.impl("soft_clip", lambda x: x / (1 + x.abs()), "CompositeExplicitAutograd")
        library.define("shifted_log(Tensor x, float floor) -> Tensor")
        library.impl("shifted_log", lambda x, floor: torch.log(x.abs() + floor), "CompositeExplicitAutograd")
        library.define("steps(Tensor x) -> Tensor")
        library.impl("steps", lambda x: torch.round(3 * x), "CompositeExplicitAutograd")
        library.define("smoothed(Tensor x, Tensor bias) -> Tensor")
        library.impl("smoothed", Smoothed.apply, "CompositeExplicitAutograd")
        library.define("mixed(Tensor x, Tensor gate, float by) -> Tensor")
        library.impl("mixed", lambda x, gate, by: by * x * gate, "CompositeExplicitAutograd")
        for name, gradient in (("smoothed", smoothed_back), ("mixed", mixed_back)):
            torch.library.register_autograd(
                f"declared::{name}", gradient, setup_context=keep_inputs, lib=library
            )
        library.define("mean_of(Tensor x) -> Tensor")
        library.impl("mean_of", lambda x: x.mean(1, keepdim=True), "CompositeExplicitAutograd")
        yield torch.ops.declared


class Smoothed:
    @staticmethod
    def apply(x: Tensor, bias: Tensor) -> Tensor:
        return x + 0.5 * x.roll(1, -1) + bias


def keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.inputs = inputs


def smoothed_back(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return grad + 0.5 * grad.roll(-1, -1), None


def mixed_back(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    x, gate, by = ctx.inputs
    return by * gate * grad, by * x * grad, None


def named_by_the_error(model: Callable[[Tensor], Tensor]) -> str:
    """The name of the one operation that is not covered."""
    with pytest.raises(CoverageError) as error:
        relprop.explain(model, X, target=1)
    (name,) = re.findall(r"relprop.register\('([^']+)', 'pointwise'\)", str(error.value))
    assert f"- {name} in module" in str(error.value)
    return str(name)


def compared(model: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]) -> None:
    first, last = linear(6, 6), linear(6, 3)
    for rules in RULES:
        same_relevance(lambda x: last(model(first(x))), lambda x: last(other(first(x))), X, rules, target=1)


def test_a_pointwise_function(ops: Any) -> None:
    relprop.register(named_by_the_error(ops.soft_clip), "pointwise")
    compared(ops.soft_clip, F.softsign)
    compared(lambda h: h * ops.soft_clip(h), lambda h: h * F.softsign(h))
    check_operation(ops.soft_clip, X)


def test_a_pointwise_function_that_is_not_zero_at_zero(ops: Any) -> None:
    relprop.register(named_by_the_error(lambda x: ops.shifted_log(x, 0.5)), "pointwise")
    compared(lambda h: ops.shifted_log(h, 0.5), lambda h: torch.log(h.abs() + 0.5))


def test_a_linear_function_with_a_constant(ops: Any) -> None:
    """What the constant adds is absorbed, as by a sum."""
    bias = torch.linspace(-1, 1, 6, **DOUBLE)
    relprop.register(named_by_the_error(lambda x: ops.smoothed(x, bias)), "linear")
    first, last = linear(6, 6), linear(6, 3)
    for rules in (Epsilon(0.1), ZPlus(), Gamma(0.3)):
        e = relprop.explain(lambda x: last(ops.smoothed(first(x), bias)), X, target=1, rules=rules)
        other = relprop.explain(
            lambda x: last(first(x) + (0.5 * first(x).roll(1, -1) + of_samples(bias, x))),
            X,
            target=1,
            rules=rules,
        )
        torch.testing.assert_close(e.ledger.absorbed["constant"], other.ledger.absorbed["constant"])
        assert e.ledger.gap.max() < 1e-10
    zero = torch.zeros(6, **DOUBLE)
    check_operation(lambda x: ops.smoothed(x, zero), X, like_gradient=True)
    check_operation(lambda x: ops.smoothed(x, bias), X, like_gradient=True)


def of_samples(constant: Tensor, x: Tensor) -> Tensor:
    """The constant as one that was computed from the samples, which is folded into no layer."""
    return constant + 0 * x.detach()[:, :6]


def test_a_product_and_its_gate(ops: Any) -> None:
    def model(x: Tensor) -> Tensor:
        return ops.mixed(x, x.flip(1).sigmoid(), 2.0)

    name = named_by_the_error(model)
    relprop.register(name, "product")
    compared(model, lambda x: 2 * x * x.flip(1).sigmoid())
    compared(lambda x: ops.mixed(x, x.flip(1), 2.0), lambda x: 2 * x * x.flip(1))
    compared(lambda x: ops.mixed(x, X.detach(), 2.0), lambda x: 2 * x * X.detach())
    relprop.register(name, Gate("gate"))
    compared(lambda x: ops.mixed(x, x.flip(1), 2.0), lambda x: 2 * x * x.flip(1).detach())
    e = relprop.explain(lambda x: ops.mixed(x, x.flip(1), 2.0), X, target=1, rules="attnlrp")
    assert str(e.rules[0]) == "(root): declared::mixed: SignalTakesAll()"


def test_an_identity(ops: Any) -> None:
    """All relevance stays on its element, also where a secant would lose what f has at zero."""
    relprop.register(named_by_the_error(lambda x: ops.shifted_log(x, 0.5)), "identity")
    e = relprop.explain(lambda x: ops.shifted_log(x, 0.5), X, target=2, rules=Epsilon(0))
    torch.testing.assert_close(e.relevance[:, 2], torch.log(X[:, 2].abs() + 0.5))
    assert not e.relevance[:, [0, 1, 3, 4, 5]].any()
    first, last = linear(6, 6), linear(6, 3)
    for rules in RULES:
        e = relprop.explain(lambda x: last(ops.shifted_log(first(x), 0.5)), X, target=1, rules=rules)
        assert e.ledger.gap.max() < 1e-10
    at_zero = relprop.explain(lambda x: ops.shifted_log(x, 0.5), 0 * X, target=2, rules=Epsilon(0))
    torch.testing.assert_close(at_zero.ledger.absorbed["zero input"], X.new_full((3,), 0.5).log())


def test_a_constant(ops: Any) -> None:
    def model(x: Tensor) -> Tensor:
        return x + ops.steps(x)

    with pytest.raises(CoverageError, match="declared::steps in module"):
        relprop.explain(model, X, target=1)
    relprop.register("declared::steps", "constant")
    compared(model, lambda x: x + (3 * x).round())


def test_a_custom_operation_of_python() -> None:
    @torch.library.custom_op("declared_python::soft_clip", mutates_args=())
    def soft_clip(x: Tensor) -> Tensor:
        return x / (1 + x.abs())

    relprop.register(named_by_the_error(soft_clip), "pointwise")
    compared(soft_clip, F.softsign)


ERRORS: dict[str, Callable[[Tensor], Tensor]] = {
    "atan2": lambda x: x.atan2(torch.ones((), **DOUBLE)),
    "nextafter": lambda x: x.nextafter(torch.ones((), **DOUBLE)),
    "linalg_matrix_exp": lambda x: torch.linalg.matrix_exp(x[:, :3, None] * x[:, None, :3]).flatten(1),
    "_linalg_det": lambda x: torch.linalg.det(x[:, :3, None] + x[:, None, :3]).unsqueeze(1).expand(3, 2),
    "nll_loss": lambda x: F.nll_loss(x, torch.tensor([1, 0, 2]), reduction="none")[:, None].expand(3, 2),
    "pow": lambda x: 2**x,
    "log": lambda x: x.abs().log(),
    "scatter_reduce": lambda x: x.scatter_reduce(1, torch.zeros(3, 6).long(), x, "prod"),
}
"""Functions with an operation that is not covered, by the name that the error prints or by a part of it."""


@pytest.mark.parametrize("name", ERRORS)
def test_the_name_that_an_error_prints_is_the_one_to_register(name: str) -> None:
    printed = named_by_the_error(ERRORS[name])
    assert name in printed
    relprop.register(printed, "constant")
    with pytest.raises(relprop.errors.ModelError, match=rf"{printed} in module .*: is constant between"):
        relprop.explain(ERRORS[name], X, target=1)


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("cumsumm", "linear", r"register\('cumsumm', ...\): torch has no .*Did you mean 'cumsum'"),
        ("cumsum", "liner", r"say 'pointwise', 'linear', .*Did you mean 'linear'"),
        ("cumsum", "gate", r"register\('cumsum', 'gate'\): say 'pointwise', .*, or give an entry"),
    ],
)
def test_what_is_no_name_or_no_word_is_told(name: str, entry: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        relprop.register(name, entry)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("pointwise", "'pointwise', but is no function of one tensor's elements"),
        ("identity", r"'identity', but does not keep the shape \(3, 6\)"),
        ("linear", "torch has no gradient of it; give it one by torch.library.register_autograd"),
    ],
)
def test_a_word_that_is_not_true_is_told(ops: Any, entry: str, message: str) -> None:
    relprop.register("declared::mean_of", entry)
    with pytest.raises(CoverageError, match=message):
        relprop.explain(lambda x: ops.mean_of(x) + x, X, target=1)


def test_a_pointwise_function_that_is_infinite_at_zero_is_told(ops: Any) -> None:
    relprop.register("declared::shifted_log", "pointwise")
    with pytest.raises(CoverageError, match="is not finite where its tensor is zero"):
        relprop.explain(lambda x: ops.shifted_log(x, 0.0), X, target=1)


def test_a_gate_that_the_operation_does_not_have_is_told(ops: Any) -> None:
    relprop.register("declared::mixed", Gate("mask"))
    with pytest.raises(InputError, match=r"Gate\(argument='mask'\)\): .* no such argument, only x, gate, by"):
        relprop.explain(lambda x: ops.mixed(x, x, 1.0), X, target=1)
    relprop.register("declared::mixed", Gate("gate"))
    with pytest.raises(CoverageError, match="only its gate 'gate' depends on the input"):
        relprop.explain(lambda x: ops.mixed(X, x, 1.0), X, target=1)


def test_every_word_is_in_the_documentation() -> None:
    from pathlib import Path

    page = (Path(relprop.__file__).parents[2] / "docs" / "own-rules.md").read_text(encoding="utf-8")
    assert all(f'`"{word}"`' in page for word in WORDS)
