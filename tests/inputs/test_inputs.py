"""Inputs and arguments: by name, refused, warned of; errors of the model's own."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import relprop
from networks import modules
from relprop.errors import InputError
from relprop.places import First
from relprop.rules import Epsilon, ZPlus


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(4), r"input 'input' of shape \(4,\) has no dimension for samples.*x.unsqueeze\(0\)"),
        (torch.zeros(0, 4), r"input 'input' of shape \(0, 4\) is empty"),
        (
            torch.tensor([[0, 1, float("nan"), 2]]),
            r"1 values that are NaN or infinite, the first at \(0, 2\)",
        ),
        (
            torch.zeros(2, 4, dtype=torch.int64),
            r"needs a floating-point tensor, or integers that the model looks up in an embedding\. It "
            r"got integers that the model does not look up: input of shape \(2, 4\)\. Convert pixels by x\.",
        ),
        (torch.zeros(2, 4, dtype=torch.complex64), r"got input: torch.complex64 tensor"),
        ("cat.png", r"got input: str"),
    ],
)
def test_inputs_without_meaning_are_refused(x: Any, message: str) -> None:
    with pytest.raises(relprop.errors.InputError, match=message):
        relprop.explain(nn.Linear(4, 2).eval(), x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ((1, 2), r"got x: tuple\.$"),
        (np.zeros((2, 3), dtype=int), r"got x: ndarray\. Make a tensor of an array: torch.from_numpy"),
        ({"a": "text"}, r"got x: dict\. There is no tensor in the dictionary; a tokenizer gives them"),
        ([[1, 2], [3, 4]], r"got x: list\. Make a tensor of a list: torch.tensor\(x\); a tokenizer"),
        ("a text", r"got x: str\. relprop.explain_text explains a text"),
    ],
)
def test_what_could_become_an_input_is_told_how(x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        relprop.explain(lambda x: x, x)


def test_an_input_that_does_not_fit_is_the_models_own_error(x: Tensor) -> None:
    with pytest.raises(RuntimeError, match="to have 2 channels, but got 3 channels") as error:
        relprop.explain(modules(), torch.randn(1, 3, 6, 6, dtype=torch.float64))
    assert error.value.__notes__ == [
        "This is the model's own error: explain called it with input of shape (1, 3, 6, 6). "
        "Try model(...) itself."
    ]
    with pytest.raises(RuntimeError, match="cannot be multiplied") as error:
        relprop.explain(modules(), torch.randn(1, 2, 12, 12, dtype=torch.float64))
    assert "input of shape (1, 2, 12, 12)" in error.value.__notes__[0]


@pytest.mark.parametrize("rules", [None, "gradient-times-input", "coverage"])
def test_a_picture_without_samples_is_told_from_one_that_does_not_fit(rules: Any) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2)).eval()

    def notes(error: type[Exception], x: Tensor, model: Any = model) -> list[str]:
        run = relprop.coverage if rules == "coverage" else partial(relprop.explain, rules=rules)
        with pytest.raises(error) as caught:
            run(model, x)
        return caught.value.__notes__

    assert notes(ValueError, torch.rand(2, 6, 6)) == [
        "This is the model's own error: explain called it with input of shape (2, 6, 6). Try model(...) "
        "itself. The first dimension is that of the samples: give x.unsqueeze(0)."
    ]
    assert notes(RuntimeError, torch.rand(1, 3, 6, 6))[0].endswith("Try model(...) itself.")
    # Sequences have three dimensions.
    assert notes(RuntimeError, torch.rand(1, 3, 6), nn.Conv1d(2, 3, 3).eval())[0].endswith(
        "Try model(...) itself."
    )


@pytest.mark.parametrize("rules", [None, "gradient-times-input"])
def test_a_picture_without_samples_that_the_model_takes_is_told(rules: Any) -> None:
    model, x = relprop.load("mnist-cnn"), torch.rand(1, 32, 32)
    told = (
        "the output has shape (10, 1), and no row for each sample: the input is perhaps a single picture. "
        "The first dimension is that of the samples: give x.unsqueeze(0)."
    )
    for target in (None, 3, relprop.targets.Contrastive(3), relprop.targets.At(-1), torch.zeros(10)):
        with pytest.raises(InputError) as raised:
            relprop.explain(model, x, target=target, rules=rules)
        assert str(raised.value) == told
    with pytest.raises(IndexError) as failed:
        relprop.explain(model, x, target=lambda y: y[:, 3], rules=rules)
    assert failed.value.__notes__[1] == "The first dimension is that of the samples: give x.unsqueeze(0)."
    assert relprop.explain(model, x.unsqueeze(0), rules=rules).relevance.shape == (1, 1, 32, 32)
    # A whole picture may have one score.
    assert relprop.explain(model, x, target=lambda y: y[3].abs().sum(), rules="epsilon").score.shape == (1,)


class Checks(nn.Module):
    """An error of the model's own, and errors of torch in the midst of an operation that relprop handles."""

    def __init__(self, way: Any) -> None:
        super().__init__()
        self.conv, self.way = nn.Conv2d(2, 3, 3), way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self.conv(x))


