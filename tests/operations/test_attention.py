"""Attention: fused and written out, with every mask and kernel; without matrices of tokens by tokens."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

import attention_replica
import relprop
from attention_replica import Books
from networks import DOUBLE, close
from relprop.errors import CoverageError
from relprop.rules import Epsilon, SignalTakesAll, Uniform

N, H, T, S, D = 2, 3, 4, 5, 6
QUERY, KEY, VALUE = (N, H, T, D), (N, H, S, D), (N, H, S, D + 1)

Attention = Callable[..., Tensor]

RULES: dict[str, Any] = {"attnlrp": "attnlrp", "cp-lrp": "cp-lrp", "none": Epsilon(0)}
each_rule = pytest.mark.parametrize("rules", RULES.values(), ids=RULES)


def operands(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, **DOUBLE) for shape in shapes or (QUERY, KEY, VALUE)]


def explained(
    attention: Attention, *inputs: Tensor, rules: Any, c: Tensor | None = None
) -> tuple[list[Tensor], relprop.Explanation]:
    """Relevance c·z of the output, by default of weights of both signs that are always the same."""
    if c is None:
        shape = attention(*inputs).shape
        c = torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(inputs[0])
    e = relprop.explain(attention, *inputs, target=lambda z: (z * c).flatten(1).sum(1), rules=rules)
    relevance = list(e.inputs.values())
    return relevance, e


def hidden(*shape: int) -> Tensor:
    """Which keys are hidden, true or false, of each query at most all but the first."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(8)) < 0.4
    mask[..., 0] = False
    return mask


def biases(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(9)).double()


def seen(*shape: int) -> Tensor:
    return ~hidden(*shape)


# what is passed to torch's function, and the same as numbers that are added to the scores
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "causal": {"is_causal": True},
    "bool": {"attn_mask": seen(T, S)},
    "bool of samples": {"attn_mask": seen(N, 1, 1, S)},
    "bool of heads": {"attn_mask": seen(H, T, S)},
    "bool of all": {"attn_mask": seen(N, H, T, S)},
    "bool of keys": {"attn_mask": seen(1, S)},
    "bool of queries": {"attn_mask": torch.ones(T, 1, dtype=torch.bool)},
    "float": {"attn_mask": biases(T, S)},
    "float of samples": {"attn_mask": biases(N, 1, T, S)},
    "float of heads": {"attn_mask": biases(H, 1, S)},
    "float of all": {"attn_mask": biases(N, H, T, S)},
    "infinite": {"attn_mask": torch.zeros(T, S).double().masked_fill(hidden(T, S), -torch.inf)},
    "infinite and finite": {"attn_mask": biases(N, 1, T, S).masked_fill(hidden(N, 1, T, S), -torch.inf)},
    "smallest number": {"attn_mask": hidden(T, S).double() * torch.finfo(torch.float64).min},
    "scaled": {"scale": 0.7},
    "scaled, causal": {"scale": -0.3, "is_causal": True},
    "scaled, bool": {"attn_mask": seen(N, 1, T, S), "scale": 1.3},
}
each_mask = pytest.mark.parametrize("mask", MASKS)


def added(options: dict[str, Any], queries: int = T, keys: int = S) -> Tensor:
    """A mask as numbers that are added to the scores, broadcasting to (N, H, T, S)."""
    if options.get("is_causal"):
        return torch.full((queries, keys), -torch.inf, **DOUBLE).triu(1)
    mask = options.get("attn_mask", torch.zeros(queries, keys, **DOUBLE))
    return (
        torch.zeros(mask.shape, **DOUBLE).masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else mask
    )


