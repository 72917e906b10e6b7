"""What cannot be explained is an error that names the place and the remedy, and no silent gradient."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import modules
from relprop import CoverageError, Epsilon, Flat, Gamma, InputError, ModelError
from relprop.crossing.exact import Exact
from relprop.operations import TABLE


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 2, 6, 6, dtype=torch.float64)


def test_the_engine_without_explain_knows_no_silent_gradient_either() -> None:
    leaf = torch.randn(2, 4, requires_grad=True)

    def run() -> None:
        with relprop.propagating(Epsilon(0)):
            torch.autograd.grad(leaf.logcumsumexp(1).logsumexp(1).sum(), leaf)

    with pytest.raises(CoverageError, match=r"(?s)logcumsumexp in module.*logsumexp in module"):
        run()


class Gaps(nn.Module):
    """Two operations that no entry covers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), Cumulated())
        self.bounds = torch.full((4,), 100.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).clamp(max=self.bounds)


class Cumulated(nn.Module):
    """Something unknown."""

    def forward(self, x: Tensor) -> Tensor:
        return x.logcumsumexp(1)


def test_what_is_not_covered_is_named_all_at_once() -> None:
    with pytest.raises(CoverageError) as error:
        relprop.explain(Gaps().eval(), torch.randn(2, 4))
    message = str(error.value)
    assert "relevance meets 2 operations that relprop has no rule for" in message
    assert "logcumsumexp in module 'inner.1' at" in message
    assert "clamp in module '(root)' at" in message
    assert "bounds that are tensors are not covered" in message
    assert "test_refusals.py:" in message
    assert "explain(..., accept=['clamp', 'logcumsumexp'])" in message


@pytest.mark.parametrize("accepted", [["logcumsumexp", "clamp"], [torch.logcumsumexp, torch.clamp]])
def test_the_plain_gradient_can_be_accepted(accepted: Any) -> None:
    model, x = Gaps().eval(), torch.randn(2, 4)
    with pytest.warns(
        UserWarning, match=r"the ledger does not close: .* \(accepted without a rule: clamp, logcumsumexp\)"
    ):
        e = relprop.explain(model, x, rules=Epsilon(0), target=1, accept=accepted)
    assert [str(a).split(": ", 1)[1] for a in e.rules][1:] == [
        "logcumsumexp: plain gradient, accepted",
        "clamp: plain gradient, accepted",
    ]
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(e.relevance, gradient * x)


def test_an_operation_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(x: Tensor) -> Tensor:
        return layer(x).mode(1, keepdim=True).values

    layer, x = nn.Linear(4, 4).double().eval(), torch.randn(2, 4, dtype=torch.float64)
    monkeypatch.setitem(TABLE, "mode", None)  # so that what is registered is taken back
    relprop.register("mode", Exact(keeps_sign=True))
    assert relprop.explain(model, x).ledger.gap.max() < 1e-12
    monkeypatch.undo()
    with pytest.raises(CoverageError, match="mode"):
        relprop.explain(model, x)