def _refuse(y: Tensor) -> Tensor:
    raise ValueError("these pictures are too small")


@pytest.mark.parametrize(
    "way",
    [
        _refuse,
        lambda y: F.conv2d(y, torch.rand(3, 2, 1, 1)),
        lambda y: F.linear(y, torch.rand(3, 5)),
        lambda y: y + torch.rand(5, 3),
        lambda y: torch.cat([y, y[:, :, :2]], 1),
        lambda y: y.view(7, -1),
        lambda y: F.max_pool2d(y, 20),
        lambda y: F.interpolate(y, size=(3,)),
        lambda y: F.group_norm(y, 2),
        lambda y: F.layer_norm(y, (5,)),
        lambda y: torch.einsum("bchw,cd->bdhw", y, torch.rand(5, 4)),
    ],
)
def test_what_fails_within_an_operation_is_noted_as_the_models_own_error(way: Any) -> None:
    with pytest.raises((ValueError, RuntimeError)) as error:
        relprop.explain(Checks(way).eval(), torch.rand(1, 2, 6, 6), rules=Epsilon())
    assert not isinstance(error.value, relprop.errors.RelpropError)
    assert error.value.__notes__ == [
        "This is the model's own error: explain called it with x of shape (1, 2, 6, 6). Try model(...) "
        "itself."
    ]


def test_an_input_outside_of_its_bounds_is_warned_of(x: Tensor) -> None:
    message = (
        r"ZBox\(low=0, high=1\): the inputs have values outside of the bounds, from -[\d.]+ to [\d.]+\. "
    )
    with pytest.warns(UserWarning, match=message):
        relprop.explain(modules(), x, bounds=(0, 1))
    x = x.clamp(0, 1)
    x[:, 0, 0, 0] = 5
    relprop.explain(modules(), x, bounds=([0, 0], [5, 1]))
    with pytest.warns(UserWarning, match="outside of the bounds"):
        relprop.explain(
            modules(),
            x,
            rules=[(First(), relprop.rules.ZBox([0, 0], [1, 5])), ("*", Epsilon())],
        )
    relprop.explain(modules(), x, bounds=(0, 1), rules="epsilon")  # no box, no warning


@pytest.mark.parametrize(
    ("wrong", "right"), [("rule", "rules"), ("targt", "target"), ("bound", "bounds"), ("records", "record")]
)
def test_a_misspelt_argument_is_no_argument_of_the_model(wrong: str, right: str) -> None:
    with pytest.raises(InputError, match=rf"neither explain nor the model .* Did you mean {right}="):
        relprop.explain(nn.Linear(3, 2).eval(), torch.rand(2, 3), **{wrong: 1})


def test_a_model_may_have_arguments_like_ours() -> None:
    def model(x: Tensor, rule: float) -> Tensor:
        return x * rule

    assert relprop.explain(model, torch.rand(2, 3), rule=2.0).relevance.shape == (2, 3)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.int64, r"got integers that .*: input of shape \(2, 3\)\. Convert pixels by x\.float\(\)"),
        (torch.uint8, r"got input: torch\.uint8 tensor\..*x\.float\(\)"),
        (torch.complex64, r"got input: torch\.complex64 tensor\..*torch\.view_as_real"),
    ],
)
def test_numbers_that_have_no_relevance_are_refused_with_a_remedy(dtype: torch.dtype, message: str) -> None:
    with pytest.raises(InputError, match=f"needs a floating-point tensor.*{message}"):
        relprop.explain(nn.Linear(3, 2).eval(), torch.ones(2, 3).to(dtype))


