"""Rules for sums of branches, products and max-pooling."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE, batch_norm, close
from relprop.errors import CoverageError, RuleError
from relprop.places import Depth, First, Kind, Layer, Path
from relprop.rules import (
    Absolute,
    AveragePooling,
    BySize,
    Epsilon,
    EqualShares,
    Flat,
    Gamma,
    Proportional,
    SignalTakesAll,
    Uniform,
    ZBox,
)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def explain(function: Callable[..., Tensor], *inputs: Tensor, rules: Any, c: Tensor) -> relprop.Explanation:
    """Relevance c·z of the output of a function of the inputs."""
    model = Function(function).eval()
    return relprop.explain(model, *inputs, target=lambda z: (z * c).flatten(1).sum(1), rules=rules)


# ---- max-pooling ----

POOLS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "module": (nn.MaxPool2d(2), nn.AvgPool2d(2), (3, 6, 6)),
    "stride": (nn.MaxPool2d(3, stride=1), nn.AvgPool2d(3, stride=1), (2, 5, 5)),
    "padding": (nn.MaxPool2d(3, 2, padding=1), nn.AvgPool2d(3, 2, padding=1), (2, 5, 5)),
    "ceil": (nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True), (2, 5, 5)),
    "ceil and padding": (
        nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
        nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
        (2, 6, 6),
    ),
    "one dimension": (nn.MaxPool1d(3, 2), nn.AvgPool1d(3, 2), (2, 9)),
    "three dimensions": (nn.MaxPool3d((1, 2, 2)), nn.AvgPool3d((1, 2, 2)), (2, 3, 4, 4)),
    "functional": (
        lambda x: F.max_pool2d(x, kernel_size=2, stride=(1, 2)),
        lambda x: F.avg_pool2d(x, 2, (1, 2)),
        (2, 4, 4),
    ),
    "torch": (lambda x: torch.max_pool2d(x, 2), lambda x: F.avg_pool2d(x, 2), (2, 4, 4)),
    "indices": (
        lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
        lambda x: F.avg_pool2d(x, 2),
        (2, 4, 4),
    ),
    "with indices": (
        lambda x: F.max_pool2d_with_indices(x, 2, 2, 0, 1)[0],
        lambda x: F.avg_pool2d(x, 2),
        (2, 4, 4),
    ),
    "a dilation of one": (
        lambda x: F.max_pool2d(x, [2, 2], dilation=[1, 1]),
        lambda x: F.avg_pool2d(x, 2),
        (2, 4, 4),
    ),
    "adaptive": (nn.AdaptiveMaxPool2d((2, 3)), nn.AdaptiveAvgPool2d((2, 3)), (2, 5, 7)),
    "adaptive with indices": (
        lambda x: F.adaptive_max_pool2d(x, output_size=(2, None), return_indices=True)[0],
        lambda x: F.adaptive_avg_pool2d(x, (2, None)),
        (2, 5, 3),
    ),
    "adaptive, one dimension": (nn.AdaptiveMaxPool1d(1), nn.AdaptiveAvgPool1d(1), (2, 5)),
}


def shared(x: Tensor, R: Tensor, average: Callable[[Tensor], Tensor]) -> Tensor:
    """x_i/Σx_i · R over each window; the average of ones at single places says which are in it."""
    total = torch.zeros_like(x)
    for place in range(x[0].numel()):
        one = torch.zeros_like(x[0]).flatten()
        one[place] = 1
        one = one.reshape(x[0].shape).expand_as(x)
        part = average(one * x) / average(x)
        total += one * (part * R).flatten(1).sum(1).reshape(-1, *[1] * (x.dim() - 1))
    return total


@pytest.mark.parametrize("pool", POOLS)
def test_max_pooling_shares_like_an_average(pool: str) -> None:
    function, average, shape = POOLS[pool]
    x = torch.rand(2, *shape, **DOUBLE) + 0.1
    c = torch.randn_like(function(x))
    e = explain(function, x, rules=[("*", AveragePooling()), ("*", Epsilon())], c=c)
    assert [a.rule for a in e.rules] == [AveragePooling()]
    close(e.relevance, shared(x, c * function(x), average))
    close(e.ledger.inputs, e.score)
    winners = explain(function, x, rules=Epsilon(), c=c)
    assert winners.rules == ()
    assert (winners.relevance - e.relevance).abs().max() > 0.01  # the winner takes all without it


def test_windows_without_contributions_lose_their_relevance_and_the_books_say_so() -> None:
    # What flat puts on zeros.
    rules = [("*", AveragePooling()), ("*", Flat())]
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 3)).double().eval()
    x = torch.rand(2, 1, 4, 4, **DOUBLE)
    x[:, :, :2, :2] = -1
    e = relprop.explain(model, x, target=1, rules=rules)
    close(e.ledger.absorbed["no contribution"], e.score / 4)
    assert e.ledger.gap.max() < 1e-12


@pytest.mark.parametrize("dilation", [2, (1, 2), [2, 2]])
def test_a_dilated_window_is_no_average(dilation: Any) -> None:
    x = torch.rand(2, 2, 6, 6)
    model = nn.Sequential(nn.MaxPool2d(2, dilation=dilation), nn.Flatten()).eval()
    rules = [("*", AveragePooling()), ("*", Epsilon())]
    with pytest.raises(
        CoverageError,
        match=r"max_pool2d in module '0' at .*: a dilated window cannot be treated as an average",
    ):
        relprop.explain(model, x, rules=rules)
    relprop.explain(model, x, rules=Epsilon())
    relprop.explain(model, x, rules=rules, accept="max_pool2d")


def test_in_a_network_only_the_pooling_that_is_named_shares() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    model, x = model.double().eval(), torch.rand(2, 2, 7, 7, **DOUBLE)
    e = relprop.explain(model, x, rules=[("3", AveragePooling()), ("*", Gamma(0.25))], record="*")
    assert [(a.path, a.operation, a.rule) for a in e.rules] == [
        ("1", "conv2d", Gamma(0.25)),
        ("3", "max_pool2d", AveragePooling()),
    ]
    h = model[:3](x).detach()
    close(e.inner["2"], torch.where(h == 0, 0, _shared_or_nothing(h, e.inner["3"], nn.AvgPool2d(2))))


def _shared_or_nothing(x: Tensor, R: Tensor, average: Any) -> Tensor:
    return shared(x + 1e-300, R, average)


# ---- sums ----


def shares(rule: Any, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The formulas."""
    if isinstance(rule, EqualShares):
        return torch.full_like(a, 0.5), torch.full_like(b, 0.5)
    return a.abs() / (a.abs() + b.abs()), b.abs() / (a.abs() + b.abs())


