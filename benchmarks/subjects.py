"""The models that are explained. Their weights are random: neither time nor memory depends on them."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from benchmarks.case import Subject
from relprop.data.mnist import pixels, test_set
from relprop.targets import At
from relprop.zoo import BUNDLED
from torchvision_shim import import_torchvision

BOUNDS = (-6.0, 6.0)
"""Of inputs that are drawn from a normal distribution."""

VIT_PATCHES = ("vit_torch", "torchvision.models.vision_transformer")
LLAMA_PATCHES = ("llama", "transformers.models.llama.modeling_llama")
"""LXT's module of patches, and the module that it patches."""


class WrittenLSTM(nn.Module):
    """An LSTM as users write it: one step after the other."""

    def __init__(self, inputs: int = 8, width: int = 32) -> None:
        super().__init__()
        self.of_input, self.of_state = nn.Linear(inputs, 4 * width), nn.Linear(width, 4 * width)
        self.last, self.width = nn.Linear(width, 3), width

    def forward(self, x: Tensor) -> Tensor:
        """Signals (samples, steps, inputs) to scores (samples, 3)."""
        h = c = x.new_zeros(len(x), self.width)
        for step in x.unbind(1):
            i, f, g, o = (self.of_input(step) + self.of_state(h)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        scores: Tensor = self.last(h)
        return scores


class LastState(nn.Module):
    """A recurrent layer of torch, and a linear layer on its last state."""

    def __init__(self, kind: Callable[..., nn.Module], width: int) -> None:
        super().__init__()
        self.layer, self.last = kind(width, width, batch_first=True), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Signals (samples, steps, width) to scores (samples, 3)."""
        scores: Tensor = self.last(self.layer(x)[0][:, -1])
        return scores


def picture(name: str, batch: int = 2, size: int = 224, canonizer: str = "") -> Subject:
    """A network of torchvision on pictures."""
    model = getattr(import_torchvision().models, name)(weights=None)
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and not layer.weight.any():  # the last one of a fresh ViT
            nn.init.normal_(layer.weight, std=0.02)
    _give_statistics(model, torch.randn(2, 3, size, size))
    return Subject(
        _ready(model),
        torch.randn(batch, 3, size, size),
        target=7,
        score=lambda y: y[:, 7],
        bounds=BOUNDS,
        canonizer=canonizer,
        patches=VIT_PATCHES if name.startswith("vit") else None,
    )


def _give_statistics(model: nn.Module, x: Tensor) -> None:
    """Give batch norms the statistics of a batch, as trained ones have.

    With those of a fresh network activations vanish with depth. Then no relevance arrives at the pictures,
    and relprop runs the model once more to find out why.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches, of which there is one
        norm.train()
    with torch.no_grad():
        model(x)


def llama(width: int, tokens: int, layers: int = 8) -> Subject:
    """A decoder of the shape of LLaMA; what speaks for one next token."""
    import_torchvision()  # transformers imports it
    transformers = import_module("transformers")
    heads = max(1, width // 64)
    config = transformers.LlamaConfig(
        vocab_size=500,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4 * heads,
        num_key_value_heads=2 * heads,
        attn_implementation="sdpa",
    )
    return Subject(
        _ready(transformers.LlamaForCausalLM(config)),
        torch.randn(1, tokens, width),
        target=At(-1, 7),
        score=lambda y: y.logits[:, -1, 7],
        name="inputs_embeds",
        blocks="model.layers",
        patches=LLAMA_PATCHES,
    )


def written_lstm(steps: int = 200) -> Subject:
    """32 units, one sample."""
    return Subject(_ready(WrittenLSTM()), torch.randn(1, steps, 8), target=1, score=lambda y: y[:, 1])


def layer(kind: Callable[..., nn.Module], batch: int, steps: int = 200, width: int = 256) -> Subject:
    """A recurrent layer of torch."""
    model = _ready(LastState(kind, width))
    return Subject(model, torch.randn(batch, steps, width), target=1, score=lambda y: y[:, 1])


def digits(name: str, count: int) -> Subject:
    """The first test digits, by a trained network of the tutorial; each one's own class."""
    bundled = BUNDLED[name]
    data = test_set()
    labels = data.labels[:count]
    return Subject(
        _ready(relprop.load(name)),
        bundled.prepare(pixels(data.images[:count, None])),
        target=labels,
        score=lambda y: y.gather(1, labels[:, None])[:, 0],
        bounds=(bundled.low, bundled.high),
    )


def _ready(model: Any) -> Any:
    return model.eval().requires_grad_(False)
