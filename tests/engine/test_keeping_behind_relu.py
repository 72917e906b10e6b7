"""Outputs behind a ReLU are kept as the ReLU left them, and no explanation is another one for it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop import AlphaBeta, Epsilon, Gamma, ZPlus
from relprop.engine.keep import Kept

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
    clipped = []
    monkeypatch.setattr(Kept, "clip", lambda kept, _: clipped.append(kept))
    expected = relprop.explain(model, x, target=1, rules=rule)
    assert clipped
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-12, atol=1e-12)
    assert float(found.ledger.gap.max()) < 1e-10


@pytest.mark.parametrize("inplace", [True, False])
def test_the_output_of_a_linear_operation_is_free_again_behind_a_relu(
    inplace: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[Kept, Tensor]] = []
    clip = Kept.clip
    monkeypatch.setattr(Kept, "clip", lambda kept, y: (clip(kept, y), taken.append((kept, y))))
    relu = torch.relu_ if inplace else torch.relu
    relprop.explain(lambda x: SECOND(relu(FIRST(x))), torch.randn(4, 5, dtype=torch.float64), rules=ZPlus())
    ((kept, y),) = taken
    assert kept.clipped
    assert kept.value.data_ptr() == y.data_ptr()


def test_what_is_not_clippable_stays_as_it_is() -> None:
    z = torch.randn(6)
    kept = Kept(z)
    kept.clip(z.relu())
    assert torch.equal(kept.value, z)
