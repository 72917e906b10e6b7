"""Rules and operations of a user's own: checked when they are first used, and by `relprop.testing`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop.calls.site import Kind
from relprop.crossing.ruled import start
from relprop.linear.maps import LinearMap
from relprop.linear.numerics import divide
from relprop.operations import TABLE, Exact, Secant, register
from relprop.rules import Epsilon, Flat, Gamma, Incoming, LinearOperation, PrintedRule, Propagated, own
from relprop.testing import DenseLayer, check_operation, check_rule
from replica import HIDDEN, RULES

pytestmark = pytest.mark.filterwarnings("ignore::relprop.errors.ScoreWarning")

Change = Callable[[LinearOperation, Incoming, Propagated], Propagated | None]


@dataclass(frozen=True, repr=False)
class Own(PrintedRule):
    """LRP-0 as a user might write it, or something wrong made of it."""

    change: Change | None = None
    puts_relevance: bool = False
    looks_everywhere: bool = True
    needs_values: bool = True

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        if incoming.c is None or incoming.direct is not None or self.needs_values:
            R = incoming.relevance
            s, lost = divide(R, op.z), R.masked_fill(op.z != 0, 0)
        else:
            s, lost = incoming.c, torch.zeros_like(incoming.c)
        absorbed = {"no contribution": lost} if op.b is None else {"no contribution": lost, "bias": s * op.b}
        right = Propagated(op.transpose(s, op.weight), absorbed=absorbed)
        if self.change is not None:
            return self.change(op, incoming, right)  # type: ignore[return-value]
        return right


def lrp_0(layer: DenseLayer, R: Tensor) -> Tensor:
    return (layer.x[:, None] * layer.w * divide(R, layer.z)).sum(1)


@pytest.fixture(autouse=True)
def nothing_checked_before() -> Iterator[None]:
    own._checked.clear()
    yield
    own._checked.clear()


def explained(rule: Any) -> relprop.Explanation:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double().eval()
    return relprop.explain(model, torch.randn(2, 5, **DOUBLE), target=1, rules=[("*", rule)])


# ---- when it is first used ----


def test_a_rule_that_is_right_is_used() -> None:
    found, expected = explained(Own()), explained(Epsilon(0))
    torch.testing.assert_close(found.relevance, expected.relevance)
    torch.testing.assert_close(found.ledger.absorbed["bias"], expected.ledger.absorbed["bias"])


WRONG: dict[str, tuple[Change, str]] = {
    "none": (lambda op, i, p: None, "it returned NoneType; return a relprop.rules.Propagated."),
    "tensor": (lambda op, i, p: p.coefficient, "it returned Tensor; return a relprop.rules.Propagated."),
    "empty": (
        lambda op, i, p: Propagated(),
        "it returned no relevance; give Propagated a coefficient or direct.",
    ),
    "shape": (
        lambda op, i, p: Propagated(p.coefficient.sum(1)),
        r"Propagated.coefficient has shape \(2,\); give a number for each element of op.x, which has shape "
        r"\(2, 4\).",
    ),
    "number": (lambda op, i, p: Propagated(0.5), "Propagated.coefficient has float; give a number for each"),
    "nan": (
        lambda op, i, p: Propagated(p.coefficient / 0 * 0),
        "Propagated.coefficient is NaN or infinite at 8 of 8 elements.",
    ),
    "direct": (
        lambda op, i, p: Propagated(direct=op.x * p.coefficient, absorbed=p.absorbed),
        "it returns Propagated.direct, .* but its puts_relevance is False. Let it be True.",
    ),
    "sink": (
        lambda op, i, p: Propagated(p.coefficient, absorbed={"bias": 0.5}),
        r"Propagated.absorbed\['bias'\] has float; give a tensor of the output's shape, \(2, 3\), or summed",
    ),
    "sum": (
        lambda op, i, p: Propagated(p.coefficient, absorbed={"bias": sum(p.absorbed.values()).sum()}),
        r"Propagated.absorbed\['bias'\] has shape \(\); give a tensor of the output's shape",
    ),
    "bias": (
        lambda op, i, p: Propagated(p.coefficient),
        r"loses relevance: \S+ arrived, \S+ went to the input, absorbed was nothing\. So \S+ is missing.",
    ),
    "share": (
        lambda op, i, p: Propagated(p.coefficient * 1.001, absorbed=p.absorbed),
        r"loses relevance: \S+ arrived, \S+ went to the input, absorbed was no contribution 0, bias \S+\. "
        r"So \S+ is missing.",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_rule_that_is_wrong_is_refused_by_its_name(name: str) -> None:
    change, message = WRONG[name]
    with pytest.raises(relprop.errors.RuleError, match=message) as raised:
        explained(Own(change))
    assert str(raised.value).startswith("Own(")
    assert raised.value.__notes__ == ["The rule was for linear in module '2'."]


def test_a_rule_is_checked_once_for_each_kind_of_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(own, "require_promises", lambda rule, *_: calls.append(rule))
    rule = Own()
    for _ in range(3):
        explained(rule)
    assert calls == [rule] * 2  # behind the ReLU inputs are not negative
    explained(Own(looks_everywhere=False))
    assert len(calls) == 4
    explained(Epsilon(0.1))  # one of relprop's own, which its tests check
    assert len(calls) == 4


def test_a_rule_that_was_right_without_a_bias_is_checked_with_one() -> None:
    forgetful = Own(lambda op, i, p: Propagated(p.coefficient, absorbed={}))
    layers = [nn.Linear(4, 3, bias=bias).double().eval() for bias in (False, True)]
    x = torch.randn(2, 4, **DOUBLE)
    relprop.explain(layers[0], x, target=1, rules=forgetful)
    with pytest.raises(relprop.errors.RuleError, match="loses relevance"):
        relprop.explain(layers[1], x, target=1, rules=forgetful)


def test_no_relevance_says_nothing_of_a_rule() -> None:
    loses = Own(WRONG["share"][0])
    layer, x = nn.Linear(4, 3).double().eval(), torch.randn(2, 4, **DOUBLE)
    relprop.explain(layer, x, target=torch.zeros(3, **DOUBLE), rules=loses)
    with pytest.raises(relprop.errors.RuleError, match="loses relevance"):
        relprop.explain(layer, x, target=1, rules=loses)


def test_a_rule_is_checked_where_relevance_of_weights_is_wanted() -> None:
    with pytest.raises(relprop.errors.RuleError, match="loses relevance"):
        relprop.explain(
            nn.Sequential(nn.Linear(4, 3)).double().eval(),
            torch.randn(2, 4, **DOUBLE),
            target=1,
            rules=Own(WRONG["bias"][0]),
            parameters="0.weight",
        )


def test_a_rule_without_a_hash_is_checked_as_well() -> None:
    class Unhashable(Own):
        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(relprop.errors.RuleError, match="loses relevance"):
        explained(Unhashable(WRONG["bias"][0]))


def test_the_error_says_what_a_function_lacks_to_be_a_rule() -> None:
    for rules in (lambda op, incoming: None, [("*", lambda op, incoming: None)]):
        with pytest.raises(relprop.errors.RuleError, match="has an attribute puts_relevance: True if"):
            relprop.explain(nn.Linear(3, 2).eval(), torch.rand(2, 3), rules=rules)


def test_a_rule_of_which_the_decorator_was_forgotten_says_so() -> None:
    class Forgotten(PrintedRule):
        puts_relevance = False

    assert repr(Forgotten()) == "Forgotten (write @dataclass(frozen=True, repr=False) before the class)"


def test_a_ledger_that_does_not_balance_names_rules_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "require_promises", lambda *_: None)
    with pytest.warns(UserWarning, match=r"does not balance: .* \(by rules of your own: Own\(.*check_rule"):
        explained(Own(WRONG["bias"][0]))


# ---- check_rule ----


@pytest.mark.parametrize("name", [*RULES, *HIDDEN])
def test_every_rule_of_the_package_passes_the_check_that_users_have(name: str) -> None:
    rule, function, parameters = {**RULES, **HIDDEN}[name]
    check_rule(rule, lambda layer, R: function(layer, R, **parameters))


def test_a_rule_of_ones_own_passes_the_check() -> None:
    check_rule(Own(), lrp_0)
    check_rule(Own(needs_values=False), lrp_0)


def overwriting(op: LinearOperation, incoming: Incoming, right: Propagated) -> Propagated:
    op.z.mul_(2)
    return right


def overwriting_the_bias(op: LinearOperation, incoming: Incoming, right: Propagated) -> Propagated:
    if op.bias is not None:
        op.bias.mul_(2)
    return right


def by_the_coefficient(op: LinearOperation, incoming: Incoming, right: Propagated) -> Propagated:
    if incoming.c is None:
        return right
    return Propagated(
        op.transpose(incoming.c, op.weight), absorbed={"rest": incoming.relevance - incoming.c * op.z0}
    )


def of_the_batch(op: LinearOperation, incoming: Incoming, right: Propagated) -> Propagated:
    R = op.x * right.coefficient
    direct = (R + R.roll(1, 0)) / 2
    return Propagated(direct=direct, absorbed=right.absorbed)


def not_linear(op: LinearOperation, incoming: Incoming, right: Propagated) -> Propagated:
    R = (op.x * right.coefficient).flatten(1)
    shares = R.abs() / R.abs().sum(1, keepdim=True)
    return Propagated(direct=(shares * R.sum(1, keepdim=True)).view_as(op.x), absorbed=right.absorbed)


def largest_first(op: LinearOperation, incoming: Incoming, right: Propagated) -> Propagated:
    R = op.x * right.coefficient
    return Propagated(direct=R.flip(-1), absorbed=right.absorbed)


FAILING: dict[str, tuple[Any, str]] = {
    "loses": (Own(WRONG["share"][0]), "loses relevance"),
    "overwrites": (Own(overwriting), "changed z; work on copies."),
    "overwrites the bias": (Own(overwriting_the_bias), "changed bias; work on copies."),
    "forgets what is direct": (
        Own(by_the_coefficient),
        "treats the same relevance differently if it arrives",
    ),
    "mixes samples": (
        Own(of_the_batch, puts_relevance=True),
        "gives sample 0 other relevance alone than in",
    ),
    "is not linear": (
        Own(not_linear, puts_relevance=True),
        "is not linear in relevance: of 2R [+] S it",
    ),
    "shares wrongly": (
        Own(largest_first, puts_relevance=True),
        "differs from the formula: it",
    ),
    "looks everywhere": (Epsilon(0.1, of="rms"), "has looks_everywhere=False, so outputs without relevance"),
    "needs values": (Epsilon(0.1), "has needs_values=False"),
    "needs input": (Gamma(0.25), "has needs_input=False, but without the values of x it gives"),
}


@pytest.mark.parametrize("name", FAILING)
def test_the_check_finds_what_is_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, message = FAILING[name]
    if not isinstance(rule, Own):  # which is right, and here says of itself what is not true
        monkeypatch.setattr(type(rule), name.replace(" ", "_"), property(lambda _: False))
    formula = lrp_0 if isinstance(rule, Own) else None
    with pytest.raises(AssertionError, match=message):
        check_rule(rule, formula)


class OnNonzero(Epsilon):
    """A rule that looks at the inputs, which ε itself does not."""

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        found = super().__call__(op, incoming)
        assert found.coefficient is not None
        found.coefficient = found.coefficient * (op.x != 0)
        return found


class Told(Epsilon):
    calls = 0

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        Told.calls += 1
        return super().__call__(op, incoming)


def test_a_class_that_is_derived_from_a_rule_declares_for_itself_what_it_does_not_need() -> None:
    model = nn.Sequential(nn.Linear(6, 7, bias=False), nn.Tanh(), nn.Linear(7, 3, bias=False)).double().eval()
    x = torch.randn(4, 6, dtype=torch.float64)
    check_rule(OnNonzero(0.1))
    found = relprop.explain(model, x, target=1, rules=OnNonzero(0.1))
    assert torch.equal(found.relevance, relprop.explain(model, x, target=1, rules=Epsilon(0.1)).relevance)
    relprop.explain(model, x, target=1, rules=Told(0.0))
    assert Told.calls >= 2


def test_a_formula_that_is_off_by_a_thousandth_is_found() -> None:
    with pytest.raises(AssertionError, match=r"differs from the formula: it gives \S+ instead of \S+ at"):
        check_rule(Own(), lambda layer, R: lrp_0(layer, R) * 1.001)


def test_what_is_no_rule_is_told() -> None:
    with pytest.raises(AssertionError, match=r"Own is a class; check an instance, Own\(\)."):
        check_rule(Own)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="is no rule: it must be callable"):
        check_rule(len)  # type: ignore[arg-type]


def test_a_rule_that_refuses_negative_inputs_is_checked_on_others() -> None:
    check_rule(Gamma(0.25, favour="positive"))


# ---- check_operation ----


@pytest.fixture(scope="module")
def operations() -> Any:
    """Operations of another library: a pointwise one and a linear one with a weight."""
    with torch.library._scoped_library("own_rules", "DEF") as library:
        library.define("soft_clip(Tensor x) -> Tensor")
        library.impl("soft_clip", lambda x: x / (1 + x.abs()), "CompositeExplicitAutograd")
        library.define("circular(Tensor x, Tensor weight) -> Tensor")
        library.impl("circular", Circular().apply, "CompositeExplicitAutograd")
        yield torch.ops.own_rules


@dataclass(frozen=True)
class Circular(LinearMap):
    """The circular convolution of the last dimension."""

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(weight), x.shape[-1])


X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), **DOUBLE)


def test_an_operation_without_an_entry_fails_the_check(operations: Any) -> None:
    with pytest.raises(AssertionError, match=r"relevance reaches 1 operation .*\n.*own_rules::soft_clip in"):
        check_operation(operations.soft_clip, X)


def test_a_pointwise_operation_of_ones_own(operations: Any, table: None) -> None:
    register("own_rules::soft_clip", Secant(slope=1.0))
    check_operation(operations.soft_clip, X)
    with pytest.raises(AssertionError, match="is not the gradient times the input"):
        check_operation(torch.tanh, X, like_gradient=True)


@pytest.mark.parametrize("name", ["cumsum", "aten::cumsum"])
def test_an_operation_of_torch_by_either_name(name: str, table: None) -> None:
    register(name, "identity")
    e = relprop.explain(lambda x: x.cumsum(1), X, target=2, rules="epsilon")
    assert torch.equal(e.relevance[:, 2], e.score)
    assert not e.relevance[:, :2].any()


def test_a_linear_operation_of_ones_own_gets_every_rule(operations: Any, table: None) -> None:
    def crossed(run: Any, call: Any, x: Any, weight: Any) -> Any:
        return start(run, call, Kind.DENSE, x, weight, None, Circular())

    register("own_rules::circular", crossed)
    weight = torch.randn(6, generator=torch.Generator().manual_seed(1), **DOUBLE)
    check_operation(lambda x: operations.circular(x, weight), X)
    matrix = torch.stack([weight.roll(i) for i in range(6)])  # (in, out)
    for rule, _, _ in RULES.values():
        if isinstance(rule, relprop.rules.ZBox):
            continue
        found = relprop.explain(lambda x: operations.circular(x, weight), X, target=2, rules=rule)
        expected = relprop.explain(lambda x: x @ matrix, X, target=2, rules=rule)
        assert found.rules[0].operation == "own_rules::circular"
        torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-9, atol=1e-9)


def test_a_kernel_without_a_derivative_may_stand_in_a_chain(operations: Any, table: None) -> None:
    register("own_rules::soft_clip", Secant(slope=1.0))
    clip = operations.soft_clip
    for function in (lambda x: clip(x + 1), lambda x: x * clip(x), lambda x: clip(clip(2 * x)) - 1):
        check_operation(function, X)


def test_rules_on_a_map_that_rounds(operations: Any, table: None) -> None:
    register(
        "own_rules::circular", lambda run, call, x, w: start(run, call, Kind.DENSE, x, w, None, Circular())
    )
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        weight, x = (torch.randn(n, generator=generator, **DOUBLE) for n in ((6,), (3, 6)))
        weight = -weight.abs() if seed < 5 else weight  # outputs without positive contributions
        x = x.abs()
        matrix = torch.stack([weight.roll(i) for i in range(6)])
        for rule in (relprop.rules.ZPlus(), relprop.rules.AlphaBeta(2, 1), Gamma(0.25)):
            model = (
                [nn.ReLU(), lambda x, w=weight: operations.circular(x, w)],
                [nn.ReLU(), lambda x, m=matrix: x @ m],
            )
            found, expected = (
                relprop.explain(lambda x, f=f: f[1](f[0](x)), x, target=2, rules=rule) for f in model
            )
            torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-8, atol=1e-8)
            assert found.ledger.gap.max() < 1e-9


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("me.log_clip", Exact(), r"give the name of an operation as errors print it, without an overload"),
        ("me::log_clip.default", Exact(), r"without an overload"),
        (torch.tanh, Exact(), r"give the name of an operation"),
        ("tanh", Secant, r"an entry is called as entry\(run, call, [*]arguments\); write Secant\(...\)."),
        ("tanh", 3.0, r"register\('tanh', 3.0\): an entry is called as"),
    ],
)
def test_what_cannot_be_registered_is_told(name: Any, entry: Any, message: str, table: None) -> None:
    with pytest.raises(relprop.errors.InputError, match=message):
        register(name, entry)


def test_an_entry_that_cannot_take_the_arguments_is_told(operations: Any, table: None) -> None:
    register("own_rules::circular", lambda run, call, x: x)
    with pytest.raises(
        relprop.errors.InputError,
        match=r"the entry for 'own_rules::circular' cannot take the operation's arguments: too many "
        r"positional arguments. It is called as entry\(run, call, x, weight\).",
    ):
        relprop.explain(lambda x: operations.circular(x, torch.ones(6, **DOUBLE)), X, target=1)


def test_the_line_of_a_gap_is_the_users(table: None) -> None:
    TABLE.pop("tanh")
    with pytest.raises(relprop.errors.CoverageError, match=r"tanh in module '1' at .*test_own_rules.py:\d+"):
        relprop.explain(nn.Sequential(nn.Linear(6, 6), nn.Tanh()).double().eval(), X, target=1)


def test_an_entry_that_is_wrong_fails_the_check(table: None) -> None:
    register("tanh", lambda run, call, x: run.seen(run.native(call) * 1.5, x.tag))
    with pytest.raises(AssertionError, match="the output differs from the model's own by"):
        check_operation(torch.tanh, X)
    register("tanh", Exact())
    with pytest.raises(AssertionError, match="the ledger does not balance, by"):
        check_operation(torch.tanh, X)
    register("flip", lambda run, call, x, dims: run.seen(x.recorded.flip(0).flip(0), x.tag))
    with pytest.raises(AssertionError, match="the output differs from the model's own"):
        check_operation(lambda x: x.flip(1), X)


def test_what_cannot_be_checked_is_told() -> None:
    with pytest.raises(AssertionError, match=r"x has shape \(3, 6\) and dtype torch.float32; give float64"):
        check_operation(torch.relu, X.float())
    with pytest.raises(AssertionError, match="the function gives NaN or infinity"):
        check_operation(torch.log, X)


def test_a_function_that_mixes_samples_is_checked_as_a_whole() -> None:
    check_operation(lambda x: x + 0.5 * x.flip(0), X, like_gradient=True)


def test_rules_on_zeros_of_a_map_that_knows_only_how_to_apply_a_weight() -> None:
    map_, weight = Circular(), torch.randn(6, **DOUBLE)
    s, shape = torch.randn(3, 6, **DOUBLE), torch.Size([3, 6])
    leaf = torch.zeros(shape, **DOUBLE).requires_grad_()
    (expected,) = torch.autograd.grad(map_.apply(leaf, weight), leaf, s)
    torch.testing.assert_close(map_.transpose(s, weight, shape), expected)
    torch.testing.assert_close(map_.spread(s, weight, shape), s.sum(1, keepdim=True).expand(shape))
    torch.testing.assert_close(map_.fan_in(weight, shape), torch.full((1, 6), 6, **DOUBLE))
    e = relprop.explain(nn.Linear(6, 2).double().eval(), X, target=1, rules=Flat())
    assert e.ledger.gap.max() < 1e-12
