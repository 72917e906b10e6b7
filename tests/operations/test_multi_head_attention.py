"""torch's own modules of attention and transformers equal the same written by hand, with the same weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close
from relprop.errors import CoverageError
from relprop.rules import Epsilon
from small_transformers import drawn

N, T, S, SIZE, HEADS = 2, 4, 5, 12, 4

RULES: dict[str, Any] = {"attnlrp": "attnlrp", "cp-lrp": "cp-lrp", "none": Epsilon(0.01)}
each_rule = pytest.mark.parametrize("rules", RULES.values(), ids=RULES)


def drawn_text(tokens: int = T, size: int = SIZE) -> Tensor:
    return torch.randn(N, tokens, size, **DOUBLE)


def explained(model: Callable[..., Tensor], *inputs: Tensor, rules: Any) -> relprop.Explanation:
    generator = torch.Generator().manual_seed(7)

    def target(z: Tensor) -> Tensor:
        c = torch.randn(z.shape, generator=generator.manual_seed(7), dtype=torch.float64)
        return (z * c).flatten(1).sum(1)

    return relprop.explain(model, *inputs, target=target, rules=rules)


def assert_same(
    model: Callable[..., Tensor], written: Callable[..., Tensor], *inputs: Tensor, rules: Any
) -> relprop.Explanation:
    """Output as torch's own; relevance, and all lines of the books, as of what is written by hand."""
    e, expected = explained(model, *inputs, rules=rules), explained(written, *inputs, rules=rules)
    torch.testing.assert_close(e.output, model(*inputs), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(e.output, expected.output, rtol=1e-12, atol=1e-12)
    assert not e.ledger.mixed
    assert e.ledger.gap.max() < 1e-12
    for found, wanted in zip(parts(e), parts(expected), strict=True):
        close(found, wanted)
    for sink in {*e.ledger.absorbed, *expected.ledger.absorbed}:
        amounts = [x.ledger.absorbed.get(sink, torch.zeros(1).double()) for x in (e, expected)]
        torch.testing.assert_close(amounts[0] + 0 * e.score, amounts[1] + 0 * e.score, rtol=1e-9, atol=1e-9)
    return e


def parts(e: relprop.Explanation) -> list[Tensor]:
    return list(e.inputs.values())


def heads_of(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1, HEADS, SIZE // HEADS).transpose(1, 2)


class Written(nn.Module):
    """nn.MultiheadAttention for texts (N, tokens, features), by its weights; fused, or step by step.

    Masks are numbers that are added to the scores, of shapes that broadcast to (N, heads, T, S).
    """

    def __init__(self, module: nn.MultiheadAttention, *, mask: Any = None, fused: bool = False) -> None:
        super().__init__()
        self.module, self.mask, self.fused = [module], mask, fused
        self.eval()

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.both(query, key, value)[0]

    def both(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        m = self.module[0]
        weights = (
            m.in_proj_weight.chunk(3)
            if m._qkv_same_embed_dim
            else (m.q_proj_weight, m.k_proj_weight, m.v_proj_weight)
        )
        biases = (None,) * 3 if m.in_proj_bias is None else m.in_proj_bias.chunk(3)
        q, k, v = (F.linear(*given) for given in zip((query, key, value), weights, biases, strict=True))
        mask = torch.zeros(1, 1, 1, 1, **DOUBLE) if self.mask is None else self.mask
        mask = mask.expand(*mask.shape[:-1], max(key.shape[1], mask.shape[-1]))
        if m.bias_k is not None:
            k, v = (torch.cat([t, b.expand(len(t), -1, -1)], 1) for t, b in ((k, m.bias_k), (v, m.bias_v)))
            mask = F.pad(mask, (0, k.shape[1] - mask.shape[-1])) if mask.shape[-1] < k.shape[1] else mask
        if m.add_zero_attn:
            k, v = (torch.cat([t, torch.zeros(len(t), 1, SIZE, **DOUBLE)], 1) for t in (k, v))
            mask = F.pad(mask, (0, k.shape[1] - mask.shape[-1])) if mask.shape[-1] < k.shape[1] else mask
        q, k, v = heads_of(q), heads_of(k), heads_of(v)
        attention = (q @ k.mT * (SIZE // HEADS) ** -0.5 + mask).softmax(-1)
        z = F.scaled_dot_product_attention(q, k, v, mask) if self.fused else attention @ v
        return m.out_proj(z.transpose(1, 2).flatten(2)), attention


def module(**options: Any) -> nn.MultiheadAttention:
    """nn.MultiheadAttention whose biases are not zero."""
    made: nn.MultiheadAttention = drawn(nn.MultiheadAttention(SIZE, HEADS, batch_first=True, **options))
    return made


OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "without bias": {"bias": False},
    "bias of keys": {"add_bias_kv": True},
    "zero attention": {"add_zero_attn": True},
    "both": {"add_bias_kv": True, "add_zero_attn": True, "bias": False},
    "sizes": {"kdim": 7, "vdim": 9},
    "size of values": {"vdim": 9, "add_bias_kv": True},
    "dropout": {"dropout": 0.5},
}
each_way = pytest.mark.parametrize(
    "way",
    [{}, {"need_weights": False}, {"average_attn_weights": False}],
    ids=["weights", "no weights", "weights of heads"],
)


@each_rule
@each_way
@pytest.mark.parametrize("name", OPTIONS)
def test_the_module_is_as_written_by_hand(name: str, way: dict[str, Any], rules: Any) -> None:
    m = module(**OPTIONS[name])
    query, key, value = drawn_text(), drawn_text(S, m.kdim), drawn_text(S, m.vdim)
    written = Written(m, fused=not way.get("need_weights", True))
    e = assert_same(lambda q, k, v: m(q, k, v, **way)[0], written, query, key, value, rules=rules)
    if "add_bias_kv" in OPTIONS[name]:
        assert e.ledger.absorbed["parameters"].abs().min() > 1e-6


def hidden(*shape: int) -> Tensor:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(8)) < 0.4
    mask[..., 0] = False
    return mask


def as_numbers(mask: Tensor) -> Tensor:
    """What torch adds to scores: -inf where a boolean mask is true."""
    return (
        torch.zeros(mask.shape, **DOUBLE).masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask
    )


NUMBERS = torch.randn(T, S, generator=torch.Generator().manual_seed(9)).double()
OF_HEADS = torch.randn(N * HEADS, T, S, generator=torch.Generator().manual_seed(9)).double()
CAUSAL = torch.ones(T, S, dtype=torch.bool).triu(1)

MASKS: dict[str, dict[str, Any]] = {
    "padding": {"key_padding_mask": hidden(N, S)},
    "padding as numbers": {"key_padding_mask": NUMBERS[:N]},
    "bool": {"attn_mask": hidden(T, S)},
    "float": {"attn_mask": NUMBERS},
    "float with -inf": {"attn_mask": NUMBERS.masked_fill(CAUSAL, -torch.inf)},
    "bool of heads": {"attn_mask": hidden(N * HEADS, T, S)},
    "float of heads": {"attn_mask": OF_HEADS},
    "causal": {"attn_mask": CAUSAL, "is_causal": True},
    "causal, padding": {"attn_mask": CAUSAL, "is_causal": True, "key_padding_mask": hidden(N, S)},
    "bool and padding": {"attn_mask": hidden(T, S), "key_padding_mask": hidden(N, S)},
    "float of heads and padding": {"attn_mask": OF_HEADS, "key_padding_mask": as_numbers(hidden(N, S))},
}


def added(options: dict[str, Any]) -> Tensor:
    """Both masks of a call as one (N or 1, heads or 1, T or 1, S)."""
    total = torch.zeros(1, 1, 1, S, **DOUBLE)
    if "attn_mask" in options:
        mask = as_numbers(options["attn_mask"])
        total = total + (mask.reshape(N, HEADS, T, S) if mask.dim() == 3 else mask)
    if "key_padding_mask" in options:
        total = total + as_numbers(options["key_padding_mask"])[:, None, None]
    return total


@each_rule
@each_way
@pytest.mark.parametrize("name", MASKS)
def test_masks_are_as_written_by_hand(name: str, way: dict[str, Any], rules: Any) -> None:
    options = MASKS[name]
    for m in (module(), module(add_bias_kv=True, add_zero_attn=True)):
        query, key, value = drawn_text(), drawn_text(S), drawn_text(S)
        written = Written(m, mask=added(options), fused=not way.get("need_weights", True))
        if m.add_zero_attn and _hides_added_keys(**options, **way):
            continue  # torch hides the added keys there: below
        assert_same(
            lambda q, k, v, m=m: m(q, k, v, **options, **way)[0], written, query, key, value, rules=rules
        )


@each_rule
@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
def test_a_causal_mask_of_torchs_own_hides_the_added_keys(options: dict[str, bool], rules: Any) -> None:
    m, mask = module(**options), torch.ones(T, S + 1, dtype=torch.bool).triu(1)
    written = Written(m, mask=as_numbers(mask), fused=True)
    given = {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False}
    inputs = drawn_text(), drawn_text(S), drawn_text(S)
    assert_same(lambda q, k, v: m(q, k, v, **given)[0], written, *inputs, rules=rules)


def _hides_added_keys(
    *,
    is_causal: bool = False,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    **_options: Any,
) -> bool:
    """Whether torch computes with a causal mask of its own over all keys, and so over those that it added."""
    return is_causal and key_padding_mask is None and not need_weights


@each_rule
@each_way
def test_one_text_as_query_key_and_value(way: dict[str, Any], rules: Any) -> None:
    m = module()
    written = Written(m, fused=not way.get("need_weights", True))
    assert_same(lambda x: m(x, x, x, **way)[0], lambda x: written(x, x, x), drawn_text(), rules=rules)
    padding = hidden(N, T)
    written = Written(m, mask=as_numbers(padding)[:, None, None], fused=not way.get("need_weights", True))
    assert_same(
        lambda x: m(x, x, x, key_padding_mask=padding, **way)[0],
        lambda x: written(x, x, x),
        drawn_text(),
        rules=rules,
    )


@each_rule
@each_way
def test_tokens_first_and_single_texts(way: dict[str, Any], rules: Any) -> None:
    m = module(add_bias_kv=True)
    turned = nn.MultiheadAttention(SIZE, HEADS, add_bias_kv=True).double().eval()
    turned.load_state_dict(m.state_dict())
    written = Written(m, fused=not way.get("need_weights", True))

    def tokens_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return turned(*(t.transpose(0, 1) for t in (q, k, v)), **way)[0].transpose(0, 1)

    inputs = drawn_text(), drawn_text(S), drawn_text(S)
    assert_same(tokens_first, written, *inputs, rules=rules)

    def single(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return m(q[0], k[0], v[0], **way)[0].unsqueeze(0)

    assert_same(single, written, *(t[:1] for t in inputs), rules=rules)


@each_rule
@pytest.mark.parametrize("average", [True, False])
def test_the_weights_can_be_explained(average: bool, rules: Any) -> None:
    m = module()
    written = Written(m)

    def weights(q: Tensor, k: Tensor) -> Tensor:
        return m(q, k, k, average_attn_weights=average)[1][..., 2]

    def by_hand(q: Tensor, k: Tensor) -> Tensor:
        attention = written.both(q, k, k)[1]
        return (attention.mean(1) if average else attention)[..., 2]

    assert_same(weights, by_hand, drawn_text(), drawn_text(S), rules=rules)


def test_what_is_refused() -> None:
    m = module(dropout=0.25)
    weights = [m.embed_dim, m.num_heads, m.in_proj_weight, m.in_proj_bias, None, None, False]
    out = [m.out_proj.weight, m.out_proj.bias]
    x = drawn_text()

    def dropping(x: Tensor) -> Tensor:
        return F.multi_head_attention_forward(x, x, x, *weights, 0.25, *out, training=True)[0]

    with pytest.raises(CoverageError, match=r"dropout in .*drops values at random; call model.eval\(\)"):
        explained(dropping, x, rules="attnlrp")


# ---- layers and stacks of them ----


class WrittenLayer(nn.Module):
    """A layer of an encoder or decoder by its parts' weights; masks as `Written` takes them."""

    def __init__(self, layer: Any, *, mask: Any = None, memory_mask: Any = None) -> None:
        super().__init__()
        self.layer = [layer]
        self.attention = Written(layer.self_attn, mask=mask, fused=True)
        across = getattr(layer, "multihead_attn", None)
        self.across = None if across is None else Written(across, mask=memory_mask, fused=True)
        self.eval()

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        layer = self.layer[0]
        branches: list[Callable[[Tensor], Tensor]] = [lambda x: self.attention(x, x, x)]
        if self.across is not None:
            branches.append(lambda x: self.across(x, memory, memory))
        branches.append(lambda x: layer.linear2(layer.activation(layer.linear1(x))))
        for number, branch in enumerate(branches, 1):
            norm = getattr(layer, f"norm{number}")
            x = x + branch(norm(x)) if layer.norm_first else norm(x + branch(x))
        return x


LAYERS: dict[str, dict[str, Any]] = {
    "norm after": {},
    "norm first": {"norm_first": True},
    "gelu": {"activation": "gelu"},
    "gelu function, norm first": {"activation": F.gelu, "norm_first": True},
    "without bias": {"bias": False},
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def layer_of(kind: Any, name: str) -> Any:
    return drawn(kind(SIZE, HEADS, 2 * SIZE, batch_first=True, **LAYERS[name]))


def frozen(model: Any) -> Any:
    """Without gradients: only then does torch take its fast path, where it can."""
    return model.requires_grad_(False)


ENCODER_MASKS: dict[str, tuple[dict[str, Any], Tensor | None]] = {
    "none": ({}, None),
    "padding": ({"src_key_padding_mask": hidden(N, T)}, as_numbers(hidden(N, T))[:, None, None]),
    "mask": ({"src_mask": CAUSAL[:, :T]}, as_numbers(CAUSAL[:, :T])),
    "causal": ({"src_mask": as_numbers(CAUSAL[:, :T]), "is_causal": True}, as_numbers(CAUSAL[:, :T])),
}


@each_rule
@pytest.mark.parametrize("mask", ENCODER_MASKS)
@each_layer
def test_an_encoder_layer_is_as_written_by_hand(name: str, mask: str, rules: Any) -> None:
    given, numbers = ENCODER_MASKS[mask]
    layer = layer_of(nn.TransformerEncoderLayer, name)
    written = WrittenLayer(layer, mask=numbers)
    for torchs in (layer, frozen(layer)):
        assert_same(lambda x, torchs=torchs: torchs(x, **given), written, drawn_text(), rules=rules)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@each_rule
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("name", ["norm after", "gelu"])
def test_the_fast_path_of_evaluation_is_explained_too(name: str, nested: bool, rules: Any) -> None:
    """Without gradients torch computes a whole encoder in one call, with padding left out."""
    layer, padding = layer_of(nn.TransformerEncoderLayer, name), torch.zeros(N, T, dtype=torch.bool)
    padding[1, 2:] = True
    encoder = frozen(drawn(nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)))
    numbers = as_numbers(padding)[:, None, None]
    written = [WrittenLayer(part, mask=numbers) for part in encoder.layers]

    def model(x: Tensor) -> Tensor:
        return encoder(x, src_key_padding_mask=padding)

    x = drawn_text()
    with torch.no_grad():
        fast = model(x)
        e = explained(model, x, rules=rules)
    expected = explained(lambda x: written[1](written[0](x)), x, rules=rules)
    # torch's fast path has zeros where there is padding.
    torch.testing.assert_close(e.output[~padding], fast[~padding], rtol=1e-12, atol=1e-12)
    close(e.relevance, expected.relevance)
    assert e.ledger.gap.max() < 1e-12
    assert not e.ledger.mixed
    target = lambda z: z[:, 0].sum(1)  # noqa: E731
    of_first = relprop.explain(model, x, target=target, rules=rules).relevance
    assert (of_first[padding] == 0).all()
    assert (of_first[~padding] != 0).any(1).all()


@each_rule
@each_layer
def test_a_decoder_layer_is_as_written_by_hand(name: str, rules: Any) -> None:
    layer, padding = layer_of(nn.TransformerDecoderLayer, name), hidden(N, S)
    causal = CAUSAL[:, :T]
    written = WrittenLayer(layer, mask=as_numbers(causal), memory_mask=as_numbers(padding)[:, None, None])

    def torchs(x: Tensor, memory: Tensor) -> Tensor:
        options = {"tgt_mask": causal, "tgt_is_causal": True, "memory_key_padding_mask": padding}
        return layer(x, memory, **options)

    assert_same(torchs, written, drawn_text(), drawn_text(S), rules=rules)


@each_rule
@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_and_decoder_are_as_written_by_hand(norm_first: bool, rules: Any) -> None:
    options: dict[str, Any] = {"norm_first": norm_first, "batch_first": True, "activation": "gelu"}
    layer = nn.TransformerEncoderLayer(SIZE, HEADS, SIZE, **options)
    encode = nn.TransformerEncoder(layer, 2, nn.LayerNorm(SIZE), enable_nested_tensor=False)
    model = drawn(nn.Transformer(SIZE, HEADS, 2, 2, SIZE, custom_encoder=encode, **options))
    causal = as_numbers(CAUSAL[:, :T])
    encoder = [WrittenLayer(layer) for layer in model.encoder.layers]
    decoder = [WrittenLayer(layer, mask=causal) for layer in model.decoder.layers]

    def written(source: Tensor, x: Tensor) -> Tensor:
        for layer in encoder:
            source = layer(source)
        memory = model.encoder.norm(source)
        for layer in decoder:
            x = layer(x, memory)
        return model.decoder.norm(x)

    e = assert_same(
        lambda source, x: model(source, x, tgt_mask=causal), written, drawn_text(S), drawn_text(), rules=rules
    )
    assert all(R.abs().max() > 1e-6 for R in parts(e))
