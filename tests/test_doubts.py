"""What makes a result doubtful is said."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import Composite, Epsilon, Flat, Gamma, ScoreWarning
from test_inner import DOUBLE, network


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 4, **DOUBLE)


def scores(*values: float) -> nn.Linear:
    """A layer with these scores whatever the input is, nearly."""
    layer = nn.Linear(4, len(values)).double().eval()
    with torch.no_grad():
        layer.weight.mul_(1e-3)
        layer.bias.copy_(torch.tensor(values))
    return layer


@contextmanager
def nothing_said() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---- negative scores ----


def test_a_negative_score_is_doubtful(x: Tensor) -> None:
    message = (
        r"the explained score is negative for 3 of 3 samples: .*Contrastive\(\.\.\.\) or relprop\.RunnerUp"
    )
    with pytest.warns(ScoreWarning, match=message) as said:
        relprop.explain(scores(2, -1), x, target=1, rules=Epsilon())
    assert len(said) == 1
    assert said[0].filename == __file__  # where the user called, and not in the package
    with pytest.warns(ScoreWarning, match="is negative for 2 of 3 samples"):
        relprop.explain(scores(2, -1), x, target=[1, 0, 1], rules=Epsilon())
    with pytest.warns(ScoreWarning, match="is negative for 3 of 3 samples"):
        relprop.explain(scores(-2, -1), x, rules=Epsilon())


@pytest.mark.parametrize("target", [None, 0, relprop.Contrastive(1), relprop.RunnerUp(1), lambda y: y[:, 1]])
def test_positive_scores_and_differences_are_not(x: Tensor, target: Any) -> None:
    with nothing_said():
        relprop.explain(scores(2, -1), x, target=target, rules=Epsilon())
        relprop.explain(scores(2, -1), x, targets=[target, 0], rules=Epsilon())


def test_the_text_reads_as_one(x: Tensor) -> None:
    with pytest.warns(ScoreWarning) as said:
        relprop.explain(scores(-2, -1), x, rules=Epsilon())
    assert str(said[0].message) == (
        "the explained score is negative for 3 of 3 samples: relevance then speaks for its being low, and "
        "rules such as z+ explain positive scores only. Explain a class with a positive score, or a "
        "difference: target=relprop.Contrastive(...) or relprop.RunnerUp(...)."
    )


# ---- softmax ----


class Ending(nn.Module):
    """A classifier with its softmax, and what else it returns."""

    def __init__(self, end: Any, wrap: Any = None) -> None:
        super().__init__()
        self.layer, self.end, self.wrap = scores(1, 3), end, wrap

    def forward(self, x: Tensor) -> Any:
        y = self.end(self.layer(x))
        return y if self.wrap is None else self.wrap(y)


@pytest.mark.parametrize(
    ("end", "name"),
    [
        (nn.Softmax(1), "softmax"),
        (lambda y: torch.softmax(y, -1), "softmax"),
        (lambda y: y.softmax(dim=1)[:, :1], "softmax"),
        (nn.LogSoftmax(1), "log_softmax"),
    ],
)
def test_a_softmax_at_the_end_is_doubtful(x: Tensor, end: Any, name: str) -> None:
    message = f"the model ends in a {name}: its outputs depend on all classes at once, .* leave that layer"
    with pytest.warns(ScoreWarning, match=message) as said:
        relprop.explain(Ending(end).eval(), x, target=lambda y: y[:, 0].exp(), rules=Epsilon())
    assert [w.filename for w in said] == [__file__]
    assert "sure of itself little relevance passes" in str(said[0].message)


def test_a_softmax_among_several_outputs_is_doubtful(x: Tensor) -> None:
    model = Ending(nn.Softmax(1), lambda y: {"probabilities": y}).eval()
    with pytest.warns(ScoreWarning, match="the model ends in a softmax"):
        relprop.explain(model, x, target=relprop.Part("probabilities", 0), rules=Epsilon())


def test_a_softmax_within_is_not(x: Tensor) -> None:
    class Within(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = scores(1, 3), scores(2, 1)
            self.head.weight.data = self.head.weight.data[:, :2]

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x).softmax(1))

    with nothing_said():
        relprop.explain(Within().eval(), x, rules=Epsilon())


# ---- half precision ----


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_epsilon_below_the_resolution_is_raised_and_said_once(dtype: torch.dtype) -> None:
    model = (
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
        .eval()
        .to(dtype)
    )
    with torch.no_grad():
        for layer in (model[0], model[2], model[4]):
            layer.weight.abs_()
            layer.bias.abs_()
    x = torch.rand(3, 4).to(dtype)
    finest = torch.finfo(dtype).eps
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        e = relprop.explain(model, x, rules=Epsilon(1e-6))
        relprop.explain(model, x, rules=Epsilon(1e-6))
    assert [str(w.message) for w in said] == [
        f"ε = 1e-06 is below the resolution of {dtype}, where it would do nothing; ε = {finest:g} is taken "
        "instead."
    ]
    with nothing_said():
        by_hand = relprop.explain(model, x, rules=Epsilon(finest))
        relprop.explain(model, x, rules=Epsilon(0))
    assert torch.equal(e.relevance, by_hand.relevance)
    assert torch.equal(e.ledger.absorbed["epsilon"], by_hand.ledger.absorbed["epsilon"])
    assert (e.ledger.absorbed["epsilon"] > 0).all()


def test_other_types_keep_their_epsilon(x: Tensor) -> None:
    with nothing_said():
        for dtype in (torch.float32, torch.float64):
            relprop.explain(scores(2, 1).to(dtype), x.to(dtype), rules=Epsilon(1e-12))


# ---- books that do not close ----


def _size(output: Tensor) -> Tensor:
    return output[:, 0].abs()


def test_books_that_do_not_close_are_doubtful(x: Tensor) -> None:
    layer = nn.Linear(4, 3).double().eval()
    message = (
        r"the ledger does not close: \d\.\de[+-]\d\d of the largest amount is missing or too much \(accepted "
        r"without a rule: cumprod\)\. See print\(explanation\.ledger\)"
    )
    with pytest.warns(UserWarning, match=message) as said:
        relprop.explain(
            lambda x: layer(x.cumprod(1)),
            x,
            target=lambda y: y[:, 0].abs(),
            rules=Epsilon(),
            accept="cumprod",
        )
    assert [w.filename for w in said] == [__file__]


def test_weights_that_are_nan_are_doubtful(x: Tensor) -> None:
    layer = nn.Linear(4, 3).double().eval()
    layer.weight.data[0, 0] = float("nan")
    with pytest.warns(UserWarning, match=r"the ledger does not close: nan .*\(look for NaN in the model"):
        relprop.explain(layer, x, target=0, rules=Epsilon())


# ---- places that do not exist ----


def test_a_place_that_matches_nothing_is_doubtful() -> None:
    model, x = network(), torch.randn(2, 2, 6, 6, **DOUBLE)

    def said_of(*places: Any) -> list[str]:
        rules = Composite([*((place, Gamma(0.1)) for place in places), ("*", Flat())])
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            relprop.explain(model, x, target=_size, rules=rules)
        assert all(w.filename == __file__ for w in said)
        return [str(w.message) for w in said]

    assert said_of("9.branch.1") == [
        "'9.branch.1' in the composite matches no module with a linear operation; near it are '9.branch.0'."
    ]
    assert said_of("zzz") == [
        "'zzz' in the composite matches no module with a linear operation; explanation.rules has the paths."
    ]
    assert len(said_of(("layer*", nn.Conv2d), "first", "3", lambda site: False)) == 1
    assert said_of("9.*", "first", "1?", nn.Linear) == []
    # Once for all targets.
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("ignore", ScoreWarning)
        relprop.explain(model, x, targets=[0, 1], rules=[("zzz", Gamma()), ("*", Epsilon())])
    assert len(said) == 1
