"""Families of transformers that compute in ways of their own, in the manner of `transformer_families`.

Each is here for what it does and the others do not, as the comments say.
"""

from collections.abc import Mapping
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any

import torch

from transformer_families import (
    _BASE,
    _BODY,
    _GROUPED,
    _HEADS,
    _LAYERS,
    _TEXT,
    _TOKENS,
    _VISION,
    _WAV2VEC2,
    SAMPLES,
    Arguments,
    Draw,
    Family,
    _captions,
    _causal,
    _of_experts,
    _of_hub,
    _pixels,
    _sound,
    _text,
    _translation,
)

PICTURE = 97
"""The token in whose place a picture's patches are put."""


def _unmasked(generator: torch.Generator) -> Arguments:
    return {"input_ids": _text(generator)["input_ids"]}


def _with_pictures(patches: int, generator: torch.Generator) -> Arguments:
    """A text after as many tokens as the picture has patches."""
    arguments = _captions(generator)
    before = torch.full((SAMPLES, patches), PICTURE)
    arguments["input_ids"] = torch.cat([before, arguments["input_ids"].clamp(max=PICTURE - 1)], 1)
    arguments["attention_mask"] = torch.cat([torch.ones_like(before), arguments["attention_mask"]], 1)
    return arguments


_long: Draw = partial(_text, tokens=16)
_large: Draw = partial(_pixels, size=64)

_DECODER = {**_TOKENS, **_BASE, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 32}
_MPT = {**_TOKENS, "d_model": 32, "n_heads": 4, "n_layers": 2, "expansion_ratio": 2, "max_seq_len": 32}
_GPT_OSS = {**_HEADS, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4}
_LATENT = (
    {**_TEXT, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
    | {
        "v_head_dim": 8,
        "head_dim": 8,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 2,
    }
    | {"topk_group": 1, "moe_intermediate_size": 24, "first_k_dense_replace": 1, "n_shared_experts": 1}
)
_GEMMA3N = {**_HEADS, **_LAYERS, "sliding_window": 4, "hidden_size_per_layer_input": 8} | {
    "vocab_size_per_layer_input": _TOKENS["vocab_size"],
    "num_kv_shared_layers": 0,
    "laurel_rank": 8,
    "activation_sparsity_pattern": [0.9, 0.0],
    "altup_num_inputs": 3,
}
_BAMBA = {**_GROUPED, "attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 16} | {
    "mamba_d_state": 8,
    "mamba_chunk_size": 4,
}
_DEBERTA = {**_TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]} | {
    "max_relative_positions": 8,
    "position_biased_input": False,
}
_XLNET = {**_TOKENS, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "num_labels": 5}
_LONGFORMER = {**_TEXT, "attention_window": [4, 4], "sep_token_id": 2, "max_position_embeddings": 64}
_FUNNEL = {**_TOKENS, "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 48, "num_labels": 5} | {
    "block_sizes": [1, 1],
    "num_decoder_layers": 1,
}
_BART = (
    {**_TOKENS, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 32}
    | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_start_token_id": 2}
    | {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "forced_eos_token_id": None}
)
_CONFORMER = {**_WAV2VEC2, "conv_depthwise_kernel_size": 3, "position_embeddings_type": "relative"}
_HIERA = {"embed_dim": 16, "image_size": [64, 64], "depths": [1, 1], "num_heads": [1, 2]} | {
    "query_stride": [2, 2],
    "masked_unit_size": [8, 8],
    "masked_unit_attention": [True, False],
    "num_query_pool": 1,
    "num_labels": 5,
}
_RESNET = {"model_type": "resnet", "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]} | {
    "embedding_size": 8,
    "layer_type": "basic",
    "out_features": ["stage4"],
}
_DETR = {**_BART, "backbone_config": _RESNET, "use_timm_backbone": False, "backbone": None} | {
    "num_queries": 5,
    "num_labels": 5,
}
_LLAVA = {
    "text_config": {"model_type": "llama", **_GROUPED},
    "vision_config": {"model_type": "clip_vision_model", **_VISION},
    "image_token_index": PICTURE,
    "vision_feature_layer": -1,
}
_BLIP2 = {
    "vision_config": {**_BODY, "image_size": 32, "patch_size": 8},
    "qformer_config": {**_TEXT, "encoder_hidden_size": 32, "cross_attention_frequency": 1},
    "text_config": {"model_type": "opt", **_DECODER},
    "num_query_tokens": 4,
    "image_token_index": PICTURE,
}