def test_lists_are_asked_for_where_several_may_be_given() -> None:
    model, x = nn.Linear(3, 2).eval(), torch.rand(2, 3)
    with pytest.raises(InputError, match=r"targets=3: give a list of targets; a single one is explain"):
        relprop.explain_each(model, x, targets=3)
    with pytest.raises(InputError, match=r"record=3: give a name, or a list of them"):
        relprop.explain(model, x, record=3)


def test_several_inputs_are_explained_by_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 4)

        def forward(self, left: Tensor, right: Tensor, flag: bool, scale: float = 1.0) -> Tensor:
            assert flag
            return (self.a(left).relu() + self.b(right).relu()) * scale

    left, right = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    e = relprop.explain(Two().double().eval(), left, flag=True, right=right, scale=2.0, rules=ZPlus())
    assert {name: R.shape for name, R in e.inputs.items()} == {"left": left.shape, "right": right.shape}
    assert e.ledger.gap.max() < 1e-12


def _fake() -> Tensor:
    with FakeTensorMode():
        return torch.rand(2, 4)


UNUSUAL: dict[str, tuple[Any, str, Any]] = {
    "nested": (
        lambda x: torch.nested.nested_tensor([x, x[:1]]),
        r"nested; pad it: torch\.nested\.to_padded_tensor\(x, 0\.0\)\.$",
        lambda x: torch.nested.to_padded_tensor(x, 0.0),
    ),
    "eight bits": (
        lambda x: x.to(torch.float8_e4m3fn),
        r"a tensor of torch\.float8_e4m3fn; convert it: x\.float\(\)",
        Tensor.float,
    ),
    "meta": (
        lambda x: x.to("meta"),
        "a tensor without values; give it values",
        lambda x: torch.rand(x.shape),
    ),
    "fake": (lambda x: _fake(), "a tensor without values; give it values", lambda x: torch.rand(x.shape)),
    "masked": (
        lambda x: torch.masked.masked_tensor(x, x > 0),
        "a MaskedTensor, whose operations relprop does not see; give a plain tensor",
        lambda x: x.get_data(),
    ),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of")
@pytest.mark.parametrize("kind", UNUSUAL)
def test_tensors_of_an_unusual_kind_are_refused_with_a_remedy(kind: str) -> None:
    make, message, remedy = UNUSUAL[kind]
    model, x = nn.Linear(4, 2).eval(), make(torch.rand(2, 4))
    for given in (x, {"image": x}):
        with pytest.raises(InputError, match=rf"input '(input|obs\.image)' is .*{message}"):
            relprop.explain(model if given is x else lambda obs: model(obs["image"]), given)
    assert len(relprop.explain(model, remedy(x), target=lambda y: y.flatten()[:1]).inputs) == 1


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("make", [Tensor.to_sparse, Tensor.to_sparse_csr, Tensor.to_mkldnn])
def test_sparse_tensors_are_passed_on_and_alone_they_are_to_be_dense(make: Any) -> None:
    model, x = nn.Linear(4, 2).eval(), make(torch.rand(2, 4))
    for given in (x, {"x": x}):
        with pytest.raises(
            InputError, match=r"nothing to explain: .* Make a sparse tensor dense: x\.to_dense"
        ):
            relprop.explain(model if given is x else lambda obs: model(obs["x"]), given)
    assert relprop.explain(model, x.to_dense()).relevance.shape == (2, 4)

    def weighed(dense: Tensor, sparse: Tensor) -> Tensor:
        assert sparse is x
        return dense * x.to_dense()

    assert list(relprop.explain(weighed, torch.rand(2, 4), x).inputs) == ["dense"]


def test_a_jagged_tensor_is_to_be_padded() -> None:
    x = torch.nested.nested_tensor([torch.rand(3, 4), torch.rand(2, 4)], layout=torch.jagged)
    with pytest.raises(InputError, match=r"Pad a nested tensor: torch\.nested\.to_padded_tensor\(x, 0\.0\)"):
        relprop.explain(nn.Linear(4, 2).eval(), x)
    padded = torch.nested.to_padded_tensor(x, 0.0)
    assert len(relprop.explain(nn.Linear(4, 2).eval(), padded, target=lambda y: y[:, 0, 0])) == 2
