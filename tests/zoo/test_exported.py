"""Networks that torch exports, and takes apart into core aten, are explained as the originals are.

`make zoo` runs these.
"""

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import nn

from families_compared import assert_same, explained
from transformer_families import FAMILIES
from zoo_networks import BOUNDS, NETWORKS

pytestmark = [
    pytest.mark.zoo,
    # Torch's own, while it exports.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*(isinstance.*LeafSpec|lifted tensor|Pytree)"),
]

ALIKE = 1e-9
"""By how much relevance may differ, relative to the largest."""

VISION = (
    *("alexnet", "resnet18", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x1_0"),
    *("convnextv2_atto", "lcnet_035", "regnetz_005", "ghostnet_100", "resmlp_12_224", "repvgg_a0"),
)
TRANSFORMERS = (
    *("bert-eager", "bert-sdpa", "distilbert-sdpa", "llama-sdpa", "modernbert-sdpa", "t5-sdpa", "vit-sdpa"),
    *("wav2vec2-sdpa", "torchvision-vit-sdpa", "torchvision-swin-sdpa", "timm-vit-sdpa"),
)
PRESETS_OF_VISION = (
    "deep-taylor",
    "epsilon-gamma-box",
    "epsilon-gamma-flat",
    "epsilon-alpha2-beta1-flat",
    "attnlrp",
)
PRESETS_OF_TRANSFORMERS = ("attnlrp", "cp-lrp", "epsilon-plus-flat", "epsilon-gamma-flat")


CASES = [
    *((name, preset) for name in VISION for preset in PRESETS_OF_VISION),
    *((name, preset) for name in TRANSFORMERS for preset in PRESETS_OF_TRANSFORMERS),
]


@lru_cache(maxsize=1)  # the tests of a network follow each other
def exported(name: str) -> tuple[nn.Module, dict[str, nn.Module], dict[str, Any], Any]:
    """Return a network as it comes, its other spellings, the arguments of its call, and what to explain."""
    model, given, target = (FAMILIES if name in FAMILIES else NETWORKS)[name].make(torch.float64)
    arguments: dict[str, Any] = given if name in FAMILIES else {"x": given}  # type: ignore[assignment]
    program = torch.export.export(model, (), arguments)
    others = {"exported": program.module(), "core aten": program.run_decompositions().module()}
    return model, others, arguments, target


@pytest.mark.parametrize("spelling", ["exported", "core aten"])
@pytest.mark.parametrize(("name", "preset"), CASES)
def test_an_exported_network_is_the_original(name: str, preset: str, spelling: str) -> None:
    model, others, arguments, target = exported(name)
    bounds = BOUNDS if name in VISION else None
    relevance, expected = (
        explained(m, arguments, target=target, rules=preset, bounds=bounds)[1]
        for m in (others[spelling], model)
    )
    assert_same(relevance, expected, ALIKE)
