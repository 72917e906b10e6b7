"""Ids that a model makes one-hot rows of: the relevance of looking them up."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop.rules import Epsilon, Flat
from small_transformers import drawn

SIZE, IDS = 7, torch.tensor([[1, 2, 3], [4, 2, 6]])


class Words(nn.Module):
    """Ids as rows of a table, beside numbers."""

    def __init__(self, rows: "Callable[[Words, Tensor], Tensor]") -> None:
        super().__init__()
        self.rows = rows
        self.words, self.body, self.head = nn.Embedding(SIZE, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.rows(self, ids).mean(1)
        return self.head((h + self.body(h)).relu())


def model(rows: Callable[[Words, Tensor], Tensor]) -> Words:
    torch.manual_seed(0)
    made: Words = drawn(Words(rows))
    return made


def looked_up(m: Words, ids: Tensor) -> Tensor:
    return m.words(ids)


WAYS: dict[str, Callable[[Words, Tensor], Tensor]] = {
    "a product": lambda m, ids: F.one_hot(ids, SIZE).double() @ m.words.weight,
    "a type as another": lambda m, ids: F.one_hot(ids, SIZE).to(m.words.weight) @ m.words.weight,
    "nn.functional of flat ids": lambda m, ids: torch.mm(
        F.one_hot(ids.flatten(), SIZE).double(), m.words.weight
    ).view(*ids.shape, -1),
    "moved rows": lambda m, ids: (F.one_hot(ids, SIZE).transpose(0, 1).double() @ m.words.weight).transpose(
        0, 1
    ),
    "moved ids": lambda m, ids: (F.one_hot(ids.t(), SIZE).double() @ m.words.weight).transpose(0, 1),
    "rows of the identity": lambda m, ids: torch.eye(SIZE, **DOUBLE)[ids] @ m.words.weight,
    "an embedding of the identity": lambda m, ids: (
        F.embedding(ids, torch.eye(SIZE, **DOUBLE)) @ m.words.weight
    ),
}


@pytest.mark.parametrize(
    "rules", ["epsilon-plus-flat", "epsilon-gamma-flat", "attnlrp", "cp-lrp", Epsilon(0.3)]
)
@pytest.mark.parametrize("way", WAYS)
def test_a_product_with_a_table_is_a_lookup(way: str, rules: str | Epsilon) -> None:
    found = relprop.explain(model(WAYS[way]), IDS, target=1, rules=rules)
    expected = relprop.explain(model(looked_up), IDS, target=1, rules=rules)
    assert list(found.inputs) == ["ids"]
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-10, atol=1e-14)
    assert found.ledger.gap.max() < 1e-10
    assert len(found.rules) == len(expected.rules)


@pytest.mark.parametrize("rules", [Epsilon(0), Flat()])
def test_a_layer_on_one_hot_rows_has_its_rule(rules: Epsilon | Flat) -> None:
    """A linear layer is one, and its bias takes part. Each id has what its row of the input has."""

    class Layered(nn.Module):
        def __init__(self, *, of_ids: bool) -> None:
            super().__init__()
            self.of_ids, self.one, self.two = of_ids, nn.Linear(SIZE + 2, 5), nn.Linear(5, 3)

        def forward(self, given: Tensor, x: Tensor) -> Tensor:
            rows = F.one_hot(given, SIZE).to(x.dtype) if self.of_ids else given
            return self.two(self.one(torch.cat([rows, x], 1)).relu())

    ids, x = torch.tensor([1, 6, 1]), torch.randn(3, 2, **DOUBLE)
    torch.manual_seed(1)
    of_ids = drawn(Layered(of_ids=True))
    of_rows = drawn(Layered(of_ids=False))
    of_rows.load_state_dict(of_ids.state_dict())
    found = relprop.explain(of_ids, ids, x, target=1, rules=rules)
    expected = relprop.explain(of_rows, F.one_hot(ids, SIZE).double(), x, target=1, rules=rules)
    torch.testing.assert_close(found.inputs["given"], expected.inputs["given"].sum(1))
    torch.testing.assert_close(found.inputs["x"], expected.inputs["x"])
    assert [str(rule) for rule in found.rules] == [str(rule) for rule in expected.rules]


def test_rows_of_another_table_are_no_one_hot_rows() -> None:
    table = torch.randn(SIZE, SIZE, **DOUBLE)

    def rows(m: Words, ids: Tensor) -> Tensor:
        return table[ids] @ m.words.weight

    found = relprop.explain(model(rows), IDS, target=1, rules="epsilon")
    assert any("matmul" in str(rule) for rule in found.rules)
    assert not any("matmul" in str(rule) for rule in relprop.explain(model(WAYS["a product"]), IDS).rules)


def test_beside_numbers_and_as_a_mask() -> None:
    def masked(x: Tensor, ids: Tensor) -> Tensor:
        return head(x.masked_fill(F.one_hot(ids, 4).bool(), 0))

    head, x = nn.Linear(4, 3).double(), torch.randn(2, 4, **DOUBLE)
    found = relprop.explain(masked, x, torch.tensor([1, 2]), target=1)
    assert list(found.inputs) == ["x"]
