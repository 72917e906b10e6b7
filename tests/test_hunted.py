"""What random networks found: wrong results, each by its smallest network."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import relprop
from relprop import Absolute, AlphaBeta, Epsilon, Flat, Gamma, ModelError, WSquare, ZPlus

pytestmark = pytest.mark.filterwarnings("ignore::relprop.ScoreWarning")

DOUBLE = {"dtype": torch.float64}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def relevance(model: Callable[..., Any], x: Tensor, rules: Any, **options: Any) -> Tensor:
    """Relevance for class 1, where the books close."""
    e = relprop.explain(model, x, target=1, rules=rules, **options)
    assert float(e.ledger.gap.max()) < 1e-10
    assert isinstance(e.relevance, Tensor)
    return e.relevance


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def random_norm(norm: Any) -> Any:
    with torch.no_grad():
        for values in (norm.running_mean, norm.weight, norm.bias):
            values.normal_()
        norm.running_var.uniform_(0.3, 2)
    return norm.double().eval()


# ---- values that are kept behind a ReLU ----


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), AlphaBeta(2, 1, bias="absorb"), Absolute()])
@pytest.mark.parametrize("first", [Flat(), WSquare()])
def test_a_batch_norm_by_a_rule_before_a_relu_takes_relevance_on_zeros(rule: Any, first: Any) -> None:
    norm, layer, head = random_norm(nn.BatchNorm2d(3)), nn.Conv2d(3, 4, 3).double(), nn.Linear(4, 2).double()
    x = torch.randn(2, 3, 5, 5, **DOUBLE)
    rules = [(nn.BatchNorm2d, rule), ("first", first), ("*", Epsilon(0.1))]

    def model(relu: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: head(layer(relu(norm(x))).relu().mean((2, 3)))

    same(relevance(model(F.relu), x, rules), relevance(model(lambda z: z.clamp(min=0)), x, rules))


def test_outputs_set_to_zero_that_had_negative_contributions_only_give_no_nan() -> None:
    """With z = max(0, z) and P = 0, N + b is 0 where b < 0."""
    first, layer, head = nn.Linear(4, 5).double(), nn.Linear(5, 6).double(), nn.Linear(6, 2).double()
    with torch.no_grad():
        layer.weight.abs_().neg_()
        layer.weight[:3].neg_()
        layer.bias.copy_(torch.tensor([0.1, 0.2, -0.1, -0.1, -0.2, -0.3]))
    x, rule = torch.randn(3, 4, **DOUBLE), AlphaBeta(2, 1, bias="absorb")
    expected = relevance(lambda x: head(layer(first(x).relu()).clamp(min=0)), x, rule)
    same(relevance(lambda x: head(layer(first(x).relu()).relu()), x, rule), expected)


def test_what_is_overwritten_without_gradient_is_a_constant() -> None:
    layer, head = nn.Linear(4, 5).double(), nn.Linear(5, 2).double()

    def model(x: Tensor) -> Tensor:
        z = layer(x)
        with torch.no_grad():
            z.sub_(0.3)
        return head(z.relu_())

    with pytest.raises(ModelError, match=r"sub in module .*runs under torch.no_grad\(\)"):
        relprop.explain(model, torch.randn(3, 4, **DOUBLE), target=1, rules=Epsilon(0.1))


# ---- constants that are overwritten later ----


def test_a_number_that_changes_within_a_chain_of_pointwise_calls() -> None:
    layer, head, x = nn.Linear(4, 5).double(), nn.Linear(5, 2).double(), torch.randn(3, 4, **DOUBLE)

    def model(changes: float) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            number = torch.ones((), **DOUBLE)
            shifted = layer(x).relu() + number
            number.add_(changes)
            return head(shifted.sigmoid())

        return run

    same(relevance(model(5.0), x, Epsilon(0.1)), relevance(model(0.0), x, Epsilon(0.1)))


@pytest.mark.parametrize("rule", [Epsilon(0.1), Flat()])
def test_a_grid_that_is_overwritten_after_it_was_used(rule: Any) -> None:
    layer, head = nn.Conv2d(2, 3, 3, padding=1).double(), nn.Conv2d(3, 2, 5).double()
    x, where = torch.randn(2, 2, 5, 5, **DOUBLE), torch.rand(2, 5, 5, 2, **DOUBLE) - 0.5

    def model(factor: float) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            grid = where.clone()
            sampled = F.grid_sample(layer(x), grid, align_corners=False)
            grid.mul_(factor)
            return head(sampled).flatten(1)

        return run

    same(relevance(model(-1.0), x, rule), relevance(model(1.0), x, rule))


# ---- what follows a linear operation ----


@pytest.mark.parametrize("activation", [torch.relu_, lambda z: z.mul_(2), lambda z: z.view_as(z).relu_()])
@pytest.mark.parametrize("rule", [Epsilon(0.1), Flat()])
def test_an_output_that_is_a_view_is_overwritten(rule: Any, activation: Callable[[Tensor], Tensor]) -> None:
    w, head, x = torch.randn(4, 5, **DOUBLE), nn.Linear(15, 2).double(), torch.randn(2, 3, 4, **DOUBLE)

    def model(copy: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: head(activation(copy(torch.einsum("nab,bc->nca", x, w))).flatten(1))

    same(relevance(model(lambda z: z), x, rule), relevance(model(torch.clone), x, rule))


COPIES = [torch.clone, lambda t: t.contiguous(memory_format=torch.channels_last), lambda t: +t]


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(), Flat()])
def test_a_batch_norm_is_part_of_the_convolution_beyond_a_copy(rule: Any, copy: Any) -> None:
    before, after = random_norm(nn.BatchNorm2d(2)), random_norm(nn.BatchNorm2d(3))
    layer, head, x = nn.Conv2d(2, 3, 3).double(), nn.Linear(3, 2).double(), torch.randn(2, 2, 5, 5, **DOUBLE)

    def model(copy: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: head(after(copy(layer(copy(before(x))))).relu().mean((2, 3)))

    same(relevance(model(copy), x, rule), relevance(model(lambda t: t), x, rule))


MASKS = {
    "bool": lambda z: z > 0,
    "number": lambda z: (z > 0).to(z.dtype),
    "detached": lambda z: z.detach().sign().clamp(min=0),
}


@pytest.mark.parametrize("mask", ["bool", "number", "detached"])
@pytest.mark.parametrize("rule", [Epsilon(0.1), AlphaBeta(2, 1)])
def test_a_mask_made_of_the_data_is_no_part_of_the_layer_for_one_sample(rule: Any, mask: str) -> None:
    """As for three samples: there relu(z) written z·(z > 0) cuts off a batch norm from the layer before."""
    layer, norm, head = nn.Linear(4, 5).double(), random_norm(nn.BatchNorm1d(5)), nn.Linear(5, 2).double()
    x = torch.randn(3, 4, **DOUBLE)

    def model(x: Tensor) -> Tensor:
        z = layer(x)
        return head(norm(z * MASKS[mask](z)).tanh())

    same(relevance(model, x[:1], rule), relevance(model, x, rule)[:1])


def test_a_term_of_each_sample_counts_alike_for_one_sample_and_several() -> None:
    layer, head, x = nn.Linear(4, 5).double(), nn.Linear(5, 2).double(), torch.randn(3, 4, **DOUBLE)
    table, labels = nn.Embedding(7, 5).double(), torch.tensor([2, 0, 5])

    def model(x: Tensor, labels: Tensor) -> Tensor:
        return head((layer(x) + table(labels)).relu())

    one = relprop.explain(model, x[:1], labels[:1], target=0, rules=Gamma(0.25)).relevance
    several = relprop.explain(model, x, labels, target=0, rules=Gamma(0.25)).relevance
    same(one, several[:1])


NEGATIVE: list[Callable[[Tensor], Tensor]] = [torch.neg, lambda z: -z, lambda z: 0 - z]


@pytest.mark.parametrize("negative", NEGATIVE)
@pytest.mark.parametrize("rule", [ZPlus(), AlphaBeta(2, 1)])
def test_the_negative_of_a_layer_is_one_however_it_is_written(rule: Any, negative: Any) -> None:
    layer, head, x = nn.Linear(4, 5).double(), nn.Linear(5, 2).double(), torch.randn(3, 4, **DOUBLE)
    expected = relevance(lambda x: head((layer(x) * -1.0).relu()), x, rule)
    same(relevance(lambda x: head(negative(layer(x)).relu()), x, rule), expected)


# ---- parameters, checkpoints ----


def test_relevance_of_parameters_leaves_outputs_without_contributions_as_they_are() -> None:
    """Their z is the bias of a folded batch norm but for rounding."""
    first, layer, norm = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 3, bias=False), random_norm(nn.BatchNorm2d(4))
    model = nn.Sequential(
        first, nn.ReLU(), layer, norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    model.double().eval()
    with torch.no_grad():
        first.bias.fill_(-100)
    x, rule = torch.randn(2, 2, 6, 6, **DOUBLE), Epsilon(0, bias="ignore")
    plain = relprop.explain(model, x, target=1, rules=rule)
    traced = relprop.explain(model, x, target=1, rules=rule, parameters="*")
    for sink, amount in plain.ledger.absorbed.items():
        same(traced.ledger.absorbed[sink], amount)


CHECKPOINTED: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda z: z.relu(),
    "gate": lambda z: z * z.mean(1, keepdim=True).sigmoid(),
    "chain": lambda z: z * z.sigmoid(),
}


@pytest.mark.parametrize("part", CHECKPOINTED)
@pytest.mark.parametrize("targets", [[1], [0, 1]])
def test_a_checkpointed_part_between_layers(part: str, targets: list[int]) -> None:
    layer, head, x = nn.Linear(4, 5).double(), nn.Linear(5, 2).double(), torch.randn(3, 4, **DOUBLE)
    run = CHECKPOINTED[part]
    found = relprop.explain(
        lambda x: head(checkpoint(run, layer(x), use_reentrant=False)), x, targets=targets, rules=Epsilon(0.1)
    )
    same(found[-1].relevance, relevance(lambda x: head(run(layer(x))), x, Epsilon(0.1)))
