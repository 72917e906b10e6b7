"""Explanations while autocast is on: each is like the first, and what is computed after them as before."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from relprop import Explainer
from relprop.rules import AlphaBeta, Epsilon, Gamma

pytestmark = pytest.mark.filterwarnings("ignore:the explained score is negative")

HALF = {"device_type": "cpu", "dtype": torch.bfloat16}


class Model(nn.Module):
    """A network that uses one weight twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.twice, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.twice(self.twice(self.first(x).relu()).relu()).relu())


class WithAContextOfItsOwn(Model):
    @torch.autocast(**HALF)
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


x = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
MODELS = pytest.mark.parametrize("kind", [Model, WithAContextOfItsOwn])


@MODELS
@pytest.mark.parametrize("rule", [Epsilon(1e-6), Gamma(0.25), AlphaBeta(2, 1)], ids=str)
def test_each_explanation_is_like_the_first(kind: type[Model], rule: object) -> None:
    model = kind()
    explainer = Explainer(model, rules=[("*", rule)])
    with torch.autocast(**HALF):
        first = explainer(x, target=0)
    with torch.autocast(**HALF):
        model(x)  # whose weights torch casts, and keeps
        for _ in range(2):
            again = explainer(x, target=0)
            assert torch.equal(again.relevance, first.relevance)
            assert again.ledger.absorbed.keys() == first.ledger.absorbed.keys()


@MODELS
def test_training_after_an_explanation(kind: type[Model]) -> None:
    def gradients(*, explained: bool) -> list[Tensor | None]:
        model = kind()
        with torch.autocast(**HALF):
            if explained:
                Explainer(model, rules="epsilon")(x, target=0)
            model(x).float().square().sum().backward()
        return [weight.grad for weight in model.parameters()]

    for found, expected in zip(gradients(explained=True), gradients(explained=False), strict=True):
        assert found is not None
        assert torch.equal(found, expected)


@pytest.mark.parametrize("kept", [True, False])
def test_whether_casts_are_kept_is_as_before(kept: bool) -> None:
    def fails(output: Tensor) -> Tensor:
        raise RuntimeError("on purpose")

    with torch.autocast(**HALF, cache_enabled=kept):
        explainer = Explainer(Model(), rules="epsilon")
        explainer(x, target=0)
        assert torch.is_autocast_cache_enabled() is kept
        with pytest.raises(RuntimeError, match="on purpose"):
            explainer(x, target=fails)
        assert torch.is_autocast_cache_enabled() is kept


def test_a_checkpointed_module() -> None:
    with torch.autocast(**HALF):
        expected = Explainer(Model(), rules="epsilon")(x, target=0)
        model = Model()
        found = Explainer(model, rules="epsilon", checkpoint="twice")(x, target=0)
        assert torch.equal(found.relevance, expected.relevance)
        model(x).sum().backward()
    assert all([weight.grad is not None for weight in model.parameters()])


class InSinglePrecision(nn.Module):
    """Switches autocast off for numbers that are too large for float16."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        with torch.autocast("cpu", enabled=False):
            h = h.float() * 3e3
            squares = torch.bmm(h.unsqueeze(2), h.unsqueeze(1))
            h = torch.bmm(squares, h.unsqueeze(2)).squeeze(2) * 1e-9
        return self.last(h)


@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp", "epsilon", "gradient-times-input"])
def test_autocast_casts_nothing_in_the_backward(rules: str) -> None:
    model = InSinglePrecision()
    expected = Explainer(model, rules=rules)(x, target=0)
    with torch.autocast("cpu", dtype=torch.float16):
        found = Explainer(model, rules=rules)(x, target=0)
    largest = float(expected.relevance.abs().max())
    assert float((found.relevance - expected.relevance).abs().max()) < 0.05 * largest


@pytest.mark.parametrize("rules", ["attnlrp", "gradient-times-input"])
def test_autocast_around_a_model_that_switches_it_off(rules: str) -> None:
    model = Model()

    def without(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return model(x)

    explainer = Explainer(without, rules=rules)
    expected = explainer(x, target=0).relevance
    with torch.autocast(**HALF):
        assert torch.equal(explainer(x, target=0).relevance, expected)


@pytest.mark.parametrize("rules", ["epsilon", "attnlrp", "gradient-times-input"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_torchs_checkpoints(rules: str, reentrant: bool) -> None:
    model = Model()

    def middle(h: Tensor) -> Tensor:
        return model.twice(model.twice(h).relu()).relu()

    def checkpointed(x: Tensor) -> Tensor:
        return model.last(checkpoint(middle, model.first(x).relu(), use_reentrant=reentrant))

    with torch.autocast(**HALF):
        found, expected = (Explainer(f, rules=rules)(x, target=0) for f in (checkpointed, model))
    assert torch.equal(found.relevance, expected.relevance)
