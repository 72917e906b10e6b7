"""Books are kept for each sample, or for the batch where a model mixes its samples."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE, linear
from relprop.crossing import samples
from relprop.rules import Epsilon, Flat, Gamma


def test_a_model_that_mixes_its_samples_closes_for_the_batch() -> None:
    linear = nn.Linear(4, 4).double().eval()
    x = torch.randn(2, 4, 4, dtype=torch.float64)
    mixing = torch.tensor([[1.0, 0.5], [0.2, 1.0]], dtype=torch.float64)
    e = relprop.explain(lambda x: (mixing @ linear(x).flatten(1))[:, :3], x, target=1, rules=Epsilon(0.1))
    assert e.ledger.mixed
    assert e.ledger.gap.max() < 1e-12


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 0, 2), (2, 0, 1), (1, 2, 0)])
def test_books_are_each_samples_wherever_the_model_has_the_samples(order: tuple[int, ...]) -> None:
    linear, back = nn.Linear(4, 4).double().eval(), torch.tensor(order).argsort().tolist()
    x = torch.randn(2, 4, 4, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        turned = x.permute(order)
        turned = linear(turned) if turned.shape[-1] == 4 else linear(turned.mT).mT
        return torch.relu(turned + 1).permute(back).sum(2)

    e = relprop.explain(model, x, target=1, rules=Epsilon(0.1))
    assert not e.ledger.mixed
    assert e.ledger.gap.max() < 1e-12
    for i in range(2):
        alone = relprop.explain(model, x[i : i + 1], target=1, rules=Epsilon(0.1)).ledger
        for sink, amount in alone.absorbed.items():
            torch.testing.assert_close(e.ledger.absorbed[sink][i : i + 1], amount)


MASK = torch.tensor([[True, False, False, True]])

WRITTEN: dict[str, Any] = {
    "masked_fill": lambda t: t.masked_fill(MASK[0][:, None, None], -torch.inf).softmax(0),
    "masked_fill of more": lambda t: t[None].masked_fill(MASK.T[:, None, None], -torch.inf).softmax(1)[1],
    "index_put": lambda t: t.index_put((torch.tensor([0, 3]),), torch.tensor(0.5, **DOUBLE)),
    "index_fill": lambda t: t.index_fill(0, torch.tensor([0, 3]), 0.5),
    "scatter": lambda t: t.scatter(0, torch.tensor([[[1]]]).expand(1, *t.shape[1:]), 0.5),
    "select_scatter": lambda t: t.select_scatter(torch.ones_like(t[0]), 0, 2),
}


@pytest.mark.parametrize("rules", ["epsilon", "attnlrp", "Flat()"])
@pytest.mark.parametrize("name", WRITTEN)
def test_books_are_each_samples_where_constants_are_written_and_others_come_first(
    name: str, rules: str
) -> None:
    layer, x = linear(4, 4), torch.randn(2, 4, 4, **DOUBLE)

    def model(x: Tensor) -> Tensor:
        turned = layer(x).transpose(0, 1)
        return (WRITTEN[name](turned) * turned).sum(0)

    e = relprop.explain(model, x, target=1, rules=rules)
    assert not e.ledger.mixed
    for i in range(2):
        alone = relprop.explain(model, x[i : i + 1], target=1, rules=rules).ledger
        for sink, amount in alone.absorbed.items():
            torch.testing.assert_close(e.ledger.absorbed[sink][i : i + 1], amount)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), Flat()], ids=str)
def test_books_of_recurrent_modules_are_each_samples(kind: Any, rule: Any) -> None:
    recurrent = kind(4, 5, num_layers=2, bidirectional=True).double().eval()

    def model(x: Tensor) -> Tensor:
        states: Tensor = recurrent(x.transpose(0, 1))[0]
        return torch.stack([states[0], states[-1] * 2]).sum(0)

    x = torch.randn(3, 6, 4, dtype=torch.float64)
    together = relprop.explain(model, x, target=1, rules=rule)
    assert not together.ledger.mixed
    for i in range(len(x)):
        alone = relprop.explain(model, x[i : i + 1], target=1, rules=rule)
        torch.testing.assert_close(together.relevance[i : i + 1], alone.relevance)
        for sink, amount in alone.ledger.absorbed.items():
            torch.testing.assert_close(together.ledger.absorbed[sink][i : i + 1], amount)


def test_samples_mixed_by_a_mean_close_for_the_batch() -> None:
    layer = linear()
    e = relprop.explain(
        lambda x: layer(x - x.mean(0, keepdim=True)), torch.randn(3, 6, **DOUBLE), rules=Epsilon(0)
    )
    assert e.ledger.mixed
    assert e.ledger.gap.max() < 1e-10


def test_where_samples_are_is_found_once_for_layers_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """To number all elements takes longer than a layer of an encoder."""
    found, step_of = [], samples.step_of
    monkeypatch.setattr(samples, "step_of", lambda *given: found.append(given) or step_of(*given))

    def searches(layers: int) -> int:
        layer = nn.TransformerEncoderLayer(8, 2, 16)
        encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).double().eval()
        found.clear()
        samples._FOUND.clear()
        x = torch.randn(3, 5, 8, dtype=torch.float64)
        e = relprop.explain(lambda x: encoder(x.transpose(0, 1)).mean(0), x, target=1, rules=Epsilon(0.1))
        assert not e.ledger.mixed
        assert e.ledger.gap.max() < 1e-12
        return len(found)

    assert 0 < searches(6) == searches(2)
