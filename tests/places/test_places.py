"""Places: what they match, how they combine, how they print, and what is no place."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop.errors import RuleError
from relprop.places import (
    Depth,
    FeedForward,
    First,
    Kind,
    Layer,
    Operation,
    Path,
    Perceptron,
    Place,
    Site,
    Where,
    as_place,
)
from relprop.rules import Epsilon, EqualShares, Flat, Gamma

CONVOLUTION, BLOCK = nn.Conv2d(1, 1, 1), nn.Sequential()
SITES = {
    "stem": Site("stem", (BLOCK, CONVOLUTION), "conv2d", "convolution", 0),
    "body": Site("body.0", (BLOCK, nn.Sequential(), nn.Conv2d(1, 1, 1)), "conv2d", "convolution", 1),
    "norm": Site("body.1", (BLOCK, nn.BatchNorm2d(1)), "batch_norm", "normalisation", 2),
    "mlp": Site("layers.0.mlp.fc1", (BLOCK, nn.Linear(1, 1)), "linear", "dense", 2),
    "sum": Site("body", (BLOCK,), "add", "sum", 3),
    "dense": Site("dense", (BLOCK, nn.Linear(1, 1)), "linear", "dense", 1, plain=True),
}


def where(place: Place) -> set[str]:
    return {name for name, site in SITES.items() if place(site)}


@pytest.mark.parametrize(
    ("place", "names", "text"),
    [
        (First(), {"stem"}, "first"),
        (Path("body.*"), {"body", "norm"}, '"body.*"'),
        (Path("*"), set(SITES), '"*"'),
        (Layer(nn.Conv2d), {"stem", "body"}, "Conv2d"),
        (Layer(CONVOLUTION), {"stem"}, "this Conv2d"),
        (Layer(nn.Linear), {"mlp", "dense"}, "Linear"),
        (Operation("add"), {"sum"}, "the operation add"),
        (Operation(F.conv2d), {"stem", "body"}, "the operation conv2d"),
        (Operation(torch.Tensor.add), {"sum"}, "the operation add"),
        (Kind("convolution"), {"stem", "body"}, "of the kind convolution"),
        (Kind("dense"), {"mlp", "dense"}, "of the kind dense"),
        (Perceptron(), {"dense"}, "of a multilayer perceptron"),
        (Depth(1, 2), {"body", "norm", "mlp", "dense"}, "depth 1 to 2"),
        (Depth(2), {"norm", "mlp", "sum"}, "depth 2 or more"),
        (Depth(1), {"body", "norm", "mlp", "sum", "dense"}, "not first"),
        (FeedForward(), {"mlp"}, "feed-forward"),
        (Where(lambda site: site.depth == 3), {"sum"}, "<lambda>"),
        (First() & Kind("convolution"), {"stem"}, "first and of the kind convolution"),
        (First() | Kind("sum"), {"stem", "sum"}, "first or of the kind sum"),
        (~First(), set(SITES) - {"stem"}, "not first"),
        (
            Path("body*") & (Kind("sum") | Kind("convolution")),
            {"body", "sum"},
            '"body*" and (of the kind sum or of the kind convolution)',
        ),
        (
            ~(Path("body*") & ~Kind("sum")),
            {"stem", "mlp", "sum", "dense"},
            'not ("body*" and not of the kind sum)',
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, Place) else "",
)
def test_places(place: Place, names: set[str], text: str) -> None:
    assert where(place) == names
    assert str(place) == text


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("first", Path("first")),
        ("layer4.*", Path("layer4.*")),
        (nn.Conv2d, Layer(nn.Conv2d)),
        (CONVOLUTION, Layer(CONVOLUTION)),
        (F.conv2d, Operation("conv2d")),
        (torch.matmul, Operation("matmul")),
        (len, Where(len)),
        (Depth(1, 3), Depth(1, 3)),
    ],
)
def test_what_stands_for_a_place(given: Any, place: Place) -> None:
    assert as_place(given) == place


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: as_place(3), r"3 in a composite is no place\. Give a path such as 'layer4\.\*', a class"),
        (
            lambda: as_place(("first", nn.Conv2d)),
            r"is no place\. Places are joined by & \(both\) and \| \(either\): First\(\) & Kind",
        ),
        (lambda: as_place(First), r"First in a composite is a class of places\. Write First\(\.\.\.\)"),
        (lambda: as_place(dict), "<class 'dict'> in a composite is no place"),
        (lambda: First() & "body", r"'body' is no place, and & joins places: write Path\('layer4\.\*'\)"),
        (lambda: First() | nn.Conv2d, r"is no place, and \| joins places"),
        (lambda: Path(3), r"Path\(3\): give a glob on module paths"),  # type: ignore[arg-type]
        (lambda: Layer("Conv2d"), r"Layer\('Conv2d'\): give a class of modules"),  # type: ignore[arg-type]
        (lambda: Operation(len), r"Operation\(<built-in function len>\): give a function of torch"),
        (lambda: Kind(2), r"Kind\(2\): give one of 'convolution', 'dense'"),  # type: ignore[arg-type]
        (lambda: Depth(3, 1), r"Depth\(3, 1\): give the smallest number of linear operations before it"),
        (lambda: Depth(-1), r"Depth\(-1, None\): give the smallest"),
        (lambda: Where(3), r"Where\(3\): give a function that takes a site"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_place(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(RuleError, match=message):
        make()


@pytest.mark.parametrize(
    ("place", "first"),
    [
        (First(), True),
        (Depth(0, 0), True),
        (Depth(0, 1), False),
        (First() & Kind("sum"), True),
        (Kind("sum") & First(), True),
        (First() | Depth(0, 0), True),
        (First() | Kind("sum"), False),
        (~First(), False),
        (Path("*"), False),
    ],
    ids=str,
)
def test_which_places_lie_within_the_first_layers(place: Place, first: bool) -> None:
    assert place.within_first is first


@pytest.mark.parametrize(
    ("place", "named"),
    [
        (Layer(nn.BatchNorm2d), True),
        (Operation("batch_norm"), True),
        (Kind("normalisation"), True),
        (Where(lambda site: site.kind == "normalisation"), True),
        (Path("body.*") & Kind("normalisation"), True),
        (Path("body.1") | Kind("normalisation"), True),
        (Path("body.1") | Kind("sum"), False),
        (Path("body.1"), False),
        (Layer(BLOCK), False),
        (Depth(1), False),
        (~Kind("sum"), False),
    ],
    ids=str,
)
def test_which_places_name_a_normalisation(place: Place, named: bool) -> None:
    assert place.names(SITES["norm"]) is named


class Named(nn.Module):
    """A network one of whose modules is called `first`, and is not the first to run."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.first = nn.Linear(4, 4, **DOUBLE), nn.Linear(4, 3, **DOUBLE)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(self.stem(x).relu())
        return y


