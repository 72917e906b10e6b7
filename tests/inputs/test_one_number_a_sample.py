"""Arguments of shape (samples,): one number for each sample."""

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop.errors import InputError, ScoreWarning
from small_transformers import drawn


class Timed(nn.Module):
    """A network that gets a time for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.t, self.out = nn.Linear(4, 8), nn.Linear(1, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.out(torch.relu(self.x(x) + self.t(t[:, None])))


class Factors(nn.Module):
    """Users and items, as a recommender has them."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item, self.out = nn.Embedding(9, 4), nn.Embedding(9, 4), nn.Linear(8, 3)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return self.out(torch.cat([self.user(user), self.item(item)], -1))


class Mean(nn.Module):
    """The mean of the tokens that count, by the length of each text."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(20, 6), nn.Linear(6, 3)

    def forward(self, text: Tensor, lens: Tensor) -> Tensor:
        counts = (torch.arange(text.shape[1]) < lens[:, None]).to(self.table.weight)[..., None]
        return self.out((self.table(text) * counts).sum(1) / lens[:, None])


class Pooled(nn.Module):
    """The nodes of several graphs, whose graph a vector names."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        graphs = int(batch.max()) + 1
        return torch.zeros(graphs, 3, dtype=x.dtype).index_add(0, batch, self.out(x).relu())


@pytest.mark.parametrize("rules", ["epsilon-plus-flat", "epsilon", "gradient-times-input"])
def test_a_float_for_each_sample_is_explained(rules: str) -> None:
    model, x, t = drawn(Timed()), torch.randn(3, 4, **DOUBLE), torch.rand(3, **DOUBLE)
    e = relprop.explain(model, x, t, target=0, rules=rules)
    expected = relprop.explain(lambda x, t: model(x, t[:, 0]), x, t[:, None], target=0, rules=rules)
    assert e.inputs["t"].shape == (3,)
    torch.testing.assert_close(e.inputs["t"], expected.inputs["t"][:, 0])
    torch.testing.assert_close(e.inputs["x"], expected.inputs["x"])
    for sample in range(3):
        alone = relprop.explain(model, x[sample : sample + 1], t[sample : sample + 1], target=0, rules=rules)
        torch.testing.assert_close(e[sample].inputs["t"], alone.inputs["t"])
        torch.testing.assert_close(e.ledger.inputs[sample], alone.ledger.inputs[0])


def test_an_id_for_each_sample_is_explained() -> None:
    model, user, item = drawn(Factors()), torch.tensor([1, 2, 3]), torch.tensor([4, 5, 5])
    e = relprop.explain(model, user, item, target=1)
    columns = relprop.explain(
        lambda both: model(both[:, 0], both[:, 1]), torch.stack([user, item], 1), target=1
    )
    torch.testing.assert_close(torch.stack([e.inputs["user"], e.inputs["item"]], 1), columns.relevance)
    assert len(e) == 3
    assert e.ledger.largest_gap < 1e-12
    assert not e.ledger.mixed


def test_ids_and_floats_of_one_number_each_are_explained_together() -> None:
    model = drawn(Factors())

    def priced(user: Tensor, item: Tensor, price: Tensor) -> Tensor:
        return model(user, item) * price[:, None]

    e = relprop.explain(
        priced,
        torch.tensor([1, 2, 3]),
        torch.tensor([4, 5, 5]),
        torch.rand(3, **DOUBLE),
        target=0,
        rules=UNIFORM,
    )
    assert {name: R.shape for name, R in e.inputs.items()} == dict.fromkeys(("user", "item", "price"), (3,))
    assert all(bool(R.any()) for R in e.inputs.values())


UNIFORM = [("*", relprop.rules.Uniform()), ("*", relprop.rules.Epsilon())]


@pytest.mark.parametrize("by_name", [True, False])
def test_lengths_are_passed_on_as_they_are(*, by_name: bool) -> None:
    model, text, lens = drawn(Mean()), torch.randint(20, (2, 5)), torch.tensor([5, 3])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ScoreWarning)
        run = partial(relprop.explain, model, text, target=0)
        e = run(lens=lens) if by_name else run(lens)
    assert list(e.inputs) == ["text"]
    assert torch.equal(e.relevance[1, 3:], torch.zeros(2, **DOUBLE))
    assert torch.equal(e.relevance, relprop.explain(lambda text: model(text, lens), text, target=0).relevance)


def test_the_graph_of_each_node_is_passed_on_as_it_is() -> None:
    model, x, batch = drawn(Pooled()), torch.randn(5, 4, **DOUBLE), torch.tensor([0, 0, 0, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        e = relprop.explain(model, x, batch, target=lambda output: output[:, 0].sum(), rules="epsilon")
    assert list(e.inputs) == ["x"]
    # Each graph is explained as it is alone.
    alone = relprop.explain(
        model, x[:3], batch[:3], target=lambda output: output[:, 0].sum(), rules="epsilon"
    )
    torch.testing.assert_close(e.relevance[:3], alone.relevance)


def test_a_single_number_is_passed_on() -> None:
    e = relprop.explain(lambda x, scale: x * scale, torch.rand(2, 3), torch.tensor(2.0), target=0)
    assert list(e.inputs) == ["x"]


def test_a_vector_that_is_not_of_the_samples_is_refused_with_a_remedy() -> None:
    x, weights = torch.rand(2, 3), torch.rand(3)

    def model(x: Tensor, weights: Tensor) -> Tensor:
        return x * weights

    with pytest.raises(
        InputError, match=r"different numbers of samples in their first dimension: \{'x': 2, "
    ) as e:
        relprop.explain(model, x, weights)
    assert "explain(lambda x: model(x, other=y), x)" in str(e.value)
    assert relprop.explain(lambda x: model(x, weights=weights), x).relevance.shape == (2, 3)
    assert "target=lambda output: output[:, 0].sum()" in str(e.value)
    explanation = relprop.explain(model, x, weights, target=lambda output: output[:, 0].sum(), rules=UNIFORM)
    assert {name: R.shape for name, R in explanation.inputs.items()} == {"x": (2, 3), "weights": (3,)}


@pytest.mark.parametrize(
    ("x", "model", "of_sample"),
    [
        (torch.rand(4), nn.Linear(4, 2), True),
        (torch.rand(4), lambda x: torch.stack([x, 2 * x], 1), False),
        (torch.tensor([1, 4, 2]), lambda x: WORDS(x).sum(1), True),
        (torch.tensor([1, 4, 2]), lambda x: WORDS(x), False),
        (torch.tensor(2.0), lambda x: torch.cat([x, 2 * x], 1), True),
    ],
)
def test_what_a_lone_vector_is_cannot_be_known(x: Tensor, model: Any, *, of_sample: bool) -> None:
    with pytest.raises(InputError, match="has no dimension for samples; give it one in front") as error:
        relprop.explain(model, x)
    said = str(error.value)
    if x.dim() == 0:
        assert "x.reshape(1, 1)" in said
        relprop.explain(model, x.reshape(1, 1))
    elif of_sample:
        assert "x.unsqueeze(0)" in said
        assert (
            len(relprop.explain(model.eval() if isinstance(model, nn.Module) else model, x.unsqueeze(0))) == 1
        )
    else:
        assert "explain(lambda x: model(x[:, 0]), x.unsqueeze(1))" in said
        assert len(relprop.explain(lambda x: model(x[:, 0]), x.unsqueeze(1))) == len(x)


WORDS = nn.Embedding(5, 2)
