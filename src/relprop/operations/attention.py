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
from relprop.nonlinear_rules import SignalTakesAll, Uniform
from relprop.operations.products import PRODUCT
from relprop.provenance import Applied, Tag


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


def multi_head_attention(run: Interception, call: Call) -> Any:
    """F.multi_head_attention_forward, and so nn.MultiheadAttention, as its parts."""

    def arguments(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        embed_dim_to_check: int,
        num_heads: int,
        in_proj_weight: Tensor | None,
        in_proj_bias: Tensor | None,
        bias_k: Tensor | None,
        bias_v: Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_proj_weight: Tensor,
        out_proj_bias: Tensor | None,
        training: bool = True,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        use_separate_proj_weight: bool = False,
        q_proj_weight: Tensor | None = None,
        k_proj_weight: Tensor | None = None,
        v_proj_weight: Tensor | None = None,
        static_k: Tensor | None = None,
        static_v: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> dict[str, Any]:
        return dict(locals())

    given = arguments(*call.args, **call.kwargs)
    given |= {key: call.own(v) for key, v in given.items() if isinstance(v, Tensor)}
    if given["training"] and given["dropout_p"] > 0:
        run.gap(call.name, "dropout drops weights at random; call model.eval()")
    if given["static_k"] is not None or given["static_v"] is not None:
        run.gap(call.name, "static_k and static_v are not covered")
    single = given["query"].dim() == 2
    query, key, value = (
        run.perform(torch.unsqueeze, given[name], 1) if single else given[name]
        for name in ("query", "key", "value")
    )
    # Samples first, as everywhere, so that the ledger knows them apart.
    query, key, value = (run.perform(torch.transpose, t, 0, 1) for t in (query, key, value))
    heads, samples = given["num_heads"], query.shape[0]
    q, k, v = _projected(run, query, key, value, given)
    if given["bias_k"] is not None:
        k, v = (
            run.perform(torch.cat, [t, run.perform(torch.Tensor.expand, bias, samples, 1, -1)], 1)
            for t, bias in ((k, given["bias_k"]), (v, given["bias_v"]))
        )
    if given["add_zero_attn"]:
        k, v = (run.perform(torch.cat, [t, torch.zeros_like(t[:, :1].detach())], 1) for t in (k, v))
    q, k, v = (_split(run, t, heads) for t in (q, k, v))
    mask = _mask(given, samples, heads, k.shape[-2], q.detach())
    weights = None
    if given["need_weights"]:
        scaled = run.perform(torch.mul, q, q.shape[-1] ** -0.5)
        scores = run.perform(torch.matmul, scaled, run.perform(torch.transpose, k, -2, -1))
        scores = scores if mask is None else run.perform(torch.add, scores, mask)
        weights = run.perform(torch.softmax, scores, -1)
        attended = run.perform(torch.matmul, weights, v)
    else:
        attended = run.perform(F.scaled_dot_product_attention, q, k, v, mask)
    joined = run.perform(torch.flatten, run.perform(torch.transpose, attended, 1, 2), 2)
    output = run.perform(F.linear, joined, given["out_proj_weight"], given["out_proj_bias"])
    output = run.perform(torch.transpose, output, 0, 1)
    if weights is not None and given["average_attn_weights"]:
        weights = run.perform(torch.mean, weights, 1)
    if single:
        output = run.perform(torch.squeeze, output, 1)
        weights = None if weights is None else run.perform(torch.squeeze, weights, 0)
    return output, weights


def _projected(
    run: Interception, query: Tensor, key: Tensor, value: Tensor, given: Mapping[str, Any]
) -> tuple[Tensor, ...]:
    """Query, key and value, each by its own part of the projection."""
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    together, bias = given["in_proj_weight"], given["in_proj_bias"]
    apart = given["use_separate_proj_weight"]
    weights = [given[name] for name in names] if apart else together.detach().chunk(3)
    biases = (None, None, None) if bias is None else bias.detach().chunk(3)
    return tuple(
        run.perform(F.linear, x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)
    )


def _split(run: Interception, x: Tensor, heads: int) -> Tensor:
    """From (samples, tokens, heads·size) to (samples, heads, tokens, size)."""
    split = run.perform(torch.unflatten, x, -1, (heads, x.shape[-1] // heads))
    result: Tensor = run.perform(torch.transpose, split, 1, 2)
    return result


def _mask(given: Mapping[str, Any], samples: int, heads: int, keys: int, like: Tensor) -> Tensor | None:
    """What is added to the scores, broadcasting to (samples, heads, queries, keys), of both masks."""
    mask, padding = given["attn_mask"], given["key_padding_mask"]
    if given["is_causal"] and (mask is None or (padding is None and not given["need_weights"])):
        # torch lets its kernel hide what lies behind each query then, keys that were added among it.
        mask = torch.ones(like.shape[-2], keys, dtype=torch.bool, device=like.device).triu(1)
    total: Tensor | None = None
    for part, shape in ((mask, _shape_of_mask(mask, samples, heads)), (padding, (samples, 1, 1))):
        if part is None:
            continue
        part, hidden = part.detach(), part
        part = like.new_zeros(part.shape) if part.dtype == torch.bool else part.to(like.dtype)
        part = part.masked_fill(hidden, -torch.inf) if hidden.dtype == torch.bool else part
        part = F.pad(part, (0, keys - part.shape[-1]))  # keys that were added are seen by all
        part = part.reshape(*shape, keys)
        total = part if total is None else total + part
    return total


def _shape_of_mask(mask: Tensor | None, samples: int, heads: int) -> tuple[int, ...]:
    if mask is None or mask.dim() == 2:
        return 1, 1, -1
    return samples, heads, -1


TABLE: Mapping[str, Entry] = {
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "flex_attention": flex_attention,
    "multi_head_attention_forward": multi_head_attention,
}