def rules_of(model: nn.Module, *entries: Any) -> dict[str, Any]:
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), **DOUBLE)
    e = relprop.explain(model, x, target=0, rules=[*entries, ("*", Epsilon())])
    assert len(e.rules) == 2
    return {applied.path: applied.rule for applied in e.rules}


def test_a_module_that_is_called_first_gets_its_rule() -> None:
    model = Named().eval()
    assert rules_of(model, ("first", Gamma())) == {"stem": Epsilon(), "first": Gamma()}
    assert rules_of(model, (First(), Flat())) == {"stem": Flat(), "first": Epsilon()}


def test_a_module_is_a_place() -> None:
    model = Named().eval()
    assert rules_of(model, (model.first, Gamma())) == {"stem": Epsilon(), "first": Gamma()}
    assert rules_of(model, (Layer(model.stem), Gamma())) == {"stem": Gamma(), "first": Epsilon()}


def test_a_function_of_the_site_serves_a_batch_norm_alone_as_its_kind_does() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).to(**DOUBLE).eval()
    model[1].running_mean.uniform_(-1, 1)
    x = torch.rand(3, 4, **DOUBLE)
    found = [
        relprop.explain(model, x, target=0, rules=[(place, Gamma(2)), ("*", Epsilon())])
        for place in (
            Kind("normalisation"),
            Where(lambda site: site.kind == "normalisation"),
            lambda site: site.kind == "normalisation",
            nn.BatchNorm1d,
        )
    ]
    assert str(found[0].rules[0]) == "1: batch_norm: Gamma(gamma=2)"
    for other in found[1:]:
        assert torch.equal(other.relevance, found[0].relevance)
        assert list(map(str, other.rules)) == list(map(str, found[0].rules))
    plain = relprop.explain(model, x, target=0, rules=Epsilon())
    assert not torch.allclose(plain.relevance, found[0].relevance)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: First() and Kind("sum"),
            r"a place is no yes or no: join places by & \(and\), \| \(or\) and ~",
        ),
        (lambda: not First(), "a place is no yes or no"),
        (lambda: nn.Conv2d & First(), r"Conv2d'> is no place, and & joins places: write Path"),
        (lambda: "layer4.*" | First(), r"'layer4\.\*' is no place, and \| joins places"),
        (
            lambda: as_place(nn.Conv2d | nn.Linear),
            r"is no place\. Places are joined .* Layer\(nn\.Conv1d\) \| Lay",
        ),
    ],
)
def test_places_are_not_joined_by_words(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(RuleError, match=message):
        make()


@pytest.mark.parametrize(
    "function", [torch.linalg.matmul, torch.ops.aten.add, torch.ops.aten.add.Tensor, operator.add]
)
def test_functions_of_torch_name_an_operation(function: Any) -> None:
    assert as_place(function) == Operation(function)
    assert Operation(function).operation in ("linalg_matmul", "add")
    assert eval(repr(Operation(function))) == Operation(function)


def test_an_entry_that_says_what_its_rule_is_not_for() -> None:
    model = Named().eval()
    with pytest.warns(UserWarning, match=r"matches dense operations alone, which EqualShares is not for\."):
        rules_of(model, (Kind("dense"), EqualShares()))
    with pytest.warns(UserWarning, match=r'\("stem", Flat\(\)\) stands behind an entry for everything'):
        relprop.explain(model, torch.rand(2, 4, **DOUBLE), rules=[("*", Epsilon()), ("stem", Flat())])


def test_entries_of_presets_are_for_any_model() -> None:
    model = Named().eval()
    rules_of(model, ("first", Gamma()), *relprop.PRESETS["epsilon-plus-flat"].entries[:2])
