"""Every form of target, and what is refused."""

from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import InputError
from relprop.targets import Contrastive, Logit, LogOdds, RunnerUp

SAMPLES, CLASSES = 4, 6


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, CLASSES)).double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(SAMPLES, 8, dtype=torch.float64)


def relevance_of(model: nn.Module, x: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """LRP-0 of a score that is homogeneous in the output: gradient times input."""
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(model(leaf)).sum(), leaf)
    return gradient * x


def explain(model: nn.Module, x: Tensor, target: Any) -> relprop.Explanation:
    return relprop.explain(model, x, target=target, rules=relprop.rules.Epsilon(0))


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (None, None),
        (2, [2, 2, 2, 2]),
        (numpy.int64(2), [2, 2, 2, 2]),
        ([0, 5, 3, 1], [0, 5, 3, 1]),
        (numpy.array([0, 5, 3, 1]), [0, 5, 3, 1]),
        (torch.tensor([0, 5, 3, 1]), [0, 5, 3, 1]),
        (torch.tensor(4), [4, 4, 4, 4]),
        (Logit((1, 1, 2, 2)), [1, 1, 2, 2]),
    ],
)
def test_classes(model: nn.Module, x: Tensor, target: Any, classes: list[int] | None) -> None:
    e = explain(model, x, target)
    expected = model(x).argmax(1) if classes is None else torch.tensor(classes)
    assert e.target.tolist() == expected.tolist()
    torch.testing.assert_close(e.score, model(x).gather(1, expected[:, None]).squeeze(1))
    torch.testing.assert_close(
        e.relevance, relevance_of(model, x, lambda y: y.gather(1, expected[:, None]).squeeze(1))
    )


def test_weights(model: nn.Module, x: Tensor) -> None:
    weights = torch.randn(SAMPLES, CLASSES)
    e = explain(model, x, weights)
    torch.testing.assert_close(e.relevance, relevance_of(model, x, lambda y: (y * weights).sum(1)))
    one = explain(model, x, weights[0])
    torch.testing.assert_close(one.relevance, relevance_of(model, x, lambda y: (y * weights[0]).sum(1)))


def test_function(model: nn.Module, x: Tensor) -> None:
    def difference(output: Tensor) -> Tensor:
        return output[:, 3] - output[:, 1]

    e = explain(model, x, difference)
    assert e.target is difference
    torch.testing.assert_close(e.relevance, relevance_of(model, x, difference))


def test_contrastive(model: nn.Module, x: Tensor) -> None:
    e = explain(model, x, Contrastive(2))
    torch.testing.assert_close(
        e.relevance, relevance_of(model, x, lambda y: y[:, 2] - (y.sum(1) - y[:, 2]) / (CLASSES - 1))
    )


def test_runner_up(model: nn.Module, x: Tensor) -> None:
    e = explain(model, x, RunnerUp())
    top = model(x).topk(2, 1).values
    torch.testing.assert_close(e.score, top[:, 0] - top[:, 1])
    assert (e.score > 0).all()


def test_log_odds_are_shared_as_the_formula_says(model: nn.Module, x: Tensor) -> None:
    e = explain(model, x, LogOdds(2))
    y = model(x)
    p = y.softmax(1)[:, 2]
    torch.testing.assert_close(e.score, torch.log(p / (1 - p)))
    torch.testing.assert_close(e.ledger.total, e.score)
    # R_k = p_k · z_k on each difference z_k = y_c - y_k, a linear function of the network's last layer
    others = [k for k in range(CLASSES) if k != 2]
    share = y[:, others].softmax(1)
    z = y[:, [2]] - y[:, others]
    torch.testing.assert_close(e.ledger.absorbed["constant"], (share * share.log()).sum(1))
    torch.testing.assert_close(e.ledger.absorbed["constant"], e.score - (share * z).sum(1))

    def differences(output: Tensor) -> Tensor:
        return ((output[:, [2]] - output[:, others]) * share.detach()).sum(1)

    torch.testing.assert_close(e.relevance, relevance_of(model, x, differences))


@pytest.mark.parametrize("score", [1.0, 3.0])
def test_log_odds_are_upright_below_and_above_one_half(score: float) -> None:
    """A class that leads with a probability of .27, or of .71, is explained by what speaks for it."""
    weight = torch.tensor([[score, 0], [0, 0.9], [0, 0.9], [0, 0.9]], dtype=torch.float64)
    x = torch.ones(1, 2, dtype=torch.float64)
    e = explain(lambda x: x @ weight.T, x, LogOdds(0))
    leaf = x.clone().requires_grad_()
    p = (leaf @ weight.T).softmax(1)[:, 0]
    (gradient,) = torch.autograd.grad((p / (1 - p)).log().sum(), leaf)
    torch.testing.assert_close(e.relevance, gradient * x)
    torch.testing.assert_close(e.relevance, torch.tensor([[score, -0.9]], dtype=torch.float64))


