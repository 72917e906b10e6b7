"""Models that make a constant of what they compute: the error names the place, and its advice works."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import ModelError

net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
table = nn.Embedding(9, 3)


@torch.no_grad()
def without_gradients(x: Tensor) -> Tensor:
    return net(x)


@torch.inference_mode()
def in_inference_mode(x: Tensor) -> Tensor:
    return net(x)


class Predictor(nn.Module):
    """A module whose forward is decorated, as models for serving have it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def by_numpy(x: Tensor) -> Tensor:
    return net(torch.from_numpy(abs(x.numpy())))


def by_lists(x: Tensor) -> Tensor:
    return net(torch.tensor(x.tolist()))


def by_numbers(x: Tensor) -> Tensor:
    return net(torch.full((2, 4), x.sum().item()))


class Rounded(torch.autograd.Function):
    """A straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


def detached(x: Tensor) -> Tensor:
    return net(x.detach())


def by_data(x: Tensor) -> Tensor:
    return net(x.data)


def to_integers(x: Tensor) -> Tensor:
    return table(x.cumsum(1).abs().long().clamp(max=8)).mean(1)


def by_comparison(x: Tensor) -> Tensor:
    return net((x > 0).to(x.dtype))


def by_bins(x: Tensor) -> Tensor:
    return net(torch.bucketize(x, torch.linspace(-1, 1, 4)).to(x.dtype))


def through(x: Tensor) -> Tensor:
    return net(x + ((x > 0).to(x.dtype) - x).detach())


def plain(x: Tensor) -> Tensor:
    return net(x)


def plain_of_module(predictor: nn.Module) -> Callable[..., Any]:
    return functools.partial(type(predictor).forward.__wrapped__, predictor)  # type: ignore[attr-defined]


COMPARED = (
    "What compares, counts or picks places carries no relevance: use a function that has a gradient, such as "
    "a sigmoid, or pass relevance on unchanged, as a straight-through estimator does its gradient: "
    "x + (f(x) - x).detach()."
)
UNWRAPPED = (
    "A decorated function has the plain one as its __wrapped__: explain(f.__wrapped__, x), or "
    "explain(functools.partial(type(model).forward.__wrapped__, model), x) for a module."
)

CASES: dict[str, tuple[Callable[..., Any], str, str, Callable[..., Any]]] = {
    "no_grad": (
        without_gradients,
        r"linear in module '0' at .*: runs under torch\.no_grad\(\)",
        f"Leave out torch.no_grad(). {UNWRAPPED}",
        without_gradients.__wrapped__,
    ),
    "inference_mode": (
        in_inference_mode,
        r"linear in module '0' at .*: runs under torch\.inference_mode\(\)",
        f"Leave out torch.inference_mode(). {UNWRAPPED}",
        in_inference_mode.__wrapped__,
    ),
    "a module in inference mode": (
        Predictor().eval(),
        r"linear in module 'net\.0' at .*: runs under torch\.inference_mode\(\)",
        f"Leave out torch.inference_mode(). {UNWRAPPED}",
        plain_of_module(Predictor().eval()),
    ),
    "numpy": (
        by_numpy,
        "numpy in module .*: takes values out of torch, and so makes a constant",
        "Compute with operations of torch in place of .numpy().",
        lambda x: net(x.abs()),
    ),
    "tolist": (
        by_lists,
        "tolist in module .*: takes values out of torch, and so makes a constant",
        "Compute with operations of torch in place of .tolist().",
        plain,
    ),
    "item": (
        by_numbers,
        "item in module .*: takes a number out of torch, and so makes a constant",
        "Compute with operations of torch in place of .item().",
        lambda x: net(x.sum().expand(2, 4)),
    ),
    "detach": (detached, "detach in module .*: makes a constant", "Leave out .detach().", plain),
    "data": (by_data, "data in module .*: makes a constant", "Leave out .data.", plain),
    "a comparison": (by_comparison, "gt in module .*: has no gradient", COMPARED, through),
    "bins": (by_bins, "bucketize in module .*: has no gradient", COMPARED, lambda x: net(x.sigmoid())),
    "integers": (
        to_integers,
        r"to in module .*: casts to torch\.int64, which has no gradient",
        "If an embedding looks these integers up, explain what is behind the cast, with them as its input.",
        lambda x: relprop.explain(lambda ids: table(ids).mean(1), x.cumsum(1).abs().long().clamp(max=8)),
    ),
}


@pytest.mark.parametrize("rules", [None, "gradient-times-input"])
@pytest.mark.parametrize("case", CASES)
def test_what_makes_a_constant_is_named_with_a_remedy(case: str, rules: str | None) -> None:
    model, place, remedy, instead = CASES[case]
    with pytest.raises(ModelError, match=rf"\n  - {place}") as error:
        relprop.explain(model, torch.randn(2, 4), rules=rules)
    assert f"{__file__}:" in str(error.value)
    assert str(error.value).splitlines()[-1] == remedy
    if case == "integers":
        assert instead(torch.randn(2, 4)).relevance.shape == (2, 4)
    else:
        assert relprop.explain(instead, torch.randn(2, 4), rules=rules).relevance.shape == (2, 4)


def test_a_straight_through_estimator_is_told_its_spelling_for_relevance() -> None:
    with pytest.raises(ModelError, match=r"\n  - round in module .*: is constant between") as error:
        relprop.explain(lambda x: net(Rounded.apply(x)), torch.randn(2, 4))
    assert str(error.value).splitlines()[-1] == (
        "Leave out .round(), or pass relevance on unchanged, as a straight-through estimator does its "
        "gradient: x + (x.round() - x).detach(). Or say how relevance crosses Rounded as a whole: "
        "relprop.register(Rounded, 'identity'), or 'pointwise', 'linear', 'product' (docs/own-rules.md)."
    )
    x = torch.randn(2, 4)
    e = relprop.explain(lambda x: net(x + (x.round() - x).detach()), x, target=1)
    torch.testing.assert_close(e.score, net(x.round())[:, 1].detach())
    assert e.relevance.any()
