"""The ledger's books of each operation, as a table and as a picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import relprop
from colour_vision import COLOUR_BLIND, cie_lab, linear
from relprop.errors import InputError
from relprop.results.ledger import Ledger
from relprop.results.table import ROUNDING, Way, way
from relprop.rules import Epsilon
from relprop.view.ledger_plot import COLOURS, FAINT, REMAINING, colours_of, draw
from relprop.view.ledger_rows import grouped

torch.manual_seed(0)


class Block(nn.Module):
    """A residual block, whose convolution has a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([(x + self.conv(x)).relu(), torch.ones_like(x[:, :1])], 1)[:, 1:]


def network() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.SiLU(), Block(), Block(), nn.Flatten(), nn.Linear(144, 3))
    return model.double().eval()


MODEL, X = network(), torch.randn(3, 2, 8, 8, dtype=torch.float64)


def explained(**options) -> relprop.Explanation:
    options = {"rules": Epsilon(0.1), "target": 1, "per_operation": True} | options
    return relprop.explain(MODEL, X, **options)


LEDGER = explained().ledger


def a_ledger(operations: dict[tuple[str, str], dict[str, float]], seed: float = 10.0) -> Ledger:
    """Books of one sample, which close."""
    absorbed: dict[str, Tensor] = {}
    for books in operations.values():
        for sink, amount in books.items():
            absorbed[sink] = absorbed.get(sink, 0) + torch.tensor([amount], dtype=torch.float64)
    total = sum(float(a) for a in absorbed.values())
    return Ledger(
        per_operation=True,
        seed=torch.tensor([seed], dtype=torch.float64),
        inputs=torch.tensor([seed - total], dtype=torch.float64),
        absorbed=absorbed,
        operations={
            place: {s: torch.tensor([a], dtype=torch.float64) for s, a in books.items()}
            for place, books in operations.items()
        },
    )


def rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]


# The way


def test_the_way_leads_from_the_output_to_the_input():
    steps = way(LEDGER).steps
    places = [(step.path, step.operation) for step in steps]
    order = ["5", "3", "3.conv", "2", "2.conv", "0"]
    assert list(dict.fromkeys(path for path, _ in places)) == order
    assert places[0] == ("5", "linear")
    assert places[-1] == ("0", "conv2d")


@pytest.mark.parametrize("sample", [None, 0, 2])
def test_what_the_steps_absorb_sums_to_the_ledger(sample):
    found = way(LEDGER, sample)
    of = slice(None) if sample is None else slice(sample, sample + 1)
    assert set(found.absorbed) == set(LEDGER.absorbed)
    for sink, amount in LEDGER.absorbed.items():
        steps = sum(step.absorbed.get(sink, 0.0) for step in found.steps)
        assert steps == pytest.approx(float(amount[of].sum()), rel=1e-12)
        assert found.absorbed[sink] == pytest.approx(steps, rel=1e-12)
    assert found.seed == pytest.approx(float(LEDGER.seed[of].sum()), rel=1e-12)


@pytest.mark.parametrize("sample", [None, 1])
def test_what_remains_at_the_end_arrives_at_the_inputs(sample):
    found = way(LEDGER, sample)
    assert found.steps[-1].remaining == pytest.approx(found.inputs, rel=1e-9)
    before = [found.seed, *(step.remaining for step in found.steps)]
    for step, remained in zip(found.steps, before, strict=False):
        assert step.remaining == pytest.approx(remained - step.total, abs=1e-12)


def test_samples_are_told_apart_and_counted_from_the_end_as_well():
    seeds = [way(LEDGER, sample).seed for sample in range(3)]
    assert seeds == LEDGER.seed.tolist()
    assert way(LEDGER, -1) == way(LEDGER, 2)
    assert [way(LEDGER, s).samples for s in (None, 1, -1)] == ["sum over 3 samples", "sample 1", "sample 2"]


