"""Weights and constants that are complex numbers."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from alike import same_relevance
from networks import DOUBLE, close, linear
from relprop.errors import InputError
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZPlus

N, T, D = 2, 5, 6


COMPLEX = torch.randn(D, D, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))


BIAS = COMPLEX[:, 0]
KERNEL = torch.randn(3, 2, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(3))
MODES = torch.randn(2, 3, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(4))
RULES = [
    *("epsilon", "epsilon-plus", "epsilon-gamma-flat", "attnlrp", WSquare(), Gamma(0.25), AlphaBeta(2, 1)),
    *(ZPlus("distribute"), Epsilon(0.2), Flat()),
]


def blocks(weight: Tensor) -> Tensor:
    """The real matrix of a complex one, (2 out, 2 in, ...): real parts first, and then imaginary ones."""
    a, b = weight.real, weight.imag
    return torch.cat([torch.cat([a, -b], 1), torch.cat([b, a], 1)])


def parts(z: Tensor) -> Tensor:
    """Real parts, and then imaginary parts, in dimension 1."""
    return torch.cat([z.real, z.imag], 1)


def joined(h: Tensor) -> Tensor:
    """The complex numbers of such parts."""
    return torch.complex(*h.chunk(2, 1))


def bias_parts(bias: Tensor) -> Tensor:
    return torch.cat([bias.real, bias.imag])


LAYERS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "linear": (
        lambda h: parts(F.linear(joined(h), COMPLEX, BIAS)),
        lambda h: F.linear(h, blocks(COMPLEX), bias_parts(BIAS)),
        (2 * D,),
    ),
    "matmul": (
        lambda h: parts(joined(h) @ COMPLEX.T),
        lambda h: F.linear(h, blocks(COMPLEX)),
        (2 * D,),
    ),
    "einsum": (
        lambda h: parts(torch.einsum("bi,oi->bo", joined(h), COMPLEX)),
        lambda h: torch.einsum("bi,oi->bo", h, blocks(COMPLEX)),
        (2 * D,),
    ),
    "conv1d": (
        lambda h: parts(F.conv1d(joined(h), KERNEL, BIAS[:3], stride=2, padding=1)),
        lambda h: F.conv1d(h, blocks(KERNEL), bias_parts(BIAS[:3]), stride=2, padding=1),
        (4, 7),
    ),
    "modes": (
        lambda h: parts(torch.einsum("bix,iox->box", joined(h), MODES)),
        lambda h: torch.einsum("bix,oix->box", h, blocks(MODES.transpose(0, 1))),
        (4, 4),
    ),
}


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_a_complex_layer_is_a_real_layer_of_parts(name: str, rules: Any) -> None:
    layer, real, shape = LAYERS[name]
    x = torch.randn(N, *shape, generator=torch.Generator().manual_seed(5), **DOUBLE)
    mixing = linear(math.prod(shape), math.prod(shape))
    last = linear(real(x).flatten(1).shape[1], 3)

    def around(of_parts: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: last(of_parts(mixing(x.flatten(1)).view(x.shape)).relu().flatten(1))

    found = same_relevance(around(layer), around(real), x, rules, target=1)
    expected = relprop.explain(around(real), x, rules=rules, target=1)
    assert [a.rule for a in found.rules] == [a.rule for a in expected.rules]


def test_samples_of_several_rows_and_weights_that_change() -> None:
    weight = COMPLEX.clone()
    x = torch.randn(N, T, 2 * D, **DOUBLE)
    first, last = linear(2 * D, 2 * D), linear(2 * D, 3)

    def model(x: Tensor) -> Tensor:
        a, b = first(x).chunk(2, -1)
        z = torch.complex(a, b) @ weight.T
        return last(torch.cat([z.real, z.imag], -1).relu().sum(1))

    def real(x: Tensor) -> Tensor:
        return last(F.linear(first(x), blocks(weight)).relu().sum(1))

    same_relevance(model, real, x, Gamma(0.25), target=1)
    weight.mul_(2 - 1j)
    found = same_relevance(model, real, x, Gamma(0.25), target=1)
    alone = relprop.explain(model, x[:1], rules=Gamma(0.25), target=1)
    close(found.relevance[:1], alone.relevance)


class Operator(nn.Module):
    """A layer of a Fourier neural operator: a filter that learnt its channels for the lowest frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.modes, self.head = nn.Parameter(MODES), nn.Linear(3 * 12, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        low = torch.fft.rfft(x)[..., :4]
        z = x.new_zeros(len(x), 3, 7, dtype=torch.complex128)
        z[..., :4] = torch.einsum("bix,iox->box", low, self.modes)
        return self.head(torch.fft.irfft(z, n=12).relu().flatten(1))


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_a_fourier_neural_operator(rules: Any) -> None:
    model, x = Operator().eval(), torch.randn(N, 2, 12, generator=torch.Generator().manual_seed(6), **DOUBLE)

    def real(x: Tensor) -> Tensor:
        low = torch.fft.rfft(x)[..., :4]
        z = x.new_zeros(len(x), 3, 7, dtype=torch.complex128)
        h = torch.einsum("bix,oix->box", parts(low), blocks(MODES.transpose(0, 1)))
        z[..., :4] = joined(h)
        return model.head(torch.fft.irfft(z, n=12).relu().flatten(1))

    e = same_relevance(model, real, x, rules, target=1)
    assert "einsum" in str(e.rules[0])


def test_without_a_bias_and_with_lrp_0_it_is_the_plain_gradient() -> None:
    x = torch.randn(N, D, 2, **DOUBLE).requires_grad_()

    def model(x: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(x) @ COMPLEX).flatten(1)

    e = relprop.explain(model, x, target=1, rules="attnlrp")
    (gradient,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    close(e.relevance, (x * gradient).detach())


def test_the_relevance_of_a_complex_weight_is_refused() -> None:
    model = Operator().eval()
    with pytest.raises(InputError, match="parameters='modes': no linear operation takes modes unchanged"):
        relprop.explain(model, torch.randn(N, 2, 12, **DOUBLE), target=1, parameters="modes")


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
