"""An input that the score depends on, and that gets exactly nothing: it is said, with the reason."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE, linear
from relprop.rules import Epsilon, Uniform, ZPlus

N, SIZE = 3, 4


@pytest.fixture
def x() -> Tensor:
    return torch.rand(N, SIZE, **DOUBLE) + 0.5


@pytest.fixture
def other() -> Tensor:
    return torch.rand(N, SIZE, **DOUBLE) + 0.5


LAYER = linear(SIZE, 3)


class Counting(nn.Module):
    """Counts how often it runs."""

    def __init__(self, way: Callable[..., Any]) -> None:
        super().__init__()
        self.way, self.runs = way, 0

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        self.runs += 1
        return self.way(*inputs, **named)


def said_of(way: Callable[..., Any], *inputs: Tensor, **options: Any) -> tuple[list[str], int]:
    """What is said about inputs that get nothing, and how often the model ran."""
    model = Counting(way).eval()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        relprop.explain(model, *inputs, **{"target": 1, "rules": "epsilon"} | options)
    return [str(w.message) for w in said if "no relevance at all" in str(w.message)], model.runs


def gated(x: Tensor, gate: Tensor) -> Tensor:
    return LAYER(x * LAYER.weight[0] * gate.sigmoid())


def divided(x: Tensor, gate: Tensor) -> Tensor:
    return LAYER(x / (1 + gate.square()))


def attended(x: Tensor, gate: Tensor) -> Tensor:
    weights = (gate[:, :, None] * gate[:, None]).softmax(-1)
    return LAYER((weights @ x[:, :, None])[..., 0])


@pytest.mark.parametrize(
    ("way", "operation"),
    [(gated, "mul"), (divided, "div"), (attended, "matmul")],
    ids=["mul", "div", "matmul"],
)
def test_a_gate_and_a_denominator_are_named(
    x: Tensor, other: Tensor, way: Callable[..., Any], operation: str
) -> None:
    (text,), runs = said_of(way, x, other)
    assert text == (
        "input 'inputs1' gets no relevance at all, though the score depends on it. Where values are "
        "multiplied or divided, all relevance goes to the signal, and none to a gate, to attention weights "
        f"or to a denominator: here in {operation} in module '(root)'. A rule for products, "
        "('*', relprop.rules.Uniform()) before others, gives gates and attention weights half."
    )
    assert runs == 2


def test_what_is_said_to_be_typed_gives_it_relevance(x: Tensor, other: Tensor) -> None:
    rules = [("*", Uniform()), ("*", Epsilon())]
    assert said_of(gated, x, other, rules=rules) == ([], 1)
    assert said_of(attended, x, other, rules=rules) == ([], 1)


def test_a_reciprocal_is_named(x: Tensor) -> None:
    (text,), _ = said_of(lambda x: 1 / x, x)
    assert text == (
        "input 'inputs0' gets no relevance at all, though the score depends on it. Relevance ends at a "
        "reciprocal such as 1/x, or at an inverse. The ledger has it under 'statistic'."
    )


def test_without_a_reason_other_rules_are_the_remedy(x: Tensor, other: Tensor) -> None:
    def against(x: Tensor, gate: Tensor) -> Tensor:
        return LAYER(x) + nn.functional.linear(gate, -LAYER.weight.abs())

    (text,), runs = said_of(against, x, other, rules=ZPlus())
    assert text.endswith("depends on it. The rules pass nothing on to it. Compare with other rules.")
    assert runs == 2
    assert said_of(against, x, other, rules="epsilon") == ([], 1)


# ---- where there is nothing to say, and the model runs once only if every input has relevance ----


def beside(x: Tensor, gate: Tensor) -> Tensor:
    return LAYER(x * gate.sigmoid() + gate)


def unused(x: Tensor, gate: Tensor) -> Tensor:
    return LAYER(x)


def made_constant(x: Tensor, gate: Tensor) -> Tensor:
    return LAYER(x * gate.detach())


def compared(x: Tensor, gate: Tensor) -> Tensor:
    return LAYER(x.masked_fill(gate > 1, 0))


@pytest.mark.parametrize(("way", "runs"), [(beside, 1), (unused, 2), (made_constant, 2), (compared, 2)])
def test_other_inputs_need_no_word(x: Tensor, other: Tensor, way: Callable[..., Any], runs: int) -> None:
    assert said_of(way, x, other) == ([], runs)


def test_an_input_of_zeros_needs_no_word(x: Tensor) -> None:
    assert said_of(lambda x, y: LAYER(x + y), x, torch.zeros_like(x)) == ([], 2)


def test_a_score_of_zero_needs_no_word(x: Tensor) -> None:
    assert said_of(lambda x: x - x, x) == ([], 1)


def test_it_is_said_once_for_all_targets_and_where_the_user_called(x: Tensor, other: Tensor) -> None:
    with pytest.warns(UserWarning, match="no relevance at all") as said:
        relprop.explain_each(gated, x, other, targets=[0, 1, 2], rules="epsilon")
    assert [w.filename for w in said if "at all" in str(w.message)] == [__file__]


def test_categories_that_only_gate_are_named(x: Tensor) -> None:
    words = nn.Embedding(5, SIZE).double()
    (text,), _ = said_of(lambda x, ids: gated(x, words(ids)), x, torch.tensor([1, 2, 4]))
    assert text.startswith("input 'inputs1' gets no relevance at all, though the score depends on it.")


def test_conditions_and_starts_may_leave_an_input_nothing(x: Tensor) -> None:
    model = nn.Sequential(linear(SIZE, SIZE), linear(SIZE, 3)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        e = relprop.explain(
            model, x, rules="epsilon", target=lambda y: y[:, 1].abs(), conditions={"0": torch.zeros_like}
        )
    assert not e.relevance.any()


def test_a_model_without_a_plain_gradient_is_doubtful(x: Tensor, other: Tensor) -> None:
    def way(x: Tensor, gate: Tensor) -> Tensor:
        runs.append(1)
        if len(runs) > 1:
            raise RuntimeError("only once")
        return gated(x, gate)

    runs: list[int] = []
    (text,), _ = said_of(way, x, other)
    assert text.startswith(
        "input 'inputs1' gets no relevance at all. Whether the score depends on it could not be found, "
        "because the model has no plain gradient. Where values"
    )


def test_the_second_run_leaves_the_random_generator_as_it_was(x: Tensor, other: Tensor) -> None:
    def way(x: Tensor, gate: Tensor) -> Tensor:
        return gated(x * torch.rand_like(x), gate)

    torch.manual_seed(4)
    said, runs = said_of(way, x, other)
    assert (len(said), runs) == (1, 2)
    found = torch.rand(())
    torch.manual_seed(4)
    torch.rand_like(x)
    assert found == torch.rand(())
