"""The models that LXT knows, tiny and with random weights, in double precision.

Both sides build them from here: relprop in the process of the tests, LXT in one of its own.
"""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

sys.path.append(str(Path(__file__).parents[1] / "networks_explained"))  # LXT's process has no conftest
from torchvision_shim import import_torchvision

import_torchvision()  # transformers and LXT import it

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded

SAMPLES, TOKENS, VOCABULARY, LABELS = 2, 6, 61, 5


class InDouble(TorchFunctionMode):
    """Computes in float64 what a model casts to float32, as RMSNorm and the softmax of eager attention do.

    Without it both sides round to float32 in between, and agree to that only.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.float:
            return args[0].double()
        args = tuple(torch.float64 if argument is torch.float32 else argument for argument in args)
        options = {
            name: torch.float64 if option is torch.float32 else option
            for name, option in (kwargs or {}).items()
        }
        return func(*args, **options)


def precision(dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Where a model of this dtype is to run: float64 all the way, float32 as it comes."""
    return InDouble() if dtype == torch.float64 else nullcontext()


@dataclass(frozen=True)
class Family:
    """A family of models.

    Args:
        module: the module of transformers or torchvision that LXT patches.
        model: the class in that module.
        patches: the module of lxt.efficient.models.
        settings: of its configuration, or arguments of the constructor.
        variants: what LXT has for it: attnLRP, cp_LRP.
        padded: which side of the second sample is padding.
    """

    module: str
    model: str
    patches: str
    settings: Mapping[str, Any]
    variants: tuple[str, ...] = ("attnLRP", "cp_LRP")
    padded: str = "left"

    @property
    def explained(self) -> str:
        """The argument whose relevance is compared."""
        return "pixels" if self.module.startswith("torchvision") else "inputs_embeds"

    def build(self, attention: str, dtype: torch.dtype, **settings: Any) -> nn.Module:
        """The model in evaluation mode. LXT replaces classes, so they are looked up when it is called."""
        make = getattr(import_module(self.module), self.model)
        if self.explained == "pixels":
            return make(**self.settings).to(dtype).eval()
        config = make.config_class(**self.settings, **settings)
        config._attn_implementation = attention
        return make(config).to(dtype).eval()

    def draw_inputs(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Embeddings of shape (samples, tokens, 32) with a mask, or pictures."""
        if self.explained == "pixels":
            return {"pixels": torch.randn(SAMPLES, 3, 16, 16, dtype=dtype)}
        mask = torch.ones(SAMPLES, TOKENS, dtype=torch.long)
        mask[1, slice(0, 2) if self.padded == "left" else slice(TOKENS - 2, TOKENS)] = 0
        return {"inputs_embeds": torch.randn(SAMPLES, TOKENS, 32, dtype=dtype), "attention_mask": mask}


def as_arguments(inputs: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """The positional and the keyword arguments of a model's call."""
    named = dict(inputs)
    return ((named.pop("pixels"),) if "pixels" in named else ()), named


def scores(output: Any) -> Tensor:
    """Of each sample another class; of a text the last token's. Shape (samples,)."""
    logits = getattr(output, "logits", output)
    if logits.dim() == 3:
        logits = logits[:, -1]
    return logits[range(SAMPLES), [3, 1]]


def draw_weights(model: nn.Module) -> None:
    """Random weights of a size at which attention is no average, with biases, and norms that are not 1."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            fan_in = parameter[0].numel()
            nn.init.normal_(parameter, std=1.5 * fan_in**-0.5)
        else:
            nn.init.normal_(
                parameter, mean=1.0 if "norm" in name.lower() and "weight" in name else 0, std=0.3
            )


_TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BODY = {
    **_TOKENS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 16,
    "num_labels": LABELS,
}
_GROUPED = {**_BODY, "num_key_value_heads": 2, "head_dim": 8, "use_cache": False}
_GPT2 = {**_TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16, "use_cache": False}
_VIT = {
    "image_size": 16,
    "patch_size": 8,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 32,
    "mlp_dim": 48,
    "num_classes": LABELS,
}
_WINDOWS = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}


def _of_transformers(name: str, model: str, settings: Mapping[str, Any], **others: Any) -> Family:
    return Family(f"transformers.models.{name}.modeling_{name}", model, name, settings, **others)


FAMILIES: Mapping[str, Family] = {
    "llama": _of_transformers("llama", "LlamaForCausalLM", {**_GROUPED, "attention_bias": True}),
    "qwen2": _of_transformers("qwen2", "Qwen2ForCausalLM", _GROUPED),
    "qwen3": _of_transformers("qwen3", "Qwen3ForCausalLM", _GROUPED),
    "gemma3": _of_transformers(
        "gemma3", "Gemma3ForCausalLM", {**_GROUPED, **_WINDOWS, "query_pre_attn_scalar": 8}
    ),
    "gpt2": _of_transformers("gpt2", "GPT2LMHeadModel", _GPT2),
    "bert": _of_transformers(
        "bert", "BertForSequenceClassification", _BODY, variants=("attnLRP",), padded="right"
    ),
    "bert-masked": _of_transformers("bert", "BertForMaskedLM", _BODY, variants=("attnLRP",), padded="right"),
    "vit": Family(
        "torchvision.models.vision_transformer", "VisionTransformer", "vit_torch", _VIT, variants=("cp_LRP",)
    ),
}
"""By name."""

ATTENTIONS = ("sdpa", "eager")
