"""Batch norm is folded into the linear operation beside it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
import replica
from networks import DOUBLE
from relprop.errors import CoverageError
from relprop.places import Layer, Path
from relprop.rules import Absolute, AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus
from relprop.testing.dense import dense_layer
from replica import RULES, assert_agree

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(2, 3, 3), (2, 6)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 4, 4)),
    "conv2d without bias": (lambda: nn.Conv2d(2, 3, 3, padding=1, stride=2, bias=False), (2, 5, 5)),
    "conv2d grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), (4, 4, 4)),
    "conv2d depthwise": (lambda: nn.Conv2d(3, 3, 3, padding=1, groups=3), (3, 4, 4)),
    "conv3d": (lambda: nn.Conv3d(2, 2, 2, padding=1), (2, 2, 3, 2)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1), (2, 3, 3)),
    "conv_transpose2d grouped": (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False), (4, 3, 3)),
    "linear": (lambda: nn.Linear(6, 5), (6,)),
    "linear without bias": (lambda: nn.Linear(6, 5, bias=False), (6,)),
}


def layer(name: str) -> nn.Module:
    """A linear layer in float64."""
    return LAYERS[name][0]().double()


def batch_norm(channels: int, dimensions: int, *, affine: bool = True) -> nn.Module:
    """A batch norm that has seen something: scales of both signs, and shifts."""
    kind = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dimensions]
    norm = kind(channels, affine=affine).double().eval()
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.3, 2.0)
        if affine:
            norm.weight.normal_()
            norm.bias.normal_()
    return norm


def norm_for(name: str, *, before: bool = False, affine: bool = True) -> nn.Module:
    """A batch norm for the output, or for the input, of a layer."""
    linear, shape = layer(name), LAYERS[name][1]
    x = torch.zeros(1, *shape, **DOUBLE)
    return batch_norm((x if before else linear(x)).shape[1], len(shape) - 1, affine=affine)


def folded(linear: Any, norm: Any) -> nn.Module:
    """The layer with a batch norm behind it in its weights, one output channel after the other."""
    result = copy.deepcopy(linear)
    scale = (norm.running_var + norm.eps) ** -0.5
    scale = scale * norm.weight if norm.affine else scale
    bias = torch.zeros_like(scale) if linear.bias is None else linear.bias
    bias = (bias - norm.running_mean) * scale
    result.bias = nn.Parameter((bias + norm.bias if norm.affine else bias).detach())
    groups = getattr(linear, "groups", 1)
    size = len(scale) // groups
    with torch.no_grad():
        for output, factor in enumerate(scale):
            if isinstance(linear, nn.ConvTranspose2d):
                rows = len(linear.weight) // groups
                group = slice(output // size * rows, (output // size + 1) * rows)
                result.weight[group, output % size] *= factor
            else:
                result.weight[output] *= factor
    return result


def same(model: Any, other: Any, x: Tensor, rules: Any, **options: Any) -> relprop.Explanation:
    """Assert that two models have the same outputs and relevance, and give the first's explanation."""
    found = relprop.explain(model, x, rules=rules, **options)
    expected = relprop.explain(other, x, rules=rules, **options)
    torch.testing.assert_close(found.output, expected.output, rtol=1e-10, atol=1e-12)
    assert_agree(found.relevance, expected.relevance)
    assert found.ledger.gap.max() < 1e-9
    return found


def replicated(function: Any, ones: Any, x: Tensor, c: Tensor, rule: Any, parameters: Any) -> Tensor:
    """Relevance of an affine function's input by a rule's replica."""
    maps = []
    for sample, weights in zip(x, c, strict=True):
        dense = dense_layer(function, ones, sample)
        maps.append(rule(dense, weights.flatten() * dense.z, **parameters).reshape(sample.shape))
    return torch.stack(maps)


def with_ones(linear: nn.Module) -> nn.Module:
    """The layer with all weights one and no bias: which input is connected to which output."""
    result: Any = copy.deepcopy(linear)
    with torch.no_grad():
        result.weight.fill_(1)
        if result.bias is not None:
            result.bias.zero_()
    return result


