"""Plans: after a few explanations the calls of the model are compared, and a graph gives what Python gave."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from by_graph import SMALL, Small, assert_same, pictures, small
from by_plan import Counted, Model, assert_by_plan, early, in_python, layers, rows, with_plan
from networks import DOUBLE
from relprop import PRESETS
from relprop.runs import following, planned
from relprop.targets import At, Contrastive, LogOdds, Part

__all__ = ["early"]

pytestmark = [
    pytest.mark.usefixtures("early"),
    pytest.mark.filterwarnings("ignore:the explained score is negative"),
]

BOUNDS = (0.0, 1.0)


# ---- it is the same ----


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", SMALL)
def test_every_preset(name: str, preset: str) -> None:
    model, (x, other) = small(name, 2, 2)
    explainer = Counted(model, rules=preset, bounds=BOUNDS if PRESETS[preset].needs_bounds else None)
    for _ in range(3):
        explainer(x, target=1)
    if isinstance(explainer.rules, relprop.rules.gradients.Baseline):
        assert explainer._plans is None
        return
    assert_by_plan(explainer, x, target=1)
    assert_by_plan(explainer, other, target=3)


def test_the_first_ones_are_in_python_and_the_model_runs_twice_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned, "AFTER", 8)
    runs = 0

    def count(model: Model, h: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        return h.relu()

    explainer = Counted(Model(count), rules="epsilon")
    for number in range(12):
        explainer(rows(seed=number))
    assert (explainer.in_python, runs) == (10, 14)  # the tenth to compare with


def test_many_calls_are_needed_for_each_shape() -> None:
    explainer = with_plan(layers(), rows())
    before = explainer.in_python
    explainer(rows(3))
    assert explainer.in_python == before + 1
    assert_by_plan(explainer, rows())


def test_targets() -> None:
    explainer = with_plan(Small(), pictures(), target=0)
    assert_by_plan(explainer, pictures(seed=1), target=4)
    for target in (None, [1, 2], Contrastive(1), LogOdds(2)):
        for _ in range(3):
            explainer(pictures(), target=target)
        assert_by_plan(explainer, pictures(seed=1), target=target)


def test_targets_at_a_position_and_of_a_part() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 6).double()
    x, other = (torch.randn(2, 5, 4, **DOUBLE) for _ in range(2))
    explainer = with_plan(layer, x, target=At(-1, 2))
    assert_by_plan(explainer, other, target=At(-1, 5))
    explainer = with_plan(lambda x: {"a": layer(x).mean(1)}, x, target=Part("a", 2))
    assert_by_plan(explainer, other, target=Part("a", 5))


def test_a_target_of_the_user_is_computed_in_python() -> None:
    """What it depends on is not known."""
    explainer, weight = Counted(layers(), rules="epsilon"), [1.0]

    def target(output: Tensor) -> Tensor:
        return weight[0] * output[:, 0]

    for factor in (1.0, 2.0, 3.0, 4.0):
        weight[0] = factor
        assert torch.equal(explainer(rows(), target=target).score, factor * layers()(rows())[:, 0])


@pytest.mark.parametrize("are_trained", [True, False])
def test_attention_layers_of_torch(are_trained: bool) -> None:
    """Where nothing needs a gradient, torch computes them by one kernel, which explanations do not see."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 3)).double().eval().requires_grad_(are_trained)
    x = torch.randn(2, 3, 4, **DOUBLE)
    explainer = with_plan(model, x, rules="attnlrp", target=1)
    assert torch.backends.mha.get_fastpath_enabled()
    assert_by_plan(explainer, x * 0.5, target=2)


def test_what_is_recorded() -> None:
    options: dict[str, Any] = {"record": ["first", "second"], "parameters": "*", "per_operation": True}
    explainer = with_plan(Small(), pictures(), rules="epsilon-gamma-flat", **options)
    found = assert_by_plan(explainer, pictures(seed=1), **options)
    expected = in_python(explainer, pictures(seed=1), **options)
    for of in ("inner", "parameters"):
        pairs = {name: (R, getattr(expected, of)[name]) for name, R in getattr(found, of).items()}
        assert pairs
        for one, other in pairs.values():
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert found.ledger.operations.keys() == expected.ledger.operations.keys()


