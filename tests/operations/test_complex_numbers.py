"""Weights and constants that are complex numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import relprop
from networks import DOUBLE, close
from relprop.errors import CoverageError
from relprop.rules import Gamma

N, T, D = 2, 5, 6


COMPLEX = torch.randn(D, D, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))


def filtered(x: Tensor) -> Tensor:
    """A filter that learnt its frequencies' channels, as of a Fourier neural operator."""
    return torch.fft.irfft(torch.einsum("btf,fo->bto", torch.fft.rfft(x, dim=1), COMPLEX), n=T, dim=1)


def test_complex_weights_are_a_gap_with_a_remedy() -> None:
    x = torch.randn(N, T, D, **DOUBLE)
    message = r"einsum in module .* at .*test_complex_numbers\.py:\d+: .*complex(.|\n)*accept=\['einsum'\]"
    with pytest.raises(CoverageError, match=message):
        relprop.explain(lambda x: filtered(x).sum(1), x, target=1, rules="epsilon")


def test_accepted_complex_weights_are_the_plain_gradient() -> None:
    x = torch.randn(N, T, D, **DOUBLE).requires_grad_()
    e = relprop.explain(lambda x: filtered(x).sum(1), x, target=1, rules="epsilon", accept=["einsum"])
    (gradient,) = torch.autograd.grad(filtered(x).sum(1)[:, 1].sum(), x)
    close(e.relevance, (x * gradient).detach())
    assert e.ledger.gap.max() < 1e-12


JOINING: dict[str, Callable[[Tensor], Tensor]] = {
    "a bias": lambda z: z + COMPLEX[0],
    "cat": lambda z: torch.cat([z, COMPLEX[None].expand(N, -1, -1)], 1),
    "cat in front": lambda z: torch.cat([COMPLEX[None].expand(N, -1, -1), z], 1),
    "stack": lambda z: torch.stack([z, COMPLEX[:1].expand(z.shape)], 1),
}


@pytest.mark.parametrize("joining", JOINING)
@pytest.mark.parametrize("rules", ["epsilon", "attnlrp", Gamma(0.25)], ids=str)
def test_complex_constants_absorb_their_part(joining: str, rules: Any) -> None:
    def model(x: Tensor) -> Tensor:
        return torch.view_as_real(JOINING[joining](torch.fft.fft(x, dim=1))).flatten(1)

    x = torch.randn(N, T, D, **DOUBLE)
    for target in (0, 7, -1, -8):  # real and imaginary parts, at both ends
        e = relprop.explain(model, x, target=target % model(x).shape[1], rules=rules)
        whole = e.relevance.sum((1, 2)) + e.ledger.absorbed.get("constant", 0)
        close(whole, e.score)
        assert e.ledger.gap.max() < 1e-12