def test_rounding_errors_are_no_loss():
    ledger = a_ledger({("a", "conv2d"): {"bias": 1.0, "epsilon": 1e-9}, ("b", "conv2d"): {"epsilon": 9e-6}})
    found = way(ledger)
    assert [step.path for step in found.shown] == ["a"]
    assert found.sinks == ["bias"]
    assert found.least == 10 * ROUNDING
    assert [step.path for step in way(ledger, above=0).shown] == ["a", "b"]


def test_what_one_sample_loses_and_another_gains_is_shown():
    amount = torch.tensor([2.0, -2.0]).double()
    ledger = Ledger(
        samples=2,
        per_operation=True,
        seed=torch.tensor([5.0, 5.0]).double(),
        inputs=torch.tensor([3.0, 7.0]).double(),
        absorbed={"bias": amount},
        operations={("a", "conv2d"): {"bias": amount}},
    )
    assert [step.path for step in way(ledger).shown] == ["a"]


def test_relevance_that_is_no_number_is_shown():
    ledger = a_ledger({("a", "conv2d"): {"bias": 1.0}, ("b", "conv2d"): {"bias": float("nan")}})
    assert [step.path for step in way(ledger).shown] == ["a", "b"]
    assert "nan" in ledger.table()
    assert ledger.plot().pixels.shape[2] == 3


# The table


def test_the_table_is_as_expected():
    ledger = a_ledger(
        {
            ("fc", "linear"): {"bias": 2.5, "epsilon": 1e-3},
            ("layer.conv", "conv2d"): {"bias": -0.25, "no contribution": 1e-9},
            ("", "cat"): {"constant": 1.0},
            ("stem", "conv2d"): {"epsilon": 1e-8},
        }
    )
    assert ledger.table() == (
        "from output to input             bias  constant  epsilon  remaining\n"
        "seed                                                        10.0000\n"
        "fc                    linear   2.5000             0.0010     7.4990\n"
        "layer.conv            conv2d  -0.2500                        7.7490\n"
        "(root)                cat                1.0000              6.7490\n"
        "absorbed in all                2.2500    1.0000   0.0010\n"
        "inputs                                                       6.7490\n"
        "1 sample; balances to 0.0e+00 of the largest amount\n"
        "1 operation more, with no more than 1.0e-05 in any sink; all are listed with above=0"
    )


def test_every_operation_is_listed_if_wanted():
    listed = LEDGER.table(above=0)
    assert len(rows(listed)) == len(LEDGER.operations) + 5
    assert "more, with" not in listed


def test_the_numbers_of_the_table_are_those_of_the_ledger():
    table = rows(LEDGER.table(1))
    by_name = {row[0]: row for row in table}
    assert float(by_name["seed"][-1]) == pytest.approx(float(LEDGER.seed[1]), abs=1e-5)
    assert float(by_name["inputs"][-1]) == pytest.approx(float(LEDGER.inputs[1]), abs=1e-5)
    bias, linear = float(LEDGER.operations["5", "linear"]["bias"][1]), by_name["5"]
    assert linear[:2] == ["5", "linear"]
    assert float(linear[2]) == pytest.approx(bias, abs=1e-5)


def test_tiny_and_huge_amounts_keep_their_digits():
    small = a_ledger({("a", "conv2d"): {"bias": 2e-7}}, seed=1e-6).table()
    large = a_ledger({("a", "conv2d"): {"bias": 2e8}}, seed=1e9).table()
    uneven = a_ledger({("a", "conv2d"): {"bias": 3e-3}}, seed=100.0).table(above=0)
    assert "8e-07" in small
    assert "8e+08" in large
    assert "3.0e-03" in uneven


def test_a_way_without_loss_says_so():
    table = a_ledger({("a", "conv2d"): {"bias": 1e-9}}).table()
    assert rows(table)[0] == ["from", "output", "to", "input", "remaining"]
    assert table.endswith("no operation absorbed more than 1.0e-05; all are listed with above=0")


