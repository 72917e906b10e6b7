"""Outputs behind a ReLU are kept as the ReLU left them, and no explanation is another one for it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from alike import near, relevance
from networks import DOUBLE, random_norm
from relprop.crossing import ruled
from relprop.engine.keep import Kept
from relprop.places import First
from relprop.rules import Absolute, AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZPlus

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


def looks(model: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch, rules: object) -> int:
    """How often an explanation looks whether relevance arrives at outputs that a ReLU set to zero."""
    count = 0
    look = ruled.reaches_beside

    def counted(*arguments: Tensor) -> bool:
        nonlocal count
        count += 1
        return look(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ruled, "reaches_beside", counted)
        relprop.explain(model, torch.randn(4, 5, dtype=torch.float64), target=1, rules=rules)
    return count


def behind_an_alias(x: Tensor) -> Tensor:
    z = FIRST(x)
    return SECOND(torch.relu(z[:]) + 0.3 * z)


def twice_behind_an_alias(x: Tensor) -> Tensor:
    z = FIRST(x)[:]
    return SECOND(torch.relu(z) + 0.3 * z)


def behind_a_copy(x: Tensor) -> Tensor:
    z = FIRST(x)
    return SECOND(torch.relu(z.clone()) + 0.3 * z)


def in_a_list(x: Tensor) -> Tensor:
    z = FIRST(x)
    return SECOND(torch.stack([torch.relu(z), z]).sum(0))


@pytest.mark.parametrize("model", [apart, used_as_negative])
def test_what_a_relu_alone_takes_is_not_looked_at(
    model: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = 0 if model is apart else 1  # -z is another call
    assert looks(model, monkeypatch, Epsilon(0.1)) == expected


@pytest.mark.parametrize(
    "model", [used_before, overwritten, behind_an_alias, twice_behind_an_alias, behind_a_copy, in_a_list]
)
@pytest.mark.parametrize("rule", [Epsilon(0.1), ZPlus(), Gamma(0.5)])
def test_what_another_call_takes_too_is_looked_at_and_has_its_relevance(
    model: Callable[[Tensor], Tensor], rule: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Behind an alias nothing is clipped, and there is nothing to look for.
    assert looks(model, monkeypatch, rule) == int("alias" not in model.__name__)
    x = torch.randn(4, 5, dtype=torch.float64)
    found = relprop.explain(model, x, target=1, rules=rule)
    monkeypatch.setattr(Kept, "clip", lambda *_: False)
    near(found.relevance, relprop.explain(model, x, target=1, rules=rule).relevance)
    assert float(found.ledger.gap.max()) < 1e-10


def as_score(x: Tensor) -> Tensor:
    """The ReLU is beside what is explained."""
    z = torch.relu(FIRST(x)) @ SECOND.weight.T
    torch.relu(z)
    return z


def of_one_dimension(x: Tensor) -> Tensor:
    return torch.relu(torch.relu(FIRST(x)) @ SECOND.weight[0])


class Through(nn.Module):
    """An identity, whose output is that of another layer, with a ReLU beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        z = FIRST(x)
        kept = self.same(z)
        return SECOND(torch.relu(z)) + SECOND(kept)


