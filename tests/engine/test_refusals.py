"""What cannot be explained is an error that names the place and the remedy, and no silent gradient."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE, linear, modules
from relprop.crossing.exact import Exact
from relprop.errors import CoverageError, ModelError
from relprop.operations import TABLE
from relprop.rules import Epsilon, Gamma


def test_the_engine_without_explain_knows_no_silent_gradient_either() -> None:
    leaf = torch.randn(2, 4, requires_grad=True)

    def run() -> None:
        with relprop.propagating(Epsilon(0)):
            torch.autograd.grad(leaf.atan2(torch.ones(())).lgamma().sum(), leaf)

    with pytest.raises(CoverageError, match=r"(?s)atan2 in module.*lgamma in module"):
        run()


class Gaps(nn.Module):
    """Two operations that no entry covers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), Angle())
        self.exponents = torch.arange(-1.0, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) ** self.exponents


class Angle(nn.Module):
    """Something unknown."""

    def forward(self, x: Tensor) -> Tensor:
        return x.atan2(torch.ones(()))


def test_what_is_not_covered_is_named_all_at_once() -> None:
    with pytest.raises(CoverageError) as error:
        relprop.explain(Gaps().eval(), torch.randn(2, 4))
    message = str(error.value)
    assert "relevance reaches 2 operations without a rule:" in message
    assert "atan2 in module 'inner.1' at" in message
    assert "pow in module '(root)' at" in message
    assert "it is not finite at 0; covered are a constant base, and constant exponents" in message
    assert "test_refusals.py:" in message
    assert "explain(..., accept=['atan2', 'pow'])" in message


@pytest.mark.parametrize("accepted", [["atan2", "pow"], [torch.atan2, torch.pow]])
def test_the_plain_gradient_can_be_accepted(accepted: Any) -> None:
    model, x = Gaps().eval(), torch.randn(2, 4)
    with pytest.warns(
        UserWarning, match=r"the ledger does not balance: .* \(accepted without a rule: atan2, pow\)"
    ):
        e = relprop.explain(model, x, rules=Epsilon(0), target=1, accept=accepted)
    assert [str(a).split(": ", 1)[1] for a in e.rules][1:] == [
        "atan2: plain gradient, accepted",
        "pow: plain gradient, accepted",
    ]
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(e.relevance, gradient * x)


def test_an_operation_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(x: Tensor) -> Tensor:
        return layer(x).mode(1, keepdim=True).values

    layer, x = nn.Linear(4, 4).double().eval(), torch.randn(2, 4, dtype=torch.float64)
    monkeypatch.delitem(TABLE, "mode")  # what is registered is taken back at the end
    with pytest.raises(CoverageError, match="mode"):
        relprop.explain(model, x)
    relprop.register("mode", Exact(keeps_sign=True))
    assert relprop.explain(model, x).ledger.gap.max() < 1e-12


def test_a_rule_is_needed_for_every_linear_operation(x: Tensor) -> None:
    with pytest.raises(CoverageError, match=r"linear in module '8' at .*no entry of the composite matches"):
        relprop.explain(modules(), x, rules=[(nn.Conv2d, Gamma(0.25))])


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_a_softmax_at_the_end_is_warned_of_with_advice(last: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 4), last).eval()
    with pytest.warns(
        relprop.errors.ScoreWarning, match=r"comes from a (log_)?softmax: .*Explain the scores before it"
    ):
        e = relprop.explain(model, torch.randn(2, 4), target=lambda y: y[:, 0].exp(), rules=Epsilon(0))
    assert e.ledger.gap.max() < 1e-5


def test_a_model_in_training_mode_is_refused(x: Tensor) -> None:
    model = modules()
    model[7].train()
    with pytest.raises(ModelError, match=r"training mode \('7'\), where dropout.*call model.eval\(\)"):
        relprop.explain(model, x)
    with pytest.raises(ModelError, match=r"training mode \('7'\)"):
        relprop.explain(model.train(), x)


def test_what_does_not_depend_on_the_mode_need_not_be_evaluated(x: Tensor) -> None:
    model = modules()
    expected = relprop.explain(model, x, target=1, rules=Epsilon()).relevance
    for around in (nn.Sequential(model), nn.Sequential(*model), nn.Sequential(nn.Identity(), model)):
        assert around.training
        assert torch.equal(relprop.explain(around, x, target=1, rules=Epsilon()).relevance, expected)
    head = model[:-1]
    assert head.training
    assert relprop.explain(head, x, target=1, rules=Epsilon()).relevance.abs().sum() > 0


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
        ("detach", r"detach in module '\(root\)' at .*test_refusals.py:\d+: makes a constant"),
        ("data", r"data in module '\(root\)' at .*: makes a constant"),
    ],
)
def test_a_model_that_loses_the_way_is_refused(how: str, message: str) -> None:
    with pytest.raises(ModelError, match=r"(?s)does not depend on the input.*" + message + r".*Leave out"):
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
        (_writes_to_data, "data in module .*: relprop cannot see writes to .data", False),
        (_writes_to_a_part_that_is_detached, "data in module .*: relprop cannot see writes", False),
        (_writes_by_python, "apply_ in module .*: relprop cannot see a Python function", False),
        (_writes_to_several, "_foreach_add in module .*several tensors at once", False),
        (_reads_memory, "data_ptr in module .*: relprop cannot see code that reads memory", True),
        (_takes_memory, "set_ in module .*takes another tensor's memory.*copy the values instead", False),
        (_takes_memory_of_a_constant, "set_ in module .*takes another tensor's memory", False),
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
            lambda x: F.linear(x[0], torch.ones(4)),
            r"linear in .*: a weight of shape \(4,\) is not covered, only a matrix",
        ),
        (
            lambda x: F.linear(x, torch.ones(4)),
            r"linear in .*: a weight of shape \(4,\) is not covered, only a matrix",
        ),
        (
            lambda x: torch.einsum("ni,ii->n", x, torch.ones(4, 4)),
            "einsum in .*: 'ni,ii->n' takes a diagonal or broadcasts, which is not covered",
        ),
    ],
)
def test_linear_operations_that_are_not_covered(function: Any, message: str) -> None:
    with pytest.raises(CoverageError, match=message):
        relprop.explain(function, torch.randn(2, 4), target=lambda y: y.sum().expand(2))


def test_writing_to_data_is_a_gap() -> None:
    def writing(x: Tensor) -> Tensor:
        h = x * 1.0
        h.data = torch.ones(2, 4)
        return h

    with pytest.raises(CoverageError, match=r"data in module .*relprop cannot see writes to .data"):
        relprop.explain(writing, torch.randn(2, 4))


def test_a_gradient_inside_the_model_is_a_gap() -> None:
    layer = linear()

    def model(x: Tensor) -> Tensor:
        h = layer(x)
        (g,) = torch.autograd.grad(h[:, 0].sum(), h, retain_graph=True)
        return h + 0.1 * g

    with pytest.raises(CoverageError, match=r"grad in module .*a gradient of its own"):
        relprop.explain(model, torch.randn(2, 6, **DOUBLE))
