"""Each rule against its slow replica, over every linear operation."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import relprop
import replica
from cases import CASES
from relprop.errors import RuleError
from relprop.rules import AlphaBeta, Epsilon, Gamma, ZBox, ZPlus, own
from relprop.rules.other import NonlinearRule
from relprop.rules.rule import PrintedRule
from relprop.testing.dense import dense_layer
from replica import BIAS_MODES, HIDDEN, RULES, assert_agree

# torch says so itself wherever a convolution with an even kernel is padded to the same size.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


def explained(rule: Any, case: str, x: Tensor, c: Tensor) -> Tensor:
    """Relevance of the input of a single operation whose output has the relevance c·z."""
    return relprop.explain(CASES[case].module(), x, target=c, rules=rule).relevance


def expected(function: Any, parameters: dict[str, Any], case: str, x: Tensor, c: Tensor) -> Tensor:
    """The same by the replica."""
    module, ones = CASES[case].module(), CASES[case].ones()
    maps = []
    for sample, weights in zip(x, c, strict=True):
        layer = dense_layer(module, ones, sample)
        maps.append(function(layer, weights.flatten() * layer.z, **parameters).reshape(sample.shape))
    return torch.stack(maps)


def seed_for(case: str, x: Tensor) -> Tensor:
    """Coefficients of both signs for the operation's output."""
    return torch.randn_like(CASES[case].module()(x))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bias", BIAS_MODES)
def test_gamma_of_2019_is_its_formula(bias: Any, case: str) -> None:
    x = CASES[case].input(nonnegative=True)
    c = seed_for(case, x)
    desired = expected(replica.gamma_positive, {"gamma": 0.25, "bias": bias}, case, x, c)
    assert_agree(explained(Gamma(0.25, bias, favour="positive"), case, x, c), desired)


def test_gamma_of_2019_refuses_inputs_that_may_be_negative() -> None:
    x = CASES["dense"].input(nonnegative=False)
    with pytest.raises(RuleError, match="this form is for inputs that cannot be negative") as error:
        explained(Gamma(0.25, favour="positive"), "dense", x, seed_for("dense", x))
    assert error.value.__notes__ == ["The rule was for linear in module '(root)'."]