class Storing(nn.Module):
    """A layer that keeps its output, which is used by the name of the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Identity()
        self.z: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.z = FIRST(x)
        relu = torch.relu(self.same(self.z))
        z, self.z = self.z, None
        return SECOND(relu) + SECOND(z)


class Doubled(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z * 2.0


class DoubledByFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return z * 2.0

    @staticmethod
    def backward(ctx: Any, c: Tensor) -> Tensor:
        return c * 2.0


def declared(x: Tensor) -> Tensor:
    z = FIRST(x)
    return SECOND(Doubled()(z)) + SECOND(torch.relu(z)) + SECOND(DoubledByFunction.apply(z))


def between(x: Tensor) -> Tensor:
    """A clamp, which lets relevance through where z is negative, with a ReLU beside it."""
    z = FIRST(x)
    return SECOND(torch.relu(z)) + SECOND(z.clamp(-1.0, 1.0))


ALL = list(range(6))


@pytest.mark.parametrize("rule", [Epsilon(0.1), ZPlus(), Gamma(0.5), AlphaBeta(2, 1)])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        (as_score, {}),
        (of_one_dimension, {"target": lambda scores: scores}),
        (declared, {}),
        (between, {}),
        *[
            (kind().eval(), options)
            for kind in (Through, Storing)
            for options in ({}, {"record": ["same"]}, {"conditions": {"same": ALL}}, {"start": "same"})
        ],
    ],
)
def test_relevance_beside_a_relu_is_not_lost_however_it_comes(
    model: Callable[[Tensor], Tensor], options: dict[str, Any], rule: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    relprop.register(Doubled, "linear")
    relprop.register(DoubledByFunction, "linear")
    x, options = torch.randn(4, 5, dtype=torch.float64), {"target": 1, **options}
    found = relprop.explain(model, x, rules=rule, **options)
    assert float(found.ledger.gap.max()) < 1e-10
    monkeypatch.setattr(Kept, "clip", lambda *_: False)
    near(found.relevance, relprop.explain(model, x, rules=rule, **options).relevance)


@pytest.mark.parametrize("rule", [Epsilon(0.1), ZPlus(), Gamma(0.5)])
def test_gradients_of_a_value_and_its_relu_at_once(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)

    def coefficient() -> Tensor:
        with relprop.propagating(rule):
            z = FIRST(x)
            ones = torch.ones_like(z)
            (found,) = torch.autograd.grad([z, torch.relu(z)], [x], [ones, ones])
        return found

    found = coefficient()
    monkeypatch.setattr(Kept, "clip", lambda *_: False)
    near(found, coefficient())


class Both(nn.Module):
    """Returns z and relu(z), of which relu(z) is made in it."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = FIRST(x)
        return z, torch.relu(z)


@pytest.mark.parametrize("options", [{"record": ["both"]}, {"conditions": {"both": [0, 2, 3]}}, {}])
@pytest.mark.parametrize("rule", [Epsilon(0.1), ZPlus(), Gamma(0.5)])
def test_what_a_module_returns_beside_its_relu_has_its_relevance(
    rule: object, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = Both()

        def forward(self, x: Tensor) -> Tensor:
            z, y = self.both(x)
            return SECOND(0.3 * z + y)

    model = Outside().eval()
    x = torch.randn(4, 5, dtype=torch.float64)
    found = relprop.explain(model, x, target=1, rules=rule, **options)
    assert float(found.ledger.gap.max()) < 1e-10
    monkeypatch.setattr(Kept, "clip", lambda *_: False)
    near(found.relevance, relprop.explain(model, x, target=1, rules=rule, **options).relevance)


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


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), AlphaBeta(2, 1, bias="absorb"), Absolute()])
@pytest.mark.parametrize("first", [Flat(), WSquare()])
def test_a_batch_norm_by_a_rule_before_a_relu_takes_relevance_on_zeros(rule: Any, first: Any) -> None:
    norm, layer, head = random_norm(nn.BatchNorm2d(3)), nn.Conv2d(3, 4, 3).double(), nn.Linear(4, 2).double()
    x = torch.randn(2, 3, 5, 5, **DOUBLE)
    rules = [(nn.BatchNorm2d, rule), (First(), first), ("*", Epsilon(0.1))]

    def model(relu: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: head(layer(relu(norm(x))).relu().mean((2, 3)))

    near(relevance(model(F.relu), x, rules), relevance(model(lambda z: z.clamp(min=0)), x, rules))


def test_outputs_set_to_zero_that_had_negative_contributions_only_give_no_nan() -> None:
    """With z = max(0, z) and P = 0, N + b is 0 where b < 0."""
    first, layer, head = nn.Linear(4, 5).double(), nn.Linear(5, 6).double(), nn.Linear(6, 2).double()
    with torch.no_grad():
        layer.weight.abs_().neg_()
        layer.weight[:3].neg_()
        layer.bias.copy_(torch.tensor([0.1, 0.2, -0.1, -0.1, -0.2, -0.3]))
    x, rule = torch.randn(3, 4, **DOUBLE), AlphaBeta(2, 1, bias="absorb")
    expected = relevance(lambda x: head(layer(first(x).relu()).clamp(min=0)), x, rule)
    near(relevance(lambda x: head(layer(first(x).relu()).relu()), x, rule), expected)