def test_mixed_samples_are_remarked_upon():
    ledger = replace(LEDGER, mixed=True)
    assert "the model mixes its samples" in ledger.table(1)
    assert "the model mixes its samples" not in ledger.table()


def test_a_stored_ledger_tells_the_same(tmp_path):
    explanation = explained()
    explanation.save(tmp_path / "e.safetensors")
    again = relprop.load_explanation(tmp_path / "e.safetensors")
    assert again.ledger.table() == explanation.ledger.table()


@pytest.mark.parametrize("call", ["table", "plot"])
def test_without_books_for_operations_the_error_says_how_to_have_them(call):
    ledger = explained(per_operation=False).ledger
    with pytest.raises(InputError) as error:
        getattr(ledger, call)()
    assert str(error.value) == (
        f"ledger.{call}(): this ledger has no amounts for each operation. Ask for them: "
        "explain(..., per_operation=True)."
    )


def test_of_a_plain_gradient_there_are_no_such_books():
    ledger = explained(rules="gradient-times-input").ledger
    with pytest.raises(
        InputError, match=r"a plain gradient has no amounts for each operation\. Explain with"
    ):
        ledger.table()


@pytest.mark.parametrize("sample", [3, -4])
def test_a_sample_that_there_is_not_is_refused(sample):
    message = rf"ledger\.plot\(sample={sample}\): give a number from 0 to 2, or leave it out for the sum"
    with pytest.raises(InputError, match=message):
        LEDGER.plot(sample)


# What is told together


def steps_of(found: Way, most: int) -> list[tuple[str, str, int]]:
    return [(step.path, step.operation, step.count) for step in grouped(found, most)]


def many(**amounts: float) -> Way:
    """Give a way on which modules absorb these amounts; __ is a dot."""
    operations = {(name.replace("__", "."), "conv2d"): {"bias": amount} for name, amount in amounts.items()}
    return way(a_ledger(operations))


def test_few_operations_stand_alone():
    found = way(LEDGER)
    assert grouped(found, 60) == found.shown


def test_modules_that_absorbed_least_are_told_as_one():
    found = many(head=1.0, b__x=0.01, b__y=-0.02, a__x=2.0, a__y=0.5)
    assert steps_of(found, 4) == [
        ("head", "conv2d", 1),
        ("b", "", 2),
        ("a.x", "conv2d", 1),
        ("a.y", "conv2d", 1),
    ]
    assert steps_of(found, 3) == [("head", "conv2d", 1), ("b", "", 2), ("a", "", 2)]
    b = grouped(found, 4)[1]
    assert b.absorbed == {"bias": pytest.approx(-0.01)}
    assert [step.remaining for step in grouped(found, 3)] == pytest.approx([9.0, 9.01, 6.51])


def test_the_innermost_modules_are_joined_first():
    found = many(a__b__x=0.1, a__b__y=0.1, a__c__x=0.2, d=0.5)
    assert steps_of(found, 3) == [("a.b", "", 2), ("a.c.x", "conv2d", 1), ("d", "conv2d", 1)]
    assert steps_of(found, 2) == [("a", "", 3), ("d", "conv2d", 1)]


def test_of_modules_with_the_same_steps_the_innermost_gives_the_name():
    assert steps_of(many(a__b__x=0.1, a__b__y=0.1, c=0.5), 2) == [("a.b", "", 2), ("c", "conv2d", 1)]


def test_a_module_whose_name_begins_like_another_is_not_within_it():
    found = many(layer1__x=0.1, layer1__y=0.1, layer10__x=5.0, layer10__y=0.1)
    assert steps_of(found, 3)[0] == ("layer1", "", 2)


def test_operations_of_one_module_are_joined():
    books = {("a", "conv2d"): {"bias": 1.0}, ("a", "add"): {"constant": 1.0}, ("b", "linear"): {"bias": 1.0}}
    found = way(a_ledger(books))
    assert steps_of(found, 2) == [("a", "", 2), ("b", "linear", 1)]
    assert grouped(found, 2)[0].absorbed == {"bias": 1.0, "constant": 1.0}


