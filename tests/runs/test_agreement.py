"""Whether explanations are the same but for rounding, however far a network carries that."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from relprop import Explainer
from relprop.engine.roles import Role
from relprop.runs.agreement import Several, shaken_leaves, what_differs
from relprop.runs.backward import Explained
from relprop.targets import RunnerUp

RELEVANCE = torch.tensor([[1.0, -2.0, 0.0]])

EXPLANATION = Explainer(nn.Linear(3, 2), rules="epsilon")(torch.rand(1, 3), target=0, record=["*"])


def several(*relevance: Tensor, score: float = 1.0, dtype: torch.dtype = torch.float32) -> Several:
    """Explanations, one for each target, of this relevance."""
    scored = torch.tensor([score], dtype=dtype)
    return [
        Explained(
            replace(EXPLANATION, inputs={"x": R.to(dtype)}, score=scored), RunnerUp(0), Role.SIGNAL, None, 1
        )
        for R in relevance
    ]


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-7), (torch.float32, 1e-4)])
def test_rounding_is_relative_to_the_largest_value(dtype: torch.dtype, rounding: float) -> None:
    expected, near, far = (several(RELEVANCE + off, dtype=dtype) for off in (0, rounding, 50 * rounding))
    assert what_differs(near, expected) == ""
    assert what_differs(far, expected) == "relevance of input 'x'"
    assert what_differs(several(RELEVANCE, score=1.01), several(RELEVANCE)) == "score"
    assert what_differs(several(RELEVANCE * torch.nan), several(RELEVANCE)) == "relevance of input 'x'"


def test_shaken_inputs_tell_how_far_rounding_is_carried() -> None:
    expected, found = several(RELEVANCE), several(RELEVANCE + 0.3)
    near, far = (several(RELEVANCE + off) for off in (0.01, -0.1))
    assert what_differs(found, expected, lambda: [near, near]) == "relevance of input 'x'"
    assert what_differs(found, expected, lambda: [near, far]) == ""


def test_shaken_inputs_excuse_the_target_that_they_move() -> None:
    expected, found = several(RELEVANCE, RELEVANCE), several(RELEVANCE, RELEVANCE + 0.3)
    assert what_differs(found, expected, lambda: [several(RELEVANCE + 0.1, RELEVANCE)]) != ""
    assert what_differs(found, expected, lambda: [several(RELEVANCE, RELEVANCE + 0.1)]) == ""


def test_shaken_inputs_excuse_a_part_of_the_largest_value() -> None:
    expected, found, far = several(RELEVANCE), several(RELEVANCE + 0.6), several(RELEVANCE + 5)
    assert what_differs(found, expected, lambda: [far]) == "relevance of input 'x'"


def test_nothing_but_zeros_and_what_is_no_number() -> None:
    nothing, some = several(RELEVANCE * 0), several(RELEVANCE + 5)
    assert what_differs(some, nothing) == "relevance of input 'x'"
    assert what_differs(several(RELEVANCE * 0 + 1e-6), nothing) == ""
    infinite = several(RELEVANCE / 0)  # and NaN
    assert what_differs(infinite, infinite) == ""
    assert what_differs(some, infinite) == "relevance of input 'x'"
    empty = several(RELEVANCE[:, :0])
    assert what_differs(empty, empty) == ""


def of_ledger(**amounts: Any) -> Several:
    """An explanation whose ledger has other amounts."""
    (one,) = several(RELEVANCE)
    ledger = replace(EXPLANATION.ledger, **amounts)
    return [one._replace(explanation=replace(one.explanation, ledger=ledger))]


def test_ledgers_and_outputs_are_compared() -> None:
    expected, within = of_ledger(), "ledger, or other values within the model"
    bias = EXPLANATION.ledger.absorbed["bias"]
    for sinks in ({"bias": bias + 0.1}, {"bias": bias, "shift": bias}, {}):
        assert what_differs(of_ledger(absorbed=sinks), expected) == within
    assert (
        what_differs(of_ledger(absorbed=dict(EXPLANATION.ledger.absorbed, bias=bias + 1e-5)), expected) == ""
    )
    (one,) = several(RELEVANCE)
    output = replace(one.explanation, output=one.explanation.output + 0.1)
    assert what_differs([one._replace(explanation=output)], expected) == within


def test_ledgers_of_mixed_samples_are_compared_as_a_whole() -> None:
    one, other = torch.tensor([[0.5, 1.0], [1.0, 0.5]], dtype=torch.float64)
    for mixed, expected in ((True, ""), (False, "ledger, or other values within the model")):
        pair = [
            of_ledger(samples=2, seed=each, inputs=each, absorbed={}, mixed=mixed) for each in (one, other)
        ]
        assert what_differs(*pair) == expected


def test_nothing_is_computed_again_for_what_agrees() -> None:
    def never() -> list[Several]:
        raise AssertionError

    assert what_differs(several(RELEVANCE), several(RELEVANCE), never) == ""


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_shaken_values_are_a_little_smaller(dtype: torch.dtype) -> None:
    values, ids = torch.linspace(-3, 2.9, 40, dtype=dtype).view(4, 10), torch.arange(3)
    mask = torch.ones(2, 2, dtype=dtype).tril()
    shaken = [found for found, *_ in shaken_leaves([values])]
    for found, same, whole in shaken_leaves([values, ids, mask]):
        assert same is ids
        assert torch.equal(whole, mask)
        assert (found.dtype, found.shape) == (dtype, values.shape)
        assert bool((found.abs() <= values.abs()).all())
        off = (values - found).abs() / values.abs()
        assert 2 <= float(off.max()) / torch.finfo(dtype).eps <= 10
    assert not torch.equal(*shaken)