# ---- behind a linear operation ----


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rule", RULES)
def test_batch_norm_behind_a_layer_is_part_of_it(rule: str, name: str) -> None:
    linear, norm, head = layer(name), norm_for(name), nn.LazyLinear(3).double()
    x = torch.randn(2, *LAYERS[name][1], **DOUBLE)
    tail = nn.Sequential(nn.ReLU(), nn.Flatten(), head)
    plain = nn.Sequential(folded(linear, norm), tail).eval()
    plain(x)
    same(nn.Sequential(linear, norm, tail).eval(), plain, x, RULES[rule][0], target=torch.randn(2, 3))


@pytest.mark.parametrize("name", ["conv2d", "linear without bias"])
def test_batch_norm_without_parameters(name: str) -> None:
    linear, norm = layer(name), norm_for(name, affine=False)
    x = torch.randn(2, *LAYERS[name][1], **DOUBLE)
    target = torch.randn_like(linear(x))
    for rule in (Epsilon(0.1), Gamma(0.25), ZPlus(), ZPlus(bias="absorb"), ZBox(-5, 5), Flat()):
        same(nn.Sequential(linear, norm).eval(), folded(linear, norm).eval(), x, rule, target=target)


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(bias="absorb"), Flat()])
def test_what_branches_off_before_the_batch_norm_is_without_it(rule: Any) -> None:
    linear, norm = layer("conv2d"), norm_for("conv2d")
    x = torch.randn(2, 2, 4, 4, **DOUBLE)

    def model(x: Tensor) -> Tensor:
        z = linear(x)
        return (norm(z).relu() + z).flatten(1)

    one = folded(linear, norm)
    same(model, lambda x: (one(x).relu() + linear(x)).flatten(1), x, rule, target=torch.randn(2, 48))


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(bias="absorb"), Flat()])
def test_one_convolution_before_two_batch_norms(rule: Any) -> None:
    linear, one, other = layer("conv2d"), norm_for("conv2d"), norm_for("conv2d")
    x = torch.randn(2, 2, 4, 4, **DOUBLE)

    def shared_output(x: Tensor) -> Tensor:
        z = linear(x)
        return (one(z) - other(z).relu()).flatten(1)

    def called_twice(x: Tensor) -> Tensor:
        return (one(linear(x)) - other(linear(x)).relu()).flatten(1)

    f, g = folded(linear, one), folded(linear, other)
    for model in (shared_output, called_twice):
        same(model, lambda x: (f(x) - g(x).relu()).flatten(1), x, rule, target=torch.randn(2, 48))


def frozen(norm: Any, z: Tensor) -> Tensor:
    """As torchvision's FrozenBatchNorm2d writes it."""
    shape = (1, -1, 1, 1)
    scale = norm.weight.reshape(shape) * (norm.running_var.reshape(shape) + norm.eps).rsqrt()
    return z * scale + (norm.bias.reshape(shape) - norm.running_mean.reshape(shape) * scale)


