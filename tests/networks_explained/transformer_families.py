"""Families of transformers as transformers, torchvision and timm have them: tiny, with random weights.

As in `zoo_networks`, every parameter is drawn anew, by a generator of its own: fresh ones have biases of zero
and norms of one, and hide mistakes. Weights have a size at which attention is far from an average.
"""

import copy
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from itertools import chain
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from torchvision_shim import import_torchvision
from zoo_networks import SAMPLES, _draw_statistics, _picture

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded

CLASSES = 5
PADDING, END, VOCABULARY = 0, 98, 99

Arguments = dict[str, Any]
Draw = Callable[[torch.Generator], Arguments]


@dataclass(frozen=True)
class Family:
    """One family of transformers, with one way of computing attention and experts.

    Args:
        library: "transformers", "torchvision" or "timm".
        model: what the library calls it; in transformers and torchvision a class.
        draw: gives the keyword arguments of its call, from a generator.
        settings: of its configuration, or arguments of its constructor.
        output: which of several outputs is explained.
        attention: "eager" or "sdpa", which timm calls fused.
        experts: how transformers computes a mixture of experts: "eager", "grouped_mm" or "batched_mm".
    """

    library: str
    model: str
    draw: Draw
    settings: Mapping[str, Any]
    output: str | None
    attention: str
    experts: str | None

    def make(self, dtype: torch.dtype) -> tuple[nn.Module, Arguments, Callable[[Any], Tensor]]:
        """Give the module in evaluation mode, the keyword arguments of its call, and what to explain.

        Weights, arguments and target are the same in every precision, up to rounding, and in each way of
        computing.
        """
        module, arguments, classes = _made(self)
        cast = {name: _as_type(value, dtype) for name, value in arguments.items()}
        return copy.deepcopy(module).to(dtype), cast, lambda output: _scores(output, self.output, classes)

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """The precisions that it computes in."""
        grouped = self.experts == "grouped_mm"  # which torch lacks for double precision
        return (torch.float32,) if grouped else (torch.float32, torch.float64)

    def __hash__(self) -> int:
        return hash((self.model, self.attention, self.experts))


