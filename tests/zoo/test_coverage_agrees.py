"""`coverage` and `explain` tell the same of every network: what is covered, and by which rules.

`make zoo` runs these.
"""

from collections import Counter
from typing import Any

import pytest
import torch

import relprop
from relprop.errors import CoverageError
from transformer_families import FAMILIES
from unusual_families import FAMILIES as UNUSUAL
from zoo_networks import BOUNDS, NETWORKS

pytestmark = pytest.mark.zoo

OF_VISION = ("epsilon-gamma-box", "epsilon-gamma-flat", "excitation")
OF_TRANSFORMERS = ("attnlrp", "cp-lrp", "epsilon-plus-flat")


def agree(model: Any, arguments: dict[str, Any], target: Any, **how: Any) -> None:
    covered = relprop.coverage(model, **arguments, **how)
    try:
        e = relprop.explain(model, **arguments, target=target, **how)
    except CoverageError:
        assert not covered.complete
        return
    assert covered.complete, str(covered)
    told = Counter((c.path, c.operation, c.how) for c in covered.crossings)
    applied = Counter((a.path, a.operation, str(a.rule)) for a in e.rules)
    parts = {c.operation for c in covered.crossings if c.how.startswith("part of")}
    missing = [call for call in applied - told if call[1] not in parts]
    assert applied
    assert not missing


@pytest.mark.parametrize("preset", OF_VISION)
@pytest.mark.parametrize("name", NETWORKS)
def test_on_a_network_of_vision(name: str, preset: str) -> None:
    model, x, target = NETWORKS[name].make(torch.float32)
    agree(model, {"x": x}, target, rules=preset, bounds=BOUNDS)


@pytest.mark.parametrize("preset", OF_TRANSFORMERS)
@pytest.mark.parametrize("name", [*FAMILIES, *UNUSUAL])
def test_on_a_family_of_transformers(name: str, preset: str) -> None:
    family = FAMILIES[name] if name in FAMILIES else UNUSUAL[name]
    agree(*family.make(torch.float32), rules=preset)