class Square(torch.autograd.Function):
    """A custom function, with a backward that says something else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.full_like(gradient, torch.nan)


class Custom(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Square.apply(x)


def test_a_custom_function_is_what_its_forward_computes() -> None:
    first, last, x = nn.Linear(4, 4).eval(), nn.Linear(4, 3).eval(), torch.randn(2, 4)
    e = relprop.explain(nn.Sequential(first, Custom(), last).eval(), x, target=1, rules=Epsilon(0.1))
    expected = relprop.explain(lambda x: last(first(x) * first(x)), x, target=1, rules=Epsilon(0.1))
    torch.testing.assert_close(e.relevance, expected.relevance)


def test_a_custom_function_that_is_called_without_gradient_is_a_constant() -> None:
    class Cutting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.custom = Custom()

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return self.custom(x)

    with pytest.raises(ModelError, match=r"runs under torch.no_grad\(\)"):
        relprop.explain(nn.Sequential(Cutting(), nn.Linear(4, 3)).eval(), torch.randn(2, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_module_is_what_it_was_scripted_from() -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    first, last, x = nn.Linear(4, 4).eval(), nn.Linear(4, 3).eval(), torch.randn(2, 4)
    e, expected = (
        relprop.explain(nn.Sequential(first, part, last).eval(), x, target=1, rules=Epsilon(0.1))
        for part in (torch.jit.script(inner), inner)
    )
    torch.testing.assert_close(e.relevance, expected.relevance)


def test_a_rule_is_needed_for_every_linear_operation(x: Tensor) -> None:
    with pytest.raises(CoverageError, match=r"linear in module '8' at .*no entry of the composite matches"):
        relprop.explain(modules(), x, rules=[(nn.Conv2d, Gamma(0.25))])


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_a_softmax_at_the_end_is_warned_of_with_advice(last: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 4), last).eval()
    with pytest.warns(
        relprop.ScoreWarning, match=r"ends in a (log_)?softmax: .*Explain the scores before it"
    ):
        e = relprop.explain(model, torch.randn(2, 4), target=lambda y: y[:, 0].exp(), rules=Epsilon(0))
    assert e.ledger.gap.max() < 1e-5


def test_a_model_in_training_mode_is_refused(x: Tensor) -> None:
    model = modules()
    model[7].train()
    with pytest.raises(ModelError, match=r"training mode \(7\), where dropout.*call model.eval\(\)"):
        relprop.explain(model, x)
    with pytest.raises(ModelError, match=r"training mode \(the model itself and 1 more\)"):
        relprop.explain(model.train(), x)


class Cut(nn.Module):
    """Loses the way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.linear = how, nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "no_grad":
            with torch.no_grad():
                return self.linear(x)
        return self.linear(x.detach() if self.how == "detach" else x.data)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no_grad", r"linear in module 'linear' at .*: runs under torch.no_grad\(\)"),
        ("detach", r"detach in module '\(root\)' at .*test_refusals.py:\d+: cuts the way"),
        ("data", r"data in module '\(root\)' at .*: cuts the way"),
    ],
)
def test_a_model_that_loses_the_way_is_refused(how: str, message: str) -> None:
    with pytest.raises(ModelError, match=r"(?s)does not depend on the input.*" + message + r".*Remove"):
        relprop.explain(Cut(how).eval(), torch.randn(2, 4))


def _reads_memory(x: Tensor) -> Tensor:
    return x * (1 if x.data_ptr() else 0)


def _takes_memory(x: Tensor) -> Tensor:
    return torch.empty(0).set_(x * 2)  # type: ignore[call-overload, no-any-return]


def _takes_memory_of_a_constant(x: Tensor) -> Tensor:
    return x + torch.empty(0).set_(x.detach())  # type: ignore[call-overload, no-any-return]


def _writes_to_a_parameter(x: Tensor) -> Tensor:
    weight = nn.Parameter(torch.zeros(2, 4))
    with torch.no_grad():
        weight.copy_(x)
    return x + weight


def _writes_to_data(x: Tensor) -> Tensor:
    h = x * 2
    h.data.clamp_(0)
    return h


def _writes_to_a_part_that_is_detached(x: Tensor) -> Tensor:
    h = x * 2
    h.detach()[:, :2].mul_(2)
    return h


def _writes_by_python(x: Tensor) -> Tensor:
    return x + x.detach().clone().apply_(lambda value: value + 1)  # type: ignore[no-any-return]


def _writes_to_several(x: Tensor) -> Tensor:
    sums = [torch.zeros_like(x)]
    torch._foreach_add_(sums, [x])
    return sums[0]


