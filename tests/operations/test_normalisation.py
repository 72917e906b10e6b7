"""Norms whose statistics are those of the sample: these count as constants."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop.rules import Epsilon
from replica import assert_agree


def standardised(x: Tensor, s: Tensor, dimensions: tuple[int, ...], eps: float = 1e-5) -> Tensor:
    """x without its mean, over the deviation of s."""
    variance = s.var(dimensions, unbiased=False, keepdim=True)
    return (x - x.mean(dimensions, keepdim=True)) / (variance + eps).sqrt()


def channels_last(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """A layer norm over the channels of pictures."""
    return lambda x: norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def written_layer_norm(norm: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    """As ConvNeXt's authors write the one over the channels of pictures."""

    def forward(x: Tensor) -> Tensor:
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        x = (x - u) / torch.sqrt(s + norm.eps)
        return norm.weight[:, None, None] * x + norm.bias[:, None, None]

    return forward


def written_with_rsqrt(norm: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    """Another way."""

    def forward(x: Tensor) -> Tensor:
        variance = torch.var(x, dim=1, unbiased=False, keepdim=True)
        x = x - x.mean(dim=1, keepdim=True)
        x *= torch.rsqrt(variance + norm.eps)
        return x * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)

    return forward


def random(norm: Any) -> Any:
    """A norm in float64 with weights and biases of both signs."""
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
    return norm.double().eval()


def over_channels(norm: nn.LayerNorm) -> Callable[[Tensor, Tensor], Tensor]:
    w, b = (v[:, None, None] for v in (norm.weight, norm.bias))
    return lambda x, s: standardised(x, s, (1,)) * w + b


def by_groups(norm: nn.GroupNorm) -> Callable[[Tensor, Tensor], Tensor]:
    w, b = (v[:, None, None] for v in (norm.weight, norm.bias))

    def forward(x: Tensor, s: Tensor) -> Tensor:
        x, s = (t.unflatten(1, (norm.num_groups, -1)) for t in (x, s))
        return standardised(x, s, (2, 3, 4)).flatten(1, 2) * w + b

    return forward


LAYER = random(nn.LayerNorm(4))


WHOLE = random(nn.LayerNorm([4, 3, 3]))


GROUP = random(nn.GroupNorm(2, 4))


INSTANCE = random(nn.InstanceNorm2d(4, affine=True))


RMS = random(nn.RMSNorm(3, eps=0.01))


# Norms of pictures (N, 4, 3, 3), and the same with a second operand for what counts as a constant.
NORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "layer norm": (WHOLE, lambda x, s: standardised(x, s, (1, 2, 3)) * WHOLE.weight + WHOLE.bias),
    "layer norm over channels": (channels_last(LAYER), over_channels(LAYER)),
    "layer norm written out": (written_layer_norm(LAYER), over_channels(LAYER)),
    "layer norm by rsqrt": (written_with_rsqrt(LAYER), over_channels(LAYER)),
    "layer norm without parameters": (
        lambda x: F.layer_norm(x, x.shape[2:]),
        lambda x, s: standardised(x, s, (2, 3)),
    ),
    "group norm": (GROUP, by_groups(GROUP)),
    "instance norm": (
        INSTANCE,
        lambda x, s: (
            standardised(x, s, (2, 3)) * INSTANCE.weight[:, None, None] + INSTANCE.bias[:, None, None]
        ),
    ),
    "rms norm": (RMS, lambda x, s: x / (s.square().mean(-1, keepdim=True) + 0.01).sqrt() * RMS.weight),
    "rms norm written out": (
        lambda x: RMS.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + RMS.eps)),
        lambda x, s: x / (s.square().mean(-1, keepdim=True) + 0.01).sqrt() * RMS.weight,
    ),
    "rms norm without ε": (
        lambda x: F.rms_norm(x, (3,)),
        lambda x, s: x / (s.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt(),
    ),
    "local response norm": (
        lambda x: F.local_response_norm(x, 4, alpha=0.5, beta=0.6, k=2.0),
        lambda x, s: (
            x / (2 + 0.125 * sum(F.pad(s**2, (0, 0, 0, 0, 2, 1))[:, i : i + 4] for i in range(4))) ** 0.6
        ),
    ),
    "normalize": (
        lambda x: F.normalize(x, p=3.0, dim=2),
        lambda x, s: x / s.norm(3, 2, keepdim=True).clamp(min=1e-12),
    ),
    "over its norm": (
        lambda x: x / x.norm(dim=1, keepdim=True).clamp(min=1e-6),
        lambda x, s: x / s.norm(dim=1, keepdim=True).clamp(min=1e-6),
    ),
    "over its deviation": (
        lambda x: (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 0.1),
        lambda x, s: (x - x.mean((2, 3), keepdim=True)) / (s.std((2, 3), keepdim=True) + 0.1),
    ),
}


@pytest.mark.parametrize("place", ["first", "behind a convolution", "behind a ReLU"])
@pytest.mark.parametrize("name", NORMS)
def test_statistics_of_a_sample_count_as_constants(name: str, place: str) -> None:
    norm, detached = NORMS[name]
    convolution, head = nn.Conv2d(4, 4, 3, padding=1).double(), nn.Linear(36, 3).double()
    x = torch.randn(2, 4, 3, 3, **DOUBLE)

    def before(x: Tensor) -> Tensor:
        if place == "first":
            return x
        return convolution(x).relu() if place == "behind a ReLU" else convolution(x)

    def model(x: Tensor) -> Tensor:
        return head(norm(before(x)).flatten(1))

    leaf = x.clone().requires_grad_()
    h = before(leaf)
    output = head(detached(h, h.detach()).flatten(1))
    (gradient,) = torch.autograd.grad(output[:, 2].sum(), leaf)
    e = relprop.explain(model, x, target=2, rules=Epsilon(0))
    assert torch.equal(e.output, model(x))
    torch.testing.assert_close(e.output, output)
    assert_agree(e.relevance, gradient * x)
    assert e.ledger.gap.max() < 1e-12


def test_shifts_of_rows_and_of_single_vectors() -> None:
    class Tokens(nn.Module):
        def __init__(self, first: Callable[[Tensor], Tensor], last: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.norm, self.b = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)
            nn.init.normal_(self.norm.bias)
            self.first, self.last = first, last
            self.double().eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.last(self.norm(self.first(self.a(x)))))

    def explained(x: Tensor, first: Any, last: Any) -> relprop.Explanation:
        return relprop.explain(Tokens(first, last), x, target=1, rules="epsilon", per_operation=True)

    # Tokens first: samples are one step of elements apart.
    x = torch.randn(2, 5, 4, **DOUBLE)
    straight = explained(x, lambda h: h, lambda h: h.mean(1))
    turned = explained(x, lambda h: h.transpose(0, 1), lambda h: h.mean(0))
    torch.testing.assert_close(turned.ledger.absorbed, straight.ledger.absorbed)
    assert not turned.ledger.mixed
    # A vector without a dimension for samples.
    one = explained(x[:1, 0], lambda h: h[0], lambda h: h[None])
    as_row = explained(x[:1, 0], lambda h: h, lambda h: h)
    torch.testing.assert_close(one.ledger.absorbed, as_row.ledger.absorbed)
    assert not one.ledger.mixed
