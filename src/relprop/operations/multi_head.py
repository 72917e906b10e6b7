"""F.multi_head_attention_forward, and so nn.MultiheadAttention and torch's layers, as its parts."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.calls import Call
from relprop.intercept import Entry, Interception


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
    first = {t: run.perform(torch.transpose, t, 0, 1) for t in (query, key, value)}
    query, key, value = (first[t] for t in (query, key, value))
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
    if not apart and query is key is value:  # as the model holds it, for the cache of weights to know it
        return tuple(run.perform(torch.chunk, run.perform(F.linear, query, together, bias), 3, -1))
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


TABLE: Mapping[str, Entry] = {"multi_head_attention_forward": multi_head_attention}
