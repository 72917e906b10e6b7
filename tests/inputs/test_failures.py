"""A model that fails while it is explained: by its own fault, or because relprop runs it."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import InputError, ModelError

RUNS = [relprop.explain, relprop.coverage, partial(relprop.explain, rules="gradient-times-input")]


class Strict(nn.Module):
    """A model whose first line takes nothing but plain tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = nn.Linear(4, 2), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if type(x) is not Tensor:
            raise TypeError("give me a tensor.\nNothing else will do.")
        return self.net(x)


@pytest.mark.parametrize("run", RUNS)
def test_what_fails_only_with_relprop_is_no_error_of_the_models_own(run: Any) -> None:
    model, x = Strict().eval(), torch.rand(2, 4)
    with pytest.raises(
        ModelError, match="relprop cannot run this model, though the model runs without"
    ) as error:
        run(model, x)
    line = f"{__file__}:{Strict.forward.__code__.co_firstlineno + 3}"
    assert str(error.value) == (
        "relprop cannot run this model, though the model runs without relprop: TypeError: give me a tensor, "
        f"at {line}. With relprop the model gets tensors of a class of relprop's own, and the line does not "
        "take them. Explain the part of the model that computes with tensors of torch alone: "
        "explain(model.part, x)."
    )
    assert isinstance(error.value.__cause__, TypeError)
    assert not hasattr(error.value.__cause__, "__notes__")
    assert model.calls == 2
    run(model.net, x)  # as the message says


def test_a_model_that_takes_arrays_alone_is_told_that_it_got_a_tensor() -> None:
    net = nn.Linear(4, 2).eval()

    def model(x: Any) -> Tensor:
        return net(torch.from_numpy(x))

    x = np.ones((2, 4), dtype=np.float32)
    message = (
        r"without relprop: TypeError: .*With relprop the model gets tensors of a class of relprop's own, and "
        r"tensors in place of the NumPy arrays x, and the line does not take them\. torch\.as_tensor\(x\) "
        r"takes both, where torch\.from_numpy\(x\) takes arrays alone\."
    )
    with pytest.raises(ModelError, match=message):
        relprop.explain(model, x)
    e = relprop.explain(lambda x: net(torch.as_tensor(x)), x)  # as the message says
    torch.testing.assert_close(e.relevance, relprop.explain(net, x).relevance)


def test_arrays_of_another_type_than_the_weights_are_told() -> None:
    with pytest.raises(RuntimeError, match="dtype") as error:
        relprop.explain(nn.Linear(4, 2).eval(), np.ones((2, 4)))
    assert error.value.__notes__[0].endswith(
        "Each NumPy array was made a tensor of the same type. The model's weights are float32."
    )


@pytest.mark.parametrize("run", RUNS)
def test_the_models_own_error_is_raised_by_the_model_alone_too(run: Any) -> None:
    def model(x: Tensor) -> Tensor:
        torch.rand(3)
        x += 1
        raise KeyError("a name")

    x = torch.rand(2, 4)
    before, state = x.clone(), torch.get_rng_state()
    with pytest.raises(KeyError) as error:
        run(model, x)
    assert error.value.__notes__ == [
        "This is the model's own error: explain called it with x of shape (2, 4). Try model(...) itself."
    ]
    assert torch.equal(x, before)
    torch.set_rng_state(state)
    torch.rand(3)  # the run that failed; the one that looked for the reason drew nothing more
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    with pytest.raises(KeyError):
        run(model, x)
    assert torch.equal(torch.get_rng_state(), after)


def test_an_error_for_want_of_no_grad_is_the_models_own() -> None:
    def model(x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise LookupError("not with gradients")
        return x

    with pytest.raises(LookupError) as error, torch.no_grad():
        relprop.explain(model, torch.rand(2, 4))
    assert "This is the model's own error" in error.value.__notes__[0]


def test_a_model_that_works_runs_once() -> None:
    calls = []

    def model(x: Tensor) -> Tensor:
        calls.append(x)
        return x * 2

    relprop.explain(model, torch.rand(2, 3))
    assert len(calls) == 1


def test_different_numbers_of_samples_are_the_reason_why_a_model_fails() -> None:
    with pytest.raises(InputError, match=r"\{'x': 2, 'y': 3\}.*The model's own error: The size of tensor a"):
        relprop.explain(lambda x, y: x + y, torch.rand(2, 4), torch.rand(3, 4))


def test_integers_that_only_relprop_cannot_pass_on_are_not_called_pixels() -> None:
    table = nn.Embedding(9, 3)

    def model(ids: Tensor) -> Tensor:
        assert type(ids) is Tensor
        return table(ids).sum(1)

    with pytest.raises(ModelError, match="though the model runs without relprop: AssertionError: assert "):
        relprop.explain(model, torch.randint(9, (2, 4)))


def test_pictures_in_a_list_are_no_single_picture() -> None:
    """A detector takes them without a dimension of samples."""

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, images: Any) -> Tensor:
            raise ValueError("no boxes")

    with pytest.raises(ValueError, match="no boxes") as error:
        relprop.explain(Detector().eval(), [torch.rand(3, 8, 8), torch.rand(3, 6, 9)])
    assert error.value.__notes__[0].endswith("Try model(...) itself.")
