"""Integer inputs that the score depends on and that cannot be explained: it is said, with the place."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from small_transformers import drawn

N, SIZE, CATEGORIES = 3, 4, 5


class Both(nn.Module):
    """A network of numbers and categories, which it takes in a way of its own."""

    def __init__(self, way: Callable[..., Any]) -> None:
        super().__init__()
        self.way = way
        self.words, self.bag = nn.Embedding(CATEGORIES, SIZE), nn.EmbeddingBag(CATEGORIES, SIZE)
        self.layer, self.head = nn.Linear(2 * SIZE, 6), nn.Linear(6, 3)

    def of(self, x: Tensor, h: Tensor) -> Tensor:
        return self.head(self.layer(torch.cat([x, h], 1)).relu())

    def forward(self, x: Tensor, category: Tensor) -> Any:
        return self.way(self, x, category)


def both(way: Callable[..., Any]) -> Any:
    torch.manual_seed(1)
    return drawn(Both(way))


def explained(way: Callable[..., Any], **options: Any) -> tuple[relprop.Explanation, list[str]]:
    """The explanation, and what was said about inputs."""
    x, category = torch.randn(N, SIZE, **DOUBLE), torch.tensor([1, 2, 4])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        e = relprop.explain(both(way), x, category, **{"target": 1, "rules": "epsilon"} | options)
    return e, [str(w.message) for w in said if "input" in str(w.message)]


def counted(model: Both, x: Tensor, i: Tensor) -> Tensor:
    return model.of(x, model.words(i.cumsum(0) % CATEGORIES))


def without_gradient(model: Both, x: Tensor, i: Tensor) -> Tensor:
    with torch.no_grad():
        h = model.words(i)
    return model.of(x, h)


def in_a_bag_without_gradient(model: Both, x: Tensor, i: Tensor) -> Tensor:
    with torch.no_grad():
        h = model.bag(i[:, None])
    return model.of(x, h)


def as_numbers(model: Both, x: Tensor, i: Tensor) -> Tensor:
    return model.of(x, x * i[:, None])


def as_a_time(model: Both, x: Tensor, i: Tensor) -> Tensor:
    return model.of(x, x * torch.sin(i.to(x.dtype))[:, None])


def added_as_integers(model: Both, x: Tensor, i: Tensor) -> Tensor:
    return model.of(x, F.one_hot(i[:, None], CATEGORIES).sum(1).to(x.dtype) @ model.words.weight)


def written_into_a_part(model: Both, x: Tensor, i: Tensor) -> Tensor:
    h = x.clone()
    h[:, :1].add_((i * 2.0)[:, None])
    return model.of(x, h)


LOST: dict[Callable[..., Any], tuple[str, str]] = {
    counted: ("cumsum", "computes with the integers"),
    without_gradient: ("embedding", "runs under torch.no_grad()"),
    in_a_bag_without_gradient: ("embedding_bag", "runs under torch.no_grad()"),
    as_numbers: ("mul", "computes with the integers"),
    as_a_time: ("to", "computes with the integers"),
    added_as_integers: ("sum", "computes with the integers"),
    written_into_a_part: ("mul", "computes with the integers"),
}


@pytest.mark.parametrize("rules", ["epsilon", "gradient-times-input"])
@pytest.mark.parametrize("way", LOST)
def test_an_input_that_is_lost_is_named_with_the_place(way: Callable[..., Any], rules: str) -> None:
    e, said = explained(way, rules=rules)
    operation, reason = LOST[way]
    assert list(e.inputs) == ["x"]
    assert len(said) == 1
    where = rf"{operation} in module '\w*(\(root\))?' at .*test_lost_ids\.py:\d+: {re.escape(reason)}"
    assert re.fullmatch(
        r"the score depends on input 'category', which is not explained\. What it contributes is in the "
        r"ledger under 'parameters' or 'constant', or counts as that of other inputs\. It was not followed "
        rf"to an embedding: {where}.*\. If it shall not be explained, bind it in a function: "
        r"explain\(lambda x: model\(x, category=category\), x\)\.",
        said[0],
    )


def test_what_is_said_to_be_typed_says_nothing_more() -> None:
    model, category = both(counted), torch.tensor([1, 2, 4])
    relprop.explain(lambda x: model(x, category=category), torch.randn(N, SIZE, **DOUBLE), target=1)


def test_an_input_that_is_explained_in_part() -> None:
    def twice(model: Both, x: Tensor, i: Tensor) -> Tensor:
        return model.of(x, model.words(i) + model.words(i.cumsum(0) % CATEGORIES))

    e, said = explained(twice)
    assert list(e.inputs) == ["x", "category"]
    assert len(said) == 1
    assert "input 'category', which is only in part explained" in said[0]


def by_lists(model: Both, i: Tensor) -> Tensor:
    return model.words(torch.tensor(i.tolist()))


def by_numpy(model: Both, i: Tensor) -> Tensor:
    return model.words(torch.from_numpy(i.numpy() % CATEGORIES))


def by_numbers(model: Both, i: Tensor) -> Tensor:
    return torch.stack([model.words.weight[int(k)] for k in i])


def by_what_is_unique(model: Both, i: Tensor) -> Tensor:
    ids, places = torch.unique(i, return_inverse=True)
    return model.words(ids)[places]


def by_each_class(model: Both, i: Tensor) -> Tensor:
    return torch.stack([(i == k).double() for k in range(CATEGORIES)], 1) @ model.words.weight


@pytest.mark.parametrize("way", [by_lists, by_numpy, by_numbers, by_what_is_unique, by_each_class])
def test_what_no_operation_is_known_to_do_is_found_by_other_integers(way: Callable[..., Any]) -> None:
    e, said = explained(lambda model, x, i: model.of(x, way(model, i)))
    assert list(e.inputs) == ["x"]
    (message,) = said
    assert "depends on input 'category', which is not explained" in message
    assert "the score changes with it, by code that relprop does not follow" in message
    for one in range(N):  # one sample alone
        x, category = torch.randn(1, SIZE, **DOUBLE), torch.tensor([one])
        with pytest.warns(UserWarning, match="by code that relprop does not follow"):
            relprop.explain(both(lambda m, x, i: m.of(x, way(m, i))), x, category, target=1, rules="epsilon")


def by_scatter(model: Both, i: Tensor) -> Tensor:
    return torch.zeros(N, CATEGORIES, **DOUBLE).scatter_(1, i[:, None], 1.0)


def by_assignment(model: Both, i: Tensor) -> Tensor:
    hot = torch.zeros(N, CATEGORIES, **DOUBLE)
    hot[torch.arange(N), i] = 1.0
    return hot


@pytest.mark.parametrize("way", [by_scatter, by_assignment])
def test_one_hot_vectors_that_are_written_are_warned_of(way: Callable[..., Any]) -> None:
    e, said = explained(lambda model, x, i: model.of(x, way(model, i) @ model.words.weight))
    assert list(e.inputs) == ["x"]
    (message,) = said
    assert "depends on input 'category', which is not explained" in message
    assert re.search("(scatter|index_put) in module", message)


def by_assigned_edges(model: Both, x: Tensor, edges: Tensor) -> Tensor:
    adjacency = torch.zeros(N, N, **DOUBLE)
    adjacency[edges[0], edges[1]] = 1.0
    return model.of(x, adjacency @ x)


def by_sparse_edges(model: Both, x: Tensor, edges: Tensor) -> Tensor:
    weights = torch.ones(edges.shape[1], **DOUBLE)
    return model.of(x, torch.sparse_coo_tensor(edges, weights, (N, N), check_invariants=False) @ x)


@pytest.mark.parametrize("way", [by_assigned_edges, by_sparse_edges])
def test_a_matrix_of_edges_needs_no_word(way: Callable[..., Any]) -> None:
    model, x, edges = both(way), torch.randn(N, SIZE, **DOUBLE), torch.tensor([[0, 1, 2, 2], [1, 2, 0, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        e = relprop.explain(model, x, edges, target=lambda y: y[:, 1].square().sum(), rules="epsilon")
    assert list(e.inputs) == ["x"]


def a_loss_beside(model: Both, x: Tensor, i: Tensor) -> Any:
    logits = model.of(x, x)
    return {"loss": F.cross_entropy(logits, i * 3 % 3), "logits": logits}


def a_mask(model: Both, x: Tensor, i: Tensor) -> Tensor:
    return model.of(x, x.masked_fill((i > 1)[:, None], 0))


def a_choice(model: Both, x: Tensor, i: Tensor) -> Tensor:
    return model.of(x, x).gather(1, (i % 3)[:, None].expand(-1, 2))


def nothing(model: Both, x: Tensor, i: Tensor) -> Tensor:
    return model.of(x, x)


def something_else(model: Both, x: Tensor, i: Tensor) -> Tensor:
    model.words(i * 3 % CATEGORIES)
    return model.of(x, model.words(i))


@pytest.mark.parametrize("way", [a_loss_beside, a_mask, a_choice, nothing, something_else])
def test_an_input_that_the_score_does_not_depend_on_needs_no_word(way: Callable[..., Any]) -> None:
    _, said = explained(way)
    assert said == []


def test_it_is_said_once_for_all_targets() -> None:
    x, category = torch.randn(N, SIZE, **DOUBLE), torch.tensor([1, 2, 4])
    with pytest.warns(UserWarning, match="which is not explained") as said:
        relprop.explain_each(both(counted), x, category, targets=[relprop.targets.RunnerUp(0), 1, 2])
    assert sum("not explained" in str(w.message) for w in said) == 1


def test_only_a_target_that_depends_on_it() -> None:
    def one_score(model: Both, x: Tensor, i: Tensor) -> Any:
        return {"with": counted(model, x, i), "without": model.of(x, x)}

    assert len(explained(one_score, target=relprop.targets.Part("with", 1))[1]) == 1
    assert explained(one_score, target=relprop.targets.Part("without", 1))[1] == []
