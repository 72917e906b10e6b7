"""Small transformers, of which the tests know every part."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Attention of several heads, by torch's fused function."""

    def __init__(self, size: int, heads: int, *, causal: bool, bias: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(size, size, bias=bias) for _ in range(4))
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(attended.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """A feed-forward layer: GELU, or gated by SiLU."""

    def __init__(self, size: int, inner: int, *, gated: bool, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(size, inner, bias=bias) if gated else None
        self.up, self.down = nn.Linear(size, inner, bias=bias), nn.Linear(inner, size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)) if self.gate is None else F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """Normalise, attend, add; normalise, feed forward, add."""

    def __init__(self, size: int, heads: int, norm: Any, *, causal: bool, gated: bool, bias: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(size), norm(size)
        self.attention = Attention(size, heads, causal=causal, bias=bias)
        self.mlp = MLP(size, 3 * size // 2, gated=gated, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Scores (samples, tokens, words) of a text, given as ids or as what an embedding makes of them."""

    def __init__(
        self,
        size: int = 16,
        *,
        words: int = 11,
        layers: int = 2,
        heads: int = 4,
        norm: Any = nn.LayerNorm,
        causal: bool = True,
        gated: bool = False,
        bias: bool = True,
        positions: int | None = 12,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size)
        self.positions = None if positions is None else nn.Parameter(torch.randn(positions, size))
        made = [Layer(size, heads, norm, causal=causal, gated=gated, bias=bias) for _ in range(layers)]
        self.layers = nn.ModuleList(made)
        self.norm, self.head = norm(size), nn.Linear(size, words, bias=bias)

    def forward(self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None) -> Tensor:
        h = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        if self.positions is not None:
            h = h + self.positions[: h.shape[1]]
        for layer in self.layers:
            h = layer(h)
        return self.head(self.norm(h))


def drawn(module: Any, dtype: torch.dtype = torch.float64) -> Any:
    """The module in evaluation mode, with no parameter that is zero or one."""
    module = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module.to(dtype).eval()