def by_its_formula(norm: Any, z: Tensor) -> Tensor:
    """(z - mean)/√(variance + ε)·w + b."""
    mean, variance, w, b = (
        v[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (z - mean) / torch.sqrt(variance + norm.eps) * w + b


def by_its_formula_in_place(norm: Any, z: Tensor) -> Tensor:
    """The same, overwriting."""
    mean, variance, w, b = (
        v[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return z.sub_(mean).div_(torch.sqrt(variance + norm.eps)).mul_(w).add_(b)


def functional(norm: Any, z: Tensor) -> Tensor:
    """With keywords."""
    return F.batch_norm(
        z, norm.running_mean, norm.running_var, bias=norm.bias, weight=norm.weight, eps=norm.eps
    )


@pytest.mark.parametrize("spelling", [functional, frozen, by_its_formula, by_its_formula_in_place])
@pytest.mark.parametrize("rule", RULES)
def test_batch_norm_is_folded_however_it_is_written(rule: str, spelling: Any) -> None:
    linear, norm = layer("conv2d"), norm_for("conv2d")
    x = torch.randn(2, 2, 4, 4, **DOUBLE)
    target = torch.randn(2, 3, 4, 4, **DOUBLE)
    same(lambda x: spelling(norm, linear(x)), folded(linear, norm).eval(), x, RULES[rule][0], target=target)


@pytest.mark.parametrize("rule", [Gamma(0.25), ZPlus(), AlphaBeta(2, 1), WSquare(), ZBox(-5, 5)])
@pytest.mark.parametrize("spelling", [lambda norm, z: norm(z), frozen, by_its_formula])
def test_statistics_that_change_between_two_runs(spelling: Any, rule: Any) -> None:
    linear, norm = layer("conv2d"), norm_for("conv2d")
    x, target = torch.randn(2, 2, 4, 4, **DOUBLE), torch.randn(2, 3, 4, 4, **DOUBLE)

    def model(x: Tensor) -> Tensor:
        return spelling(norm, linear(x))

    same(model, folded(linear, norm).eval(), x, rule, target=target)
    with torch.no_grad():
        norm.running_var.mul_(4)
        norm.weight[0] = -norm.weight[0]
    same(model, folded(linear, norm).eval(), x, rule, target=target)
    norm.weight.data[1] *= -3  # counts no version
    same(model, folded(linear, norm).eval(), x, rule, target=target)
    with torch.no_grad():
        linear.weight[0].neg_()
    same(model, folded(linear, norm).eval(), x, rule, target=target)


@pytest.mark.parametrize("rule", [Gamma(0.25), ZPlus(), AlphaBeta(2, 1)])
def test_a_scale_of_the_model_that_changes_between_two_runs(rule: Any) -> None:
    linear, scale, x = layer("linear"), torch.randn(5, **DOUBLE), torch.randn(2, 6, **DOUBLE)

    def expected() -> Any:
        weight, bias = linear.weight * scale[:, None], linear.bias * scale
        return lambda x: F.linear(x, weight.detach(), bias.detach())

    for _ in range(2):
        same(lambda x: linear(x) * scale, expected(), x, rule, target=torch.ones(5))
        scale.neg_()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rule", [Epsilon(1e-2), Gamma(0.25), ZPlus(), Flat()])
def test_half_precision(rule: Any, dtype: torch.dtype) -> None:
    model = nn.Sequential(
        layer("conv2d"), norm_for("conv2d"), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3).double()
    ).eval()
    x = torch.rand(2, 2, 4, 4, **DOUBLE)
    exact = relprop.explain(model, x, target=1, rules=rule)
    rough = relprop.explain(model.to(dtype), x.to(dtype), target=1, rules=rule)
    assert rough.relevance.dtype == dtype
    error = (rough.relevance.double() - exact.relevance).abs().max()
    assert error < (3e-2 if dtype == torch.float16 else 2e-1) * exact.relevance.abs().max()
    assert rough.ledger.gap.max() < (2e-2 if dtype == torch.float16 else 1e-1)


# ---- before a linear operation ----


@pytest.mark.parametrize("sign", ["signed", "nonnegative"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rule", RULES)
def test_batch_norm_before_a_layer_is_part_of_it(rule: str, name: str, sign: str) -> None:
    """Beside padded zeros the shift is another one than inside, which the replica's bias has."""
    linear, norm = layer(name), norm_for(name, before=True)
    x = torch.randn(2, *LAYERS[name][1], **DOUBLE)
    x = x.relu() if sign == "nonnegative" else x
    model = nn.Sequential(norm, linear).eval()
    c = torch.randn_like(model(x))
    instance, function, parameters = RULES[rule]
    e = relprop.explain(model, x, target=c, rules=instance)
    assert torch.equal(e.output, model(x))
    assert_agree(e.relevance, replicated(model, with_ones(linear), x, c, function, parameters))
    assert e.ledger.gap.max() < 1e-9


def test_box_before_a_batch_norm_is_the_box_of_what_it_gets() -> None:
    linear, norm = layer("conv2d"), norm_for("conv2d", before=True)
    x, model = torch.rand(2, 2, 4, 4, **DOUBLE), nn.Sequential(norm, linear).eval()
    c = torch.randn_like(model(x))
    box = {"low": torch.zeros(2, 4, 4, **DOUBLE), "high": torch.ones(2, 4, 4, **DOUBLE)}
    e = relprop.explain(model, x, target=c, rules=ZBox(0, 1))
    assert_agree(e.relevance, replicated(model, with_ones(linear), x, c, replica.z_box, box))


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(bias="absorb"), Flat()])
def test_batch_norm_between_two_convolutions_belongs_to_the_first(rule: Any) -> None:
    one, norm, other = layer("conv2d"), norm_for("conv2d"), layer("conv2d depthwise")
    x = torch.randn(2, 2, 4, 4, **DOUBLE)
    target = torch.randn(2, 3, 4, 4, **DOUBLE)
    model = nn.Sequential(one, norm, other).eval()
    same(model, nn.Sequential(folded(one, norm), other).eval(), x, rule, target=target)


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(bias="absorb"), Flat()])
def test_batch_norm_before_two_convolutions_and_a_shortcut(rule: Any) -> None:
    """As in a residual network of pre-activations: both take it in, the shortcut has its gradient."""
    norm, one, other = norm_for("conv2d", before=True), layer("conv2d"), layer("conv2d")
    x = torch.randn(2, 2, 4, 4, **DOUBLE)

    def model(x: Tensor) -> Tensor:
        h = norm(x.relu())
        return torch.cat([one(h) + other(h), h], 1).flatten(1)

    def apart(x: Tensor) -> Tensor:
        x = x.relu()
        return torch.cat([one(norm(x)) + other(norm(x)), norm(x)], 1).flatten(1)

    e = same(model, apart, x, rule, target=torch.randn(2, 80))
    assert set(e.ledger.absorbed) >= {"shift"}


# ---- alone ----


def test_batch_norm_alone_has_its_gradient_and_the_shift_absorbs() -> None:
    norm, x = batch_norm(3, 2), torch.randn(2, 3, 4, 4, **DOUBLE)
    leaf = x.clone().requires_grad_()
    c = torch.randn_like(x)
    (gradient,) = torch.autograd.grad((norm(leaf.relu()) * c).sum(), leaf)
    e = relprop.explain(lambda x: norm(x.relu()), x, target=c, rules=Epsilon(0.1))
    torch.testing.assert_close(e.relevance, gradient * x)
    shift = (c * norm(torch.zeros_like(x))).flatten(1).sum(1)
    torch.testing.assert_close(e.ledger.absorbed["shift"], shift)
    assert e.ledger.gap.max() < 1e-12
    assert not e.rules


@pytest.mark.parametrize("where", [nn.BatchNorm2d, Layer(nn.BatchNorm2d) & Path("norm"), F.batch_norm])
@pytest.mark.parametrize("rule", [name for name in RULES if "flat" not in name])
def test_batch_norm_alone_by_a_rule_that_names_its_class(rule: str, where: Any) -> None:
    instance, function, parameters = RULES[rule]
    model = nn.Sequential()
    model.add_module("norm", batch_norm(3, 2))
    x = torch.randn(2, 3, 2, 2, **DOUBLE)
    c = torch.randn_like(x)
    e = relprop.explain(model.eval(), x, target=c, rules=[(where, instance), ("*", Flat())])
    assert [(a.path, a.operation, a.rule) for a in e.rules] == [("norm", "batch_norm", instance)]
    assert_agree(e.relevance, replicated(model, lambda x: x, x, c, function, parameters))
    assert e.ledger.gap.max() < 1e-9


@pytest.mark.parametrize("rule", [Absolute(), Flat(), ZPlus()])
def test_a_rule_for_linear_operations_in_general_leaves_a_batch_norm_alone(rule: Any) -> None:
    norm, x = batch_norm(3, 2), torch.randn(2, 3, 2, 2, **DOUBLE)
    e = relprop.explain(norm, x, target=torch.ones(3, 2, 2), rules=[("*", rule)])
    assert not e.rules
    assert e.ledger.gap.max() < 1e-12


@pytest.mark.parametrize("last", [Epsilon(0.1), Flat(), ZPlus()])
def test_rules_named_for_batch_norms_do_not_meet_those_that_are_folded(last: Any) -> None:
    model = nn.Sequential(layer("conv2d"), norm_for("conv2d"), nn.Flatten(), nn.Linear(48, 2).double()).eval()
    x, rules = torch.randn(2, 2, 4, 4, **DOUBLE), [(nn.BatchNorm2d, Absolute()), ("*", last)]
    with pytest.warns(UserWarning, match=r"an entry of the composite has no effect: \(BatchNorm2d, Absolute"):
        e = relprop.explain(model, x, rules=rules)
    assert [a.operation for a in e.rules] == ["conv2d", "linear"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.BatchNorm2d(3, track_running_stats=False).eval(),
        lambda: lambda x: F.batch_norm(x, None, None, training=True),
        lambda: lambda x: F.batch_norm(x, torch.zeros(3), torch.ones(3), training=True),
    ],
)
def test_statistics_of_the_batch_are_a_gap(make: Any) -> None:
    message = (
        r"batch_norm in module '\(root\)' at .*: it normalises by statistics of the batch, which mixes the "
        r"samples; call model.eval\(\), or give it running statistics"
    )
    with pytest.raises(CoverageError, match=message):
        relprop.explain(make(), torch.randn(2, 3, 4, 4), target=lambda y: y.flatten(1).sum(1))


