"""A sample is explained in a batch as it is alone: by every preset, to the last digits.

`make zoo` runs these: on thirty networks and families of transformers that compute in double precision.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

import relprop
from families_compared import assert_same, explained
from relprop import PRESETS
from transformer_families import FAMILIES
from zoo_networks import BOUNDS, NETWORKS, SAMPLES

pytestmark = [
    pytest.mark.zoo,
    pytest.mark.filterwarnings("ignore:Model config"),
]

ALIKE = 1e-9
"""By how much relevance may differ, relative to the largest."""

VISION = (
    *("alexnet", "resnet18", "googlenet", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small"),
    *("mnasnet1_0", "shufflenet_v2_x1_0", "regnet_y_400mf", "resmlp_12_224", "mixer_s32_224", "repvgg_a0"),
    *("dla46x_c", "ghostnet_100", "convnextv2_atto", "lcnet_035", "nf_regnet_b0", "inception_next_atto"),
)
TRANSFORMERS = (
    *("bert-eager", "bert-sdpa", "distilbert-sdpa", "gpt2-sdpa", "t5-sdpa", "whisper-sdpa"),
    *("wav2vec2-large-sdpa", "swin-sdpa", "dinov2-sdpa", "torchvision-vit-sdpa", "torchvision-maxvit-sdpa"),
    *("timm-vit-sdpa", "timm-coatnet-sdpa"),
)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", VISION)
def test_a_picture(name: str, preset: str) -> None:
    model, x, target = NETWORKS[name].make(torch.float64)
    assert isinstance(target, list)
    together = relprop.explain(model, x, target=target, rules=preset, bounds=BOUNDS)
    for i in range(SAMPLES):
        alone = relprop.explain(model, x[i : i + 1], target=[target[i]], rules=preset, bounds=BOUNDS)
        assert_same({"x": alone.relevance}, {"x": together.relevance[i : i + 1]}, ALIKE)


@pytest.mark.parametrize("preset", [p for p in PRESETS if not PRESETS[p].needs_bounds])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_an_input_of_a_transformer(name: str, preset: str) -> None:
    family = FAMILIES[name]
    model, arguments, target = family.make(torch.float64)
    _, together = explained(model, arguments, target=target, rules=preset)
    for i in range(SAMPLES):
        this = slice(i, i + 1)
        one = {n: v[this] if isinstance(v, Tensor) else v for n, v in arguments.items()}

        def score(output: Any, this: slice = this) -> Tensor:
            logits: Tensor = output if family.output is None else output[family.output]
            of_all = logits.expand(SAMPLES, *logits.shape[1:])  # the target chooses a class of each
            scores: Tensor = target(of_all if family.output is None else {family.output: of_all})
            return scores[this]

        _, alone = explained(model, one, target=score, rules=preset)
        assert_same(alone, {n: v[this] for n, v in together.items()}, ALIKE)
