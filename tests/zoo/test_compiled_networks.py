"""Graphs and plans give what Python gives: on networks of pictures and families of transformers.

`make zoo` runs these, in double precision and on other values than the example's.
"""

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from by_plan import Counted, early, in_python
from families_compared import assert_alike, assert_same, other_values
from relprop import PRESETS, Explainer
from relprop.runs import planned
from transformer_families import FAMILIES
from unusual_families import FAMILIES as UNUSUAL
from zoo_networks import BOUNDS, NETWORKS

__all__ = ["early"]

pytestmark = [
    pytest.mark.zoo,
    pytest.mark.filterwarnings("ignore:Model config"),
]

VISION = (
    *("resnet18", "densenet121", "googlenet", "squeezenet1_1", "mobilenet_v3_small", "regnet_y_400mf"),
    *("mixer_s32_224", "ghostnet_100", "convnextv2_atto", "lcnet_035", "nf_regnet_b0", "inception_next_atto"),
)
"""Twelve networks of pictures."""

TRANSFORMERS = {
    name: family for name, family in {**FAMILIES, **UNUSUAL}.items() if torch.float64 in family.dtypes
}

_LOOKING = ("deepseek", "gemma3n", "jamba", "longformer", "qwen3-next")
WITHOUT_GRAPH = [
    name for name, family in TRANSFORMERS.items() if family.experts == "eager" or name.startswith(_LOOKING)
]
"""They look for the tokens of each expert, or for certain positions, by `nonzero`."""


NO_PLAN = {
    **dict.fromkeys(["llava-eager", "llava-sdpa"], "LlavaCausalLMOutputWithPast"),  # returns such an object
    **dict.fromkeys(["blip-2-eager", "blip-2-sdpa"], "Blip2ForConditionalGenerationModelOutput"),
    "conformer-sdpa": "an explanation sees other calls",  # of fused attention with relative positions
}
"""Families without plans, and part of the reason."""


def compare(
    explainer: Explainer,
    example: tuple[tuple[Any, ...], dict[str, Any]],
    others: tuple[tuple[Any, ...], dict[str, Any]],
    target: Any,
) -> None:
    """Check that an explainer gives the same compiled, by graphs."""
    compiled = explainer.compile(*example[0], **example[1], target=target)
    found, expected = (e(*others[0], **others[1], target=target) for e in (compiled, explainer))
    assert compiled._graphs is not None
    (kind,) = compiled._graphs._kinds.values()
    assert (kind.refused, bool(kind.graphs)) == ("", True)
    assert_alike(found, expected)


def compare_plan(
    model: Any,
    example: tuple[tuple[Any, ...], dict[str, Any]],
    others: tuple[tuple[Any, ...], dict[str, Any]],
    target: Any,
    refused: str = "",
    **options: Any,
) -> None:
    """Check that an explainer gives the same by a plan, or says that it has none."""
    explainer = Counted(model, **options)
    for _ in range(3):
        explainer(*example[0], **example[1], target=target)
    if explainer._plans is None:  # a plain gradient
        return
    if refused:
        assert refused in explainer.refused
        return
    assert (explainer.refused, explainer.kinds[0].is_proven) == ("", True)
    before = explainer.in_python
    found = explainer(*others[0], **others[1], target=target)
    assert explainer.in_python == before
    expected = in_python(explainer, *others[0], **others[1], target=target)
    assert_alike(found, expected)


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", VISION)
def test_a_plan_of_a_network_of_pictures(name: str, preset: str) -> None:
    model, x, target = NETWORKS[name].make(torch.float64)
    bounds = BOUNDS if PRESETS[preset].needs_bounds else None
    compare_plan(model, ((x,), {}), ((x.roll(1, -1),), {}), target, rules=preset, bounds=bounds)


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("preset", ["attnlrp", "cp-lrp", "epsilon"])
@pytest.mark.parametrize("name", sorted(TRANSFORMERS.keys() - set(WITHOUT_GRAPH)))
def test_a_plan_of_a_family_of_transformers(name: str, preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned, "_is_own", lambda goal: True)  # targets are functions that do not change
    model, arguments, target = TRANSFORMERS[name].make(torch.float64)
    others = other_values(arguments)
    compare_plan(model, ((), arguments), ((), others), target, NO_PLAN.get(name, ""), rules=preset)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", VISION)