def test_a_batch_norm_in_training_mode_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Flatten()).eval()
    model[1].train()
    with pytest.raises(relprop.errors.ModelError, match=r"training mode \('1'\).*call model.eval\(\)"):
        relprop.explain(model, torch.randn(2, 3, 4, 4))


# ---- beside other scales and shifts ----


def test_an_instance_norm_with_running_statistics_is_a_batch_norm() -> None:
    linear, norm = layer("conv2d"), norm_for("conv2d")
    instance = nn.InstanceNorm2d(3, affine=True, track_running_stats=True).double().eval()
    instance.load_state_dict(norm.state_dict())
    x, target = torch.randn(2, 2, 4, 4, **DOUBLE), torch.randn(2, 3, 4, 4, **DOUBLE)
    for rule in (Epsilon(0.1), Gamma(0.25), ZPlus(bias="absorb"), Flat()):
        same(nn.Sequential(linear, instance).eval(), folded(linear, norm).eval(), x, rule, target=target)


@pytest.mark.parametrize("rule", [Epsilon(0.1), ZPlus(), Gamma(0.3), AlphaBeta(2, 1)])
def test_a_positive_number_before_a_batch_norm_or_bias_is_folded_with_it(rule: Any) -> None:
    conv, norm, x = nn.Conv2d(3, 4, 3).double(), batch_norm(4, 2), torch.randn(2, 3, 6, 6).double()
    half = copy.deepcopy(conv)
    with torch.no_grad():
        half.weight *= 0.5
        half.bias *= 0.5
    shift = torch.randn(4, 1, 1).double()

    def relevance(after: Callable[[Tensor], Tensor], before: Callable[[Tensor], Tensor]) -> Tensor:
        result = relprop.explain(lambda x: after(before(x)).relu().mean((2, 3)), x, target=1, rules=rule)
        return result.relevance

    for after in (norm, lambda z: z + shift, lambda z: 1 + z * shift):
        expected = relevance(after, half)
        for before in (lambda x: 0.5 * conv(x), lambda x: conv(x).div_(2), lambda x: conv(x) * 2 / 4):
            torch.testing.assert_close(relevance(after, before), expected, rtol=1e-10, atol=1e-10)