@each_mask
@pytest.mark.parametrize("method", ["attnlrp", "cp-lrp"])
def test_fused_attention_is_as_the_formulas_say(method: Any, mask: str) -> None:
    options = MASKS[mask]
    q, k, v = operands()
    attention = partial(F.scaled_dot_product_attention, **options)
    c = torch.randn(N, H, T, D + 1, **DOUBLE)
    relevance, e = explained(attention, q, k, v, rules=method, c=c)
    torch.testing.assert_close(e.output, attention(q, k, v), rtol=1e-12, atol=1e-12)
    numbers, scale = added(options).expand(N, H, T, S), options.get("scale", D**-0.5)
    R = c * attention(q, k, v)
    for sample in range(N):
        books: Books = {}
        expected = attention_replica.attention(
            q[sample], k[sample], v[sample], numbers[sample], scale, R[sample], books, method
        )
        for found, wanted in zip(relevance, expected, strict=True):
            close(found[sample], wanted)
        # A fused kernel does not tell a mask's part of the scores from what the softmax absorbs.
        absorbed = e.ledger.absorbed.get("softmax", torch.zeros(N))[sample]
        assert float(absorbed) == pytest.approx(sum(books.values()), rel=1e-10, abs=1e-10)
    assert not e.ledger.mixed
    assert e.ledger.gap.max() < 1e-12


def test_the_values_receive_exactly_half() -> None:
    q, k, v = operands()
    (_, _, of_v), e = explained(F.scaled_dot_product_attention, q, k, v, rules="attnlrp")
    torch.testing.assert_close(of_v.flatten(1).sum(1), e.score / 2, rtol=1e-12, atol=1e-12)
    (_, _, all_of_v), _ = explained(F.scaled_dot_product_attention, q, k, v, rules="cp-lrp")
    close(all_of_v, 2 * of_v)


# ---- every spelling ----


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    scores = torch.matmul(q, k.transpose(-2, -1)) * scale
    return torch.matmul(torch.softmax(scores + mask, dim=-1), v)