def added_in_place(a: Tensor, b: Tensor) -> Tensor:
    z = a * 1.0
    z += b
    return z


def subtracted_in_place(a: Tensor, b: Tensor) -> Tensor:
    z = a * 1.0
    z.sub_(b, alpha=2)
    return z


# the sum, and what stands in it as a and as b
SUMS: dict[str, tuple[Callable[..., Tensor], float, float]] = {
    "operator": (lambda a, b: a + b, 1, 1),
    "function": (lambda a, b: torch.add(a, b, alpha=3), 1, 3),
    "keywords": (lambda a, b: torch.add(input=a, other=b, alpha=-0.5), 1, -0.5),
    "method": (lambda a, b: a.add(b), 1, 1),
    "in place": (added_in_place, 1, 1),
    "difference": (lambda a, b: a - b, 1, -1),
    "difference with a factor": (lambda a, b: torch.sub(a, b, alpha=2), 1, -2),
    "difference in place": (subtracted_in_place, 1, -2),
    "the other way round": (lambda a, b: torch.rsub(a, b, alpha=3), -3, 1),
}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("rule", [BySize(), EqualShares()])
def test_sums_share_by_the_formula(rule: Any, name: str) -> None:
    function, of_a, of_b = SUMS[name]
    a, b = torch.randn(2, 3, 4, **DOUBLE), torch.randn(2, 3, 4, **DOUBLE)
    c = torch.randn_like(function(a.clone(), b))
    e = explain(function, a, b, rules=[("*", rule), ("*", Epsilon())], c=c)
    assert [x.rule for x in e.rules] == [rule]
    z = function(a.clone(), b)
    part_a, part_b = shares(rule, (of_a * a).expand(z.shape), (of_b * b).expand(z.shape))
    first, second = e.inputs.values()
    close(first, (part_a * c * z).sum_to_size(a.shape))
    close(second, (part_b * c * z).sum_to_size(b.shape))
    close(e.ledger.inputs, e.score)


