"""Networks for graphs, tables, recommendations, sounds and signals, by every preset, as they come.

`make zoo` runs all of it; `make test` runs the networks in QUICK.
"""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import graph_networks
import relprop
from families_compared import assert_same
from graph_networks import graphs, joined
from leftovers import everything_about
from other_networks import KINDS, SAMPLES

CLOSES_TO = ALIKE = 1e-9

pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")

QUICK_GRAPHS = (("gcn", "sparse"), ("gat", "index_add"))

QUICK_KINDS = ("mlp-one-hot", "log-mel")

WITHOUT_BOUNDS = [name for name, preset in relprop.PRESETS.items() if not preset.needs_bounds]


def quickly(cases: list[Any], quick: Any) -> list[Any]:
    """The cases, of which `make test` runs only the quick ones."""
    marks = pytest.mark.zoo
    return [
        case if case in quick else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=marks)
        for case in cases
    ]


def found(model: Any, *inputs: Any, target: Any, **options: Any) -> relprop.Explanation:
    """An explanation that is complete: no gap, the model's own output, and nothing that is kept silent."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        e = relprop.explain(model, *inputs, target=target, **options)
    assert e.ledger.gap.max() < CLOSES_TO, str(e.ledger)
    assert not [applied for applied in e.rules if isinstance(applied.rule, str)]
    texts = [str(w.message) for w in said if not issubclass(w.category, relprop.errors.ScoreWarning)]
    for name, R in e.inputs.items():
        assert R.isfinite().all()
        told = any(f"input '{name}' gets no relevance at all" in text for text in texts)
        assert R.any() or told or not depends(model, inputs, target, e, name), name
    assert not [text for text in texts if "not explained" in text or "not balance" in text], texts
    return e


def depends(model: Any, inputs: Any, target: Any, e: relprop.Explanation, name: str) -> bool:
    """Whether the score depends on an input, by the plain gradient."""
    by_gradient = relprop.explain(model, *inputs, target=target, rules="gradient-times-input")
    return bool(by_gradient.inputs[name].any())


def _takes_numbers(kind: Any) -> bool:
    (draw,) = kind.inputs.values()
    return bool(draw(torch.Generator()).is_floating_point())


# ---- graphs ----

GRAPHS = [(name, spelling) for name, (_, all_) in graph_networks.NETWORKS.items() for spelling in all_]


def of_all(scores: Tensor) -> Tensor:
    return scores[:, 1].sum()


def explained(name: str, spelling: str, graph: graph_networks.Graph, preset: str) -> relprop.Explanation:
    model = graph_networks.made(name, spelling)
    e = found(model, *graph.values(), target=of_all, rules=preset)
    assert {*e.inputs} == {"x", "edge_attr"}  # edges are no ids
    with torch.no_grad():
        assert torch.equal(e.output, model(*graph.values()))
    return e


@pytest.mark.parametrize("preset", [name for name in WITHOUT_BOUNDS if relprop.PRESETS[name].start != "one"])
@pytest.mark.parametrize(("name", "spelling"), quickly(GRAPHS, QUICK_GRAPHS))
def test_each_graph_of_a_batch_gets_what_it_gets_alone(name: str, spelling: str, preset: str) -> None:
    together = explained(name, spelling, joined(graphs()), preset)
    alone = [explained(name, spelling, joined([part]), preset) for part in graphs()]
    expected = {n: torch.cat([e.inputs[n] for e in alone]) for n in together.inputs}
    assert_same(dict(together.inputs), expected, ALIKE)
    assert together.inputs["x"].any()


@pytest.mark.parametrize("preset", WITHOUT_BOUNDS)
@pytest.mark.parametrize(
    ("name", "spelling"),
    quickly([case for case in GRAPHS if case[1] != "index_add"], [("gat", "dense")]),
)
def test_it_does_not_matter_how_messages_are_added(name: str, spelling: str, preset: str) -> None:
    e, expected = (explained(name, each, joined(graphs()), preset) for each in (spelling, "index_add"))
    torch.testing.assert_close(e.output, expected.output)
    assert_same(dict(e.inputs), dict(expected.inputs), ALIKE)


# ---- tables, recommendations, sounds and signals ----

MIXED = (("deep-speech", "vgg-2019"),)
"""Not each sample by itself: the unit of ε is taken over the first dimension, which is time here."""

CASES = [
    (name, preset)
    for name, kind in KINDS.items()
    for preset in relprop.PRESETS
    if preset in WITHOUT_BOUNDS or (len(kind.inputs) == 1 and _takes_numbers(kind))
    if (name, preset) not in MIXED
]


@pytest.mark.parametrize(
    ("name", "preset"), quickly(CASES, [case for case in CASES if case[0] in QUICK_KINDS])
)
def test_each_sample_of_a_batch_gets_what_it_gets_alone(name: str, preset: str) -> None:
    """In a network that is not changed, by a ledger that balances, and with the model's own output."""
    model, inputs = KINDS[name].make()
    before = list(everything_about(model))
    how = {"target": KINDS[name].target, "rules": preset}
    if preset not in WITHOUT_BOUNDS:
        how["bounds"] = (-3, 3)
    together = found(model, *inputs.values(), **how)
    assert list(everything_about(model)) == before
    assert {*together.inputs} == {*inputs}
    with torch.no_grad():
        expected = model(*inputs.values())
    torch.testing.assert_close(together.output, expected, rtol=1e-12, atol=1e-12)
    alone = [found(model, *(x[i : i + 1] for x in inputs.values()), **how) for i in range(SAMPLES)]
    assert_same(dict(together.inputs), {n: torch.cat([e.inputs[n] for e in alone]) for n in inputs}, ALIKE)
    torch.testing.assert_close(together.score, torch.cat([e.score for e in alone]))
    assert any(R.any() for R in together.inputs.values())