def test_neighbours_are_joined_where_no_module_has_them_in_common():
    found = many(**{f"m{n}": 0.1 for n in range(7)})
    assert steps_of(found, 3) == [("m0 to m2", "", 3), ("m3 to m5", "", 3), ("m6", "conv2d", 1)]
    assert steps_of(found, 1) == [("m0 to m6", "", 7)]


@pytest.mark.parametrize("most", [1, 2, 5, 60])
def test_groups_lose_nothing(most):
    found = way(LEDGER)
    together = grouped(found, most)
    assert len(together) <= most
    assert sum(step.total for step in together) == pytest.approx(sum(step.total for step in found.shown))
    assert together[-1].remaining == pytest.approx(found.inputs, abs=1e-4)
    assert sum(step.count for step in together) == len(found.shown)


# The picture


def bars(pixels: np.ndarray, colour: tuple[int, int, int]) -> dict[int, int]:
    """Say how long the bars of a colour are, by row of pixels."""
    # Runs of pixels of the colour; letters and the legend have short ones.
    rows = ("".join("x" if same else " " for same in row).split() for row in (pixels == colour).all(2))
    longest = {number: max(map(len, runs), default=0) for number, runs in enumerate(rows)}
    return {number: length for number, length in longest.items() if length > 12}


def test_bars_have_the_length_of_their_amounts():
    ledger = a_ledger({("a", "conv2d"): {"bias": 4.0}, ("b", "conv2d"): {"bias": 2.0}})
    pixels = draw(way(ledger)).pixels
    grey = sorted(set(bars(pixels, REMAINING).values()), reverse=True)
    # 10, 6, 4 and 4 remain; lines and gaps between bars are drawn over a few pixels.
    assert np.array(grey) / grey[0] == pytest.approx([1, 0.6, 0.4], abs=0.03)
    blue = sorted(set(bars(pixels, COLOURS["bias"]).values()), reverse=True)
    assert np.array(blue) / blue[0] == pytest.approx([1, 0.5], abs=0.03)


def test_negative_amounts_go_to_the_left():
    ledger = a_ledger({("a", "conv2d"): {"bias": 3.0}, ("b", "conv2d"): {"bias": -3.0}})
    mask = (draw(way(ledger)).pixels == COLOURS["bias"]).all(2)
    drawn = [np.flatnonzero(row) for row in mask if row.sum() > 40]
    assert drawn[0].min() >= drawn[-1].max() - 1


def test_sinks_of_a_row_stand_side_by_side():
    ledger = a_ledger({("a", "conv2d"): {"bias": 3.0, "constant": 1.0, "epsilon": -2.0}})
    pixels = draw(way(ledger)).pixels
    row = next(r for r in pixels if (r == COLOURS["bias"]).all(1).sum() > 40)
    where = {sink: np.flatnonzero((row == COLOURS[sink]).all(1)) for sink in ("epsilon", "bias", "constant")}
    assert where["epsilon"].max() < where["bias"].min()
    assert where["bias"].max() < where["constant"].min()
    assert len(where["bias"]) == pytest.approx(3 * len(where["constant"]), rel=0.1)


def test_there_is_a_row_for_each_operation_up_to_the_number_asked_for():
    found = many(**{f"a{n}__x": 0.01 for n in range(80)})
    whole, short = draw(found, rows=80), draw(found, rows=20)
    heights = whole.pixels.shape[0], short.pixels.shape[0]
    assert heights[0] - heights[1] == 60 * 19
    assert LEDGER.plot(rows=1).pixels.shape[0] < LEDGER.plot().pixels.shape[0]