def _as_type(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _logits(output: Any, name: str | None) -> Tensor:
    """What is chosen from, (samples, classes): of a text the last token's, of a segmentation one area's."""
    logits: Tensor = output if name is None else output[name]
    if logits.dim() == 4:
        return logits[:, :, 2:6, 1:5].mean((2, 3))
    return logits[:, -1] if logits.dim() == 3 else logits


def _scores(output: Any, name: str | None, classes: Tensor) -> Tensor:
    return _logits(output, name)[torch.arange(len(classes)), classes]


# Arguments.


def _text(generator: torch.Generator, tokens: int = 7, **options: Any) -> Arguments:
    """Tokens that end in END; two within the last sample are hidden, though each position sees some token.

    Double precision asks for the latter: where all is hidden, eager attention, which takes its softmax in
    single precision, is NaN.
    """
    ids = torch.randint(3, END, (SAMPLES, tokens), generator=generator)
    ids[:, -1] = END
    mask = torch.ones_like(ids)
    mask[-1, 1:3] = 0
    return {"input_ids": ids.where(mask > 0, PADDING), "attention_mask": mask, **options}


def _decoder(generator: torch.Generator) -> Arguments:
    ids = torch.randint(3, END, (SAMPLES, 4), generator=generator)
    return {"decoder_input_ids": ids, "use_cache": False}


def _pixels(generator: torch.Generator, name: str = "pixel_values", size: int = 32) -> Arguments:
    return {name: _picture(size, generator)}


def _sound(generator: torch.Generator, padded: bool = False) -> Arguments:
    values = torch.randn(SAMPLES, 120, generator=generator, dtype=torch.float64)
    mask = torch.ones(values.shape, dtype=torch.long)
    mask[-1, 80:] = 0
    return {"input_values": values, "attention_mask": mask} if padded else {"input_values": values}


def _spectrogram(generator: torch.Generator) -> Arguments:
    return {"input_features": torch.randn(SAMPLES, 8, 24, generator=generator, dtype=torch.float64)}


def _both(one: Draw, other: Draw, generator: torch.Generator) -> Arguments:
    return one(generator) | other(generator)


_causal = partial(_text, use_cache=False)
_padded_sound = partial(_sound, padded=True)
_small = partial(_pixels, name="x")
_large = partial(_pixels, name="x", size=64)
_translation = partial(_both, _text, _decoder)
_speech = partial(_both, _spectrogram, _decoder)
_captions = partial(_both, _text, _pixels)

# Settings.

_BASE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_labels": CLASSES}
_BODY = {**_BASE, "intermediate_size": 48}
_TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": PADDING, "bos_token_id": 1, "eos_token_id": END}
_TEXT = {**_BODY, **_TOKENS}
_DISTILBERT = {**_TOKENS, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "num_labels": CLASSES}
_LAYERS = {"layer_types": ["sliding_attention", "full_attention"]}
_MODERNBERT = {**_TEXT, **_LAYERS, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 4}
_GPT2 = {**_TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16}
_GROUPED = {**_TEXT, "num_key_value_heads": 2}
_HEADS = {**_GROUPED, "head_dim": 8}
_GEMMA2 = {**_HEADS, **_LAYERS, "sliding_window": 4, "query_pre_attn_scalar": 8}
_MIXTRAL = {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}
_QWEN3_MOE = {**_HEADS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_T5 = {**_TOKENS, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
_GATED_T5 = {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_WHISPER = (
    {**_TOKENS, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "num_mel_bins": 8}
    | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "begin_suppress_tokens": None}
    | {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_source_positions": 12, "max_target_positions": 8}
)
_WAV2VEC2 = {**_TEXT, "conv_dim": (16, 32), "conv_stride": (5, 2), "conv_kernel": (10, 3)} | {
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
}
_WAV2VEC2_LARGE = {**_WAV2VEC2, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
_PATCHES = {"image_size": 32, "patch_size": 8}
_VISION = {**_BODY, **_PATCHES}
_DINOV2 = {**_BASE, **_PATCHES, "mlp_ratio": 2}
_STAGES = {"depths": (2, 2), "embed_dim": 16, "num_heads": (2, 4)}
_SWIN = {**_STAGES, "image_size": 32, "patch_size": 2, "window_size": 4, "num_labels": CLASSES}
_CLIP_TEXT = {**_TEXT, "projection_dim": 16}
_CLIP_IMAGE = {**_VISION, "projection_dim": 16}
_CLIP = {"text_config": _CLIP_TEXT, "vision_config": _CLIP_IMAGE, "projection_dim": 16}
_SEGFORMER = (
    {"num_encoder_blocks": 2, "depths": (1, 1), "sr_ratios": (2, 1), "hidden_sizes": (16, 32)}
    | {"patch_sizes": (7, 3), "strides": (4, 2), "num_attention_heads": (2, 4), "mlp_ratios": (2, 2)}
    | {"decoder_hidden_size": 32, "num_labels": CLASSES}
)
_TV_VIT = {**_PATCHES, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 48}
_TV_SWIN = {**_STAGES, "patch_size": [2, 2], "window_size": [4, 4]}
_TV_SWIN_V2 = {**_TV_SWIN, "block": "SwinTransformerBlockV2", "downsample_layer": "PatchMergingV2"}
_TV_MAXVIT = {"input_size": (32, 32), "stem_channels": 16, "partition_size": 4, "head_dim": 8} | {
    "block_channels": [16, 32],
    "block_layers": [1, 1],
    "stochastic_depth_prob": 0.0,
}
_TIMM_VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 32, "num_heads": 4}
_TIMM_SWIN = {**_STAGES, "img_size": 32, "patch_size": 2, "window_size": 4}
_COATNET = {"img_size": 64, "embed_dim": (16, 32, 32, 32), "depths": (1, 1, 1, 1), "stem_width": (8, 16)}


def _named(
    library: str,
    name: str,
    model: str,
    draw: Draw,
    settings: Mapping[str, Any],
    output: str | None = None,
    attentions: tuple[str, ...] = ("eager", "sdpa"),
    experts: tuple[str | None, ...] = (None,),
) -> Iterator[tuple[str, Family]]:
    """Give one family in each way of computing it, by name."""
    for attention in attentions:
        for each in experts:
            key = "-".join(filter(None, (name, attention, each)))
            yield key, Family(library, model, draw, settings, output, attention, each)


_of_hub = partial(_named, "transformers", output="logits")
_of_experts = partial(_of_hub, experts=("eager", "grouped_mm", "batched_mm"))
_of_torchvision = partial(_named, "torchvision", attentions=("sdpa",))
_of_timm = partial(_named, "timm")

FAMILIES: Mapping[str, Family] = MappingProxyType(
    dict(
        chain(
            _of_hub("bert", "BertForSequenceClassification", _text, _TEXT),
            _of_hub("distilbert", "DistilBertForSequenceClassification", _text, _DISTILBERT),
            _of_hub("roberta", "RobertaForSequenceClassification", _text, _TEXT),
            _of_hub("modernbert", "ModernBertForSequenceClassification", _text, _MODERNBERT),
            _of_hub("gpt2", "GPT2LMHeadModel", _causal, _GPT2),
            _of_hub("gpt-neox", "GPTNeoXForCausalLM", _causal, _TEXT),
            _of_hub("llama", "LlamaForCausalLM", _causal, _GROUPED),
            _of_hub("mistral", "MistralForCausalLM", _causal, {**_GROUPED, "sliding_window": 4}),
            _of_hub("qwen2", "Qwen2ForSequenceClassification", _causal, _GROUPED),
            _of_hub("qwen3", "Qwen3ForCausalLM", _causal, _HEADS),
            _of_hub("phi3", "Phi3ForCausalLM", _causal, _GROUPED),
            _of_hub("gemma", "GemmaForCausalLM", _causal, _HEADS),
            _of_hub("gemma2", "Gemma2ForCausalLM", _causal, _GEMMA2, attentions=("eager",)),  # refuses sdpa
            _of_hub("gemma3", "Gemma3ForCausalLM", _causal, _GEMMA2),
            _of_experts("mixtral", "MixtralForCausalLM", _causal, _MIXTRAL),
            _of_experts("qwen3-moe", "Qwen3MoeForCausalLM", _causal, _QWEN3_MOE),
            _of_hub("t5", "T5ForConditionalGeneration", _translation, _T5),
            _of_hub("t5-gated", "T5ForConditionalGeneration", _translation, _GATED_T5),
            _of_hub("whisper", "WhisperForConditionalGeneration", _speech, _WHISPER),
            _of_hub("wav2vec2", "Wav2Vec2ForSequenceClassification", _sound, _WAV2VEC2),
            _of_hub("wav2vec2-large", "Wav2Vec2ForSequenceClassification", _padded_sound, _WAV2VEC2_LARGE),
            _of_hub("vit", "ViTForImageClassification", _pixels, _VISION),
            _of_hub("deit", "DeiTForImageClassificationWithTeacher", _pixels, _VISION),
            _of_hub("swin", "SwinForImageClassification", _pixels, _SWIN),
            _of_hub("clip-text", "CLIPTextModelWithProjection", _text, _CLIP_TEXT, output="text_embeds"),
            _of_hub(
                "clip-image", "CLIPVisionModelWithProjection", _pixels, _CLIP_IMAGE, output="image_embeds"
            ),
            _of_hub("clip", "CLIPModel", _captions, _CLIP, output="logits_per_image"),
            _of_hub("dinov2", "Dinov2ForImageClassification", _pixels, _DINOV2),
            _of_hub("segformer", "SegformerForSemanticSegmentation", _pixels, _SEGFORMER),
            _of_torchvision("torchvision-vit", "VisionTransformer", _small, _TV_VIT),
            _of_torchvision("torchvision-swin", "SwinTransformer", _small, _TV_SWIN),
            _of_torchvision("torchvision-swin-v2", "SwinTransformer", _small, _TV_SWIN_V2),
            _of_torchvision("torchvision-maxvit", "MaxVit", _small, _TV_MAXVIT),
            _of_timm("timm-vit", "vit_tiny_patch16_224", _small, _TIMM_VIT),
            _of_timm("timm-deit", "deit_tiny_distilled_patch16_224", _small, _TIMM_VIT),
            _of_timm("timm-deit3", "deit3_small_patch16_224", _small, _TIMM_VIT),  # layer scales
            _of_timm("timm-swin", "swin_tiny_patch4_window7_224", _small, _TIMM_SWIN),
            _of_timm("timm-beit", "beit_base_patch16_224", _small, _TIMM_VIT),
            _of_timm("timm-eva02", "eva02_tiny_patch14_224", _small, _TIMM_VIT),
            _of_timm("timm-coatnet", "coatnet_rmlp_nano_rw_224", _large, _COATNET),
            _of_timm("timm-mobilevit", "mobilevit_xxs", _large, {}),
        )
    )
)
"""By name, which ends with the ways of computing."""


@lru_cache(maxsize=2)  # tests of one family follow each other, or compare two
def _made(family: Family) -> tuple[nn.Module, Arguments, Tensor]:
    generator = torch.Generator().manual_seed(zlib.crc32(family.model.encode()))
    with torch.random.fork_rng(devices=[]):  # what constructors draw is replaced
        torch.manual_seed(0)
        module = _CONSTRUCTORS[family.library](family).double().eval()
    arguments = family.draw(generator)
    with torch.no_grad():
        _draw_parameters(module, generator)
        if any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
            _draw_statistics(module, next(iter(arguments.values())), generator)
        logits = _logits(module(**arguments), family.output)
    if family.experts is not None:
        module.set_experts_implementation(family.experts)  # type: ignore[operator]
    own_caption = family.output == "logits_per_image"
    return module, arguments, torch.arange(SAMPLES) if own_caption else logits.argmax(1)


def _of_transformers(family: Family) -> nn.Module:
    import_torchvision()  # which transformers imports too
    constructor: Any = getattr(import_module("transformers"), family.model)
    settings = copy.deepcopy(dict(family.settings))  # configurations keep what they are given
    ways = {"attn_implementation": family.attention, "experts_implementation": "eager"}
    module: nn.Module = constructor(constructor.config_class(**settings, **ways))
    return module


def _of_torchvision_models(family: Family) -> nn.Module:
    models = import_torchvision().models
    parts = {
        name: getattr(models.swin_transformer, name) for name in ("SwinTransformerBlockV2", "PatchMergingV2")
    }
    settings = {
        name: parts.get(value, value) if isinstance(value, str) else value
        for name, value in family.settings.items()
    }
    module: nn.Module = getattr(models, family.model)(num_classes=CLASSES, **settings)
    return module


def _of_timm_models(family: Family) -> nn.Module:
    import_torchvision()  # which timm imports
    timm = import_module("timm")
    fused, experimental = timm.layers.use_fused_attn(), timm.layers.use_fused_attn(experimental=True)
    timm.layers.set_fused_attn(family.attention == "sdpa", experimental=True)
    try:
        module: nn.Module = timm.create_model(family.model, num_classes=CLASSES, **family.settings)
    finally:
        timm.layers.set_fused_attn(fused, experimental)
    return module


_CONSTRUCTORS = {
    "transformers": _of_transformers,
    "torchvision": _of_torchvision_models,
    "timm": _of_timm_models,
}


def _draw_parameters(module: nn.Module, generator: torch.Generator) -> None:
    """Weights by their fan-in, embeddings of a common size; scales around one, some of them negative."""
    for part in module.modules():
        for name, value in part.named_parameters(recurse=False):
            if "bias" in name and value.dim() == 1:
                value.normal_(0, 0.1, generator=generator)
            elif value.dim() < 2:
                value.uniform_(0.5, 1.5, generator=generator)
                value.mul_(torch.where(torch.rand(value.shape, generator=generator) < 0.1, -1.0, 1.0))
            elif isinstance(part, nn.Embedding):
                value.normal_(0, 0.5, generator=generator)
            else:
                convolution = isinstance(part, nn.modules.conv._ConvNd)
                inputs = value[0].numel() if convolution else value.shape[-1]
                if type(part).__name__ == "Conv1D":  # of transformers: inputs first
                    inputs = value.shape[0]
                value.normal_(0, math.sqrt(1.5 / inputs), generator=generator)