@pytest.mark.parametrize("rule", [BySize(), EqualShares()])
def test_terms_that_are_broadcast_are_no_branches(rule: Any) -> None:
    a, b = torch.randn(2, 3, 4, **DOUBLE), torch.randn(2, 1, 4, **DOUBLE)
    e = explain(
        lambda a, b: a - b, a, b, rules=[("*", rule), ("*", Epsilon())], c=torch.ones(2, 3, 4, **DOUBLE)
    )
    assert not e.rules
    first, second = e.inputs.values()
    close(first, a)
    close(second, -3 * b)


class Residual(nn.Module):
    """conv(x) + x, and a head."""

    def __init__(self, *, inplace: bool = False) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3, padding=1)
        self.head, self.inplace = nn.Linear(3, 4), inplace

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.conv(x)
        if self.inplace:
            y += x
        else:
            y = y + x
        return self.head(y.relu().mean((2, 3)))


@pytest.mark.parametrize("rule", [BySize(), EqualShares()])
@pytest.mark.parametrize("inplace", [True, False])
def test_residual_sums(rule: Any, inplace: bool) -> None:
    torch.manual_seed(0)
    model, x = Residual(inplace=inplace).double().eval(), torch.randn(2, 2, 5, 5, **DOUBLE)
    rules = [("*", rule), ("*", Gamma(0.25))]
    e = relprop.explain(model, x, target=1, rules=rules, record=["stem", "conv"])
    assert [a.operation for a in e.rules] == ["conv2d", "conv2d", "add", "linear"]
    assert e.ledger.gap.max() < 1e-12
    # By parts: the head, the sum's shares, the branch, and both together through the stem.
    h = model.stem(x).relu().detach()
    branch = model.conv(h).detach()
    z = branch + h
    R = relprop.explain(lambda y: model.head(y.relu().mean((2, 3))), z, target=1, rules=Gamma(0.25)).relevance
    part, rest = shares(rule, branch, h)
    part, rest = part.nan_to_num(0.5), rest.nan_to_num(0.5)
    close(e.inner["conv"], part * R)
    through = relprop.explain(
        lambda h: model.conv(h.relu()),
        h,
        target=lambda y: (y * torch.where(branch == 0, 0, part * R / branch)).flatten(1).sum(1),
        rules=Gamma(0.25),
    ).relevance
    close(e.inner["stem"], through + rest * R)


@pytest.mark.parametrize("rule", [BySize(), EqualShares()])
@pytest.mark.parametrize("linear", [Flat(), Epsilon(0.1, bias="distribute")])
def test_sums_beside_relevance_on_zeros(rule: Any, linear: Any) -> None:
    model, x = Residual().double().eval(), torch.randn(2, 2, 5, 5, **DOUBLE)
    e = relprop.explain(model, x, target=1, rules=[("*", rule), ("*", linear)], record="conv")
    assert e.ledger.gap.max() < 1e-12
    assert "zero input" not in e.ledger.absorbed
    plain = relprop.explain(model, x, target=1, rules=linear)
    assert (e.relevance - plain.relevance).abs().max() > 1e-3 * plain.relevance.abs().max()


def test_equal_shares_where_a_term_is_zero() -> None:
    a, b = torch.tensor([[0.0, 2, 0]], **DOUBLE), torch.tensor([[3.0, -1, 0]], **DOUBLE)
    c = torch.ones(1, 3, **DOUBLE)
    e = explain(lambda a, b: a + b, a, b, rules=[("*", EqualShares()), ("*", Epsilon())], c=c)
    half = torch.tensor([[1.5, 0.5, 0]], **DOUBLE)
    for R in e.inputs.values():
        close(R, half)
    e = explain(lambda a, b: a + b, a, b, rules=[("*", BySize()), ("*", Epsilon())], c=c)
    first, second = e.inputs.values()
    close(first, torch.tensor([[0, 2 / 3, 0]], **DOUBLE))
    close(second, torch.tensor([[3, 1 / 3, 0]], **DOUBLE))


def test_what_is_computed_of_one_value_is_no_sum_of_branches() -> None:
    x = torch.randn(2, 4, **DOUBLE)
    e = explain(lambda x: x + x.tanh(), x, rules=[("*", EqualShares()), ("*", Epsilon())], c=torch.ones(2, 4))
    assert e.rules == ()
    close(e.relevance, x + x.tanh())