def scaled_before(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    scores = (q * scale) @ k.mT
    return scores.masked_fill(mask.isinf(), -torch.inf).add(mask.nan_to_num(neginf=0)).softmax(-1) @ v


def scaled_on_both_sides(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    root = abs(scale) ** 0.5
    scores = (q * root) @ (k.transpose(2, 3) * (root if scale > 0 else -root))
    scores += mask
    return F.softmax(scores, -1, dtype=torch.float64).matmul(v)


def divided(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    scores = torch.einsum("nhqd,nhkd->nhqk", q, k) / (1 / scale)
    scores = torch.where(mask.isinf(), -torch.inf, scores + mask.nan_to_num(neginf=0))
    return torch.einsum("nhqk,nhkd->nhqd", F.dropout(scores.softmax(3), 0.5, training=False), v)


def batched(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    mask = mask.expand(*q.shape[:3], k.shape[2])
    scores = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2)).mul(scale) + mask.flatten(0, 1)
    return torch.bmm(nn.Softmax(dim=-1)(scores), v.flatten(0, 1)).view(*q.shape[:3], -1)


def biased(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    mask = mask.expand(*q.shape[:3], k.shape[2]).flatten(0, 1)
    scores = torch.baddbmm(mask, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=scale)
    return (scores.softmax(-1) @ v.flatten(0, 1)).unflatten(0, q.shape[:2])


def tokens_first(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    scores = torch.einsum("nqhd,nkhd->nhqk", q.transpose(1, 2), k.transpose(1, 2)).mul_(scale)
    return torch.einsum("nhqk,nkhd->nqhd", (scores + mask).softmax(-1), v.transpose(1, 2)).transpose(1, 2)


def of_columns(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    weights = (scale * (k @ q.mT) + mask.mT).softmax(-2)
    return (v.mT @ weights).mT


WRITTEN = {
    f.__name__: f
    for f in (plain, scaled_before, scaled_on_both_sides, divided, batched, biased, tokens_first, of_columns)
}


@each_rule
@each_mask
@pytest.mark.parametrize("spelling", WRITTEN)
def test_all_spellings_of_attention_are_the_same(spelling: str, mask: str, rules: Any) -> None:
    options, (q, k, v) = MASKS[mask], operands()
    numbers, scale = added(options), options.get("scale", D**-0.5)
    written = lambda q, k, v: WRITTEN[spelling](q, k, v, numbers, scale)  # noqa: E731
    relevance, e = explained(written, q, k, v, rules=rules)
    fused, of_fused = explained(partial(F.scaled_dot_product_attention, **options), q, k, v, rules=rules)
    torch.testing.assert_close(e.output, of_fused.output, rtol=1e-12, atol=1e-12)
    for found, wanted in zip(relevance, fused, strict=True):
        close(found, wanted)
    assert e.ledger.gap.max() < 1e-12
    assert not e.ledger.mixed
    close(
        sum(e.ledger.absorbed.values(), torch.zeros(N)),
        sum(of_fused.ledger.absorbed.values(), torch.zeros(N)),
    )


def test_without_a_rule_the_weights_of_attention_are_constants() -> None:
    q, k, v = operands()
    relevance, e = explained(F.scaled_dot_product_attention, q, k, v, rules=Epsilon(0))
    assert [a.rule for a in e.rules] == [SignalTakesAll()]
    assert not relevance[0].any()
    assert not relevance[1].any()
    close(relevance[2].flatten(1).sum(1), e.score)


SUBSETS = ["q", "k", "v", "qk", "qv", "kv", "qkv"]


@each_rule
@pytest.mark.parametrize("relevant", SUBSETS)
@pytest.mark.parametrize("mask", ["none", "causal", "bool of samples"])
def test_operands_that_do_not_depend_on_the_input_get_nothing(mask: str, relevant: str, rules: Any) -> None:
    options, (q, k, v) = MASKS[mask], operands()
    given = {name: value for name, value in zip("qkv", (q, k, v), strict=True) if name in relevant}
    constants = {
        name: value[:1] for name, value in zip("qkv", (q, k, v), strict=True) if name not in relevant
    }
    c = torch.randn(N, H, T, D + 1, **DOUBLE)

    def of(attention: Attention) -> Attention:
        def model(*inputs: Tensor) -> Tensor:
            known = {**constants, **dict(zip(given, inputs, strict=True))}
            return attention(*(known[name].expand(N, -1, -1, -1) for name in "qkv"))

        return model

    fused = partial(F.scaled_dot_product_attention, **options)
    relevance, e = explained(of(fused), *given.values(), rules=rules, c=c)
    everything = {**{name: value.expand(N, -1, -1, -1) for name, value in constants.items()}, **given}
    R = c * fused(*(everything[name] for name in "qkv"))
    # Of a factor that is constant, the others get the part.
    method: Any = "attnlrp" if rules == "attnlrp" or "v" not in relevant else "cp-lrp"
    weights_alone, half = "v" not in relevant, len(set("qk") & set(relevant)) == 1
    times = {"q": 2**weights_alone * 2**half, "k": 2**weights_alone * 2**half, "v": 1}
    if relevant == "v":
        method = "cp-lrp"
    numbers = added(options).expand(N, H, T, S)
    for sample in range(N):
        parts = attention_replica.attention(
            *(everything[name][sample] for name in "qkv"), numbers[sample], D**-0.5, R[sample], {}, method
        )
        expected = dict(zip("qkv", parts, strict=True))
        for name, found in zip(given, relevance, strict=True):
            close(found[sample], times[name] * expected[name])
    assert e.ledger.gap.max() < 1e-12


@each_rule
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shapes", [((N, T, D), (N, S, D), (N, S, D)), ((N, 1, D), (N, S, D), (N, S, 2))])
def test_attention_of_one_head_has_three_dimensions(shapes: Any, causal: bool, rules: Any) -> None:
    q, k, v = operands(*shapes)
    options: dict[str, Any] = {"is_causal": causal}
    if not causal:
        options["attn_mask"] = seen(N, q.shape[1], S)
    relevance, e = explained(partial(F.scaled_dot_product_attention, **options), q, k, v, rules=rules)

    def with_a_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        given = {key: m.unsqueeze(1) if isinstance(m, Tensor) else m for key, m in options.items()}
        numbers = added(given, q.shape[1], S)
        return plain(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1), numbers, D**-0.5).squeeze(1)

    expected, _ = explained(with_a_head, q, k, v, rules=rules)
    for found, wanted in zip(relevance, expected, strict=True):
        close(found, wanted)
    assert e.ledger.gap.max() < 1e-12


@each_rule
@pytest.mark.parametrize("mask", ["none", "causal", "bool of samples", "float of samples"])
@pytest.mark.parametrize("groups", [1, 2])
def test_queries_in_groups_share_keys_and_values(groups: int, mask: str, rules: Any) -> None:
    options = MASKS[mask]
    q, k, v = operands((N, 4, T, D), (N, groups, S, D), (N, groups, S, D))
    fused = partial(F.scaled_dot_product_attention, enable_gqa=True, **options)
    relevance, e = explained(fused, q, k, v, rules=rules)

    def repeated(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (t.repeat_interleave(4 // groups, 1) for t in (k, v))
        return plain(q, k, v, added(options), D**-0.5)

    def expanded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (t[:, :, None].expand(-1, -1, 4 // groups, -1, -1).reshape(N, 4, S, D) for t in (k, v))
        return F.scaled_dot_product_attention(q, k, v, **options)

    for other in (repeated, expanded):
        for found, wanted in zip(relevance, explained(other, q, k, v, rules=rules)[0], strict=True):
            close(found, wanted)
    assert e.ledger.gap.max() < 1e-12


# ---- masks that depend on the input ----


@each_rule
@pytest.mark.parametrize("groups", [3, 1])
@pytest.mark.parametrize("causal", [False, True])
def test_a_mask_that_depends_on_the_input_gets_its_part_of_the_scores(
    causal: bool, groups: int, rules: Any
) -> None:
    """As position biases that a network computes do."""
    q, k, v = operands(QUERY, (N, groups, S, D), (N, groups, S, D))
    bias = torch.randn(N, 1, T, S, **DOUBLE)
    future = torch.full((T, S), -torch.inf, **DOUBLE).triu(1) if causal else torch.zeros(T, S, **DOUBLE)

    def fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        mask = bias.masked_fill(future.isinf(), -torch.inf)
        return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=groups < H)

    def written(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        k, v = (t.repeat_interleave(H // groups, 1) for t in (k, v))
        scores = q @ k.mT * D**-0.5 + bias
        return scores.masked_fill(future.isinf(), -torch.inf).softmax(-1) @ v

    relevance, e = explained(fused, q, k, v, bias, rules=rules)
    expected, _ = explained(written, q, k, v, bias, rules=rules)
    for found, wanted in zip(relevance, expected, strict=True):
        close(found, wanted)
    assert e.ledger.gap.max() < 1e-12
    assert bool(relevance[3].any()) == (rules == "attnlrp")
    if groups == H:
        R = (e.output * c_of(e.output)).detach()
        for sample in range(N):
            scores = (q @ k.mT * D**-0.5)[sample]
            total = scores + bias[sample]
            R_s, _ = attention_replica.matmul((total + future).softmax(-1), v[sample], R[sample])
            R_scores = attention_replica.softmax(total + future, R_s, {})
            of_bias = (R_scores * bias[sample] / total).sum(0, keepdim=True)
            close(relevance[3][sample], of_bias if rules == "attnlrp" else torch.zeros_like(of_bias))


def c_of(output: Tensor) -> Tensor:
    """The weights that `explained` takes."""
    return torch.randn(output.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp"])
def test_a_mask_may_be_all_that_depends_on_the_input(rules: str) -> None:
    (q, k, v), bias = operands(), torch.randn(N, H, T, S, **DOUBLE)
    (R,), e = explained(lambda bias: F.scaled_dot_product_attention(q, k, v, bias), bias, rules=rules)
    (expected,), _ = explained(lambda bias: plain(q, k, v, bias, D**-0.5), bias, rules=rules)
    close(R, expected)
    assert e.ledger.gap.max() < 1e-12


def test_a_row_that_sees_nothing_gets_nothing() -> None:
    q, k, v = operands()
    mask = torch.ones(T, S, dtype=torch.bool)
    mask[1] = False
    relevance, e = explained(
        partial(F.scaled_dot_product_attention, attn_mask=mask), q, k, v, rules="attnlrp"
    )
    assert (e.output[:, :, 1] == 0).all()
    assert all(R.isfinite().all() for R in relevance)
    assert (relevance[0][:, :, 1] == 0).all()
    assert e.ledger.gap.max() < 1e-12


# ---- kernels ----


@each_rule
@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": True}, {"attn_mask": seen(N, 1, 8, 8)}],
    ids=["no mask", "causal", "bool"],
)
@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
def test_whichever_kernel_runs(backend: SDPBackend, options: dict[str, Any], rules: Any) -> None:
    q, k, v = (t.float() for t in operands(*[(N, 2, 8, 8)] * 3))
    fused = partial(F.scaled_dot_product_attention, **options)
    with sdpa_kernel(backend):
        relevance, e = explained(fused, q, k, v, rules=rules)
    exact, _ = explained(
        lambda q, k, v: plain(q, k, v, added(options, 8, 8), 8**-0.5),
        *(t.double() for t in (q, k, v)),
        rules=rules,
    )
    for found, wanted in zip(relevance, exact, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted.float(), rtol=0, atol=1e-5 * float(wanted.abs().max() + 1))
    assert e.ledger.gap.max() < 1e-5


class TokensByTokens(TorchDispatchMode):
    """Notes every operation that makes a tensor with this many elements or more."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.elements, self.found, self.largest = elements, list[str](), 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
                self.found += [str(function)] * (tensor.numel() >= self.elements)
        return result


class Attending(nn.Module):
    """Attention of two heads over a text, and its last token."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.project, self.attention = nn.Linear(16, 48), attention

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in self.project(x).chunk(3, -1))
        return self.attention(q, k, v).transpose(1, 2).flatten(2)[:, -1]


@each_rule
@pytest.mark.parametrize("causal", [False, True])
def test_no_matrix_of_tokens_by_tokens_is_made(causal: bool, rules: Any) -> None:
    tokens = 512
    fused = Attending(partial(F.scaled_dot_product_attention, is_causal=causal)).eval()
    written = Attending(lambda q, k, v: plain(q, k, v, torch.zeros(1), 8**-0.5)).eval()
    x = torch.randn(1, tokens, 16)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), TokensByTokens(tokens * tokens) as made:
        relprop.explain(fused, x, target=3, rules=rules)
    assert made.found == []
    assert made.largest < tokens * tokens / 4
    with TokensByTokens(2 * tokens * tokens) as made:
        relprop.explain(written, x, target=3, rules=rules)
    assert made.found  # the mode sees them


# ---- what is refused ----


class Dropping(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.25)


def test_dropout_is_a_gap() -> None:
    message = (
        r"scaled_dot_product_attention in module 'attention' at .*test_attention.py:\d+: dropout_p=0.25 "
        r"drops weights at random; pass 0 in evaluation"
    )
    with pytest.raises(CoverageError, match=message):
        relprop.explain(Named(Dropping()), *operands(), target=lambda z: z.flatten(1).sum(1), rules="attnlrp")


class Named(nn.Module):
    """A module with another one, by the name of "attention"."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.attention(*inputs)


class WholeAttention(torch.autograd.Function):
    """As other libraries bind kernels; what it computes is seen."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError


@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp"])
def test_attention_in_a_custom_function_is_attention(rules: str) -> None:
    q, k, v = operands()
    _, e = explained(lambda q, k, v: WholeAttention.apply(q, k, v), q, k, v, rules=rules)
    _, expected = explained(lambda q, k, v: F.scaled_dot_product_attention(q, k, v), q, k, v, rules=rules)
    for name, R in expected.inputs.items():
        torch.testing.assert_close(e.inputs[name], R)


def test_each_product_is_told_with_its_rule() -> None:
    q, k, v = operands()
    _, fused = explained(F.scaled_dot_product_attention, q, k, v, rules="attnlrp")
    assert [(a.operation, a.rule) for a in fused.rules] == [("scaled_dot_product_attention", Uniform())]
    _, written = explained(lambda q, k, v: (q @ k.mT).softmax(-1) @ v, q, k, v, rules="cp-lrp")
    # Of scores neither factor is a gate; the weights of attention are one.
    assert [(a.operation, a.rule) for a in written.rules] == [
        ("matmul", Uniform()),
        ("matmul", SignalTakesAll(activations=True)),
    ]
