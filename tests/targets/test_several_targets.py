"""Several targets of one forward; parts of outputs; regions of segmentations."""

import gc
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close, network
from relprop.errors import InputError
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZPlus
from relprop.targets import Contrastive, Part, Region, RunnerUp

TARGETS: list[Any] = [
    0,
    3,
    None,
    [1, 2],
    Contrastive(1),
    RunnerUp(),
    torch.linspace(-1, 1, 5),
    lambda y: y[:, 0] - y[:, 2],
]


def positive(R: Tensor) -> Tensor:
    """Where relevance is positive."""
    return R > 0


@pytest.mark.parametrize(
    "options",
    [
        {"rules": Epsilon(0.01)},
        {"rules": AlphaBeta(2, 1)},
        {"rules": Flat()},
        {"rules": "epsilon-plus-flat", "record": ["3", "9.branch*"]},
        {"rules": WSquare(), "record": "*", "conditions": {"4": [1, 2], "1": positive}},
        {"rules": Gamma(0.25), "parameters": "*.weight", "record": "6"},
        {"rules": ZPlus(), "start": "6", "record": "3", "per_operation": True},
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_several_targets_are_as_many_separate_runs(x: Tensor, options: dict[str, Any]) -> None:
    model = network()
    targets = [0, 3, None, [1, 2], lambda y: y.flatten(1)[:, 0]] if "start" in options else TARGETS
    together = relprop.explain_each(model, x, targets=targets, **options)
    assert isinstance(together, list)
    assert len(together) == len(targets)
    for e, target in zip(together, targets, strict=True):
        alone = relprop.explain(model, x, target=target, **options)
        close(e.relevance, alone.relevance)
        close(e.score, alone.score)
        close(e.ledger.total, alone.ledger.total)
        assert e.ledger.absorbed.keys() == alone.ledger.absorbed.keys()
        for sink, amount in alone.ledger.absorbed.items():
            torch.testing.assert_close(e.ledger.absorbed[sink], amount)
        assert e.ledger.operations.keys() == alone.ledger.operations.keys()
        assert e.inner.keys() == alone.inner.keys()
        for path in alone.inner:
            torch.testing.assert_close(e.inner[path], alone.inner[path])
        for name, carried in alone.parameters.items():
            torch.testing.assert_close(e.parameters[name], carried)
        assert e.rules == alone.rules
        if isinstance(alone.target, Tensor):
            assert torch.equal(e.target, alone.target)
    assert (together[0].relevance - together[1].relevance).abs().max() > 0


def test_there_is_one_forward_and_a_backward_for_each(x: Tensor) -> None:
    calls = []

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            return self.network(x)

    relprop.explain_each(Counted().eval(), x, targets=range(5), rules=Epsilon())
    assert len(calls) == 1


def test_the_sum_of_targets_is_the_target_of_the_sum_for_rules_linear_in_relevance(x: Tensor) -> None:
    for rules in (Epsilon(0.01), Gamma(0.25), Flat()):
        several = relprop.explain_each(network(), x, targets=[0, 1, 4], rules=rules)
        total = relprop.explain(network(), x, target=lambda y: y[:, 0] + y[:, 1] + y[:, 4], rules=rules)
        close(sum(e.relevance for e in several), total.relevance)


def test_one_target_in_a_list_gives_a_list(x: Tensor) -> None:
    (e,) = relprop.explain_each(network(), x, targets=[2], rules=Epsilon())
    assert torch.equal(e.relevance, relprop.explain(network(), x, target=2, rules=Epsilon()).relevance)


class Remembering(nn.Module):
    """Keeps weak references to what it computes; fails after that if it is to."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3)
        self.fails, self.seen = fails, list[Any]()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        self.seen += [weakref.ref(h), weakref.ref(h.untyped_storage())]
        h = h.relu()
        self.seen += [weakref.ref(h), weakref.ref(h.untyped_storage())]
        if self.fails:
            h = h.atan2(torch.ones(()))
        h = self.second(h)
        self.seen += [weakref.ref(h), weakref.ref(h.untyped_storage())]
        return h.sum((2, 3))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"target": 0},
        {"targets": [0, 1, 2]},
        {"targets": [0, 1], "record": "*", "conditions": {"first": 0}, "parameters": "*weight"},
        {"target": 0, "start": "first"},
        {"targets": [0, 1], "start": "second", "record": "*"},
    ],
    ids=str,
)
@pytest.mark.parametrize("rules", [Gamma(0.25), Flat()])
def test_nothing_of_the_forward_stays_in_memory(options: dict[str, Any], rules: Any, fails: bool) -> None:
    model = Remembering(fails).double().eval()
    explain: Any = relprop.explain_each if "targets" in options else relprop.explain
    gc.collect()
    gc.disable()  # what goes only with the collector stays too long
    try:
        if fails:
            try:
                explain(model, torch.randn(2, 2, 6, 6, **DOUBLE), rules=rules, **options)
            except relprop.errors.CoverageError:
                assert options.get("start") != "first"
            else:
                assert options.get("start") == "first", "it has a gap"
            gc.collect()  # an exception's frames are cycles
        else:
            e = explain(model, torch.randn(2, 2, 6, 6, **DOUBLE), rules=rules, **options)
            assert e is not None
        assert len(model.seen) == 6
        assert [reference() is None for reference in model.seen] == [True] * 6
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": []}, r"targets=\[\] has no target; give at least one"),
        ({"targets": [0, 9]}, "target 9 is out of range"),
        ({"targets": [0, "cat"]}, "target='cat' is not a target"),
        (
            {"targets": 3},
            r"targets=3: give a list of targets; a single one is explain\(.*, target=",
        ),
    ],
)
def test_targets_without_meaning_are_refused(x: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        relprop.explain_each(network(), x, rules=Epsilon(), **options)


# ---- parts of outputs ----


@dataclass
class Fields:
    """An output with attributes."""

    main: Tensor
    aux: Tensor


class Heads(nn.Module):
    """Two heads on one trunk."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.trunk, self.main, self.aux = nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(5, 4)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        h = self.trunk(x).relu()
        return self.wrap(self.main(h), self.aux(h))


OUTPUTS: dict[str, tuple[Any, Any, Any]] = {
    "tuple": (lambda a, b: (a, b), 0, 1),
    "list": (lambda a, b: [a, b], -2, -1),
    "dict": (lambda a, b: {"main": a, "aux": b}, "main", "aux"),
    "OrderedDict": (lambda a, b: OrderedDict(main=a, aux=b), "main", "aux"),
    "dataclass": (Fields, "main", "aux"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_several_outputs(kind: str) -> None:
    wrap, main, aux = OUTPUTS[kind]
    torch.manual_seed(0)
    model, x = Heads(wrap).double().eval(), torch.randn(2, 6, **DOUBLE)
    targets = [Part(main), Part(main, 2), Part(aux, Contrastive(3)), Part(aux, lambda y: y[:, 0])]
    explanations = relprop.explain_each(model, x, targets=targets, rules=Gamma(0.25))
    heads = {main: model.main, aux: model.aux}
    for e, target in zip(explanations, targets, strict=True):
        single = nn.Sequential(model.trunk, nn.ReLU(), heads[target.name]).eval()
        expected = relprop.explain(single, x, target=target.target, rules=Gamma(0.25))
        close(e.relevance, expected.relevance)
        close(e.score, expected.score)
        assert e.target is target
        if kind != "dataclass":
            from relprop.calls.nested import tensors_in

            found = list(tensors_in(e.output))
            assert len(found) == 2
            assert not any(t.requires_grad for t in found)


def test_parts_within_parts() -> None:
    torch.manual_seed(0)
    model, x = Heads(lambda a, b: {"out": (a, {"b": b})}).double().eval(), torch.randn(2, 6, **DOUBLE)
    e = relprop.explain(model, x, target=Part("out", Part(1, Part("b", 2))), rules=Epsilon())
    close(e.score, model(x)["out"][1]["b"][:, 2].detach())


@pytest.mark.parametrize(
    ("wrap", "name", "message"),
    [
        (
            lambda a, b: (a, b),
            2,
            r"target Part\(2\): the model's output has no such part; it is tuple of 2",
        ),
        (lambda a, b: (a, b), "main", "the model's output has no such part; it is tuple of 2"),
        (lambda a, b: {"main": a, "aux": b}, "man", r"no such part; it is \['main', 'aux'\]"),
        (Fields, "man", "the model's output has no such part; it is Fields of one"),
    ],
)
def test_parts_that_are_not_there_are_refused(wrap: Any, name: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        relprop.explain(Heads(wrap).eval(), torch.randn(2, 6), target=Part(name), rules=Epsilon())


def test_an_output_of_several_needs_to_be_named() -> None:
    with pytest.raises(InputError, match=r"the model returns tuple and not a tensor\. Give a target"):
        relprop.explain(Heads(lambda a, b: (a, b)).eval(), torch.randn(2, 6), rules=Epsilon())


# ---- regions ----


class Segmentation(nn.Module):
    """A score for each class at each pixel."""

    def __init__(self, wrap: bool = False) -> None:
        super().__init__()
        self.body, self.head, self.wrap = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 1), wrap

    def forward(self, x: Tensor) -> Any:
        y = self.head(self.body(x).relu_())
        return {"out": y} if self.wrap else y


@pytest.mark.parametrize("mask", ["best", "one for all", "one for each", "weights"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_region_sums_a_class_over_its_pixels(mask: str, wrapped: bool) -> None:
    torch.manual_seed(1)
    model, x = Segmentation(wrapped).double().eval(), torch.randn(2, 2, 5, 4, **DOUBLE)
    y = (model(x)["out"] if wrapped else model(x)).detach()
    masks = {
        "best": y.argmax(1) == 1,
        "one for all": torch.rand(5, 4) > 0.5,
        "one for each": torch.rand(2, 5, 4) > 0.5,
        "weights": torch.rand(5, 4),
    }
    region = Region(1, None if mask == "best" else masks[mask])
    counts = masks[mask].double()
    e = relprop.explain(model, x, target=Part("out", region) if wrapped else region, rules=Gamma(0.25))
    close(e.score, (y[:, 1] * counts).flatten(1).sum(1))
    weights = torch.zeros_like(y)
    weights[:, 1] = counts
    bare = Segmentation().double().eval()
    bare.load_state_dict(model.state_dict())
    close(e.relevance, relprop.explain(bare, x, target=weights, rules=Gamma(0.25)).relevance)
    # Far from the region, beyond the receptive field, there is nothing.
    far = nn.functional.max_pool2d(counts.expand(2, 5, 4)[:, None].float(), 3, 1, 1) == 0
    assert not (e.relevance * far).any()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Region(3), r"target Region\(3\) is out of range: the output has 3 classes, 0 to 2"),
        (Region(-1), r"target Region\(-1\) is out of range"),
        (
            Region(1, torch.ones(4, 5)),
            r"the mask has shape \(4, 5\); give \(5, 4\) or \(2, 5, 4\), as",
        ),
        (Region(0), r"target Region\(0\): in sample \d no pixel has this class as its best; give a mask"),
    ],
)
def test_regions_without_meaning_are_refused(target: Any, message: str) -> None:
    model = Segmentation().eval()
    with torch.no_grad():
        model.head.bias[0] = -1e6
    with pytest.raises(InputError, match=message):
        relprop.explain(model, torch.randn(2, 2, 5, 4), target=target, rules=Epsilon())


def test_a_mask_that_is_empty_for_a_sample_is_refused() -> None:
    model, x = Segmentation().eval(), torch.randn(2, 2, 5, 4)
    of_one = torch.zeros(2, 5, 4, dtype=torch.bool)
    of_one[0, 2, 3] = True
    with pytest.raises(InputError) as error:
        relprop.explain(model, x, target=Region(1, of_one), rules=Epsilon())
    assert str(error.value) == (
        "target Region(1): the mask has no pixel of sample 1. Leave the sample out, or give a mask with a "
        "pixel in each sample."
    )
    with pytest.raises(InputError, match="the mask has no pixel of sample 0"):
        relprop.explain(model, x, target=Region(1, torch.zeros(5, 4)), rules=Epsilon())
    # A negative weight is a weight.
    relprop.explain(model, x, target=Region(1, -torch.ones(5, 4)), rules=Epsilon())


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (Region(0), "Region(0)"),
        (Region(0, torch.ones(32, 32)), "Region(0, mask of 1024 pixels)"),
        (Region(2, torch.eye(4).bool()), "Region(2, mask of 4 pixels)"),
        (Region(2, torch.tensor([[1.0, 0.0]])), "Region(2, mask of 1 pixel)"),
        (Part("out"), "Part('out')"),
        (Part(1, 3), "Part(1, 3)"),
        (Part("out", Region(1, torch.eye(4))), "Part('out', Region(1, mask of 4 pixels))"),
        (Part("out", torch.ones(2, 3)), "Part('out', tensor of shape (2, 3))"),
        (Part("out", relprop.targets.RunnerUp(2)), "Part('out', RunnerUp(index=2))"),
    ],
)
def test_targets_print_in_a_line(target: Any, text: str) -> None:
    assert repr(target) == text


def test_a_mask_is_no_dump_of_numbers_in_results_and_files(tmp_path: Any) -> None:
    target = Part("out", Region(1, torch.ones(5, 4)))
    e = relprop.explain(Segmentation(True).eval(), torch.randn(2, 2, 5, 4), target=target, rules=Epsilon())
    assert "target Part('out', Region(1, mask of 20 pixels)), score" in repr(e)
    assert e.plot().metadata["Target"] == "Part('out', Region(1, mask of 20 pixels))"
    e.save(tmp_path / "e.safetensors")
    assert repr(relprop.load_explanation(tmp_path / "e.safetensors").target) == repr(target)


def test_a_region_needs_pixels() -> None:
    with pytest.raises(
        InputError, match=r"target Region\(1\): the output must be a tensor .* shape \(2, 3\)"
    ):
        relprop.explain(nn.Linear(4, 3).eval(), torch.randn(2, 4), target=Region(1), rules=Epsilon())
    with pytest.raises(InputError, match=r"is dict\. For one of several outputs use Part\('out', Region"):
        relprop.explain(Segmentation(True).eval(), torch.randn(2, 2, 5, 4), target=Region(1), rules=Epsilon())


# ---- what the number is ----


@pytest.mark.parametrize(
    ("target", "label", "title"),
    [
        (0, "class 0, score {}", "class 0"),
        (Part("out", 0), "score {}", "Part('out', 0)"),
        (relprop.targets.RunnerUp(0), "class 0, score difference {}", "class 0 (score difference)"),
        (relprop.targets.Contrastive(0), "class 0, score difference {}", "class 0 (score difference)"),
        (relprop.targets.LogOdds(0), "class 0, log-odds {}", "class 0 (log-odds)"),
        (torch.ones(3), "weighted sum {}", "Weighted(weights of shape (3,)) (weighted sum)"),
        (Part("out", relprop.targets.RunnerUp(0)), "score difference {}", None),
        (Region(0, torch.ones(5, 4)), "sum over the region {}", None),
        (Part("out", Region(0, torch.ones(5, 4))), "sum over the region {}", None),
        (lambda y: y[:, 0], "score {}", None),
    ],
)
@pytest.mark.parametrize("rules", [Epsilon(), "gradient-times-input"])
def test_plots_say_what_their_number_is(
    tmp_path: Any, target: Any, label: str, title: str | None, rules: Any
) -> None:
    torch.manual_seed(2)
    net = Segmentation().eval()
    of_classes = not isinstance(target, Region) and not repr(target).count("Region")
    with torch.no_grad():
        net.head.bias[0] += 10  # a score without a warning
    wrapped = isinstance(target, Part)

    def model(x: Tensor) -> Any:
        y = net(x).mean((2, 3)) if of_classes else net(x)
        return {"out": y} if wrapped else y

    e = relprop.explain(model, torch.randn(1, 2, 5, 4), target=target, rules=rules)
    expected = label.format(f"{float(e.score):.4g}")
    assert np.array_equal(e.plot().pixels, e.plot(labels=[expected]).pixels)
    assert not np.array_equal(e.plot().pixels, e.plot(labels=["another"]).pixels)
    if title is not None:
        assert e.plot().metadata["Title"] == f"Relevance of the input for {title}"
    measure = label.removeprefix("class 0, ").removesuffix(" {}")
    assert e.measure == measure
    e.save(tmp_path / "e.safetensors")
    assert relprop.load_explanation(tmp_path / "e.safetensors").measure == measure
