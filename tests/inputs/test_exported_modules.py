"""Modules of torch.export programs, which refuse `eval()`: what errors advise about the mode works."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import ModelError


class Net(nn.Module):
    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.hidden, self.between, self.out = nn.Linear(4, 8), between, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.between(torch.relu(self.hidden(x))))


class Wrapper(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x) * 2


X = torch.rand(2, 4)


def exported(model: nn.Module, *, decomposed: bool = False) -> Any:
    program = torch.export.export(model, (X,))
    return (program.run_decompositions() if decomposed else program).module()


@pytest.mark.filterwarnings("ignore::FutureWarning:copyreg")  # of torch's own decompositions
@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize(
    ("between", "operation"), [(nn.Dropout(), "dropout"), (nn.BatchNorm1d(8), "batch_norm")]
)
def test_an_export_in_training_mode_is_to_be_made_again(
    between: nn.Module, operation: str, *, decomposed: bool
) -> None:
    model = Net(between)
    wrong = exported(model.train(), decomposed=decomposed)
    with pytest.raises(NotImplementedError):
        wrong.eval()
    message = (
        rf"the model was exported in training mode: its graph has \w*{operation}\w* as in training, and "
        r"torch refuses eval\(\) for it\. Export it again: "
        r"torch\.export\.export\(model\.eval\(\), args\)\.module\(\)\."
    )
    for each in (wrong, Wrapper(wrong)):
        with pytest.raises(ModelError, match=message):
            relprop.explain(each, X, target=0)
    right = torch.export.export(model.eval(), (X,)).module()  # as the message says
    expected = relprop.explain(model, X, target=0).relevance
    torch.testing.assert_close(relprop.explain(right, X, target=0).relevance, expected)


def test_a_module_around_an_export_is_told_how_to_leave_training_mode() -> None:
    part = exported(Net(nn.Dropout()).eval())
    with pytest.raises(NotImplementedError):
        Wrapper(part).eval()
    model = Wrapper(part)
    with pytest.raises(
        ModelError, match=r"training mode \(the model itself\), .*: write `for m in model\.modul"
    ) as e:
        relprop.explain(model, X, target=0)
    assert "model.eval() is refused by the exported module in it" in str(e.value)
    before = model.part(X)
    advice = str(e.value).split("`")[1]
    exec(advice, {"model": model})  # as the message says
    assert relprop.explain(model, X, target=0).relevance.shape == (2, 4)
    assert torch.equal(model.part(X), before)


def test_an_export_without_running_statistics_is_no_matter_of_the_mode() -> None:
    model = exported(Net(nn.BatchNorm1d(8, track_running_stats=False)).eval())
    with pytest.raises(relprop.errors.CoverageError, match="statistics of the batch"):
        relprop.explain(model, X, target=0)


def test_dropout_of_nothing_does_no_harm() -> None:
    model = Net(nn.Dropout(0.0))
    expected = relprop.explain(model.eval(), X, target=0).relevance
    torch.testing.assert_close(relprop.explain(exported(model.train()), X, target=0).relevance, expected)


@pytest.mark.filterwarnings("ignore::FutureWarning:copyreg")  # of torch's own decompositions
def test_a_program_that_the_model_decomposes_when_it_is_called() -> None:
    model = Net(nn.BatchNorm1d(8)).eval()
    program = torch.export.export(model, (X,))
    found = relprop.explain(lambda x: program.run_decompositions().module()(x), X, target=0)
    torch.testing.assert_close(found.relevance, relprop.explain(model, X, target=0).relevance)
