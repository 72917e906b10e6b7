"""What cannot be seen is named with what helps; bounds that are one constant number."""

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import CoverageError

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


def test_clamps_at_one_constant_number() -> None:
    """As T5 has it in half precision."""

    def model(h: Tensor) -> Tensor:
        limit = torch.where(torch.isinf(h).any(), 1.0, 0.5)
        return torch.clamp(h, min=-limit, max=limit)

    x = torch.randn(2, 4)
    e = relprop.explain(model, x, target=1, rules="epsilon")
    expected = relprop.explain(lambda h: h.clamp(-0.5, 0.5), x, target=1, rules="epsilon")
    assert torch.equal(e.relevance, expected.relevance)
    assert e.relevance[:, 1].abs().min() > 0


def test_rows_that_are_hidden_as_a_whole() -> None:
    """Their softmax is NaN, and replaced."""
    seen = torch.ones(4, 4).tril().bool()
    seen[0] = False

    def model(x: Tensor) -> Tensor:
        scores = (x @ x.mT).masked_fill(~seen, -torch.inf)
        return (scores.softmax(-1).masked_fill(~seen, 0) @ x).sum(1)

    e = relprop.explain(model, torch.randn(2, 4, 3), target=0, rules="attnlrp")
    assert e.relevance.isfinite().all()
    assert e.ledger.gap.max() < 1e-5


def test_a_triangular_system_weighs_its_right_side() -> None:
    x, w = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        A = (x @ w).tril(-1) + torch.eye(4, dtype=x.dtype)
        return torch.linalg.solve_triangular(A, x, upper=False, unitriangular=True).sum(1)

    def weighed(leaf: Tensor) -> Tensor:
        A = (x @ w).tril(-1) + torch.eye(4, dtype=x.dtype)
        return torch.linalg.solve_triangular(A, leaf, upper=False, unitriangular=True).sum(1)

    e = relprop.explain(model, x, target=1, rules="cp-lrp")
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(weighed(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(e.relevance, x * gradient)
    assert e.ledger.gap.max() < 1e-12
