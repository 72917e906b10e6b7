"""What makes a result doubtful is said."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import relprop
from networks import DOUBLE, linear, network
from relprop import Composite, places
from relprop.errors import ModelError, ScoreWarning
from relprop.places import First, Kind, Layer, Operation
from relprop.rules import Epsilon, Flat, Gamma
from relprop.targets import At, Contrastive, Difference, LogOdds, RunnerUp


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
    message = r"the explained score is negative\. .*Contrastive.* or relprop\.targets\.RunnerUp"
    with pytest.warns(ScoreWarning, match=message) as said:
        relprop.explain(scores(2, -1), x, target=1, rules=Epsilon())
    assert len(said) == 1
    assert said[0].filename == __file__  # where the user called, and not in the package
    with pytest.warns(ScoreWarning, match="is negative for some samples"):
        relprop.explain(scores(2, -1), x, target=[1, 0, 1], rules=Epsilon())
    with pytest.warns(ScoreWarning, match=r"is negative\."):
        relprop.explain(scores(-2, -1), x, rules=Epsilon())


@pytest.mark.parametrize(
    "target", [None, 0, relprop.targets.Contrastive(1), relprop.targets.RunnerUp(1), lambda y: y[:, 1]]
)
def test_positive_scores_and_differences_are_not(x: Tensor, target: Any) -> None:
    with nothing_said():
        relprop.explain(scores(2, -1), x, target=target, rules=Epsilon())
        relprop.explain_each(scores(2, -1), x, targets=[target, 0], rules=Epsilon())


def test_the_text_reads_as_one(x: Tensor) -> None:
    with pytest.warns(ScoreWarning) as said:
        relprop.explain(scores(-2, -1), x, rules=Epsilon())
    assert str(said[0].message) == (
        "the explained score is negative. Relevance then explains why the score is "
        "low, and rules such as z+ explain positive scores only. Explain a class with a positive score, or a "
        "difference: target=relprop.targets.Contrastive(...) or relprop.targets.RunnerUp(...)."
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
    message = f"the explained score comes from a {name}: each output depends on all classes"
    with pytest.warns(ScoreWarning, match=message) as said:
        relprop.explain(Ending(end).eval(), x, target=lambda y: y[:, 0].exp(), rules=Epsilon())
    assert [w.filename for w in said] == [__file__]


@pytest.mark.parametrize(
    "end", [nn.Sigmoid(), lambda y: 1 / (1 + (-y).exp()), lambda y: (torch.tanh(y / 2) + 1) / 2]
)
def test_a_sigmoid_at_the_end_is_doubtful_however_it_is_written(x: Tensor, end: Any) -> None:
    with pytest.warns(ScoreWarning, match="comes from a function that is not 0 at 0, such as a sigmoid"):
        relprop.explain(Ending(end).eval(), x, target=1, rules=Epsilon())


@pytest.mark.parametrize(
    "target",
    [
        lambda y: y.softmax(1)[:, 1],
        lambda y: (y.exp() / y.exp().sum(1, keepdim=True))[:, 1],
        lambda y: y.log_softmax(1)[:, 1],
    ],
)
def test_a_softmax_within_a_target_is_doubtful(x: Tensor, target: Any) -> None:
    with pytest.warns(ScoreWarning, match="comes from a (log_)?softmax: .*of the model or of the target"):
        relprop.explain(scores(1, 3), x, target=target, rules=Epsilon())


@pytest.mark.parametrize("target", [Difference(1, 0), RunnerUp(1), Contrastive(1), LogOdds(1)])
def test_a_difference_of_log_probabilities_is_one_of_scores(x: Tensor, target: Any) -> None:
    layer = linear(4, 3)
    with nothing_said():
        e = relprop.explain(lambda x: layer(x).log_softmax(1), x, target=target, rules=Epsilon())
        at = relprop.explain(
            lambda x: layer(x).log_softmax(1)[:, None], x, target=At(0, target), rules=Epsilon()
        )
        expected = relprop.explain(layer, x, target=target, rules=Epsilon())
    torch.testing.assert_close(e.relevance, expected.relevance)
    torch.testing.assert_close(at.relevance, expected.relevance)


@pytest.mark.parametrize(
    "target",
    [
        lambda y: y[:, 0] - y[:, 1],
        lambda y: y[:, 0] - y[:, 1:].mean(1),
        lambda y: 2 * y[:, 0] - y[:, 1:].sum(1),
        lambda y: y[:, 0] - y[:, 1:].amax(1),
        lambda y: (y[:, 0] - y[:, 1]).sum(),
    ],
)
def test_a_function_in_which_the_normaliser_cancels(x: Tensor, target: Any) -> None:
    layer = linear(4, 3)
    with nothing_said():
        e = relprop.explain(lambda x: layer(x).log_softmax(1), x, target=target, rules=Epsilon())
        named = relprop.explain(
            lambda x: {"scores": layer(x).log_softmax(1)}, x, target=lambda d: target(d["scores"])
        )
        expected = relprop.explain(layer, x, target=target, rules=Epsilon())
    torch.testing.assert_close(e.relevance, expected.relevance)
    torch.testing.assert_close(named.score, expected.score)


@pytest.mark.parametrize(
    "target",
    [
        lambda y: y[:, 0] - 0.5 * y[:, 1],
        lambda y: y[:, 0] * y[:, 1],
        lambda y: y[:, 0] - y[:, 1].detach().flip(0),
        lambda y: (y[:1, 0] - y[1:2, 1]).sum(),
    ],
)
def test_a_function_in_which_the_normaliser_stays(x: Tensor, target: Any) -> None:
    layer = linear(4, 3)
    with pytest.warns(ScoreWarning, match="comes from a log_softmax"):
        relprop.explain(lambda x: layer(x).log_softmax(1), x, target=target, rules=Epsilon())


def test_a_function_that_is_not_to_be_called_again(x: Tensor) -> None:
    """It is called a second time only to try it, and an error then is no error."""
    layer, calls = linear(4, 3), []

    def target(y: Tensor) -> Tensor:
        calls.append(type(y) is Tensor)
        if len(calls) > 1:
            raise ValueError("once")
        return y[:, 0] - y[:, 1]

    with pytest.warns(ScoreWarning, match="comes from a log_softmax"):
        relprop.explain(lambda x: layer(x).log_softmax(1), x, target=target, rules=Epsilon())
    assert calls == [False, True]


def test_a_log_probability_is_told_to_be_a_difference(x: Tensor) -> None:
    with pytest.warns(ScoreWarning, match=r"or of the target, or a difference: target=relprop\.targets\.Run"):
        relprop.explain(Ending(nn.LogSoftmax(1)).eval(), x, target=lambda y: y[:, 1], rules=Epsilon())


@pytest.mark.parametrize("end", [nn.Tanh(), nn.ReLU(), nn.Identity(), nn.Softplus(), nn.Hardtanh()])
def test_other_functions_at_the_end_are_not(x: Tensor, end: Any) -> None:
    with nothing_said():
        relprop.explain(Ending(end).eval(), x, target=1, rules=Epsilon())


def test_a_regression_has_its_own_advice(x: Tensor) -> None:
    with pytest.warns(ScoreWarning, match=r"why the output is low, .*target=lambda y: y\[:, 0\] - reference"):
        relprop.explain(scores(-2), x, rules=Epsilon())


def test_a_loop_over_batches_says_it_once(x: Tensor) -> None:
    model = scores(-2, -1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for count in (1, 2, 3):
            relprop.explain(model, x[:count], rules=Epsilon())
    assert len(said) == 1


def test_a_softmax_among_several_outputs_is_doubtful(x: Tensor) -> None:
    model = Ending(nn.Softmax(1), lambda y: {"probabilities": y}).eval()
    with pytest.warns(ScoreWarning, match="comes from a softmax"):
        relprop.explain(model, x, target=relprop.targets.Part("probabilities", 0), rules=Epsilon())


def test_a_softmax_beside_the_logits_is_not(x: Tensor) -> None:
    def model(x: Tensor) -> dict[str, Tensor]:
        logits = x.abs()
        return {"loss": logits.log_softmax(1)[:, 0].mean(), "logits": logits}

    with nothing_said():
        relprop.explain(model, x, rules="epsilon")


def test_a_position_that_is_padding_is_doubtful() -> None:
    def model(inputs_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        return inputs_embeds.abs()

    embedded, mask = torch.rand(3, 4, 5), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    said = r"target At\(-1, .*\) is at padding in 2 of 3 samples, first in sample 1\. .*At\(\(attention_mask"
    with pytest.warns(ScoreWarning, match=said):
        relprop.explain(model, inputs_embeds=embedded, attention_mask=mask, target=At(-1, 0))
    with nothing_said():
        last = At((mask.sum(1) - 1).tolist(), 0)
        relprop.explain(model, inputs_embeds=embedded, attention_mask=mask, target=last)


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
        for _ in range(2):  # once at each place that calls
            e = relprop.explain(model, x, rules=Epsilon(1e-6))
    assert [str(w.message) for w in said] == [
        f"ε = 1e-06 is below the resolution of {dtype} and would have no effect. ε = {finest:g} is used "
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
        r"the ledger does not balance: \d\.\de[+-]\d\d of the largest amount is missing or in excess \(acc.* "
        r"without a rule: atan2\)\. See print\(explanation\.ledger\)"
    )
    with pytest.warns(UserWarning, match=message) as said:
        relprop.explain(
            lambda x: layer(x.atan2(torch.ones(()))),
            x,
            target=lambda y: y[:, 0].abs(),
            rules=Epsilon(),
            accept="atan2",
        )
    assert [w.filename for w in said] == [__file__]


def test_weights_that_are_nan_are_refused_by_name(x: Tensor) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).double().eval()
    model[1].weight.data[0, 0] = float("nan")
    message = (
        r"the explained score of sample 0 is nan\. The model's parameter '1.weight' has values that are NaN"
    )
    with pytest.raises(ModelError, match=message):
        relprop.explain(model, x, target=0, rules=Epsilon())
    # Another class has a score, but relevance meets what is no number.
    message = (
        r"relevance of input 'input' has \d+ of 12 values that are NaN .*'1.weight' has .*; load it again"
    )
    for rules in (Epsilon(), "epsilon-plus-flat", "gradient-times-input"):
        with pytest.raises(ModelError, match=message):
            relprop.explain(model, x, target=1, rules=rules)
    with pytest.raises(ModelError, match="the explained score has 3 of 3 values that are NaN"):
        relprop.explain(model, x, target=0, rules="gradient-times-input")
    # A batch of fewer classes: what is not used does no harm.
    with nothing_said():
        fine = relprop.explain(lambda x: model[1].weight[1] @ model[0](x).T, x, target=lambda y: y.abs())
    assert fine.relevance.isfinite().all()


def test_buffers_that_are_nan_are_refused_by_name(x: Tensor) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double().eval()
    model[1].running_mean[2] = float("nan")
    with pytest.raises(ModelError, match=r"is nan\. The model's buffer '1.running_mean' has values that are"):
        relprop.explain(model, x, target=2, rules=Epsilon())


def test_relevance_that_is_not_finite_is_never_silent(x: Tensor) -> None:
    layer = nn.Linear(4, 3).double().eval()
    layer.weight.data[0, 0] = float("nan")
    with pytest.warns(UserWarning, match=r"relevance of input 'x' has .* Look for such values in") as said:
        relprop.explain(lambda x: layer(x), x, target=1, rules=Epsilon())
    assert len(said) == 1
    assert said[0].filename == __file__
    # as the warning says
    assert [name for name, p in layer.named_parameters() if not p.isfinite().all()] == ["weight"]

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sqrt()

    with pytest.warns(UserWarning, match=r"first at \(0, 0\)\. The gradient is infinite there, as that of s"):
        relprop.explain(Root().eval(), x.abs() * 0, target=0, rules="gradient-times-input")


def test_relevance_beside_that_of_the_inputs_is_looked_at_too(x: Tensor) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).double().eval()
    model[1].weight.data[0, 0] = float("nan")
    x[:, 0] = 0
    with pytest.raises(ModelError, match=r"The model's parameter '1.weight' has values that are NaN"):
        relprop.explain(model, x, target=1, rules=Epsilon(), record="0", parameters="0.weight")


def test_relevance_of_half_precision_that_overflows_has_its_own_advice() -> None:
    layer = nn.Linear(2, 1, bias=False).eval().half()
    layer.weight.data[:] = torch.tensor([[30000.0, -30000.0]])
    x = torch.tensor([[2.0, 1.99]]).half()
    message = r"relevance of input 'input' has .* float16 ends at 65504\. Try model.to\(torch.bfloat16\), or"
    with pytest.warns(UserWarning, match=message):
        relprop.explain(layer, x * 2, target=0, rules="gradient-times-input")
    for dtype in (torch.bfloat16, torch.float):
        with nothing_said():
            found = relprop.explain(layer.to(dtype), 2 * x.to(dtype), target=0, rules="gradient-times-input")
        assert found.relevance.isfinite().all()


# ---- options without effect ----


@pytest.mark.parametrize("accept", ["atan2", "relu", "no_such_thing", torch.relu, ["relu"]])
def test_what_is_accepted_in_vain_is_told(x: Tensor, accept: Any) -> None:
    message = (
        r"accept='\w+' has no effect: the model ran no operation of this name that relprop does not cover"
    )
    with pytest.warns(UserWarning, match=message) as said:
        relprop.explain(scores(2, 1), x, target=0, rules=Epsilon(), accept=accept)
    assert [w.filename for w in said] == [__file__]
    with nothing_said():
        relprop.explain(scores(2, 1), x, target=0, rules="gradient-times-input", accept=accept)


def test_what_is_accepted_by_the_names_of_the_table_of_coverage_has_an_effect(x: Tensor) -> None:
    def model(x: Tensor) -> Tensor:
        return x.atan2(torch.ones((), dtype=x.dtype))

    table = relprop.coverage(model, x, rules="epsilon")
    assert "NOT COVERED" in str(table)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        relprop.explain(model, x, target=0, rules="epsilon", accept=[gap.operation for gap in table.gaps])
    assert not [w for w in said if "has no effect" in str(w.message)]


def test_bounds_in_vain_are_told(x: Tensor) -> None:
    x = x.abs().clamp(max=1)
    every = ("*", Epsilon())
    for rules in ([every], Composite([every]), [(First(), relprop.rules.ZBox(0, 1)), every]):
        message = r"bounds=\(0, 1\) have no effect: no rule is a ZBox\(\) without bounds of its own"
        with pytest.warns(UserWarning, match=message) as said:
            relprop.explain(scores(2, 1), x, target=0, rules=rules, bounds=(0, 1))
        assert [w.filename for w in said] == [__file__]
    with pytest.warns(UserWarning, match=r"bounds=\(tensor of shape \(4,\), 1\) have no effect"):
        relprop.explain(scores(2, 1), x, target=0, rules=[every], bounds=(torch.zeros(4), 1))
    with nothing_said():  # with what the warning says, and with what a loop over presets or rules does
        boxed = [(relprop.places.First(), relprop.rules.ZBox()), every]
        for rules in (boxed, None, "epsilon", relprop.PRESETS["epsilon"], "epsilon-gamma-box", Epsilon()):
            relprop.explain(scores(2, 1), x, target=0, rules=rules, bounds=(0, 1))
        relprop.explain(scores(2, 1), x, target=0, rules="gradient-times-input", bounds=(0, 1))


def test_bounds_of_tokens_are_told() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3)).eval()
    with pytest.warns(
        UserWarning, match=r"bounds=\(0, 1\) have no effect: tokens are explained, which have no"
    ):
        relprop.explain(model, torch.tensor([[1, 2]]), target=lambda y: y[:, 0].abs(), bounds=(0, 1))


def test_scores_that_overflow_are_refused(x: Tensor) -> None:
    half = nn.Linear(4, 3).eval().half()
    half.weight.data.fill_(60000)
    message = (
        r"the explained score of sample 1 is inf\. float16 ends at 65504\. Try model.to\(torch.bfloat16\)"
    )
    with pytest.raises(ModelError, match=message):
        relprop.explain(half, torch.tensor([[0.0] * 4, [1.0] * 4]).half(), target=0, rules=Epsilon(0))
    with pytest.raises(
        ModelError, match=r"is nan\. The model's parameters are finite\. Check what model\(\.\.\.\) returns"
    ):
        relprop.explain(lambda x: x * (x.detach() - x.detach()).log().sqrt(), x, target=0, rules=Epsilon())


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
        'an entry of the composite has no effect: ("9.branch.1", Gamma(gamma=0.1)) matches no module with an '
        "operation that Gamma is for; near it are '9.branch.0'."
    ]
    assert said_of("zzz") == [
        'an entry of the composite has no effect: ("zzz", Gamma(gamma=0.1)) matches no module with an '
        "operation that Gamma is for; there are '0', '11', '15', '3', '6', '9.branch.0'."
    ]
    where = (places.Path("layer*") & Layer(nn.Conv2d), First(), "3", lambda site: False, Kind("max-pool"))
    folded = "(what is folded into a linear operation has no rule of its own)."
    assert [said.partition("effect: ")[2] for said in said_of(*where)] == [
        f'("layer*" and Conv2d, Gamma(gamma=0.1)) matches no operation of this model {folded}',
        f"(<lambda>, Gamma(gamma=0.1)) matches no operation of this model {folded}",
        "(of the kind max-pool, Gamma(gamma=0.1)) matches no operation of this model; near it "
        "are 'convolution'.",
    ]
    (said,) = said_of("first")
    assert said.endswith("The first layer is relprop.places.First().")
    assert said_of("9.*", First(), "1?", nn.Linear) == []
    # Once for all targets.
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("ignore", ScoreWarning)
        relprop.explain_each(model, x, targets=[0, 1], rules=[("zzz", Gamma()), ("*", Epsilon())])
    assert len(said) == 1


def test_a_path_of_a_module_that_has_others_is_told_what_to_write() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2)).eval()
    with pytest.warns(UserWarning, match=r"matches the module alone, and not what is in it\. Write '0\.\*'"):
        relprop.explain(model, torch.rand(2, 4), target=0, rules=[("0", Gamma()), ("*", Epsilon())])


def test_an_operation_that_did_not_run_is_doubtful(tmp_path: Path) -> None:
    model, x = network(), torch.randn(2, 2, 6, 6, **DOUBLE)

    def said_of(rules: Any) -> list[str]:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            relprop.explain(model, x, target=_size, rules=rules)
        assert all(w.filename == __file__ for w in said)
        return [str(w.message) for w in said]

    def named(operation: str) -> Any:
        path = tmp_path / "rules.toml"
        path.write_text(
            f'[[rules]]\noperation = "{operation}"\nrule = "Gamma"\n[[rules]]\nrule = "Epsilon"\n'
        )
        return path

    assert said_of(named("conv3d")) == [
        "an entry of the composite has no effect: (the operation conv3d, Gamma(gamma=0.25)) matches no "
        "operation that got a rule; near it are 'conv2d'."
    ]
    (said,) = said_of(named("zzz"))
    assert "(the operation zzz, Gamma(gamma=0.25)) matches no operation that got a rule; there are" in said
    one, other = said_of(
        [(places.Path("9.*") & Operation(F.conv3d), Gamma()), (torch.conv3d, Flat()), ("*", Epsilon())]
    )
    assert '("9.*" and the operation conv3d, Gamma(gamma=0.25)) matches no operation of this model' in one
    assert "(the operation conv3d, Flat()) matches no operation that got a rule; near it" in other
    assert said_of(named("conv2d")) == []
    assert said_of([(F.linear, Epsilon(0.1)), (torch.conv2d, Flat()), ("*", Epsilon())]) == []


def test_a_folded_normalisation_has_no_rule_and_that_is_said() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    rules = [(F.batch_norm, Flat()), ("*", Epsilon())]
    message = (
        r"no effect: \(the operation batch_norm, Flat\(\)\) matches no operation that got a rule \(one "
        r"that is folded into a linear operation has no rule of its own\); there are 'linear'\.$"
    )
    with pytest.warns(UserWarning, match=message):
        relprop.explain(model, torch.randn(2, 4), target=lambda y: y[:, 0].abs(), rules=rules)


# ---- weights of which no relevance can be told ----


class Changed(nn.Module):
    """One weight as it is, one standardised, one transposed, one of torch's own parametrisations."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.normed, self.spare = nn.Linear(4, 4), weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4)
        self.standardised = Standardised(4, 4)
        self.tied = nn.Parameter(torch.randn(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.standardised(self.normed(self.plain(x).relu()))
        return F.linear(x, self.tied.t())


class Standardised(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight - self.weight.mean(1, keepdim=True), self.bias)


def test_weights_that_are_changed_before_they_are_used_are_named_once(x: Tensor) -> None:
    model = Changed().double().eval()

    def said_of(parameters: Any) -> list[str]:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            e = relprop.explain_each(model, x, targets=[_size, _size], rules=Epsilon(), parameters=parameters)
        assert set(e[0].parameters) == {"plain.weight"}
        assert all(w.filename == __file__ for w in said)
        return [str(w.message) for w in said]

    assert said_of("*.weight") == [
        "explanation.parameters has no relevance of standardised.weight: no linear operation takes them "
        "unchanged. If a model computes with a weight first, such as standardising or transposing it, the "
        "result counts as a constant."
    ]
    (all_of_them,) = said_of(["*", "*.weight"])
    assert all_of_them.startswith(
        "explanation.parameters has no relevance of tied, normed.parametrizations.weight.original0, "
        "normed.parametrizations.weight.original1, standardised.weight: "
    )
    assert said_of(["plain.*"]) == []
    with pytest.raises(
        relprop.errors.InputError, match=r"parameters='standardised\.weight': no linear operation takes"
    ):
        relprop.explain(
            model, x, target=_size, rules=Epsilon(), parameters=["plain.*", "standardised.weight"]
        )


@pytest.mark.parametrize(
    ("dtype", "options", "message"),
    [
        (torch.float64, {"rules": "deep-taylor", "bounds": (0, 0.1)}, "values outside of the bounds"),
        (torch.bfloat16, {"rules": "epsilon"}, "below the resolution of torch.bfloat16"),
    ],
)
def test_what_rules_warn_of_is_shown_where_the_user_called(
    dtype: torch.dtype, options: dict[str, Any], message: str
) -> None:
    model, x = scores(1, 2).to(dtype), torch.rand(3, 4, dtype=dtype) + 1
    with pytest.warns(UserWarning, match=message) as said:
        relprop.explain(model, x, **options)
    assert {w.filename for w in said} == {__file__}