def test_log_odds_beside_a_masked_class() -> None:
    x = torch.tensor([[2.0, 1.0, 0.5]], dtype=torch.float64)
    masked = explain(lambda x: torch.cat([x, torch.full((1, 1), -torch.inf).double()], 1), x, LogOdds(0))
    torch.testing.assert_close(masked.relevance, explain(lambda x: x * 1, x, LogOdds(0)).relevance)


def test_a_target_function_goes_by_the_same_rules(model: nn.Module, x: Tensor) -> None:
    positive = explain(model, x, lambda y: y.relu()[:, 2])
    logit = explain(model, x, 2)
    expected = torch.where(model(x)[:, [2]] > 0, logit.relevance, 0)
    torch.testing.assert_close(positive.relevance, expected)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (6, "target 6 is out of range: the output has 6 classes, 0 to 5"),
        (-1, "target -1 is out of range"),
        ([0, 7, 9, 1], "target 7, 9 is out of range"),
        ([0, 1], "target has 2 classes for 4 samples; give one class for each sample"),
        (True, "is no class index"),
        ("cat", "target='cat' is not a target. Give a class index"),
        (3.5, "target=3.5 is not a target"),
        (torch.zeros(4, 5), r"target weights of shape \(4, 5\) do not fit the output of shape \(4, 6\)"),
        (torch.zeros(4, 6, dtype=torch.bool), r"target is a torch.bool tensor of shape \(4, 6\)"),
        (torch.zeros(4, 6, dtype=torch.int64), r"target is a torch.int64 tensor of shape \(4, 6\)"),
        (
            lambda y: y[:3, 0],
            r"one score for each sample, a tensor of shape \(4,\), or one number; .* gave sh",
        ),
        (lambda y: 3, r"gave int"),
        (Contrastive(8), "target 8 is out of range"),
        (numpy.array(["a"]), "is no array of numbers"),
        (torch.full((6,), float("nan")), "target weights are NaN or infinite"),
    ],
)
def test_targets_without_meaning_are_refused(model: nn.Module, x: Tensor, target: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        explain(model, x, target)


@pytest.mark.parametrize("target", [RunnerUp(), LogOdds()])
def test_one_class_has_no_rival(x: Tensor, target: Any) -> None:
    with pytest.raises(InputError, match="the output has one class, and no other to compare with"):
        explain(nn.Linear(8, 1).double().eval(), x, target)


def test_outputs_that_are_no_scores_need_a_target(x: Tensor) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"scores": x * 2.0}

    with pytest.raises(InputError, match=r"the model returns dict and not a tensor\. Give a target"):
        relprop.explain(Two().eval(), x)
    e = relprop.explain(Two().eval(), x, target=lambda output: output["scores"][:, 3])
    torch.testing.assert_close(e.score, 2 * x[:, 3])
    with pytest.raises(InputError, match=r"the output has shape \(4, 2, 4\), not \(samples, classes\)"):
        relprop.explain(nn.Unflatten(1, (2, 4)).eval(), x)


@pytest.mark.parametrize("rules", ["epsilon", "gradient-times-input"])
def test_a_target_of_the_users_own_may_have_any_attributes(model: nn.Module, x: Tensor, rules: str) -> None:
    class First:
        classes = ("cat", "dog")

        def __call__(self, output: Tensor) -> Tensor:
            return output[:, 0]

    target = First()
    assert relprop.explain(model, x, target=target, rules=rules).target is target


@pytest.mark.parametrize(
    "wrong", [lambda y: y[:, 7], lambda y: y.no_such_thing, lambda y: y[0] @ y, lambda y: 1 / 0]
)
def test_an_error_within_a_target_says_whose_it_is(model: nn.Module, x: Tensor, wrong: Any) -> None:
    with pytest.raises((IndexError, AttributeError, RuntimeError, ZeroDivisionError)) as raised:
        explain(model, x, wrong)
    (note,) = raised.value.__notes__
    assert note.startswith("This is an error of the target <function <lambda>")
    assert note.endswith("with the model's output of shape (4, 6). Try target(model(...)) itself.")


@pytest.mark.parametrize("index", [[0, 5, 3, 1], torch.tensor([0, 5, 3, 1]), numpy.array([0, 5, 3, 1])])
@pytest.mark.parametrize("goal", [Logit, Contrastive, LogOdds, RunnerUp])
def test_classes_of_targets_are_taken_from_lists_and_tensors(goal: Any, index: Any) -> None:
    assert goal(index) == goal((0, 5, 3, 1))
    assert hash(goal(index)) == hash(goal((0, 5, 3, 1)))
    assert goal(numpy.int64(2)) == goal(torch.tensor(2)) == goal(2)


def test_explanations_print_their_target_in_a_few_words(x: Tensor) -> None:
    many = nn.Linear(8, 20_000).double().eval()
    assert "target [12345, 12345, 12345, 12345], score" in repr(explain(many, x, 12345))
    weights = torch.rand(SAMPLES, CLASSES)
    few = nn.Linear(8, CLASSES).double().eval()
    assert "target Weighted(weights of shape (4, 6)), score" in repr(explain(few, x, weights))