def test_a_network_of_pictures(name: str, preset: str) -> None:
    model, x, target = NETWORKS[name].make(torch.float64)
    bounds = BOUNDS if PRESETS[preset].needs_bounds else None
    compare(Explainer(model, rules=preset, bounds=bounds), ((x,), {}), ((x.roll(1, -1),), {}), target)


@pytest.mark.parametrize("preset", ["attnlrp", "cp-lrp", "epsilon"])
@pytest.mark.parametrize("name", sorted(TRANSFORMERS.keys() - set(WITHOUT_GRAPH)))
def test_a_family_of_transformers(name: str, preset: str) -> None:
    model, arguments, target = TRANSFORMERS[name].make(torch.float64)
    others = other_values(arguments)
    compare(Explainer(model, rules=preset), ((), arguments), ((), others), target)


APART = ("mamba-eager", "falcon-mamba-eager", "rwkv-eager", "xlstm-eager")
"""Families that compute step by step, and so call other operations for each length."""

NOT_ALIKE = dict.fromkeys(
    ["mamba2-eager", "bamba-eager", "bamba-sdpa"], "takes 1, 3, 3 for the lengths 7, 9, 5"
)
"""Families in which a number follows no law, as they pad chunks, and what is told."""

OF_TEXTS = [
    name
    for name, family in TRANSFORMERS.items()
    if "input_ids" in family.draw(torch.Generator())
    and name not in WITHOUT_GRAPH
    and not name.startswith(("llava", "funnel"))  # an image has its place in a text; it keeps positions
]


def text_of(arguments: dict[str, Any], length: int, seed: int = 0) -> dict[str, Any]:
    """Return arguments with texts of another length."""
    generator = torch.Generator().manual_seed(100 * length + seed)
    found = dict(arguments)
    for name, value in arguments.items():
        if name == "input_ids":
            found[name] = torch.randint(3, 90, (len(value), length), generator=generator)
        elif name in ("attention_mask", "token_type_ids"):
            found[name] = torch.full((len(value), length), int("mask" in name))
    return found


@pytest.mark.filterwarnings("ignore:.*because explanations have")
@pytest.mark.parametrize("preset", ["attnlrp", "cp-lrp", "epsilon"])
@pytest.mark.parametrize("name", OF_TEXTS)
def test_texts_of_any_length(name: str, preset: str) -> None:
    model, arguments, target = TRANSFORMERS[name].make(torch.float64)
    explainer = Explainer(model, rules=preset)
    compiled = explainer.compile(dynamic=True)
    for length in (6, 7, 9):
        compiled(**text_of(arguments, length), target=target)
    told = pytest.warns(UserWarning, match=NOT_ALIKE[name]) if name in NOT_ALIKE else nullcontext()
    with told:
        compiled(**text_of(arguments, 5), target=target)
    # XLNet has time first. Its ledger is right for the batch, and shares ε otherwise if the length is even.
    for length, seed in ((17 if name == "xlnet-eager" else 10, 0), (11, 0), (11, 1), (15, 0), (15, 1)):
        others = text_of(arguments, length, seed)
        found, expected = (e(**others, target=target) for e in (compiled, explainer))
        assert_alike(found, expected)
    assert compiled._graphs is not None
    (family,) = compiled._graphs._families.values()
    alone = name in NOT_ALIKE or name in APART
    proven = 1 if name == "deberta-eager" else 3  # which has other operations beyond eight tokens
    assert [len(graph.proven) for graph in family.graphs] == ([] if alone else [proven])


@pytest.mark.parametrize("name", WITHOUT_GRAPH)
def test_a_family_that_is_explained_without_a_graph(name: str) -> None:
    model, arguments, target = TRANSFORMERS[name].make(torch.float64)
    explainer = Explainer(model, rules="cp-lrp")
    with pytest.warns(UserWarning, match="without a graph: the shape of what aten::nonzero returns dep"):
        compiled = explainer.compile(**arguments, target=target)
    found, expected = (e(**arguments, target=target) for e in (compiled, explainer))
    assert_same(dict(found.inputs), dict(expected.inputs), 0.0)
