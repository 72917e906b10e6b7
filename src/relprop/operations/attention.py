"""Attention: softmax(q kᵀ)·v as one operation, left fused, and what torch writes in one call around it.

The products are bilinear, and the softmax has its Taylor expansion, so that the plain gradient of the fused
kernel carries relevance through all of it: AttnLRP halves the relevance at both products, which is the
gradient by q and k times 1/4 and by v times 1/2 (Achtibat et al. 2024, prop. 3.1 to 3.3). Where the weights
are constants (CP-LRP, Ali et al. 2022) it is the gradient by v. No matrix of tokens by tokens is made.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.attach import attach
from relprop.calls import Call, tensors_in
from relprop.intercept import Entry, Interception
from relprop.operations.products import PRODUCT
from relprop.provenance import Applied, Tag
from relprop.rules.other import SignalTakesAll, Uniform


def scaled_dot_product_attention(run: Interception, call: Call) -> Any:
    """F.scaled_dot_product_attention: every mask, causal, scaled, grouped queries, whichever kernel runs."""

    def arguments(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        options = {"attn_mask": attn_mask, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
        return query, key, value, dropout_p, options

    query, key, value, dropout, options = arguments(*call.args, **call.kwargs)
    if dropout > 0:
        run.gap(call.name, f"dropout_p={dropout:g} drops weights at random; pass 0 in evaluation")
    if run.relevant(options["attn_mask"]):
        return _written_out(run, query, key, value, **options)
    return fused(
        run, call, query, key, value, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options)
    )


def flex_attention(run: Interception, call: Call) -> Any:
    """torch.nn.attention.flex_attention, as it calls its kernel. What changes the scores has its gradient."""

    def arguments(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Any:
        return query, key, value, rest

    query, key, value, rest = arguments(*call.args, **call.kwargs)
    captured = [cell.cell_contents for f in rest for cell in getattr(f, "__closure__", None) or ()]
    if any(run.relevant(t) for t in tensors_in([*rest, *captured])):
        run.gap(call.name, "a score_mod or mask_mod that depends on the input is not covered")
    return fused(run, call, query, key, value, lambda q, k, v: call.function(q, k, v, *rest))


def fused(run: Interception, call: Call, query: Tensor, key: Tensor, value: Tensor, kernel: Any) -> Any:
    """Attention by a kernel from (query, key, value) to the output.

    A factor that is no tensor of the way of relevance gets nothing, and the others share what comes.
    """
    operands = (query, key, value)
    relevant = [run.relevant(t) for t in operands]
    tags = [run.tag(t) for t, is_relevant in zip(operands, relevant, strict=True) if is_relevant]
    depth = max(tag.depth for tag in tags)
    rule = run.choose(run.site(call, PRODUCT, depth))
    if not relevant[2]:
        rule = Uniform()  # the weights are all that depends on the input
    elif rule is None or not any(relevant[:2]):
        rule = SignalTakesAll()
    run.applied.append(Applied(run.modules.path, call.name, rule))
    if isinstance(rule, Uniform):
        output = kernel(*_sharing(run, call, operands, relevant))
    else:
        output = kernel(query.detach(), key.detach(), value)
    result: Tensor = output[0] if isinstance(output, tuple) else output
    nonnegative = run.tag(value).nonnegative if relevant[2] else bool((value >= 0).all())
    run.set_tag(result, Tag(depth, nonnegative))
    return output


def _sharing(
    run: Interception, call: Call, operands: tuple[Tensor, ...], relevant: list[bool]
) -> tuple[Tensor, ...]:
    """What stands for query, key and value, so that the plain gradient shares as the decomposed rules do."""
    path, name = run.modules.path, call.name
    kept = [run.keep(t) for t in operands]
    of_weights = 1 / (1 + relevant[2])
    part = of_weights / sum(relevant[:2])

    def backward(*arrived: Tensor | None) -> tuple[Tensor | None, ...]:
        on_query, on_key, on_value = arrived
        books = [
            run.ledger.per_sample(c * k.value) if c is not None else None
            for c, k in zip(arrived, kept, strict=True)
        ]
        # The output is linear in v: v·c sums to its relevance, of which the weights have their part.
        lost = 0 if books[2] is None else of_weights * books[2]
        for amount, is_relevant in zip(books[:2], relevant, strict=False):
            if amount is not None and is_relevant:
                lost = lost - part * amount
        if isinstance(lost, Tensor):
            run.ledger.add("softmax", lost, path, name)
        parts = (part, part, 1 - of_weights)
        return tuple(
            None if c is None else c * p
            for c, p, is_relevant in zip((on_query, on_key, on_value), parts, relevant, strict=True)
            if is_relevant
        )

    roots = [t for t, is_relevant in zip(operands, relevant, strict=True) if is_relevant]
    return attach([t.detach() for t in operands], roots, backward)


def _written_out(
    run: Interception,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Any:
    """Attention with a mask that depends on the input: a term of the scores, which gets its share."""
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = (run.perform(torch.repeat_interleave, t, times, -3) for t in (key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = run.perform(torch.matmul, query, run.perform(torch.transpose, key, -2, -1))
    scores = run.perform(torch.add, run.perform(torch.mul, scores, scale), attn_mask)
    if is_causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = run.perform(torch.masked_fill, scores, future, -torch.inf)
    return run.perform(torch.matmul, run.perform(torch.softmax, scores, -1), value)


TABLE: Mapping[str, Entry] = {
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "flex_attention": flex_attention,
}
