"""Attention: softmax(q kᵀ)·v as one operation, left fused.

The products are bilinear, and relevance crosses the softmax by its Taylor expansion. So the plain gradient of
the fused kernel carries relevance through all of it. AttnLRP halves the relevance at both products: this is
the gradient with respect to q and k times 1/4, and to v times 1/2 (Achtibat et al. 2024, prop. 3.1 to 3.3).
If the weights are constants (CP-LRP, Ali et al. 2022), it is the gradient with respect to v. No matrix of
tokens by tokens is made.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.calls.call import Call
from relprop.calls.names import aten_names
from relprop.calls.nested import map_leaves, tensors_in
from relprop.calls.site import Kind
from relprop.crossing.parts import of_value
from relprop.engine.attach import attach
from relprop.engine.interception import Entry
from relprop.engine.known import Tag, all_nonnegative, behind_all
from relprop.engine.run import Run
from relprop.engine.seen import Seen, inner_of, is_relevant, value_of
from relprop.rules.other import SignalTakesAll, Uniform


def scaled_dot_product_attention(run: Run, call: Call, query: Any, key: Any, value: Any, *_args: Any) -> Any:
    """F.scaled_dot_product_attention with any mask, causal, scaled, with grouped queries, by any kernel."""
    mask, scale = call.argument("attn_mask", call.argument("attn_bias")), call.argument("scale")
    dropout, causal = call.argument("dropout_p", 0.0), call.argument("is_causal", False)
    grouped = call.argument("enable_gqa", query.dim() == 4 and query.shape[1] != key.shape[1])
    if dropout > 0:
        run.gap(call.name, f"dropout_p={dropout:g} drops weights at random; pass 0 in evaluation")
    if is_relevant(mask):
        return _written_out(run, query, key, value, mask, causal, scale, grouped)
    hidden = inner_of(mask)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            q, k, v, hidden, is_causal=causal, scale=scale, enable_gqa=grouped
        )

    return fused(run, call, query, key, value, attend)


def kernel(run: Run, call: Call, *args: Any) -> Any:
    """One of torch's attention kernels, as decomposed programs call them. Its first result is the output."""
    value, *rest = run.value(call)
    output = of_value(run, value, scaled_dot_product_attention(run, call, *args))
    return (output, *(run.seen(t, None) if isinstance(t, Tensor) else t for t in rest))


def multi_head(
    run: Run,
    call: Call,
    query: Any,
    key: Any,
    value: Any,
    size: int,
    heads: int,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    mask: Any,
    need_weights: bool,
    average: bool,
    kind: int | None,
) -> Any:
    """The fused kernel of nn.MultiheadAttention, samples first, written out as its module does otherwise."""
    if kind not in (None, 0, 1):
        run.gap(call.name, "a mask made of an attention mask and a padding mask is not covered")
    turned = [run.perform(torch.transpose, t, 0, 1) for t in (query, key, value)]
    output, weights = run.perform(
        F.multi_head_attention_forward,
        *turned,
        size,
        heads,
        weight,
        bias,
        None,
        None,
        False,
        0.0,
        out_weight,
        out_bias,
        training=False,
        key_padding_mask=mask if kind == 1 else None,
        need_weights=need_weights,
        attn_mask=mask if kind != 1 else None,
        average_attn_weights=average,
    )
    return of_value(run, run.value(call)[0], run.perform(torch.transpose, output, 0, 1)), weights


def flex_attention(run: Run, call: Call, query: Any, key: Any, value: Any, *rest: Any) -> Any:
    """torch.nn.attention.flex_attention, by its kernel. Functions that change scores have their gradient."""
    captured = [cell.cell_contents for f in rest for cell in getattr(f, "__closure__", None) or ()]
    if any(is_relevant(t) for t in tensors_in([*rest, *captured])):
        run.refuse(call.name, "a score_mod or mask_mod that depends on the input is not covered")
    rest = tuple(map_leaves(inner_of, r) for r in rest)
    others: list[Any] = []

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        output: Tensor
        output, *beside = call.signature.operation(q, k, v, *rest)
        others.extend(beside)
        return output

    output = fused(run, call, query, key, value, attend)
    return (output, *(run.seen(t, None) if isinstance(t, Tensor) else t for t in others))


def fused(run: Run, call: Call, query: Any, key: Any, value: Any, kernel: Callable[..., Tensor]) -> Seen:
    """Attention by a kernel from (query, key, value) to the output.

    An operand that is not relevant gets nothing, and the others share the relevance.
    """
    operands = (query, key, value)
    relevant = [is_relevant(t) for t in operands]
    behind = behind_all([t.tag for t, here in zip(operands, relevant, strict=True) if here])
    rule = run.choose(run.site(call, Kind.PRODUCT, behind))
    if not relevant[2]:
        rule = Uniform()  # the weights are all that depends on the input
    elif not isinstance(rule, Uniform | SignalTakesAll) or not any(relevant[:2]):
        rule = SignalTakesAll()
    run.apply(call, rule)
    if isinstance(rule, Uniform):
        output = kernel(*_sharing(run, call, operands, relevant))
    else:
        output = kernel(value_of(query), value_of(key), inner_of(value))
    nonnegative = value.tag.nonnegative if relevant[2] else all_nonnegative(value_of(value))
    return run.seen(output, Tag(behind.after(plain=False), nonnegative))


def _sharing(run: Run, call: Call, operands: tuple[Any, ...], relevant: list[bool]) -> tuple[Tensor, ...]:
    """Return query, key and value with a backward that scales their gradients as the decomposed rules do."""
    path, name = run.modules.path, call.name
    values = [value_of(t).detach() for t in operands]
    kept = [run.keep(t) for t in values]
    of_weights = 1 / (1 + relevant[2])
    part = of_weights / sum(relevant[:2])

    def backward(*arrived: Tensor | None) -> tuple[Tensor | None, ...]:
        on_query, on_key, on_value = arrived
        books = [
            run.ledger.per_sample(c * k.value) if c is not None else None
            for c, k in zip(arrived, kept, strict=True)
        ]
        # The output is linear in v, so v·c sums to the output's relevance. The weights get a part of it.
        lost = 0 if books[2] is None else of_weights * books[2]
        for amount, here in zip(books[:2], relevant, strict=False):
            if amount is not None and here:
                lost = lost - part * amount
        if isinstance(lost, Tensor):
            run.ledger.add("softmax", lost, path, name)
        parts = (part, part, 1 - of_weights)
        return tuple(
            None if c is None else c * p
            for c, p, here in zip((on_query, on_key, on_value), parts, relevant, strict=True)
            if here
        )

    roots = [t.recorded for t, here in zip(operands, relevant, strict=True) if here]
    return attach(values, roots, backward)


def _written_out(
    run: Run,
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    causal: bool,
    scale: float | None,
    grouped: bool,
) -> Any:
    """Attention with a mask that depends on the input. It is a term of the scores and gets its share."""
    if grouped:
        times = query.shape[-3] // key.shape[-3]
        key, value = (run.perform(torch.repeat_interleave, t, times, -3) for t in (key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = run.perform(torch.matmul, query, run.perform(torch.transpose, key, -2, -1))
    scores = run.perform(torch.add, run.perform(torch.mul, scores, scale), mask)
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = run.perform(torch.masked_fill, scores, future, -torch.inf)
    return run.perform(torch.matmul, run.perform(torch.softmax, scores, -1), value)


TABLE: Mapping[str, Entry] = {
    **dict.fromkeys(aten_names("scaled_dot_product_attention"), kernel),
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "flex_attention": flex_attention,
    "_native_multi_head_attention": multi_head,
}