_MAMBA = {**_TOKENS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4}
_MAMBA2 = {**_TOKENS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 4} | {
    "head_dim": 16,
    "expand": 2,
    "n_groups": 1,
    "chunk_size": 4,
}
_RWKV = {**_TOKENS, "hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2} | {
    "context_length": 16
}
_JAMBA = {**_GROUPED, "num_experts": 2, "num_experts_per_tok": 1, "use_mamba_kernels": False} | {
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "mamba_d_state": 4,
    "mamba_dt_rank": 4,
}
_QWEN3_NEXT = {**_HEADS, "layer_types": ["linear_attention", "full_attention"], "num_experts": 4} | {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
}
_XLSTM = {**_TOKENS, "hidden_size": 32, "num_heads": 4, "num_hidden_layers": 2}


def _without_cache(generator: torch.Generator) -> Arguments:
    return {**_unmasked(generator), "use_cache": False}


_eager: Any = partial(_of_hub, attentions=("eager",))

FAMILIES: Mapping[str, Family] = MappingProxyType(
    dict(
        chain(
            _of_hub("opt", "OPTForCausalLM", _causal, _DECODER),  # positions from the mask
            _of_hub("falcon", "FalconForCausalLM", _causal, _TEXT),  # one key for all heads
            _eager("mpt", "MptForCausalLM", _causal, _MPT),  # attention biased by distance
            _of_experts("gpt-oss", "GptOssForCausalLM", _causal, _GPT_OSS, attentions=("eager",)),  # sinks
            _of_hub("deepseek-v2", "DeepseekV2ForCausalLM", _causal, _LATENT),  # complex numbers
            _of_hub("deepseek-v3", "DeepseekV3ForCausalLM", _causal, _LATENT),  # writes into views
            _of_hub("gemma3n", "Gemma3nForCausalLM", _causal, _GEMMA3N),  # several streams, a sparse gate
            _of_hub("bamba", "BambaForCausalLM", _causal, _BAMBA),  # Mamba-2: exponentials of hidden scores
            _eager("deberta", "DebertaForSequenceClassification", _text, _DEBERTA),  # products that broadcast
            _eager("xlnet", "XLNetForSequenceClassification", _text, _XLNET),  # tokens first
            _eager("longformer", "LongformerForSequenceClassification", _long, _LONGFORMER),  # strided views
            _eager("fnet", "FNetForSequenceClassification", _unmasked, _TEXT),  # Fourier transforms
            _eager("funnel", "FunnelForSequenceClassification", _text, _FUNNEL),  # pooled queries
            _of_hub("bart", "BartForConditionalGeneration", _translation, _BART),  # attention across
            # Gated convolutions between attention, positions relative to each other.
            _of_hub("conformer", "Wav2Vec2ConformerForSequenceClassification", _sound, _CONFORMER),
            _eager("hiera", "HieraForImageClassification", _large, _HIERA),  # queries max-pooled
            _eager("detr", "DetrForObjectDetection", _large, _DETR),  # queries that are parameters
            # Pictures among the words: put there by a mask, and by way of queries that are parameters.
            _of_hub("llava", "LlavaForConditionalGeneration", partial(_with_pictures, 16), _LLAVA),
            # States that are carried from token to token.
            _eager("mamba", "MambaForCausalLM", _causal, _MAMBA),
            _eager("falcon-mamba", "FalconMambaForCausalLM", _causal, _MAMBA),
            _eager("mamba2", "Mamba2ForCausalLM", _causal, _MAMBA2),
            _eager("jamba", "JambaForCausalLM", _causal, _JAMBA),  # beside attention and experts
            _eager("rwkv", "RwkvForCausalLM", _without_cache, _RWKV),
            _eager("qwen3-next", "Qwen3NextForCausalLM", _causal, _QWEN3_NEXT),  # gated delta rule
            _eager("xlstm", "xLSTMForCausalLM", _without_cache, _XLSTM),
            _of_hub("blip-2", "Blip2ForConditionalGeneration", partial(_with_pictures, 4), _BLIP2),
        )
    )
)
"""By name, which ends with the ways of computing."""
