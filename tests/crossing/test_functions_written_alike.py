"""What is known of functions that are written alike is found once, and not known of any others."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop
from alike import near
from networks import DOUBLE
from relprop.calls.found import Found
from relprop.engine import composed
from relprop.engine.composed import Composed
from relprop.rules import Epsilon, ZPlus

SCALED = nn.Linear(6, 8).double()


def judged(monkeypatch: pytest.MonkeyPatch, model: Callable[[Tensor], Tensor]) -> int:
    """How often an explanation evaluates a function to find its role."""
    count = 0
    judge = Composed._judged

    def counted(function: Composed, root: Tensor) -> object:
        nonlocal count
        count += 1
        return judge(function, root)

    with monkeypatch.context() as patch:
        patch.setattr(Composed, "_judged", counted)
        relprop.explain(model, torch.randn(2, 6, **DOUBLE), target=0, rules="attnlrp")
    return count


def gated(slope: float) -> Callable[[Tensor], Tensor]:
    return lambda x: (x @ SCALED.weight[:6].T) * (1 / (1 + torch.exp(-slope * x)))


def test_a_function_is_judged_once_for_all_models_and_explanations(monkeypatch: pytest.MonkeyPatch) -> None:
    composed._KNOWN.clear()
    assert judged(monkeypatch, gated(1.0)) > 0
    assert judged(monkeypatch, gated(1.0)) == 0
    assert judged(monkeypatch, lambda x: gated(1.0)(x) + gated(1.0)(x.flip(1))) == 0


@pytest.mark.parametrize("other", [0.5, 2.0, -1.0])
def test_a_function_with_other_numbers_is_another_one(other: float, monkeypatch: pytest.MonkeyPatch) -> None:
    composed._KNOWN.clear()
    judged(monkeypatch, gated(1.0))
    assert judged(monkeypatch, gated(other)) > 0


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.9), (-1.0, 1.0), (0.0, 6.0)])
def test_bounds_decide_whether_a_clamp_is_a_weight(low: float, high: float) -> None:
    x = torch.randn(3, 6, **DOUBLE)

    def model(x: Tensor) -> Tensor:
        return x.roll(1, 1) * x.clamp(low, high)

    composed._KNOWN.clear()
    expected = relprop.explain(model, x, target=1, rules=Epsilon(0.0)).relevance
    for bounds in ((0.0, 6.0), (-1.0, 1.0), (0.2, 0.9)):
        relprop.explain(lambda x, b=bounds: x.roll(1, 1) * x.clamp(*b), x, target=1, rules=Epsilon(0.0))
    assert torch.equal(relprop.explain(model, x, target=1, rules=Epsilon(0.0)).relevance, expected)


def test_zero_has_a_sign() -> None:
    x, layer = torch.randn(4, 6, **DOUBLE), nn.Linear(6, 3).double()

    def model(by: float) -> Callable[[Tensor], Tensor]:
        return lambda x: layer(torch.tanh(torch.exp(x) / by) + x)

    below = relprop.explain(model(-0.0), x, target=1, rules=Epsilon(0.1)).relevance
    composed._KNOWN.clear()
    above = relprop.explain(model(0.0), x, target=1, rules=Epsilon(0.1)).relevance
    assert torch.equal(relprop.explain(model(-0.0), x, target=1, rules=Epsilon(0.1)).relevance, below)
    assert not torch.allclose(above, below)


def test_so_many_functions_are_forgotten_that_memory_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Found, "most", 20)
    composed._NUMBERS.clear()
    composed._KNOWN.clear()
    x = torch.randn(3, 6, **DOUBLE)
    for number in range(60):
        relprop.explain(lambda x, n=number: x.roll(1, 1) * torch.sigmoid(x + n), x, target=1, rules="attnlrp")
        assert len(composed._NUMBERS) <= 20
        assert len(composed._KNOWN) <= 20


# ---- constants that were looked at before ----


def test_a_constant_that_is_no_number_for_each_output_is_looked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(6)]).double()
    angles = torch.randn(5, 4, **DOUBLE)
    looks: list[Tensor] = []
    look = relprop.crossing.folding._by_output  # type: ignore[attr-defined]
    monkeypatch.setattr(
        relprop.crossing.folding,  # type: ignore[attr-defined]
        "_by_output",
        lambda constant, *args: looks.append(constant) or look(constant, *args),
    )

    def model(x: Tensor) -> Tensor:
        for layer in layers:
            x = (
                (layer(x).view(2, 5, 2, 4).transpose(1, 2) * angles.unsqueeze(0))
                .transpose(1, 2)
                .reshape(x.shape)
            )
        return x.sum(1)

    relprop.explain(model, torch.randn(2, 5, 8, **DOUBLE), target=1, rules=Epsilon(0.1))
    assert len(looks) == 1


@pytest.mark.parametrize("by_data", [False, True])
def test_a_constant_that_is_overwritten_is_looked_at_again(by_data: bool) -> None:
    layer, x = nn.Linear(8, 8).double(), torch.randn(2, 5, 8, **DOUBLE)
    angles, numbers = torch.randn(2, 5, 4, **DOUBLE), torch.randn(2, 1, 4, **DOUBLE).expand(2, 5, 4)

    def arranged(x: Tensor) -> Tensor:
        return layer(x).view(2, 5, 2, 4).transpose(1, 2)

    def overwriting(x: Tensor) -> Tensor:
        constant = angles.clone()
        first = arranged(x) * constant
        if by_data:
            constant.data = numbers.clone()
        else:
            constant.copy_(numbers)
        return (first + arranged(x) * constant).sum((1, 2))

    def with_two(x: Tensor) -> Tensor:
        first = arranged(x) * angles
        return (first + arranged(x) * numbers.clone()).sum((1, 2))

    # z⁺ tells whether a factor that may be negative is part of the weight.
    found, expected = (
        relprop.explain(model, x, target=1, rules=ZPlus()) for model in (overwriting, with_two)
    )
    near(found.relevance, expected.relevance)