@pytest.mark.parametrize("sign", ["signed", "nonnegative"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", RULES)
def test_rule_is_its_formula(name: str, case: str, sign: str) -> None:
    rule, function, parameters = RULES[name]
    x = CASES[case].input(nonnegative=sign == "nonnegative")
    c = seed_for(case, x)
    assert_agree(explained(rule, case, x, c), expected(function, parameters, case, x, c))


# A dense operation has no channels, and the input of a circular one is the padded one, which has other
# pixels.
@pytest.mark.parametrize(
    ("kind", "case"),
    [
        *(("scalar", case) for case in CASES),
        *(("channel", case) for case in CASES if "conv" in case),
        *(("pixel", case) for case in CASES if "circular" not in case),
    ],
)
def test_box_rule_is_its_formula(case: str, kind: str) -> None:
    shape = CASES[case].shape
    x = CASES[case].input(nonnegative=False).clamp(-2, 2)
    low, high = torch.tensor(-2.0).double(), torch.tensor(2.5).double()
    given: Any = (-2.0, 2.5)
    if kind == "channel":
        low, high = -2 - torch.rand(shape[0]).double(), 2 + torch.rand(shape[0]).double()
        given = (low.tolist(), high.tolist())
        low, high = (v.reshape(-1, *[1] * (len(shape) - 1)) for v in (low, high))
    elif kind == "pixel":
        low, high = -2 - torch.rand(shape).double(), 2 + torch.rand(shape).double()
        given = (low, high)
    c = seed_for(case, x)
    desired = expected(replica.z_box, {"low": low.expand(shape), "high": high.expand(shape)}, case, x, c)
    assert_agree(explained(ZBox(*given), case, x, c), desired)


@pytest.mark.filterwarnings("ignore:.*outside of the bounds")
@pytest.mark.parametrize("last", HIDDEN)
@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_layers_are_the_formulas_layer_by_layer(name: str, last: str) -> None:
    """Relevance lands on activations that are zero and goes on from there."""
    layers = [torch.nn.Linear(*shape).double() for shape in ((6, 8), (8, 7), (7, 5), (5, 3))]
    model = torch.nn.Sequential(*(m for layer in layers for m in (layer, torch.nn.ReLU())))[:-1].eval()
    rules = [HIDDEN[name]] * 3 + [HIDDEN[last]]
    entries = [(str(2 * i), rule) for i, (rule, _, _) in enumerate(rules)]
    x = torch.randn(3, 6, dtype=torch.float64)
    c = torch.randn(3, 3, dtype=torch.float64)
    found = relprop.explain(model, x, target=c, rules=entries).relevance
    for sample, weights, relevance in zip(x, c, found, strict=True):
        activations = [sample]
        for layer in layers[:-1]:
            activations.append(layer(activations[-1]).relu().detach())
        assert (torch.cat(activations[1:]) == 0).any()
        R = weights * layers[-1](activations[-1]).detach()
        for layer, (_, function, parameters), a in reversed(
            list(zip(layers, rules, activations, strict=True))
        ):
            dense = replica.Layer(
                a, layer.weight.detach().T, layer.bias.detach(), torch.ones(layer.weight.T.shape) > 0
            )
            R = function(
                dense,
                R,
                **{k: v.expand(len(a)) if k in ("low", "high") else v for k, v in parameters.items()},
            )
        assert_agree(relevance, R)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", RULES)
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """Small scores too: nothing is lost, and what is found is what float64 finds, as far as can be."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 12), torch.nn.ReLU(), torch.nn.Linear(12, 4)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.3)
    x = torch.rand(4, 8)
    exact = relprop.explain(model.double(), x.double(), target=1, rules=RULES[name][0])
    rough = relprop.explain(model.to(dtype), x.to(dtype), target=1, rules=RULES[name][0])
    assert rough.relevance.dtype == dtype
    assert rough.ledger.gap.max() < (2e-2 if dtype == torch.float16 else 1e-1)
    error = (rough.relevance.double() - exact.relevance).abs().max()
    assert error < (5e-2 if dtype == torch.float16 else 3e-1) * exact.relevance.abs().max()


@pytest.mark.parametrize("name", RULES)
def test_the_comparison_notices_a_rule_that_is_wrong_by_a_thousandth(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "require_promises", lambda *_: None)  # which would notice some of it first

    @dataclass(frozen=True)
    class Wrong:
        puts_relevance = RULES[name][0].puts_relevance

        def __call__(self, op: Any, incoming: Any) -> Any:
            propagated = RULES[name][0](op, incoming)
            if propagated.coefficient is not None:
                propagated.coefficient[0, 0] *= 1.001
            else:
                propagated.direct = propagated.direct * 1.001
            return propagated

    _, function, parameters = RULES[name]
    x = CASES["dense"].input(nonnegative=False)
    c = seed_for("dense", x)
    with pytest.raises(AssertionError):
        assert_agree(explained(Wrong(), "dense", x, c), expected(function, parameters, "dense", x, c))


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (Epsilon(0.3003), "ε, bias absorb"),
        (Gamma(0.25025), "γ, bias absorb"),
        (AlphaBeta(2.001, 1.001), "α2β1, bias ignore"),
        (ZBox(-4.004, 4.0), "zB"),
    ],
)
def test_the_comparison_notices_a_parameter_that_is_wrong_by_a_thousandth(wrong: Any, name: str) -> None:
    right, function, parameters = {**RULES, **HIDDEN}[name]
    parameters = {k: v.expand(2, 5, 5) if k in ("low", "high") else v for k, v in parameters.items()}
    x = CASES["conv2d"].input(nonnegative=False)
    c = seed_for("conv2d", x)
    desired = expected(function, parameters, "conv2d", x, c)
    assert_agree(explained(right, "conv2d", x, c), desired)
    with pytest.raises(AssertionError):
        assert_agree(explained(wrong, "conv2d", x, c), desired)


def test_every_rule_of_the_package_has_a_replica() -> None:
    tested = {type(rule) for rule, _, _ in {**RULES, **HIDDEN}.values()}
    rules = {
        v for v in vars(relprop.rules).values() if isinstance(v, type) and issubclass(v, PrintedRule)
    } - {PrintedRule}
    assert tested == {rule for rule in rules if not issubclass(rule, NonlinearRule)}


@pytest.mark.parametrize(
    ("rule", "corner", "relevance"),
    [
        (Epsilon(0), 2.0, [18, 36, 54]),
        (Gamma(1), -2.0, [28 / 3, 104 / 3, 52]),
        (AlphaBeta(1, 0), -2.0, [12, 33.6, 50.4]),
    ],
)
def test_hand_numbers_of_a_public_test(rule: Any, corner: float, relevance: list[float]) -> None:
    """Captum's test model on the input 1, 2, 3:

    dense weights 2, then 3; in two tests one first weight is -2.
    """
    first, second = torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        first.weight.fill_(2.0)[0, 0] = corner
        second.weight.fill_(3.0)
    model = torch.nn.Sequential(first, torch.nn.ReLU(), second).double().eval()
    found = relprop.explain(model, torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64), rules=rule).relevance
    torch.testing.assert_close(found, torch.tensor([relevance], dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_guard_gives_an_empty_side_to_the_other() -> None:
    layer = torch.nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.fill_(0.5)
    e = relprop.explain(layer.eval(), torch.ones(1, 3).double(), rules=AlphaBeta(2, 1))
    torch.testing.assert_close(e.relevance, torch.full((1, 3), 0.5).double())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Epsilon(-1),
            r"Epsilon\(epsilon=-1\): epsilon must be a finite number, 0 or larger",
        ),
        (lambda: Epsilon(float("nan")), "epsilon must be a finite number"),
        (lambda: Gamma(-0.1), "gamma must be a finite number, 0 or larger"),
        (lambda: Gamma(favour="negative"), "favour must be 'sign of z' or 'positive'"),
        (lambda: AlphaBeta(2, 0.5), r"alpha - beta is 1.5 and must be 1.*for alpha=2 take beta=1"),
        (lambda: AlphaBeta(0.5, -0.5), "beta must be a finite number, 0 or larger"),
        (lambda: ZPlus(bias="drop"), "bias must be one of 'absorb', 'ignore', 'distribute'"),
        (lambda: ZBox(1, -1), "low is above high; exchange them"),
        (lambda: ZBox(low=0), "give both bounds, low and high, or neither"),
        (lambda: ZBox(0, float("inf")), "the bounds must be finite"),
        (lambda: ZBox([0, 0], [1, 1, 1]), r"low has shape \(2,\) and high \(3,\); give them the same shape"),
    ],
)
def test_parameters_without_meaning_are_refused(make: Any, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        make()


def test_box_bounds_that_do_not_fit_the_input_are_refused() -> None:
    x = CASES["conv2d"].input(nonnegative=True)
    with pytest.raises(
        RuleError, match=r"the bound's shape \(3, 1, 1\) does not broadcast to a sample of shape \(2, 5, 5\)"
    ):
        explained(ZBox(torch.zeros(3, 1, 1), torch.ones(3, 1, 1)), "conv2d", x, seed_for("conv2d", x))


def test_rules_print_and_compare_as_themselves() -> None:
    assert repr(Epsilon(1e-6)) == "Epsilon(epsilon=1e-06)"
    assert ZBox([0, 0], [1, 1]) == ZBox((0.0, 0.0), (1.0, 1.0))
    assert ZBox(torch.zeros(2), torch.ones(2)) == ZBox(torch.zeros(2), torch.ones(2))
    assert ZBox(torch.zeros(2), torch.ones(2)) != ZBox(torch.zeros(2), 2 * torch.ones(2))
    assert len({ZBox(0, 1), ZBox(0, 1), Gamma(0.25), Gamma(0.25)}) == 2