def test_several_targets_and_progress() -> None:
    explainer, calls = Counted(Small(), rules="epsilon"), list[tuple[int, int]]()
    for _ in range(4):
        calls.clear()
        found = explainer.each(pictures(), targets=[0, 1], progress=lambda done, of: calls.append((done, of)))
    assert explainer.in_python == 4  # the third one for other values, too
    assert calls == [(1, 2), (2, 2)]
    for number, each in enumerate(found):
        assert_same(each, in_python(explainer, pictures(), target=number))


def test_ids_and_arguments_by_name() -> None:
    torch.manual_seed(0)
    table, layer = nn.Embedding(9, 4).double(), nn.Linear(4, 3).double()

    def model(ids: Tensor, *, mask: Tensor, parts: dict[str, Any]) -> Tensor:
        return layer((table(ids) * mask[..., None]).sum(1) * parts["weight"])

    def given(seed: int) -> dict[str, Any]:
        ids = torch.randint(9, (2, 5), generator=torch.Generator().manual_seed(seed))
        return {"ids": ids, "mask": (ids > 2).double(), "parts": {"weight": torch.ones(2, 1, **DOUBLE)}}

    explainer = with_plan(model, **given(0), target=1)
    assert_by_plan(explainer, **given(1), target=2)


def written_in_place(_: Model, h: Tensor) -> Tensor:
    return h.add_(1).mul_(h).relu_()


def written_through_a_view(_: Model, h: Tensor) -> Tensor:
    kept = h.sigmoid()
    kept[:, :2].mul_(kept[:, 2:4])
    return kept * h


def written_over_what_is_kept(_: Model, h: Tensor) -> Tensor:
    product = h * h.sigmoid()
    nn.functional.silu(h, inplace=True)
    return product + h


def written_after_a_view(_: Model, h: Tensor) -> Tensor:
    part = h[:, :3]
    product = torch.cat([part * part, part.tanh()], 1)
    h.tanh_()
    return product + h + torch.cat([part, part], 1)


def written_to_another(_: Model, h: Tensor) -> Tensor:
    out = torch.empty_like(h)
    torch.sigmoid(h, out=out)
    return out * h


def of_several(_: Model, h: Tensor) -> Tensor:
    one, two, three = h.chunk(3, 1)
    return torch.cat([one * two, two * three, torch.stack([one, three]).amax(0)], 1)


def of_numbers(_: Model, h: Tensor) -> Tensor:
    scale = torch.tensor([0.5, 2.0, 1.0], **DOUBLE)
    return h * torch.cat([scale, scale]) + torch.arange(6, **DOUBLE) + torch.zeros_like(h) + h.new_ones(6)


def of_its_data(_: Model, h: Tensor) -> Tensor:
    return h * h.data.sigmoid() + h.detach()


def of_a_weight_and_its_views(model: Model, h: Tensor) -> Tensor:
    weight = model.last.weight
    return h @ weight.t() @ weight + h * weight[0] + nn.functional.linear(h, weight) @ weight


def attending(_: Model, h: Tensor) -> Tensor:
    return nn.functional.scaled_dot_product_attention(h[None], h[None], h[None])[0]


STEPS = [
    *(written_in_place, written_through_a_view, written_over_what_is_kept, written_after_a_view),
    *(written_to_another, of_several, of_numbers, of_its_data, of_a_weight_and_its_views, attending),
]


@pytest.mark.parametrize("rules", ["epsilon", "attnlrp", "cp-lrp", "epsilon-gamma-flat"])
@pytest.mark.parametrize("step", STEPS)
def test_steps(step: Callable[[Model, Tensor], Tensor], rules: str) -> None:
    explainer = with_plan(Model(step), rows(), rules=rules)
    for seed in (1, 2, 3):
        assert_by_plan(explainer, rows(seed=seed))


def test_nothing_is_copied_where_a_whole_tensor_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = 0

    def copied(tensor: Tensor) -> Tensor:
        nonlocal copies
        copies += 1
        return tensor.clone()

    monkeypatch.setattr(following, "copied", copied)
    for step, expected in ((written_over_what_is_kept, 0), (written_after_a_view, 2)):
        explainer = with_plan(Model(step), rows())
        copies = 0
        explainer(rows())
        assert copies == expected
