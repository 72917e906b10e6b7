"""The preset for vision transformers: γ where its table says so, whatever the library calls its modules."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import relprop
from relprop.rules import Epsilon, Gamma
from torchvision_shim import import_torchvision

torchvision = import_torchvision()
import timm  # noqa: E402
import transformers  # noqa: E402

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 64,
}

MODELS: dict[str, Callable[[], Any]] = {
    "transformers": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(**SMALL, intermediate_size=64)
    ),
    "DINOv2": lambda: transformers.Dinov2ForImageClassification(
        transformers.Dinov2Config(**SMALL, patch_size=16)
    ),
    "timm": lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1),
    "torchvision": lambda: torchvision.models.VisionTransformer(64, 16, 1, 2, 32, 64),
}


def feed_forward(path: str) -> bool:
    """Whether a layer is of the block behind attention: "mlp", or with transformers 5.0 as in BERT."""
    return "mlp" in path or path.endswith(("layer.0.intermediate.dense", "layer.0.output.dense"))


@pytest.mark.filterwarnings("ignore:the explained score is negative")
@pytest.mark.parametrize("name", MODELS)
def test_places(name: str) -> None:
    e = relprop.explain(MODELS[name]().eval(), torch.randn(1, 3, 64, 64), target=0, rules="attnlrp-vit")
    rules = [(a.path, a.rule) for a in e.rules if a.operation in ("linear", "conv2d")]
    (patches, of_patches), *inner, (head, of_head) = rules
    assert of_patches == Gamma(0.25), patches
    assert of_head == Epsilon(0), head
    assert [rule for path, rule in inner if feed_forward(path)] == [Gamma(0.05)] * 2
    others = [rule for path, rule in inner if not feed_forward(path)]
    assert len(others) >= 2
    assert set(others) == {Epsilon(0)}
    assert e.ledger.gap.max() < 1e-4