@pytest.mark.parametrize(
    ("model", "message", "acceptable"),
    [
        (_writes_to_data, "data in module .*: writing to .data is out of relprop's sight", False),
        (_writes_to_a_part_that_is_detached, "data in module .*: writing to .data", False),
        (_writes_by_python, "apply_ in module .*: what Python makes of numbers", False),
        (_writes_to_several, "_foreach_add in module .*several tensors at once", False),
        (_reads_memory, "data_ptr in module .*: what reads memory by itself", True),
        (_takes_memory, "set_ in module .*takes another one's memory.*copy the values instead", False),
        (_takes_memory_of_a_constant, "set_ in module .*takes another one's memory", False),
        (_writes_to_a_parameter, "copy in module .*: it writes to a parameter", False),
    ],
)
def test_what_relprop_cannot_know_is_refused_wherever_it_is(
    model: Any, message: str, acceptable: bool
) -> None:
    x = torch.randn(2, 4)
    with pytest.raises(CoverageError, match="(?s)" + message) as error:
        relprop.explain(model, x, target=0)
    assert ("accept=" in str(error.value)) == acceptable
    if acceptable:
        e = relprop.explain(model, x, target=0, accept="data_ptr")
        assert torch.equal(e.relevance[:, 0], x[:, 0])


def test_an_output_that_ignores_the_input_is_refused() -> None:
    constant = torch.ones(2, 3)
    with pytest.raises(ModelError, match=r"does not depend on the input.*Look for torch.no_grad"):
        relprop.explain(lambda x: constant, torch.randn(2, 4))


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match="the model is a str, which cannot be called"):
        relprop.explain("resnet", torch.randn(2, 4))  # type: ignore[arg-type]


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
            r"needs a floating-point tensor, or integers that the model looks up in an embedding, and got "
            r"integers that it does not: input of shape \(2, 4\)\. Pixels are made numbers by x\.float\(\)",
        ),
        (torch.zeros(2, 4, dtype=torch.complex64), r"got input: torch.complex64 tensor"),
        ("cat.png", r"got input: str"),
    ],
)
def test_inputs_without_meaning_are_refused(x: Any, message: str) -> None:
    with pytest.raises(relprop.InputError, match=message):
        relprop.explain(nn.Linear(4, 2).eval(), x)


def test_an_input_that_does_not_fit_is_the_models_own_error(x: Tensor) -> None:
    with pytest.raises(RuntimeError, match="to have 2 channels, but got 3 channels") as error:
        relprop.explain(modules(), torch.randn(1, 3, 6, 6, dtype=torch.float64))
    assert error.value.__notes__ == [
        "This is the model's own error: explain called it with input of shape (1, 3, 6, 6). "
        "Does model(...) run on it?"
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
        "This is the model's own error: explain called it with input of shape (2, 6, 6). Does model(...) run "
        "on it? Samples are the first dimension: input.unsqueeze(0)."
    ]
    assert notes(RuntimeError, torch.rand(1, 3, 6, 6))[0].endswith("run on it?")
    # Sequences have three dimensions.
    assert notes(RuntimeError, torch.rand(1, 3, 6), nn.Conv1d(2, 3, 3).eval())[0].endswith("run on it?")


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
        "This is the model's own error: explain called it with x of shape (1, 2, 6, 6). Does model(...) run "
        "on it?"
    ]


def test_an_input_outside_of_its_bounds_is_warned_of(x: Tensor) -> None:
    message = r"ZBox\(low=0, high=1\): the inputs have values outside of the bounds, from -[\d.]+ to [\d.]+;"
    with pytest.warns(UserWarning, match=message):
        relprop.explain(modules(), x, bounds=(0, 1))
    x = x.clamp(0, 1)
    x[:, 0, 0, 0] = 5
    relprop.explain(modules(), x, bounds=([0, 0], [5, 1]))
    with pytest.warns(UserWarning, match="outside of the bounds"):
        relprop.explain(modules(), x, rules=[("first", relprop.ZBox([0, 0], [1, 5])), ("*", Epsilon())])
    relprop.explain(modules(), x, bounds=(0, 1), rules="epsilon")  # no box, no warning


