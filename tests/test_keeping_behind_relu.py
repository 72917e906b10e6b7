"""Outputs behind a ReLU are kept as the ReLU left them, and no explanation is another one for it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop import AlphaBeta, Epsilon, Gamma, ZPlus
from relprop.keeping import Keeper

FIRST, SECOND = nn.Linear(5, 6).double(), nn.Linear(6, 3).double()


def apart(x: Tensor) -> Tensor:
    return SECOND(torch.relu(FIRST(x)))


def used_before(x: Tensor) -> Tensor:
    """z has relevance where it is negative, by another way than the ReLU."""
    z = FIRST(x)
    return SECOND(torch.relu(z) + 0.3 * z)


def overwritten(x: Tensor) -> Tensor:
    z = FIRST(x)
    part = 0.3 * z
    return SECOND(torch.relu_(z) + part)


def used_as_negative(x: Tensor) -> Tensor:
    z = FIRST(x)
    return SECOND(F.relu(z)) - SECOND(F.relu(-z))


def with_rest(x: Tensor) -> Tensor:
    y = torch.relu(FIRST(x))
    kept = y.clone()
    y.mul_(2)  # overwrites what is kept in the place of z
    return SECOND(y) + SECOND(kept)


@pytest.mark.parametrize("model", [apart, used_before, overwritten, used_as_negative, with_rest])
@pytest.mark.parametrize("rule", [Epsilon(0.1), Epsilon(0.1, of="rms"), Gamma(0.5), AlphaBeta(2, 1), ZPlus()])
def test_relevance_is_that_of_the_same_network_where_nothing_can_be_clipped(
    model: Callable[[Tensor], Tensor], rule: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(4, 5, dtype=torch.float64)
    found = relprop.explain(model, x, target=1, rules=rule)
    monkeypatch.setattr(Keeper, "clip", lambda *_: None)
    keep = Keeper.keep
    monkeypatch.setattr(Keeper, "keep", lambda self, tensor, **_: keep(self, tensor))
    expected = relprop.explain(model, x, target=1, rules=rule)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-12, atol=1e-12)
    assert float(found.ledger.gap.max()) < 1e-10


@pytest.mark.parametrize("inplace", [True, False])
def test_the_output_of_a_linear_operation_is_free_again_behind_a_relu(inplace: bool) -> None:
    keeper, z = Keeper(), torch.randn(6)
    kept = keeper.keep(z, clippable=True)
    unclippable = keeper.keep(z)
    before = z.clone()
    if inplace:
        keeper.before_write(z, clipping=True)
    y = z.relu_() if inplace else z.relu()
    keeper.clip(z, y)
    assert kept.clipped
    assert kept.value.data_ptr() == y.data_ptr()
    torch.testing.assert_close(unclippable.value, before)


def test_another_view_of_the_memory_is_copied() -> None:
    keeper, z = Keeper(), torch.randn(2, 3)
    kept, before = keeper.keep(z, clippable=True), z.clone()
    view = z.view(-1)
    keeper.before_write(view, clipping=True)
    keeper.clip(view, view.relu_())
    assert not kept.clipped
    torch.testing.assert_close(kept.value, before)
