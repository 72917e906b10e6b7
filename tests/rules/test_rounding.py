"""Rules where numbers are very small, very large, or rounded to half precision."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZPlus
from relprop.rules.linear import _where_negative


@pytest.mark.parametrize("rules", ["epsilon-alpha2-beta1", "epsilon-plus"])
@pytest.mark.parametrize("seed", range(4))
def test_contributions_of_one_sign_beside_a_large_bias(seed: int, rules: str) -> None:
    """A depthwise convolution has few contributions: those of one sign are often none, up to rounding."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 3),
    ).eval()
    x = torch.rand(4, 1, 8, 8)
    single = relprop.explain(model, x, rules=rules, target=0)
    double = relprop.explain(model.double(), x.double(), rules=rules, target=0)
    assert single.ledger.gap.max() < 1e-3
    assert double.ledger.gap.max() < 1e-10
    error = (single.relevance - double.relevance).abs().max() / double.relevance.abs().max()
    assert error < 1e-2


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(), AlphaBeta(2, 1), Flat(), WSquare()])
def test_autocast_inside_the_model(rule: Any) -> None:
    inner = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()

    def model(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return inner(x)

    x = torch.rand(2, 6)
    rough = relprop.explain(model, x, target=1, rules=rule)
    exact = relprop.explain(inner, x, target=1, rules=rule)
    assert (rough.relevance - exact.relevance).abs().max() < 0.1 * exact.relevance.abs().max()


@pytest.mark.parametrize(("function", "slope"), [(torch.sigmoid, 0.25), (F.softplus, 0.5)])
@pytest.mark.parametrize("x", [1e-3, 1e-5, 1e-7, 1e-9])
def test_the_slope_of_a_function_that_is_not_zero_at_zero(function: Any, slope: float, x: float) -> None:
    for dtype, tolerance in ((torch.float64, 1e-3), (torch.float32, 1e-2), (torch.bfloat16, 2e-1)):
        leaf = torch.tensor([[x]], dtype=dtype, requires_grad=True)
        with relprop.propagating(Epsilon(0)):
            (c,) = torch.autograd.grad(function(leaf).sum(), leaf)
        assert abs(float(c) - slope) < tolerance * slope


@pytest.mark.parametrize("scale", [1e-19, 1.0, 1e25])
def test_w_square_of_weights_of_any_size(scale: float) -> None:
    layer = nn.Linear(6, 3, bias=False).eval()
    x = torch.rand(2, 6)
    expected = relprop.explain(layer, x, target=torch.ones(3), rules=WSquare())
    with torch.no_grad():
        layer.weight.mul_(scale)
    found = relprop.explain(layer, x, target=torch.ones(3) / scale, rules=WSquare())
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-4, atol=1e-6)


def test_autocast_rounds_no_contributions_into_being() -> None:
    first, last = nn.Linear(64, 64, bias=False).eval(), nn.Linear(64, 3).eval()
    with torch.no_grad():
        first.weight.abs_()

    def model(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return last(first(x).relu())

    assert relprop.explain(model, torch.rand(4, 64), target=1, rules=AlphaBeta(2, 1)).ledger.gap.max() < 1e-2


@pytest.mark.filterwarnings("ignore:.*below the resolution")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_an_epsilon_too_small_for_its_type_loses_nothing_unseen(dtype: torch.dtype) -> None:
    layer = nn.Linear(3, 2).to(dtype).eval()
    rules = [("1", Flat()), ("*", Epsilon(1e-7 if dtype == torch.float16 else 1e-33, bias="ignore"))]
    model = nn.Sequential(layer, nn.Linear(2, 2).to(dtype)).eval()
    e = relprop.explain(model, torch.zeros(1, 3, dtype=dtype), target=0, rules=rules)
    assert e.relevance.isfinite().all()
    assert e.ledger.gap.max() < 2e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [1e-3, 1e-5, 1e-300])
def test_shares_of_negative_contributions_so_small_that_their_inverse_overflows(
    beta: float, dtype: torch.dtype
) -> None:
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(-1.0)  # no contribution is positive
    found = relprop.explain(layer.to(dtype), torch.ones(1, 4, dtype=dtype), rules=AlphaBeta(1 + beta, beta))
    assert found.relevance.tolist() == [[-1.0] * 4]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("flushed", [False, True])
def test_each_side_of_zero_gets_its_own(dtype: torch.dtype, flushed: bool) -> None:
    info = torch.finfo(dtype)
    x = torch.tensor([0.0, -0.0, 1, -1, torch.inf, -torch.inf, info.max, -info.max] * 9, dtype=dtype)
    torch.set_flush_denormal(flushed)
    try:
        found = _where_negative(x, torch.full_like(x, 2), torch.full_like(x, 3))
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(found, torch.where(x < 0, 2, 3).to(dtype))


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("epsilon", [1e-6, 0.25, 100.0])
def test_epsilon_by_its_formula_for_any_size(epsilon: float, rectified: bool) -> None:
    sizes = torch.tensor([0.0, 1e-30, 1e-12, 1e-6, 1e-3, 1.0, 1e6])
    z = sizes if rectified else torch.cat([sizes, -sizes])
    c = torch.tensor([1e-30, -1e-3, 1.0, 1e12, -1e33])[:, None].expand(-1, len(z)).contiguous()
    z = z.expand(len(c), -1).contiguous()
    before = c.clone(), z.clone()
    s, absorbed = Epsilon(epsilon)._stabilised_of(c, z, rectified=rectified)
    assert torch.equal(c, before[0])
    assert torch.equal(z, before[1])
    exact = c.double() * z.double() / (z.double() + torch.copysign(torch.tensor(epsilon), z).double())
    torch.testing.assert_close(s.double(), exact, rtol=1e-6, atol=1e-44)  # a subnormal number
    left = (c.double() * z.double() - exact * z.double()).sum(1)
    for found, expected, size in zip(absorbed["epsilon"], left, c[:, 0].abs(), strict=True):
        assert abs(float(found) - float(expected)) <= 1e-5 * float(size) * 1e6


@pytest.mark.parametrize("rule", [Epsilon(1e-6), Gamma(0.25)])
def test_outputs_of_zero_whatever_comes_to_them(rule: Any) -> None:
    first, last = nn.Linear(4, 5, bias=False), nn.Linear(5, 3)
    with torch.no_grad():
        first.weight[0] = 0  # a dead output
        last.weight[:, 0] = 1e33
    found = relprop.explain(nn.Sequential(first, last).eval(), torch.rand(2, 4), target=1, rules=rule)
    assert found.relevance.isfinite().all()
    assert found.ledger.gap.max() < 1e-6
