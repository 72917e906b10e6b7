"""Chains of hundreds of operations: no recursion, and work that grows as the chain does."""

import sys
from collections.abc import Callable
from types import FrameType

import pytest
import torch
from torch import Tensor

import relprop
from alike import same_relevance
from networks import DOUBLE
from relprop.rules import Epsilon

H = torch.randn(8, 8, generator=torch.Generator().manual_seed(1), **DOUBLE)
ONES = torch.ones(8, **DOUBLE)

Step = Callable[[Tensor], Tensor]
STEPS: dict[str, Step] = {
    "relu(v + 0.01)": lambda v: torch.relu(v + 0.01),
    "sigmoid(1.01 v + 0.01) - 0.5": lambda v: torch.sigmoid(v * 1.01 + 0.01) - 0.5,
    "v + 0.001": lambda v: v + 1e-3,
    "silu": lambda v: v * torch.sigmoid(v),
    "where": lambda v: torch.where(v > 0, v, 0.1 * v),
    "rearranged": lambda v: v.view(-1, 2, 4).transpose(1, 2).reshape(-1, 8),
    "chunks": lambda v: torch.cat(v.chunk(2, 1)[::-1], 1),
    "flipped": lambda v: v.flip(1),
}


def chain(step: Step, times: int) -> Step:
    def model(v: Tensor) -> Tensor:
        v = v @ H
        for _ in range(times):
            v = step(v)
        return (v + ONES) @ H

    return model


def order(step: Step, times: int) -> Tensor:
    """Where each of 8 elements comes from, after rearrangements."""
    places = torch.arange(8)[None]
    for _ in range(times):
        places = step(places)
    return places[0]


def python_calls(function: Callable[[], object]) -> int:
    """The number of functions of Python that a call calls."""
    count = 0

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("step", STEPS)
def test_the_work_grows_with_the_chain_and_not_faster(step: str) -> None:
    x = torch.randn(2, 8, **DOUBLE)

    def calls(times: int) -> int:
        return python_calls(lambda: relprop.explain(chain(STEPS[step], times), x, target=0, rules="epsilon"))

    calls(300)  # what is computed once
    assert calls(300) < 2.1 * calls(150)


@pytest.mark.parametrize("step", ["rearranged", "flipped"])
@pytest.mark.parametrize("times", [500, 1500])
def test_rearranged_any_number_of_times_a_bias_is_a_bias(step: str, times: int) -> None:
    x = torch.randn(2, 8, **DOUBLE)
    same_relevance(
        chain(STEPS[step], times),
        lambda v: (v @ H[:, order(STEPS[step], times)] + ONES) @ H,
        x,
        Epsilon(0.1),
    )


def test_a_bias_after_each_of_many_rearrangements() -> None:
    step = STEPS["rearranged"]
    same_relevance(
        chain(lambda v: step(v) + ONES, 60),
        lambda v: (v @ H[:, order(step, 60)] + 61 * ONES) @ H,
        torch.randn(2, 8, **DOUBLE),
        Epsilon(0.1),
    )
