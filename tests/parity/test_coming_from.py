"""The programs of docs/coming-from.md, of zennit and captum and of relprop, compute the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from comparing import relative_difference, require
from torch import nn

import relprop
from markdown import blocks

require("captum", "0.9.0")
import zennit_parts  # noqa: E402, F401  # makes zennit importable
from captum.attr import LRP, LayerLRP  # noqa: E402
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, GammaRule  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "coming-from.md"


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients:UserWarning")
@pytest.mark.parametrize("library", ["zennit", "captum"])
def test_programs(library: str) -> None:
    """In single precision, with their stabilisers as they come."""
    programs = [block for block in blocks(PAGE) if block.language in ("python", "py")]
    theirs = next(n for n, block in enumerate(programs) if f"from {library}." in block.text)
    namespace: dict[str, Any] = {}
    for block in (programs[0], programs[theirs], programs[theirs + 1]):
        exec(block.text, namespace)
    assert programs[theirs].language == "py"
    assert programs[theirs + 1].language == "python"
    assert relative_difference(namespace["attribution_here"], namespace["attribution"]) < 1e-4


X = torch.rand(4, 5, dtype=torch.float64)


def dense() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda: Alpha1_Beta0_Rule(set_bias_to_zero=True), relprop.rules.ZPlus()),
        (
            lambda: GammaRule(0.25, set_bias_to_zero=True),
            relprop.rules.Gamma(0.25, "ignore", favour="positive"),
        ),
    ],
)
def test_rules_of_captum(theirs: Any, ours: Any) -> None:
    """What the page says that they are."""
    model = dense()
    found = relprop.explain(model, X, target=1, rules=ours).relevance
    for layer in (model[0], model[2]):
        layer.rule = theirs()
        layer.rule.STABILITY_FACTOR = 1e-100
    reference = LRP(model).attribute(X.clone().requires_grad_(), target=1)
    assert relative_difference(found, reference) < 1e-10


def test_a_layer_of_captum() -> None:
    model = dense()
    found = relprop.explain(model, X, target=1, rules=relprop.rules.Epsilon(1e-9), record="0").inner["0"]
    reference = LayerLRP(model, model[0]).attribute(X.clone().requires_grad_(), target=1)
    assert relative_difference(found, reference) < 1e-10
