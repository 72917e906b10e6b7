"""Which part of an inner value's relevance goes on: channels, masks, functions."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE, Several, Twice, batch_norm, close, network
from relprop.errors import InputError
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZPlus

LINEAR_IN_R = {
    "ε": Epsilon(0.01),
    "γ": Gamma(0.25),
    "α2β1": AlphaBeta(2, 1),
    "z+": ZPlus(),
    "w²": WSquare(),
    "flat": Flat(),
}


def explain(x: Tensor, conditions: Any, rules: Any = "epsilon", **options: Any) -> relprop.Explanation:
    return relprop.explain(network(), x, target=1, rules=rules, conditions=conditions, **options)


# Convolution in front of a batch norm, batch norm, ReLU in place, a spelled activation, padding, one that a
# convolution behind takes in, a residual block: each is attached in a way of its own.
@pytest.mark.parametrize("path", ["0", "1", "2", "3", "4", "4.sigmoid", "5", "7", "8", "9", "10"])
@pytest.mark.parametrize("rules", LINEAR_IN_R.values(), ids=LINEAR_IN_R)
def test_the_maps_of_all_channels_sum_to_the_map_without_a_condition(
    x: Tensor, path: str, rules: Any
) -> None:
    everything = explain(x, None, rules, record=path)
    channels = everything.inner[path].shape[1]
    parts = [explain(x, {path: channel}, rules) for channel in range(channels)]
    close(sum(part.relevance for part in parts), everything.relevance)
    for channel, part in enumerate(parts):
        assert part.ledger.gap.max() < 1e-9
        others = [c for c in range(channels) if c != channel]
        close(part.ledger.absorbed["condition"], everything.inner[path][:, others].flatten(1).sum(1))
        assert not explain(x, {path: channel}, rules, record=path).inner[path][:, others].any()


@pytest.mark.parametrize("rules", LINEAR_IN_R.values(), ids=LINEAR_IN_R)
def test_what_a_branch_and_its_shortcut_bring_is_all(x: Tensor, rules: Any) -> None:
    everything = explain(x, None, rules, record=["9", "9.branch", "9.branch.0", "9.shortcut"])
    nothing = torch.zeros(4, 1, 1)
    by_branch = explain(x, {"9.shortcut": nothing}, rules)
    by_shortcut = explain(x, {"9.branch.0": nothing}, rules)
    close(by_branch.relevance + by_shortcut.relevance, everything.relevance)
    for e, held in ((by_branch, "9.shortcut"), (by_shortcut, "9.branch")):
        assert e.ledger.gap.max() < 1e-9
        close(e.ledger.absorbed["condition"], everything.inner[held].flatten(1).sum(1))


def test_what_goes_on_is_what_the_rest_of_the_network_is_given(x: Tensor) -> None:
    model, mask = network(), torch.rand(4, 4, **DOUBLE)
    whole = explain(x, None, Gamma(0.25), record="4")
    h = model[:5](x).detach()
    seed = torch.where(h == 0, 0, whole.inner["4"] * mask / h)
    first = relprop.explain(
        model[:5].eval(), x, target=lambda y: (y * seed).flatten(1).sum(1), rules=Gamma(0.25)
    )
    held = explain(x, {"4": mask}, Gamma(0.25))
    close(held.relevance, first.relevance)


def test_every_form_of_a_condition(x: Tensor) -> None:
    one_hot = torch.tensor([0.0, 1, 0, 1], **DOUBLE)
    forms: list[Any] = [
        [1, 3],
        (1, 3),
        range(1, 4, 2),
        torch.tensor([1, 3]),
        one_hot[:, None, None],
        one_hot[None, :, None, None].bool(),
        one_hot[:, None, None].expand(2, 4, 4, 4).float(),
        lambda R: one_hot[:, None, None],
        lambda R: one_hot.bool()[None, :, None, None].expand_as(R),
    ]
    maps = [explain(x, {"4": form}).relevance for form in forms]
    for relevance in maps[1:]:
        close(relevance, maps[0])
    close(explain(x, {"4": 1}).relevance + explain(x, {"4": 3}).relevance, maps[0])
    close(explain(x, {"4": torch.tensor(1)}).relevance, explain(x, {"4": [1]}).relevance)


def test_a_function_sees_the_relevance_that_arrives(x: Tensor) -> None:
    recorded = explain(x, None, record="4").inner["4"]
    seen: list[Tensor] = []

    def positive(R: Tensor) -> Tensor:
        seen.append(R.clone())
        return R > 0

    e = explain(x, {"4": positive}, record="4")
    assert len(seen) == 1
    close(seen[0], recorded)
    close(e.inner["4"], recorded.clamp(min=0))
    close(e.ledger.absorbed["condition"], recorded.clamp(max=0).flatten(1).sum(1))


@pytest.mark.parametrize("rules", ["epsilon", Flat()])
def test_a_function_may_change_the_relevance_that_it_is_given(x: Tensor, rules: Any) -> None:
    expected = explain(x, {"4": lambda R: R > 0}, rules)
    found = explain(x, {"4": lambda R: R.clamp_(min=0).bool()}, rules)
    assert torch.equal(found.relevance, expected.relevance)
    assert found.ledger.gap.max() < 1e-9


@pytest.mark.parametrize("rules", [Epsilon(0.01), Flat()])
def test_several_conditions_hold_together_the_later_module_first(x: Tensor, rules: Any) -> None:
    both = explain(x, {"0": 1, "1": [0, 1]}, rules, record=["0", "1"], per_operation=True)
    alone = explain(x, {"0": 1}, rules, record=["0", "1"])
    close(both.relevance, alone.relevance)
    close(both.inner["0"], alone.inner["0"])
    assert both.ledger.gap.max() < 1e-9
    # Channel 2 is held back behind the batch norm already, and channel 0 before it.
    held = {
        path: sinks["condition"]
        for (path, _), sinks in both.ledger.operations.items()
        if "condition" in sinks
    }
    whole = explain(x, None, rules, record=["0", "1"])
    close(held["1"], whole.inner["1"][:, 2].flatten(1).sum(1))
    close(held["0"], whole.inner["0"][:, 0].flatten(1).sum(1))


def test_a_glob_is_a_condition_on_each_module_that_it_matches(x: Tensor) -> None:
    e = explain(x, {"[34]": 0}, record=["3", "4"])
    for path in ("3", "4"):
        assert e.inner[path][:, 0].any()
        assert not e.inner[path][:, 1:].any()
    assert e.ledger.gap.max() < 1e-12


def test_a_condition_on_a_module_that_is_called_twice_is_for_each_call() -> None:
    model, x = Twice().double().eval(), torch.randn(2, 4, **DOUBLE)
    e = relprop.explain(model, x, target=0, rules=Gamma(), conditions={"linear": [0, 1]}, record="linear")
    for R in e.inner.calls["linear"]:
        assert R[:, :2].any()
        assert not R[:, 2:].any()
    assert e.ledger.gap.max() < 1e-12


def test_a_chain_of_pointwise_modules_holds_back_once() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tanh, self.linear = nn.Tanh(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.tanh(x)
            return self.linear(h * h.sigmoid())

    model, x = Chain().double().eval(), torch.randn(2, 4, **DOUBLE)
    for rules in (Epsilon(0.01), Flat()):
        whole = relprop.explain(model, x, target=0, rules=rules)
        half = relprop.explain(model, x, target=0, rules=rules, conditions={"tanh": torch.full((4,), 0.5)})
        close(half.relevance, whole.relevance / 2)
        close(half.ledger.absorbed["condition"], whole.relevance.sum(1) / 2)


def test_a_batch_norm_in_front_of_a_convolution(x: Tensor) -> None:
    model = (
        nn.Sequential(nn.ReLU(), batch_norm(2), nn.ZeroPad2d(1), nn.Conv2d(2, 3, 3), nn.Flatten())
        .double()
        .eval()
    )
    for rules in LINEAR_IN_R.values():
        whole = relprop.explain(model, x, target=1, rules=rules, record="*")
        close(whole.inner["1"], whole.inner["2"][..., 1:-1, 1:-1])
        close(whole.inner["1"], whole.inner["0"])
        parts = [relprop.explain(model, x, target=1, rules=rules, conditions={"1": i}) for i in range(2)]
        close(parts[0].relevance + parts[1].relevance, whole.relevance)
        assert parts[0].relevance[:, 0].any()
        assert not parts[0].relevance[:, 1].any()


@pytest.mark.parametrize(
    ("path", "condition", "message"),
    [
        (
            "4",
            4,
            r"conditions\['4'\]: channel 4 is out of range; the module's output has shape \(2, 4, 4, 4\)",
        ),
        ("4", [0, -1, 9], r"conditions\['4'\]: channel -1, 9 is out of range; .*channels 0 to 3"),
        ("4", torch.rand(3, 4), r"a mask of shape \(3, 4\) does not broadcast to .* of shape \(2, 4, 4, 4\)"),
        ("4", torch.rand(3, 2, 4, 4, 4), r"a mask of shape \(3, 2, 4, 4, 4\) does not broadcast"),
        ("4", lambda R: torch.rand(5), r"conditions\['4'\]: a mask of shape \(5,\) does not broadcast"),
        ("4", [], r"conditions\['4'\]=\[\]: give channel numbers, a mask, or a function"),
        ("4", "cat", r"conditions\['4'\]='cat': give channel numbers"),
        ("4", ["cat"], r"conditions\['4'\]=\['cat'\]: give channel numbers"),
        ("4", {1, 2}, r"conditions\['4'\]=\{1, 2\}: give channel numbers"),
        ("4", 1.5, r"conditions\['4'\]=1.5: give channel numbers"),
        ("4", True, r"conditions\['4'\]=True: give channel numbers"),
        ("4", torch.ones(2, 2, dtype=torch.int64), r"conditions\['4'\]=tensor.*give channel numbers"),
    ],
)
def test_conditions_without_meaning_are_refused(x: Tensor, path: str, condition: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"(?s){message}"):
        explain(x, {path: condition})


def test_channels_need_a_dimension_of_channels() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = Mean()

        def forward(self, x: Tensor) -> Tensor:
            return x * self.mean(x)[:, None]

    with pytest.raises(
        InputError, match=r"the module's output has shape \(2,\), which has no channels; give a m"
    ):
        relprop.explain(Net().eval(), torch.rand(2, 3), rules=Epsilon(), conditions={"mean": 0})


def test_a_condition_on_what_does_not_depend_on_the_input_is_refused() -> None:
    model = Several(lambda a, b: _Opaque(a, b), lambda o: torch.cat([o.a, o.b], 1)).double().eval()
    with pytest.raises(
        InputError, match=r"conditions\['inner'\]: the module returned _Opaque, and nothing in it"
    ):
        relprop.explain(model, torch.randn(2, 4, **DOUBLE), rules=Epsilon(), conditions={"inner": 0})


class _Opaque:
    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.a, self.b = a, b
