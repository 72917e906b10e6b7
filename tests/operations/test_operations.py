"""Every entry of the operation table: relevance is conserved across it, and the model's output is its own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from operation_cases import (
    HOMOGENEOUS,
    INFINITE_SLOPE,
    KERNELS,
    OF_NONNEGATIVE,
    POINTWISE,
    STATISTIC,
    STEPS,
    C,
    N,
)
from relprop.crossing.exact import share
from relprop.errors import CoverageError, ModelError
from relprop.operations import FAMILIES, TABLE, sparse
from relprop.rules import Epsilon, Flat, ZPlus


class Wrapped(nn.Module):
    """A function between two linear layers, of which the second sees whatever shape comes."""

    def __init__(self, function: Callable[[Tensor], Any], features: int) -> None:
        super().__init__()
        self.function = function
        self.first = nn.Linear(6, 6).double()
        self.last = nn.Linear(features, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)).double().reshape(N, -1))


def wrapped(function: Callable[[Tensor], Any]) -> Wrapped:
    features = function(torch.randn(N, C, 6).double()).reshape(N, -1).shape[1]
    return Wrapped(function, features).eval()


ELSEWHERE = {
    **dict.fromkeys(("cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_with_update"), "of other devices"),
    "_batch_norm_no_update": "of other devices",
    "_scaled_dot_product_flash_attention": "of other devices",
    "_scaled_dot_product_efficient_attention": "of other devices",
    "_scaled_dot_product_cudnn_attention": "of other devices",
    "_scaled_dot_product_fused_attention_overrideable": "of other devices",
    "flex_attention": "test_flex_attention.py",
    **dict.fromkeys(
        [f"{kind}{cell}" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu") for cell in ("", "_cell")],
        "test_recurrent.py",
    ),
    **dict.fromkeys(("_pack_padded_sequence", "_pad_packed_sequence"), "test_recurrent.py"),
    "torchvision::deform_conv2d": "test_deformable.py",
    **dict.fromkeys(
        (f"quantize_per_{kind}" for kind in ("tensor", "tensor_dynamic", "channel")),
        "refused: test_written_out.py",
    ),
    **dict.fromkeys(("nll_loss_forward", "nll_loss2d_forward", "_ctc_loss"), "test_losses.py"),
    **dict.fromkeys(sparse.TABLE, "test_sparse.py"),
    "_embedding_bag_forward_only": "test_embedding_bags.py, because autograd refuses it",
}
"""Entries of which there is no case here."""

SINGLE = {"_grouped_mm", *(name for name in KERNELS if "quantisation" in name or "_obs_" in name)}
"""Kernels that compute in single precision."""


@pytest.mark.filterwarnings("ignore")
def test_every_entry_of_the_table_has_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    met = set()

    def noting(name: str, entry: Any) -> Any:
        def noted(run: Any, call: Any, *args: Any) -> Any:
            met.add(name)
            return entry(run, call, *args)

        return noted

    for name, entry in list(TABLE.items()):
        monkeypatch.setitem(TABLE, name, noting(name, entry))
    two: list[Any] = [lambda x, f=f: f(x) for f, _ in STATISTIC.values()]
    for function in (*HOMOGENEOUS.values(), *POINTWISE.values(), *two, *KERNELS.values(), *STEPS.values()):
        relprop.coverage(function, torch.rand(N, C, 6, dtype=torch.float64), rules=Epsilon(0))
    assert not ELSEWHERE.keys() & met
    own = {name for family in FAMILIES.values() for name in family}  # without what other tests registered
    missing = sorted(own - met - set(ELSEWHERE))
    assert not missing, " ".join(missing)


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("rules", [Epsilon(0.01), ZPlus()], ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_pass_relevance(name: str, rules: Any) -> None:
    model, x = wrapped(KERNELS[name]), torch.randn(N, C, 6, dtype=torch.float64)
    e = relprop.explain(model, x, target=1, rules=rules)
    assert torch.equal(e.output, model(x))
    assert e.relevance.isfinite().all()
    assert e.relevance.any()
    assert e.ledger.gap.max() < (1e-5 if name in SINGLE else 1e-10)


@pytest.mark.parametrize("name", STEPS)
def test_steps_are_constants(name: str) -> None:
    model, x = wrapped(STEPS[name]), torch.randn(N, C, 6, dtype=torch.float64)
    with pytest.raises(ModelError, match="does not depend on the input"):
        relprop.explain(model, x, target=1, rules=Epsilon(0.01))
    model = wrapped(lambda x: x + STEPS[name](x))
    leaf = x.clone().requires_grad_()
    output = model.last(model.first(leaf).flatten(1))
    (gradient,) = torch.autograd.grad(output[:, 1].sum(), leaf)
    e = relprop.explain(model, x, target=1, rules=Epsilon(0))
    torch.testing.assert_close(e.relevance, gradient * x)
    assert e.ledger.gap.max() < 1e-12


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_homogeneous_operations_carry_coefficients_as_gradients(name: str) -> None:
    model, x = wrapped(HOMOGENEOUS[name]), torch.randn(N, C, 6, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    output = model(leaf)
    (gradient,) = torch.autograd.grad(output[:, 1].sum(), leaf)
    e = relprop.explain(model, x, target=1, rules=Epsilon(0))
    assert torch.equal(e.output, output)
    torch.testing.assert_close(e.relevance, gradient * x)
    low = name in ("half", "bfloat16", "float")
    assert e.ledger.gap.max() < (1e-2 if low else 1e-12)


@pytest.mark.parametrize("name", STATISTIC)
def test_statistics_are_constants(name: str) -> None:
    function, frozen = STATISTIC[name]
    model, x = wrapped(function), torch.randn(N, C, 6, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    first = model.first(leaf)
    output = model.last(frozen(first, first.detach()).reshape(N, -1))
    (gradient,) = torch.autograd.grad(output[:, 1].sum(), leaf)
    e = relprop.explain(model, x, target=1, rules=Epsilon(0))
    assert torch.equal(e.output, model(x))
    torch.testing.assert_close(e.output, output)
    torch.testing.assert_close(e.relevance, gradient * x)
    assert e.ledger.gap.max() < 1e-12


@pytest.mark.parametrize("name", [*HOMOGENEOUS, *POINTWISE, *STATISTIC])
def test_relevance_on_zeros_is_conserved(name: str) -> None:
    """Both layers put relevance on their inputs directly: slots must carry it."""
    function = {**HOMOGENEOUS, **POINTWISE, **{name: f for name, (f, _) in STATISTIC.items()}}[name]
    model, x = (
        wrapped((lambda x: function(x.abs())) if name in OF_NONNEGATIVE else function),
        torch.randn(N, C, 6, dtype=torch.float64),
    )
    x[0, 0], x[1, 2:] = 0, 0
    e = relprop.explain(model, x, target=1, rules=Flat())
    assert e.ledger.gap.max() < (1e-2 if name in ("half", "bfloat16", "float") else 1e-9)


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_functions_pass_relevance(name: str) -> None:
    function, x = POINTWISE[name], torch.randn(3, 5, dtype=torch.float64)
    x = x.abs() if name in OF_NONNEGATIVE else x
    x[0] = 0
    e = relprop.explain(function, x, target=lambda y: y.sum(1), rules=Epsilon(0))
    assert torch.equal(e.output, function(x))
    torch.testing.assert_close(
        e.relevance, torch.where(x == 0, 0, function(x) - function(torch.zeros(1).double()))
    )
    assert e.ledger.gap.max() < 1e-12


@pytest.mark.parametrize("name", sorted({*POINTWISE} - INFINITE_SLOPE))
def test_the_slope_at_zero_is_the_derivative(name: str) -> None:
    """Coefficients at zero, where the secant has no slope; ReLU6's derivative there is torch's choice, 0."""
    leaf = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    with relprop.propagating(Epsilon(0)):
        (c,) = torch.autograd.grad(POINTWISE[name](leaf).sum(), leaf)
    other = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(POINTWISE[name](other).sum(), other)
    torch.testing.assert_close(c, derivative)


def test_inplace_spellings_are_known_by_the_same_name() -> None:
    class Inplace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = x * 1.0
            z.relu_().mul_(2).clamp_(max=1.5).add_(1).sub_(0.5)
            z += x
            z /= 2
            return F.silu(F.dropout(z, training=False, inplace=True), inplace=True)

    def plain(x: Tensor) -> Tensor:
        return F.silu((((x * 1.0).relu() * 2).clamp(max=1.5) + 1 - 0.5 + x) / 2)

    x = torch.randn(3, 5, dtype=torch.float64)
    inplace = relprop.explain(Inplace().eval(), x, target=2, rules=Epsilon(0))
    torch.testing.assert_close(inplace.output, plain(x))
    torch.testing.assert_close(
        inplace.relevance, relprop.explain(plain, x, target=2, rules=Epsilon(0)).relevance
    )
    assert inplace.ledger.gap.max() < 1e-12


def test_a_constant_absorbs_its_part() -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    shift = torch.randn(5).double()
    e = relprop.explain(lambda x: 3 - (x * 2 - shift + 1), x, target=2, rules=Epsilon(0))
    absorbed = e.ledger.absorbed["constant"] + e.ledger.absorbed["pointwise"]
    torch.testing.assert_close(absorbed, (2 + shift[2]).expand(3))
    torch.testing.assert_close(e.relevance[:, 2], -2 * x[:, 2])


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("rule", [Epsilon(0), Flat(), ZPlus()])
def test_padding_before_a_convolution_is_the_convolutions_own(rule: Any, mode: str) -> None:
    own = nn.Conv2d(2, 3, 3, padding=1, padding_mode="zeros" if mode == "constant" else mode).double().eval()
    before = lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode=mode), own.weight, own.bias)  # noqa: E731
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)

    def target(y: Tensor) -> Tensor:
        return y.flatten(1).sum(1)

    expected = relprop.explain(own, x, target=target, rules=rule)
    found = relprop.explain(before, x, target=target, rules=rule)
    torch.testing.assert_close(found.relevance, expected.relevance)
    assert found.ledger.gap.max() < 1e-12


@pytest.mark.parametrize("rule", [Epsilon(0), Flat()])
def test_a_border_that_is_not_zero_absorbs_its_part(rule: Any) -> None:
    convolution = nn.Conv2d(2, 3, 3).double().eval()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    e = relprop.explain(lambda x: convolution(F.pad(x, [1] * 4, value=-1.0)).flatten(1), x, rules=rule)
    assert e.ledger.absorbed["constant"].abs().min() > 0
    assert e.ledger.gap.max() < 1e-12


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda x: x ** torch.arange(-2, 3),
            "pow in module .*: it is not finite at 0; covered are a constant base",
        ),
        (
            lambda x: x.abs() ** x.flip(1),
            "pow in module .*: base and exponent both depend on the input; covered are a constant base, and "
            "constant exponents that are not negative",
        ),
        (lambda x: x.abs().log(), r"log in module .*: log\(0\) is not finite; covered are chains that are"),
        (lambda x: (x.abs() + 2).remainder(x.abs()), "remainder in module .*: the divisor depends on the"),
        (
            lambda x: torch.segment_reduce(x, "prod", lengths=torch.tensor([2])).expand(2, 5),
            "segment_reduce in module .*: products, and an initial value other than 0, are not covered",
        ),
        pytest.param(
            lambda x: torch.sparse.mm(torch.eye(2).to_sparse_csr(), x, "mean"),
            "matmul in module .*: only the sum over a sparse matrix that is a constant is covered",
            marks=pytest.mark.filterwarnings("ignore:Sparse CSR"),
        ),
        (
            lambda x: F.batch_norm(x, torch.zeros(5), torch.ones(5), training=True),
            r"batch_norm in module .*: it normalises by statistics of the batch.*call model.eval\(\)",
        ),
        (
            lambda x: F.batch_norm(x, None, None, training=True),
            "batch_norm in module .*: it normalises by statistics of the batch",
        ),
        (
            lambda x: F.grid_sample(torch.ones(2, 1, 3, 3), x[:, None, None, :2], align_corners=True).flatten(
                1
            ),
            "grid_sample in module .*: only the grid depends on the input",
        ),
    ],
)
def test_what_an_entry_does_not_cover_is_a_gap(function: Any, message: str) -> None:
    with pytest.raises(CoverageError, match=message):
        relprop.explain(function, torch.randn(2, 5), target=0)


@pytest.mark.parametrize(
    ("terms", "relevance", "shares"),
    [
        ([1.0, 3.0, 0.0], 2.0, [0.5, 1.5, 0.0]),  # in proportion
        ([0.0, 0.0, 0.0], 3.0, [1.0, 1.0, 1.0]),  # equally among zeros
        ([1.0, -1.0, 0.0], 2.0, [0.0, 0.0, 2.0]),  # the others cancelled
        ([1.0, -1.0, 2.0], 4.0, [2.0, -2.0, 4.0]),
        ([2.0, -1.0, -1.0], 3.0, [1.0, 1.0, 1.0]),  # all cancelled
    ],
)
def test_relevance_on_a_sum_is_shared(terms: list[float], relevance: float, shares: list[float]) -> None:
    shared = share(lambda x: x[0].sum(1), [torch.tensor([terms])], [torch.tensor([relevance])])
    torch.testing.assert_close(shared[0], torch.tensor([shares]))


def test_relevance_on_a_maximum_of_zero_goes_to_a_zero() -> None:
    x = torch.tensor([[[-1.0, 0.0, -2.0, 3.0]]])
    (shared,) = share(lambda x: F.max_pool1d(x[0], 2), [x], [torch.tensor([[[5.0, 7.0]]])])
    torch.testing.assert_close(shared, torch.tensor([[[0.0, 5.0, 0.0, 7.0]]]))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 3), (2, 1), (2, 3), (1, 1, 1), (1, 1, 3)])
def test_constants_of_every_shape_are_added(shape: tuple[int, ...]) -> None:
    linear, constant = nn.Linear(4, 3).double().eval(), torch.randn(shape, dtype=torch.float64)
    x = torch.randn(2, 4, dtype=torch.float64)
    e = relprop.explain(lambda x: (linear(x) + constant).reshape(2, 3), x, rules=Epsilon(0.1))
    torch.testing.assert_close(e.output, (linear(x) + constant).reshape(2, 3))
    assert e.ledger.gap.max() < 1e-12