MEAN, STD = (
    torch.tensor([0.4, 0.5, 0.6]).double()[:, None, None],
    torch.tensor([0.2, 0.3, 0.4]).double()[:, None, None],
)
NORMALISED: dict[str, Callable[[Tensor], Tensor]] = {
    "in two calls": lambda x: (x - MEAN) / STD,
    "as scale and shift": lambda x: x * (1 / STD) + (-MEAN / STD),
    "from bytes": lambda x: (x * 255 / 255 - MEAN) / STD,
    "in place on a copy": lambda x: x.clone().sub_(MEAN).div_(STD),
    "in place": lambda x: x.sub_(MEAN).div_(STD),
    "subtracted from": lambda x: (MEAN - x) / -STD,
}


@pytest.mark.parametrize("spelling", NORMALISED)
@pytest.mark.parametrize(
    "rule", [ZBox(0, 1), ZPlus(), Epsilon(0.1), Gamma(0.3), AlphaBeta(2, 1), Flat(), WSquare()]
)
def test_pixels_normalised_within_the_model_are_as_behind_a_batch_norm(rule: Any, spelling: str) -> None:
    norm, conv = nn.BatchNorm2d(3, eps=0).double().eval(), nn.Conv2d(3, 4, 3, padding=1).double()
    with torch.no_grad():
        norm.running_mean.copy_(MEAN.flatten())
        norm.running_var.copy_(STD.flatten() ** 2)
    x = torch.rand(2, 3, 6, 6).double()  # a box rule's bounds are those of the model's input

    def relevance(normalise: Callable[[Tensor], Tensor]) -> Any:
        return relprop.explain(
            lambda x: conv(normalise(x)).relu().mean((2, 3)), x, target=1, rules=rule
        ).relevance

    torch.testing.assert_close(relevance(NORMALISED[spelling]), relevance(norm), rtol=1e-10, atol=1e-10)
