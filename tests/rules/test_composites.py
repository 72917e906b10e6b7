"""Which rule applies where; presets; bounds."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop import Composite
from relprop.errors import CoverageError, RuleError
from relprop.places import FeedForward, First, Kind, Layer, Path
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, ZBox, ZPlus
from relprop.rules.presets import PRESETS
from small_transformers import drawn

N, D = 2, 6


class Block(nn.Module):
    """A convolution as a module and one as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(4, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.conv(x).relu(), self.weight)


class Network(nn.Module):
    """Two stems on the input, a body, a head; registered in another order than they run."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.body = nn.Sequential(Block(), nn.ReLU(), Block())
        self.left, self.right = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x - 0.5
        x = self.body((self.left(x) + self.right(x)).relu())
        return self.head(x.mean((2, 3)))


PATHS = ["left", "right", "body.0.conv", "body.0", "body.2.conv", "body.2", "head"]


def chosen(entries: Any) -> dict[str, str]:
    """Which rule every operation got, by the path of its module."""
    torch.manual_seed(0)
    x = torch.rand(2, 2, 4, 4)
    applied = relprop.explain(Network().eval(), x, rules=[*entries, ("*", Epsilon(7))]).rules
    assert [a.path for a in applied] == PATHS
    return {a.path: type(a.rule).__name__ for a in applied if a.rule != Epsilon(7)}


@pytest.mark.parametrize(
    ("where", "paths"),
    [
        (First(), ["left", "right"]),
        ("body.*", PATHS[2:6]),
        ("body.?", ["body.0", "body.2"]),
        ("*.conv", ["body.0.conv", "body.2.conv"]),
        ("head", ["head"]),
        (nn.Linear, ["head"]),
        (nn.Conv2d, PATHS[:6]),
        (Block, PATHS[2:6]),
        (F.conv2d, PATHS[:6]),
        (torch.conv2d, PATHS[:6]),
        (F.linear, ["head"]),
        (Kind("convolution"), PATHS[:6]),
        (Kind("dense"), ["head"]),
        (lambda site: len(site.modules) == 3, ["body.0", "body.2"]),
        (Path("body.*") & Layer(Block) & Path("*conv"), ["body.0.conv", "body.2.conv"]),
    ],
)
def test_places(where: Any, paths: list[str]) -> None:
    assert chosen([(where, Gamma(0.25))]) == dict.fromkeys(paths, "Gamma")


def test_the_first_match_wins() -> None:
    found = chosen([(First(), ZBox(-1, 1)), ("body.2*", AlphaBeta(2, 1)), (nn.Conv2d, ZPlus())])
    assert list(found.values()) == ["ZBox", "ZBox", "ZPlus", "ZPlus", "AlphaBeta", "AlphaBeta"]


def test_first_is_first_to_run_and_not_first_to_be_registered() -> None:
    assert next(iter(Network().named_children()))[0] == "head"
    assert list(chosen([(First(), Flat())])) == ["left", "right"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Composite([Epsilon()]), r"a composite's entry is a pair \(where, rule\).*got Epsilon"),
        (lambda: Composite([(3, Epsilon())]), "3 in a composite is no place. Give a path such as"),
        (lambda: Composite([((), Epsilon())]), r"\(\) in a composite is no place"),
        (lambda: Composite([(dict, Epsilon())]), "<class 'dict'> in a composite is no place"),
        (lambda: Composite([("*", Epsilon)]), r"Epsilon'> in a composite is no rule. Write Epsilon\(\)"),
        (lambda: Composite([("*", "epsilon")]), "'epsilon' in a composite is no rule"),
    ],
)
def test_composites_without_meaning_are_refused(make: Any, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        make()


def explain(rules: Any, **options: Any) -> relprop.Explanation:
    return relprop.explain(Network().eval(), torch.rand(2, 2, 4, 4), rules=rules, **options)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("deep-tailor", "there is no preset 'deep-tailor'. Did you mean 'deep-taylor'"),
        ("epsilon_plus", "Did you mean 'epsilon-plus'"),
        ("zzz", r"there is no preset 'zzz'. The presets are: deep-taylor, alpha2-beta1, "),
        ("gama", r"there is no preset 'gama'.*A single rule is an object, such as rules=relprop.rules.Gamma"),
        (7, "rules=7: give a preset's name, a composite, a list of"),
        ("deep-taylor", r"rules='deep-taylor' has a box rule, which needs .*bounds=\(low, high\)"),
        (
            [(First(), ZBox()), ("*", Epsilon())],
            r"the rules have a box rule, which needs",
        ),
    ],
)
def test_rules_without_meaning_are_refused(rules: Any, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        explain(rules)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"conv": Gamma()}, r"the order of a composite matters.* rules=\[\*rules.items\(\), "),
        (nn.Linear(2, 2), "rules is a Linear, a module: give rules there"),
        ([("conv", Gamma()), "epsilon"], r"got 'epsilon'\. Entries of a preset are inserted by \*"),
        ([(Epsilon(), "*")], r"first comes the place, then the rule: \('\*', Epsilon\(epsilon=1e-06\)\)"),
    ],
)
def test_what_is_nearly_a_composite_is_told_what_to_write(rules: Any, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        relprop.explain(nn.Linear(2, 2).eval(), torch.rand(1, 2), rules=rules)


def test_a_name_in_the_place_of_entries() -> None:
    with pytest.raises(RuleError, match=r"got 'epsilon-gamma-box'\. Entries of a preset"):
        Composite("epsilon-gamma-box")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs_and_is_said_in_the_result(name: str) -> None:
    e = explain(name, bounds=(-1, 1))
    assert e.preset == name
    assert len(e.rules) == len(PATHS)


def test_bounds_are_for_the_box_rule_that_has_none() -> None:
    rules = Composite([("left", ZBox()), ("right", ZBox(-9, 9)), ("*", Epsilon())])
    assert [a.rule for a in explain(rules, bounds=(-1, 1)).rules[:2]] == [ZBox(-1, 1), ZBox(-9, 9)]
    assert rules.needs_bounds  # the composite itself is as it was


def test_a_rule_alone_is_for_everything() -> None:
    assert {a.rule for a in explain(Gamma(0.1)).rules} == {Gamma(0.1)}


def test_relevance_is_only_carried_beside_coefficients_where_it_is_needed() -> None:
    assert PRESETS["epsilon"].slots == "none"
    assert PRESETS["deep-taylor"].slots == "inputs"
    assert PRESETS["epsilon-plus-flat"].slots == "inputs"
    assert Composite([("body.*", Flat())]).slots == "all"
    assert Composite([("*", Epsilon(bias="distribute"))]).slots == "all"


def test_a_composite_that_ends_early_is_an_error_and_no_silent_gradient() -> None:
    with pytest.raises(CoverageError, match=r"linear in module 'head'.*end it with \('\*', Epsilon\(\)\)"):
        explain([(nn.Conv2d, Gamma())])


@pytest.mark.parametrize("bounds", [5, (0,), (0, 1, 2)])
def test_bounds_that_are_no_pair_are_refused(bounds: Any) -> None:
    with pytest.raises(relprop.errors.InputError, match=r"bounds=.*: give a pair, bounds=\(low, high\)"):
        explain("deep-taylor", bounds=bounds)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.encoder, self.head = nn.Conv2d(2, 3, 3), nn.Linear(5, 3), nn.Linear(6, 2)

    def forward(self, image: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        features = self.stem(image).relu().mean((2, 3))
        return self.head(torch.cat([features, self.encoder(table).relu()], 1))


def test_inputs_of_different_bounds_have_a_box_rule_each() -> None:
    model = TwoInputs().double().eval()
    image, table = torch.rand(2, 2, 6, 6, **DOUBLE), 6 * torch.rand(2, 5, **DOUBLE) - 3

    def explained(**options: Any) -> relprop.Explanation:
        return relprop.explain(model, image, table, target=lambda y: y[:, 0].abs(), **options)

    with pytest.raises(relprop.errors.InputError) as error:
        explained(bounds={"image": (0, 1), "table": (-3, 3)})
    assert str(error.value) == (
        "bounds={'image': (0, 1), 'table': (-3, 3)}: bounds are one pair, (low, high), for all inputs. If "
        "the inputs differ, give each a box rule, by the path of the first module that takes it: "
        'rules=[("stem", relprop.rules.ZBox(0, 1)), ..., ("*", relprop.rules.Epsilon())].'
    )
    # The remedy works, and tells the inputs apart.
    boxes = [("stem", ZBox(0, 1)), ("encoder", ZBox(-3, 3)), ("*", Epsilon())]
    e = explained(rules=boxes)
    assert [str(a) for a in e.rules][:2] == [
        "stem: conv2d: ZBox(low=0, high=1)",
        "encoder: linear: ZBox(low=-3, high=3)",
    ]
    assert set(e.inputs) == {"image", "table"}
    torch.testing.assert_close(e.ledger.total, e.score)


class AttentionBlock(nn.Module):
    """Named after one of its two halves."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.ModuleDict({"proj": nn.Linear(D, D)})
        self.mlp = nn.Sequential(nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn["proj"](x)
        return x + self.mlp(x)


def named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def bert() -> nn.Module:
    attention = named(self=nn.Linear(D, D), output=named(dense=nn.Linear(D, D)))
    return named(
        attention=attention,
        intermediate=named(dense=nn.Linear(D, 2 * D)),
        output=named(dense=nn.Linear(2 * D, D)),
    )


LAYERS: dict[str, tuple[Callable[[], nn.Module], set[str], set[str]]] = {
    "AttentionBlock": (
        lambda: named(block=AttentionBlock()),
        {"block.mlp.0", "block.mlp.2"},
        {"block.attn.proj"},
    ),
    "BERT": (
        lambda: named(layer=bert()),
        {"layer.intermediate.dense", "layer.output.dense"},
        {"layer.attention.self", "layer.attention.output.dense"},
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_feed_forward_layers_are_told_from_attention(case: str) -> None:
    make, feeding, others = LAYERS[case]
    rules = Composite([(FeedForward(), Gamma(0.05)), ("*", Epsilon())])
    e = relprop.explain(drawn(make()), torch.randn(N, D, **DOUBLE), target=1, rules=rules)
    assert {a.path for a in e.rules if a.rule == Gamma(0.05)} == feeding
    assert {a.path for a in e.rules if a.rule == Epsilon()} == others
