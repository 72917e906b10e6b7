"""Transformers a second time: dense, slow, one sample at a time, in relevance and not in coefficients.

Straight from the formulas of AttnLRP (Achtibat et al. 2024) and CP-LRP (Ali et al. 2022). Nothing is left to
autograd: each step takes the values of its operands and the relevance R of its result, in its shape, to the
relevance of the operands. Values are (tokens, features), and those of heads (heads, tokens, size); a weight
`w` is (in, out). What a step does not pass on is noted in books, by the name of the ledger's sink.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Books = dict[str, float]

Method = Literal["attnlrp", "cp-lrp"]


def note(books: Books, sink: str, amount: Tensor) -> None:
    """Add what a sink absorbed."""
    books[sink] = books.get(sink, 0.0) + float(amount.sum())


def linear(x: Tensor, w: Tensor, b: Tensor, R: Tensor, books: Books, sink: str = "bias") -> Tensor:
    """R_i = Σ_j x_i w_ij / z_j R_j. The bias is part of z_j and keeps b_j / z_j R_j.

    Each token may have a weight of its own, (tokens, in, out).
    """
    contributions = x[:, :, None] * w
    z = contributions.sum(1) + b
    note(books, sink, b / z * R)
    return (contributions / z[:, None, :] * R[:, None, :]).sum(2)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, R: Tensor, books: Books) -> Tensor:
    """Subtracting the mean and scaling are linear, and the deviation is a constant; the bias is a shift."""
    size = x.shape[1]
    centring = torch.eye(size, dtype=x.dtype) - 1 / size
    deviation = (x.var(1, unbiased=False) + eps).sqrt()
    return linear(x, centring * weight / deviation[:, None, None], bias, R, books, "shift")


def rms_norm(x: Tensor, weight: Tensor, eps: float | None, R: Tensor, books: Books) -> Tensor:
    """Scaling by the weight over a constant: a diagonal matrix."""
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    scale = weight / (x.square().mean(1, keepdim=True) + eps).sqrt()
    return linear(x, torch.diag_embed(scale), torch.zeros_like(weight), R, books)


def softmax(x: Tensor, R: Tensor, books: Books) -> Tensor:
    """R_i = x_i (R_i - s_i Σ_j R_j): the Taylor expansion, in which a score of -inf counts 0."""
    s = x.softmax(-1)
    R_x = torch.where(x.isinf(), 0, x) * (R - s * R.sum(-1, keepdim=True))
    note(books, "softmax", R.sum() - R_x.sum())
    return R_x


def contributions_of(a: Tensor, b: Tensor, R: Tensor) -> Tensor:
    """R of each term a_ik b_kj of a matrix product, (..., i, k, j): in proportion to the term."""
    terms = a[..., :, :, None] * b[..., None, :, :]
    return terms / terms.sum(-2, keepdim=True) * R[..., :, None, :]


def matmul(a: Tensor, b: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
    """Both factors of each term get half."""
    terms = contributions_of(a, b, R)
    return terms.sum(-1) / 2, terms.sum(-3) / 2


def weighted(b: Tensor, a: Tensor, R: Tensor) -> Tensor:
    """The factor b of a·b gets all, because a is constant."""
    return contributions_of(a, b, R).sum(-3)


def activation(R: Tensor) -> Tensor:
    """The identity rule."""
    return R.clone()


def gated(R: Tensor, method: Method) -> tuple[Tensor, Tensor]:
    """Gate and signal of a product by elements: half each, or all to the signal."""
    return (R / 2, R / 2) if method == "attnlrp" else (torch.zeros_like(R), R)


def add(a: Tensor, b: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
    """In proportion to the terms."""
    return a / (a + b) * R, b / (a + b) * R


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | float,
    scale: float,
    R: Tensor,
    books: Books,
    method: Method,
) -> tuple[Tensor, Tensor, Tensor]:
    """softmax(scale·q kᵀ + mask)·v of heads. A finite mask is a term of the scores, and keeps its part."""
    products = scale * q @ k.transpose(-1, -2)
    scores = products + mask
    s = scores.softmax(-1)
    if method == "cp-lrp":
        return torch.zeros_like(q), torch.zeros_like(k), weighted(v, s, R)
    R_s, R_v = matmul(s, v, R)
    R_scores = softmax(scores, R_s, books)
    seen = ~scores.isinf()
    R_products = torch.where(seen, products / torch.where(seen, scores, 1) * R_scores, 0)
    note(books, "constant", R_scores - R_products)
    R_q, R_k = matmul(q, k.transpose(-1, -2), R_products)
    return R_q, R_k.transpose(-1, -2), R_v


def future(tokens: int) -> Tensor:
    """What a causal mask adds to the scores, (tokens, tokens)."""
    return torch.full((tokens, tokens), -torch.inf, dtype=torch.float64).triu(1)


class Replica:
    """Relevance of a `small_transformers.Transformer`, layer by layer.

    Args:
        model: in float64.
        methods: of each layer.
    """

    def __init__(self, model: Any, methods: Sequence[Method]) -> None:
        self.model, self.methods = model, methods
        self.books: Books = {}

    @torch.no_grad()
    def __call__(self, x: Tensor, token: int, label: int) -> Tensor:
        """Relevance (tokens, features) of the embedded tokens x, for the score of a label at a token."""
        model, backward = self.model, []
        h = x if model.positions is None else x + model.positions[: len(x)]
        for layer, method in zip(model.layers, self.methods, strict=True):
            for norm, branch in ((layer.norm1, self._attention), (layer.norm2, self._mlp)):
                module = layer.attention if branch == self._attention else layer.mlp
                normed = norm(h)
                out, back = branch(module, normed, method)
                backward.append((h, out, norm, back))
                h = h + out
        final = model.norm(h)
        logits = model.head(final)
        R = torch.zeros_like(logits)
        R[token, label] = logits[token, label]
        R = self._norm(model.norm, h, self._linear(model.head, final, R))
        for before, out, norm, back in reversed(backward):
            R_before, R_out = add(before, out, R)
            R = R_before + self._norm(norm, before, back(R_out))
        if model.positions is None:
            return R
        R, R_positions = add(x, model.positions[: len(x)], R)
        note(self.books, "parameters", R_positions)
        return R

    def _linear(self, module: nn.Linear, x: Tensor, R: Tensor) -> Tensor:
        b = x.new_zeros(module.out_features) if module.bias is None else module.bias
        return linear(x, module.weight.T, b, R, self.books)

    def _norm(self, norm: Any, x: Tensor, R: Tensor) -> Tensor:
        if isinstance(norm, nn.LayerNorm):
            return layer_norm(x, norm.weight, norm.bias, norm.eps, R, self.books)
        return rms_norm(x, norm.weight, norm.eps, R, self.books)

    def _attention(self, module: Any, x: Tensor, method: Method) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        projections = (module.q, module.k, module.v)
        q, k, v = (p(x).unflatten(1, (module.heads, -1)).transpose(0, 1) for p in projections)
        mask, scale = future(len(x)) if module.causal else 0.0, q.shape[-1] ** -0.5
        heads = (scale * q @ k.transpose(1, 2) + mask).softmax(-1) @ v
        joined = heads.transpose(0, 1).flatten(1)

        def back(R: Tensor) -> Tensor:
            R = self._linear(module.out, joined, R).unflatten(1, (module.heads, -1)).transpose(0, 1)
            parts = attention(q, k, v, mask, scale, R, self.books, method)
            R_x = torch.zeros_like(x)
            for projection, part in zip(projections, parts, strict=True):
                R_x += self._linear(projection, x, part.transpose(0, 1).flatten(1))
            return R_x

        return module.out(joined), back

    def _mlp(self, module: Any, x: Tensor, method: Method) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        up = module.up(x)
        if module.gate is None:
            inner = F.gelu(up)
            return module.down(inner), lambda R: self._linear(
                module.up, x, activation(self._linear(module.down, inner, R))
            )
        gate = F.silu(module.gate(x))
        inner = gate * up

        def back(R: Tensor) -> Tensor:
            R_gate, R_up = gated(self._linear(module.down, inner, R), method)
            return self._linear(module.gate, x, activation(R_gate)) + self._linear(module.up, x, R_up)

        return module.down(inner), back
