"""The output of a convolution that a batch norm takes over, where the output is used elsewhere too."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop import Explainer
from relprop.engine.attach import Attach

torch.manual_seed(0)
CONV = nn.Conv2d(2, 3, 3, padding=1).double().eval()
NORM = nn.BatchNorm2d(3).double().eval()
LAST = nn.Conv2d(3, 2, 3).double().eval()
with torch.no_grad():
    NORM.running_mean.normal_()
    NORM.running_var.uniform_(0.5, 2)
    NORM.weight.uniform_(-1, 1)
    NORM.bias.normal_()
x = torch.randn(2, 2, 5, 5, **DOUBLE)
RULES = pytest.mark.parametrize("rules", ["epsilon", "epsilon-gamma-flat", "epsilon-alpha2-beta1"])


def ended(h: Tensor) -> Tensor:
    return LAST(h).sum((2, 3))


def beside(h: Tensor, again: Tensor) -> Tensor:
    return ended(NORM(h) + again)


def before(h: Tensor, again: Tensor) -> Tensor:
    last = ended(again)
    return ended(NORM(h)) + last


def after(h: Tensor, again: Tensor) -> Tensor:
    return ended(NORM(h)) + ended(again)


def read(h: Tensor, again: Tensor) -> Tensor:
    scale = 1 + float(again.detach().mean()) ** 2
    return ended(NORM(h) * scale)


def shown(h: Tensor, again: Tensor) -> Tensor:
    repr(again), again.tolist(), again.stride(), again.is_contiguous()
    return ended(NORM(h))


SPELLINGS = {
    "h = h + 1": (lambda h: h + 1, lambda h: h.add_(1)),
    "h = 2h": (lambda h: h * 2, lambda h: h.mul_(2)),
    "h = relu(h)": (torch.relu, torch.relu_),
    "h = -h": (torch.neg, lambda h: h.neg_()),
    "h[0] = 1": (lambda h: torch.cat([torch.ones_like(h[:, :1]), h[:, 1:]], 1), lambda h: first_to_one(h)),
}


def first_to_one(h: Tensor) -> Tensor:
    h[:, :1] = 1
    return h


@RULES
@pytest.mark.parametrize("function", [beside, before, after, read, shown])
def test_the_output_is_used_twice(function: Callable[[Tensor, Tensor], Tensor], rules: str) -> None:
    def once(x: Tensor) -> Tensor:
        h = CONV(x)
        return function(h, h)

    def twice(x: Tensor) -> Tensor:  # so that each output is used once
        return function(CONV(x), CONV(x))

    found, expected = (
        relprop.explain(model, x, rules=rules, target=lambda y: y.sum(1)) for model in (once, twice)
    )
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-10, atol=1e-12)
    assert found.ledger.largest_gap < 1e-10


@RULES
@pytest.mark.parametrize("name", SPELLINGS)
def test_the_output_is_overwritten_before_the_norm(name: str, rules: str) -> None:
    out_of_place, in_place = SPELLINGS[name]

    def explained(change: Callable[[Tensor], Tensor]) -> relprop.Explanation:
        return relprop.explain(
            lambda x: ended(NORM(change(CONV(x)))), x, rules=rules, target=lambda y: y.sum(1)
        )

    def kept(h: Tensor) -> Tensor:
        in_place(h)
        return h

    expected = explained(out_of_place)
    for change in (in_place, kept):
        found = explained(change)
        torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found.score, expected.score)


def test_nothing_is_attached_that_nobody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    attached = []
    forward = Attach.forward

    def counting(ctx: object, *args: object) -> object:
        attached.append(1)
        return forward(ctx, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Attach, "forward", staticmethod(counting))
    relprop.explain(lambda x: ended(NORM(CONV(x))), x, rules="epsilon", target=lambda y: y.sum(1))
    assert len(attached) == 2  # the convolution with its norm, and the last one


def test_the_output_outlives_the_run() -> None:
    kept = []

    def model(x: Tensor) -> Tensor:
        h = CONV(x)
        kept.append(h)
        return ended(NORM(h))

    Explainer(model, rules="epsilon")(x, target=lambda y: y.sum(1))
    assert torch.equal(kept[0] + 0, CONV(x).detach())
    assert not (kept[0] + 0).requires_grad


def test_the_output_is_the_model_output() -> None:
    found = relprop.explain(lambda x: CONV(x).flatten(1), x, rules="epsilon", target=lambda y: y.sum(1))
    directly = relprop.explain(CONV, x, rules="epsilon", target=lambda y: y.flatten(1).sum(1))
    torch.testing.assert_close(found.relevance, directly.relevance)
    assert found.ledger.largest_gap < 1e-10