def test_a_difference_of_what_is_not_negative_may_be() -> None:
    """The other way round, too: γ's form for non-negative inputs must not be taken behind it."""
    layer = nn.Linear(4, 3).double().eval()
    a, b = torch.rand(2, 4, **DOUBLE), torch.rand(2, 4, **DOUBLE)

    def model(a: Tensor, b: Tensor) -> Tensor:
        return layer(torch.rsub(a.relu(), b.relu()))

    e = relprop.explain(model, a, b, target=1, rules=[("*", BySize()), ("*", Gamma(0.25))])
    inner = relprop.explain(layer, (b - a), target=1, rules=Gamma(0.25)).relevance
    part_a, part_b = shares(BySize(), a, b)
    close(e.inputs["a"], part_a * inner)
    close(e.inputs["b"], part_b * inner)


# ---- products ----


class Gated(nn.Module):
    """A gate for each channel, from its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).relu()
        gate = self.gate(h.mean((2, 3), keepdim=True)).sigmoid()
        return self.head((h * gate).mean((2, 3)))


def test_a_gate_gets_nothing_or_half() -> None:
    model, x = Gated().double().eval(), torch.randn(2, 2, 5, 5, **DOUBLE)

    def explained(*entries: Any) -> relprop.Explanation:
        rules = [*entries, ("*", Epsilon(0))]
        return relprop.explain(model, x, target=1, rules=rules, record=["gate", "conv"])

    usual, signal = explained(), explained(("*", SignalTakesAll()))
    assert [str(a) for a in usual.rules][2] == "(root): mul: SignalTakesAll()"
    assert torch.equal(usual.relevance, signal.relevance)
    assert not usual.inner["gate"].any()
    half = explained(("*", Uniform()))
    assert [str(a) for a in half.rules][2] == "(root): mul: Uniform()"
    assert half.ledger.gap.max() < 1e-12
    # Half of what the product has comes to the gate's sigmoid: f(0) absorbs, the rest goes on.
    at_zero = half.ledger.absorbed["pointwise"]
    close(half.inner["gate"].flatten(1).sum(1) + at_zero, half.score / 2 - _bias(model, x) / 2)


def _bias(model: Gated, x: Tensor) -> Tensor:
    return model.head.bias[1].detach().expand(len(x))


def test_factors_of_which_neither_is_a_gate_get_half_whatever_is_said() -> None:
    a, b, c = (torch.randn(2, 3, **DOUBLE) for _ in range(3))
    for entries in ([], [("*", Uniform())], [("*", SignalTakesAll())]):
        e = explain(lambda a, b: a * b, a, b, rules=[*entries, ("*", Epsilon())], c=c)
        assert [x.rule for x in e.rules] == [Uniform()]
        for R in e.inputs.values():
            close(R, a * b * c / 2)


@pytest.mark.parametrize("absolute", [False, True])
def test_factors_share_in_proportion(absolute: bool) -> None:
    a, b, c = (torch.randn(2, 3, 4, **DOUBLE) for _ in range(3))
    b = b[:, :1]
    rules = [("*", Proportional(absolute)), ("*", Epsilon())]
    e = explain(lambda a, b: a * b, a, b, rules=rules, c=c)
    assert [x.rule for x in e.rules] == [Proportional(absolute)]
    of_a, of_b = (a.abs(), b.abs()) if absolute else (a, b)
    R = a * b * c
    close(e.inputs["inputs0"], R * of_a / (of_a + of_b))
    close(e.inputs["inputs1"], (R * of_b / (of_a + of_b)).sum(1, keepdim=True))
    for function in (lambda a, b: b * a, lambda a, b: a.mul_(b), lambda a, b: a.mul(b.expand_as(a))):
        other = explain(function, a.clone(), b.clone(), rules=rules, c=c)
        for name, R in e.inputs.items():
            close(other.inputs[name], R)


def test_in_proportion_a_gate_gets_its_share_and_a_statistic_nothing() -> None:
    x, c = torch.randn(2, 4, **DOUBLE), torch.rand(2, 4, **DOUBLE)
    rules = [("*", Proportional()), ("*", Epsilon())]
    z, g = x[:, :2] * 2, x[:, 2:].sigmoid()
    e = explain(lambda x: (x[:, :2] * 2) * x[:, 2:].sigmoid(), x, rules=rules, c=c[:, :2])
    R = z * g * c[:, :2]
    close(e.relevance[:, :2], R * z / (z + g))
    close(e.relevance[:, 2:], R * g / (z + g) * (g - 0.5) / g)  # what sigmoid(0) has is absorbed
    e = explain(lambda x: x * x.var(1, keepdim=True).rsqrt(), x, rules=rules, c=c)
    close(e.relevance, x * x.var(1, keepdim=True).rsqrt() * c)


def test_in_proportion_factors_that_cancel_get_half_and_zeros_nothing() -> None:
    a, b = torch.tensor([[1.0, 0, 0, 2]], **DOUBLE), torch.tensor([[-1.0, 0, 3, 2]], **DOUBLE)
    for absolute in (False, True):
        rules = [("*", Proportional(absolute)), ("*", Epsilon())]
        e = explain(lambda a, b: a * b, a, b, rules=rules, c=torch.ones(1, 4, **DOUBLE))
        close(e.inputs["inputs0"], torch.tensor([[-0.5, 0, 0, 2]], **DOUBLE))
        close(e.inputs["inputs1"], torch.tensor([[-0.5, 0, 0, 2]], **DOUBLE))


def test_relevance_put_on_zeros_is_shared_in_proportion_too() -> None:
    a, b = torch.rand(2, 3, **DOUBLE), torch.rand(2, 3, **DOUBLE)
    layer = nn.Linear(3, 1, bias=False).double()
    model = Function(lambda a, b: layer(a * b)).eval()
    e = relprop.explain(model, a, b, rules=[("*", Proportional()), ("*", Flat())])
    R = (model(a, b) / 3).detach().expand(2, 3)
    close(e.inputs["inputs0"], R * a / (a + b))
    close(e.inputs["inputs1"], R * b / (a + b))


def test_matrix_products_share_as_without_the_rule_for_proportion() -> None:
    a, b, c = torch.randn(2, 3, 4, **DOUBLE), torch.randn(2, 4, 5, **DOUBLE), torch.randn(2, 3, 5, **DOUBLE)
    q = torch.randn(2, 1, 3, 4, **DOUBLE)
    for function, inputs in (
        (lambda a, b: a @ b, (a, b)),
        (lambda a, b: a.softmax(-1) @ b, (a, b)),
        (lambda q: F.scaled_dot_product_attention(q, q, q)[:, 0], (q,)),
    ):
        weights = c if len(inputs) == 2 else q[:, 0]
        found, usual = (
            explain(function, *inputs, rules=[*entries, ("*", Epsilon())], c=weights)
            for entries in ([("*", Proportional())], [])
        )
        assert [x.rule for x in found.rules] == [x.rule for x in usual.rules]
        for name, R in usual.inputs.items():
            assert torch.equal(found.inputs[name], R)


# ---- composites ----


def test_entries_for_other_operations_leave_linear_ones_alone_and_the_other_way_round() -> None:
    model, x = Residual().double().eval(), torch.randn(2, 2, 5, 5, **DOUBLE)
    linear = [(First(), ZBox(-5, 5)), ("conv", Gamma(0.1)), ("*", Epsilon(0.1))]
    other = [("*", BySize()), ("*", Uniform()), ("*", AveragePooling())]
    alone = relprop.explain(model, x, rules=linear)
    assert [type(a.rule) for a in alone.rules] == [ZBox, Gamma, Epsilon]
    for entries in (other + linear, linear + other):
        rules = relprop.explain(model, x, rules=entries).rules
        assert [a.rule for a in rules if a.operation != "add"] == [a.rule for a in alone.rules]
        assert [a.rule for a in rules if a.operation == "add"] == [BySize()]


def test_places_of_other_operations() -> None:
    model, x = Residual().double().eval(), torch.randn(2, 2, 5, 5, **DOUBLE)

    def found(where: Any) -> list[str]:
        applied = relprop.explain(model, x, rules=[(where, EqualShares()), ("*", Epsilon())]).rules
        return [a.operation for a in applied if a.rule == EqualShares()]

    assert found(torch.add) == ["add"]
    assert found(Residual) == ["add"]
    assert found(Depth(2, 2)) == ["add"]
    assert found(lambda site: site.kind == "sum") == ["add"]
    for nowhere in (First(), nn.Conv2d, Depth(0, 1), Kind("convolution"), torch.mul):
        with pytest.warns(UserWarning, match=r"no effect: \(.*, EqualShares\(\)\) matches "):
            assert found(nowhere) == []


def test_a_linear_rule_that_is_named_for_a_batch_norm() -> None:
    norm, x = batch_norm(3), torch.randn(2, 3, 4, 4, **DOUBLE)
    model = nn.Sequential(nn.ReLU(), norm, nn.Flatten(), nn.Linear(48, 3)).double().eval()

    def explained(*entries: Any) -> relprop.Explanation:
        return relprop.explain(model, x, target=1, rules=[*entries, ("*", Epsilon(0))], record=["0", "1"])

    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = (norm.bias - norm.running_mean * scale).detach()[:, None, None]
    contribution = x.relu() * scale.detach()[:, None, None]
    for named in (nn.BatchNorm2d, F.batch_norm, Layer(nn.BatchNorm2d) & Path("1")):
        e = explained((named, Absolute()))
        assert str(e.rules[0]) == "1: batch_norm: Absolute()"
        close(e.inner["0"], e.inner["1"] * contribution.abs() / (contribution.abs() + shift.abs()))
        assert e.ledger.gap.max() < 1e-12
    with pytest.warns(UserWarning, match=r"Epsilon.*\) stands behind an entry for everything, which matches"):
        assert [a.operation for a in explained(("*", Absolute())).rules] == ["linear"]
    with pytest.warns(UserWarning, match=r"no effect: \(\"1\", Absolute\(\)\) matches no module"):
        assert [a.operation for a in explained(("1", Absolute())).rules] == ["linear"]


@pytest.mark.parametrize(
    "rule", [BySize(), EqualShares(), Uniform(), SignalTakesAll(), Proportional(), AveragePooling()]
)
def test_alone_they_are_no_rules_for_a_network(rule: Any) -> None:
    x = torch.randn(2, 4)
    for rules in (rule, str(rule)):
        with pytest.raises(RuleError, match=r"\(\) is no rule for linear operations; put it in a composite"):
            relprop.explain(nn.Linear(4, 3).eval(), x, rules=rules)
    with pytest.raises(
        CoverageError, match=r"no entry of the composite matches; end it with \('\*', Epsilon"
    ):
        relprop.explain(nn.Linear(4, 3).eval(), x, rules=[("*", rule)])


@pytest.mark.parametrize("rule", [relprop.rules.BySize(), relprop.rules.EqualShares()])
def test_a_mean_that_is_subtracted_is_no_branch(rule: Any) -> None:
    norm, conv, x = nn.LayerNorm(4).double(), nn.Conv2d(3, 4, 3).double(), torch.rand(2, 3, 6, 6).double()

    def written(y: Tensor) -> Tensor:
        y = y.permute(0, 2, 3, 1)
        centred = y - y.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()

    def relevance(normalise: Callable[[Tensor], Tensor]) -> Any:
        rules = [("*", rule), ("*", Epsilon(0.1))]
        return relprop.explain(lambda x: normalise(conv(x)).mean((1, 2)), x, target=0, rules=rules).relevance

    torch.testing.assert_close(
        relevance(written),
        relevance(lambda y: F.layer_norm(y.permute(0, 2, 3, 1), (4,))),
        rtol=1e-8,
        atol=1e-10,
    )


@pytest.mark.parametrize("rule", [BySize(), EqualShares()])
@pytest.mark.parametrize("name", ["cat", "stack", "residual"])
def test_relevance_beside_the_first_layers_is_not_lost(name: str, rule: Any) -> None:
    torch.manual_seed(0)
    A, x = nn.Linear(4, 4).double(), torch.randn(3, 4, **DOUBLE)

    def function(x: Tensor) -> Tensor:
        if name == "residual":
            u = A(x) + x
            return u + A(u.relu())
        join = torch.cat if name == "cat" else torch.stack
        return (join([A(x), x], 1) + join([x, A(x)], 1)).flatten(1)

    entries = [("*", rule), ("*", Epsilon())]
    found = relprop.explain(function, x, target=1, rules=[(First(), Flat()), *entries])
    # Such a place has slots everywhere.
    everywhere = relprop.explain(function, x, target=1, rules=[(First() | ~Depth(0), Flat()), *entries])
    assert found.ledger.gap.max() < 1e-12
    close(found.relevance, everywhere.relevance)


@pytest.mark.parametrize("value", ["x", 1, None])
def test_options_that_are_no_truth_values_are_refused(value):
    with pytest.raises(RuleError, match=r"absolute must be True or False\."):
        Proportional(value)
    with pytest.raises(RuleError, match=r"activations must be True or False\."):
        SignalTakesAll(activations=value)