def test_a_graph_is_used_once(x: Tensor) -> None:
    model, leaf = modules(), x.clone().requires_grad_()
    with relprop.propagating(Epsilon()):
        score = model(leaf).sum()
        torch.autograd.grad(score, leaf, retain_graph=True)
        with pytest.raises(RuntimeError, match="propagated through this graph already; run the model again"):
            torch.autograd.grad(score, leaf)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda x: F.linear(x[0], torch.ones(2, 4)),
            r"linear in .*an input of shape \(4,\) has no dimension for samples",
        ),
        (
            lambda x: F.linear(x, torch.ones(4)),
            r"linear in .*: a weight of shape \(4,\) is not covered, only a matrix",
        ),
        (
            lambda x: torch.einsum("ni,ii->n", x, torch.ones(4, 4)),
            "einsum in .*: 'ni,ii->n' takes a diagonal or broadcasts, which is not covered",
        ),
        (
            lambda x: F.linear(torch.ones(2, 4), x),
            "linear in .*: the weight depends on the input, or stands first",
        ),
    ],
)
def test_linear_operations_that_are_not_covered(function: Any, message: str) -> None:
    with pytest.raises(CoverageError, match=message):
        relprop.explain(function, torch.randn(2, 4), target=lambda y: y.sum().expand(2))


def test_relevance_on_zeros_follows_an_inplace_rearrangement() -> None:
    layer, x = nn.Linear(4, 3).double().eval(), torch.randn(2, 4, dtype=torch.float64)
    e, expected = (
        relprop.explain(lambda x, f=f: layer(f(x * 1)), x, target=1, rules=Flat())
        for f in (lambda x: x.unsqueeze_(1).flatten(1), lambda x: x)
    )
    torch.testing.assert_close(e.relevance, expected.relevance)
    assert e.ledger.gap.max() < 1e-12


def test_what_a_custom_function_overwrites_is_overwritten() -> None:
    class Overwriting(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.mark_dirty(x)
            x[:, 1:].zero_()
            return x

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

    linear, x = nn.Linear(4, 4).double().eval(), torch.randn(2, 4, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        z = linear(x)
        Overwriting.apply(z)
        return z

    e = relprop.explain(model, x, target=lambda y: y.sum(1), rules=Epsilon(0.1))
    expected = relprop.explain(linear, x, target=0, rules=Epsilon(0.1))
    torch.testing.assert_close(e.relevance, expected.relevance)
    torch.testing.assert_close(e.output, model(x))


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
        (torch.int64, r"got integers that it does not: input of shape \(2, 3\)\. Pixels .* by x\.float\(\)"),
        (torch.uint8, r"got input: torch\.uint8 tensor\..*x\.float\(\)"),
        (torch.complex64, r"got input: torch\.complex64 tensor\..*torch\.view_as_real"),
    ],
)
def test_numbers_that_have_no_relevance_are_refused_with_a_remedy(dtype: torch.dtype, message: str) -> None:
    with pytest.raises(InputError, match=f"needs a floating-point tensor.*{message}"):
        relprop.explain(nn.Linear(3, 2).eval(), torch.ones(2, 3).to(dtype))


def test_lists_are_asked_for_where_several_may_be_given() -> None:
    model, x = nn.Linear(3, 2).eval(), torch.rand(2, 3)
    with pytest.raises(InputError, match=r"targets=3: give a list of targets; a single one is target="):
        relprop.explain(model, x, targets=3)
    with pytest.raises(InputError, match=r"record=3: give a name, or a list of them"):
        relprop.explain(model, x, record=3)


def test_a_bound_that_is_a_tensor_is_a_gap() -> None:
    layer, x = nn.Linear(3, 4).eval(), torch.rand(2, 3)
    with pytest.raises(CoverageError, match=r"clamp_max in module .*bounds that are tensors are not covered"):
        relprop.explain(lambda x: torch.clamp_max(layer(x), torch.rand(4)), x, rules=Epsilon())


def test_where_takes_its_arguments_by_name() -> None:
    layer, x = nn.Linear(3, 4).double().eval(), torch.rand(2, 3).double()

    def relevance(choose: Any) -> Any:
        return relprop.explain(lambda x: choose(layer(x)), x, target=0, rules=Epsilon(0)).relevance

    expected = relevance(lambda z: torch.where(z > 0, z, 0.1 * z))
    for spelling in (
        lambda z: torch.where(condition=z > 0, input=z, other=0.1 * z),
        lambda z: z.where(condition=z > 0, other=0.1 * z),
        lambda z: z.where(z > 0, 0.1 * z),
    ):
        torch.testing.assert_close(relevance(spelling), expected)
