"""Names of one memory: constants that get other memory, nested runs, copies, what returns its operand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop.engine.levels import here

ONES = torch.ones(1, 4, **DOUBLE)


def explained(function: Callable[[Tensor], Any], x: Tensor = ONES) -> relprop.Explanation:
    e = relprop.explain(function, x, target=0, rules="epsilon")
    assert e.ledger.gap.max() < 1e-12
    return e


def by_data(constant: Tensor, value: Tensor) -> None:
    constant.data = value


def by_swapping(constant: Tensor, value: Tensor) -> None:
    torch.utils.swap_tensors(constant, value)


@pytest.mark.parametrize("give", [by_data, by_swapping])
def test_a_constant_that_gets_other_memory_is_another_one(give: Callable[[Tensor, Tensor], None]) -> None:
    def model(x: Tensor) -> Tensor:
        b = torch.ones(4, **DOUBLE)
        y = x * b
        give(b, torch.full((4,), 2.0, **DOUBLE))
        return y * b

    assert explained(model).relevance.tolist() == [[2, 0, 0, 0]]


def test_a_weight_that_gets_other_memory_is_another_one() -> None:
    def model(x: Tensor) -> Tensor:
        w = torch.eye(4, **DOUBLE)
        y = x @ w
        w.data = 2 * torch.eye(4, **DOUBLE)
        return y @ w

    e = explained(model)
    torch.testing.assert_close(e.relevance, torch.tensor([[2.0, 0, 0, 0]], **DOUBLE), rtol=1e-5, atol=0)


def test_a_run_within_sees_and_shows_what_is_written_to_the_models_own_tensors() -> None:
    b = torch.ones(4, **DOUBLE)

    def doubles(x: Tensor) -> Tensor:
        b.view(2, 2).mul_(2.0)
        return x * b

    def outer(x: Tensor) -> Tensor:
        b.fill_(1.0)
        y = x * b
        relprop.explain(doubles, ONES, target=0)
        return y * b

    assert explained(outer).relevance.tolist() == [[2, 0, 0, 0]]


@pytest.mark.parametrize(
    "inner", [lambda x, b: F.linear(x, b[None]), lambda x, b: x + b[0], lambda x, b: x + b]
)
def test_a_run_within_sees_what_the_outer_one_wrote(inner: Callable[[Tensor, Tensor], Tensor]) -> None:
    b = torch.zeros(4, **DOUBLE)

    def model(x: Tensor) -> Tensor:
        b.copy_(x[0])
        return x * relprop.explain(lambda x: inner(x, b), ONES, target=0).output.detach().sum()

    three = 3 * ONES
    assert torch.equal(explained(model, three).output, three * inner(ONES, three[0]).sum())


def test_a_module_that_runs_again_is_not_within_another_run() -> None:
    nested = []

    class Noting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nested.append(here.nested)
            return x.relu()

    model = nn.Sequential(nn.Linear(4, 4), Noting(), nn.Linear(4, 2)).double().eval()
    relprop.explain(model, ONES, target=0, rules="epsilon", checkpoint="1")
    assert nested == [False, False]
    nested.clear()
    explained(lambda x: x * relprop.explain(model, ONES, target=0, rules="epsilon").output.detach().sum())
    assert nested == [True]


@pytest.mark.parametrize(
    "part", [lambda x: x[:, ::2], lambda x: x[:, :1].expand(1, 6, 2), lambda x: x.transpose(1, 2)]
)
def test_a_copy_lies_in_memory_as_torch_has_it(part: Callable[[Tensor], Tensor]) -> None:
    x, strides = torch.randn(1, 6, 2, **DOUBLE), []

    def model(x: Tensor) -> Tensor:
        copy = part(x * 1.0).clone()
        strides.append(copy.stride())
        return copy.flatten(1)

    explained(model, x)
    assert strides == [part(x).clone().stride()]


def test_a_constant_of_inference_mode_in_a_chain() -> None:
    with torch.inference_mode():
        b = torch.full((4,), 0.5, **DOUBLE)
    e = explained(lambda x: torch.tanh(x * b))
    torch.testing.assert_close(e.relevance[0, 0], torch.tanh(torch.tensor(0.5, **DOUBLE)))


def test_dropout_in_evaluation_and_casts_that_change_nothing_are_their_operand() -> None:
    def dropped(x: Tensor) -> Tensor:
        y = x * 1.0
        F.dropout(y, training=False).mul_(2)
        nn.Dropout().eval()(y).mul_(2)
        return y

    def cast(x: Tensor) -> Tensor:
        m = x.detach() * 1.0
        m.to(torch.float64).mul_(2)
        m.double().mul_(2)
        return x * m

    for model in (dropped, cast):
        assert torch.equal(explained(model).output, 4 * ONES)


def test_modules_of_torch_that_drop_values_by_themselves_are_refused_in_training() -> None:
    x = torch.randn(1, 3, 4)
    attention = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)
    for model, inputs in ((attention, (x, x, x)), (nn.LSTM(4, 4, num_layers=2, dropout=0.5), (x,))):
        with pytest.raises(relprop.errors.ModelError, match="the model is in training mode"):
            relprop.explain(model, *inputs, target=lambda o: o[0].flatten(1).sum(1))