def test_a_way_without_loss_is_drawn():
    ledger = a_ledger({("a", "conv2d"): {"bias": 0.0}})
    plot = ledger.plot()
    assert bars(plot.pixels, REMAINING)
    assert not bars(plot.pixels, COLOURS["bias"])
    assert not bars(a_ledger({}, seed=0.0).plot().pixels, REMAINING)


def test_long_names_are_cut_at_their_beginning():
    deep = ".".join(["features"] * 40)
    found = many(**{f"{deep.replace('.', '__')}": 1.0})
    assert draw(found).pixels.shape[1] < 1100


def test_the_picture_is_a_plot_that_says_what_it_is(tmp_path):
    plot = LEDGER.plot(1)
    assert repr(plot).startswith("Plot(Where relevance went, from output to input (sample 1); ")
    assert plot._repr_png_().startswith(b"\x89PNG")
    plot.save(tmp_path / "ledger.png")
    with Image.open(tmp_path / "ledger.png") as picture:
        about = picture.info
    assert about["Software"] == f"relprop {relprop.__version__}"
    assert about["Samples"] == "sample 1"
    assert float(about["Seed"]) == pytest.approx(float(LEDGER.seed[1]), abs=1e-5)
    assert "bias " in about["Absorbed"]


def test_a_title_replaces_the_usual_one_or_leaves_it_out():
    assert LEDGER.plot(title="ResNet").metadata["Title"] == "ResNet"
    bare = LEDGER.plot(title="")
    assert bare.pixels.shape[0] < LEDGER.plot().pixels.shape[0]
    assert bare.metadata["Title"] == "Where relevance went"


def test_no_rows_at_all_are_refused():
    with pytest.raises(InputError, match=r"ledger\.plot\(rows=0\): give the largest number of rows, 1 or"):
        LEDGER.plot(rows=0)


def test_sinks_have_colours_of_their_own():
    assert len({*COLOURS.values(), REMAINING, FAINT}) == len(COLOURS) + 2
    named = colours_of(["bias", "gadget", "epsilon", "widget"])
    assert named["bias"] == COLOURS["bias"]
    assert len(set(named.values())) == 4
    assert list(named) == ["bias", "gadget", "epsilon", "widget"]


@pytest.mark.parametrize("blindness", [np.eye(3), *COLOUR_BLIND.values()], ids=["none", *COLOUR_BLIND])
def test_colour_blind_eyes_tell_sinks_apart(blindness):
    colours = np.array([*COLOURS.values()]) / 255
    seen = cie_lab(linear(colours) @ np.transpose(blindness))
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(len(seen), 1)]
    assert apart.min() > 15


# Printed as a whole


def test_sinks_that_took_nothing_are_not_printed():
    ledger = a_ledger({("a", "conv2d"): {"bias": 2.0, "epsilon": 0.0, "shift": 1e-12, "constant": 1e-10}})
    assert [row[0] for row in rows(str(ledger))] == ["seed", "inputs", "bias", "constant", "balances"]
    assert list(ledger.absorbed) == ["bias", "epsilon", "shift", "constant"]


def test_what_arrives_is_printed_if_it_is_nothing_and_so_is_what_is_no_number():
    books = {("a", "conv2d"): {"bias": float("nan"), "epsilon": float("inf"), "shift": 1.0}}
    assert [row[0] for row in rows(str(a_ledger(books)))][:5] == [
        "seed",
        "inputs",
        "bias",
        "epsilon",
        "shift",
    ]
    nothing = a_ledger({("a", "conv2d"): {"bias": 0.0}}, seed=0.0)
    assert [row[0] for row in rows(str(nothing))] == ["seed", "inputs", "balances"]
    of_one_sample = Ledger(samples=2, absorbed={"bias": torch.tensor([0.0, 1.0]).double()})
    assert "bias" in str(of_one_sample)


def test_ledgers_and_explanations_can_be_compared():
    one, other = explained(), explained()
    assert one.ledger != other.ledger
    assert one != other
    assert one.ledger in [other.ledger, one.ledger]
    assert one in [other, one]
