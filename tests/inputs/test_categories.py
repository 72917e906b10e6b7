"""Integer categories beside floating-point inputs: relevance is told for each of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close
from small_transformers import drawn

N, FIELDS, SIZE, CATEGORIES, NUMBERS = 3, 3, 4, 5, 2
OFFSETS = [0, CATEGORIES, 2 * CATEGORIES]

Lookup = Callable[["Table", Tensor], Tensor]

each_rule = pytest.mark.parametrize(
    "rules", ["epsilon", "epsilon-plus-flat", "attnlrp", "gradient-times-input"]
)


class Table(nn.Module):
    """A network of numbers, and of categories that it looks up in a way of its own."""

    def __init__(self, lookup: Lookup) -> None:
        super().__init__()
        self.lookup = lookup
        self.words = nn.Embedding(FIELDS * CATEGORIES, SIZE)
        self.offsets = nn.Buffer(torch.tensor(OFFSETS))
        self.layer, self.head = nn.Linear(FIELDS * SIZE + NUMBERS, 6), nn.Linear(6, 3)

    def of_embedded(self, x: Tensor, embedded: Tensor) -> Tensor:
        """The network behind the embedding, (samples, fields, size)."""
        return self.head(self.layer(torch.cat([x, embedded.flatten(1)], 1)).relu())

    def forward(self, x: Tensor, categories: Tensor) -> Tensor:
        return self.of_embedded(x, self.lookup(self, categories))


def table(lookup: Lookup) -> Any:
    torch.manual_seed(1)
    return drawn(Table(lookup))


def numbers() -> Tensor:
    return torch.randn(N, NUMBERS, **DOUBLE, generator=torch.Generator().manual_seed(2))


def categories(*shape: int) -> Tensor:
    return torch.randint(CATEGORIES, shape or (N, FIELDS), generator=torch.Generator().manual_seed(3))


def of_rows(model: Any, embedded: Tensor, rules: str) -> relprop.Explanation:
    """The same network, explained by the embedded rows, which are floating-point numbers."""
    return relprop.explain(model.of_embedded, numbers(), embedded.detach(), target=1, rules=rules)


# ---- offsets ----


def a_buffer(model: Table, ids: Tensor) -> Tensor:
    return model.words(ids + model.offsets)


def ids_second(model: Table, ids: Tensor) -> Tensor:
    return model.words(model.offsets + ids)


def subtracted(model: Table, ids: Tensor) -> Tensor:
    return model.words(ids - -model.offsets)


def of_the_ids_type(model: Table, ids: Tensor) -> Tensor:
    return model.words(ids + ids.new_tensor(OFFSETS).unsqueeze(0))


def of_another_type(model: Table, ids: Tensor) -> Tensor:
    return model.words(ids.int() + torch.arange(FIELDS).to(ids) * CATEGORIES)


def in_place(model: Table, ids: Tensor) -> Tensor:
    return model.words(ids.clone().add_(model.offsets))


def to_columns(model: Table, ids: Tensor) -> Tensor:
    ids = ids.clone()
    ids[:, 1] += OFFSETS[1]
    ids[:, 2:] += OFFSETS[2]
    return model.words(ids)


def column_by_column(model: Table, ids: Tensor) -> Tensor:
    columns = [column + offset for column, offset in zip(ids.unbind(1), OFFSETS, strict=True)]
    return model.words(torch.stack(columns, 1))


def in_two_steps(model: Table, ids: Tensor) -> Tensor:
    return model.words((ids + 1).flip(1).flip(1) + (model.offsets - 1))


WITH_OFFSETS = [
    *(a_buffer, ids_second, subtracted, of_the_ids_type, of_another_type, in_place, to_columns),
    *(column_by_column, in_two_steps),
]


@each_rule
@pytest.mark.parametrize("lookup", WITH_OFFSETS)
def test_an_offset_leaves_an_id_what_it_is(lookup: Lookup, rules: str) -> None:
    model, ids = table(lookup), categories()
    e = relprop.explain(model, numbers(), ids, target=1, rules=rules)
    expected = of_rows(model, model.words(ids + model.offsets), rules)
    assert list(e.inputs) == ["x", "categories"]
    assert (e.inputs["categories"] != 0).all()
    close(e.inputs["categories"], expected.inputs["embedded"].sum(-1))
    close(e.inputs["x"], expected.inputs["x"])
    assert "parameters" not in e.ledger.absorbed
    for sink, amounts in expected.ledger.absorbed.items():
        close(e.ledger.absorbed[sink], amounts)


def test_an_id_that_is_overwritten_after_its_offset_gets_nothing() -> None:
    def overwritten(model: Table, ids: Tensor) -> Tensor:
        ids = ids + model.offsets
        ids.data[:, 1] = 0
        return model.words(ids)

    model, ids = table(overwritten), categories()
    e = relprop.explain(model, numbers(), ids, target=1, rules="epsilon")
    rows = model.words((ids + model.offsets) * torch.tensor([1, 0, 1]))
    expected = of_rows(model, rows, "epsilon").inputs["embedded"].sum(-1)
    assert (e.inputs["categories"][:, 1] == 0).all()
    close(e.inputs["categories"][:, ::2], expected[:, ::2])
    close(e.ledger.absorbed["parameters"], expected[:, 1])


def test_the_sum_of_two_ids_is_neither_of_them() -> None:
    def of_both(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return model.of_embedded(x, model.words(a + b))

    model, ids = table(a_buffer), categories()
    with pytest.warns(UserWarning, match="the score depends on input '[ab]', which is not explained") as said:
        e = relprop.explain(of_both, numbers(), ids, ids, target=1, rules="epsilon")
    assert sorted(str(w.message).split("'")[1] for w in said) == ["a", "b"]
    assert list(e.inputs) == ["x"]
    assert (e.ledger.absorbed["parameters"] != 0).all()


# ---- one category a sample ----


@each_rule
@pytest.mark.parametrize("samples", [N, 1])
def test_categories_of_samples_are_as_those_of_one_field(samples: int, rules: str) -> None:
    def of_one(x: Tensor, category: Tensor) -> Tensor:
        return model.of_embedded(x, model.words(category)[:, None] * torch.ones(FIELDS, 1, **DOUBLE))

    model, ids, x = table(a_buffer), categories(samples), numbers()[:samples]
    e = relprop.explain(of_one, x, ids, target=1, rules=rules)
    expected = relprop.explain(
        lambda x, category: of_one(x, category.squeeze(1)), x, ids[:, None], target=1, rules=rules
    )
    assert e.inputs["category"].shape == (samples,)
    assert (e.inputs["category"] != 0).all()
    close(e.inputs["category"], expected.inputs["category"][:, 0])
    close(e.inputs["x"], expected.inputs["x"])
    close(e.ledger.inputs, expected.ledger.inputs)
    close(e[0].inputs["category"], e.inputs["category"][:1])


def test_integers_of_another_number_than_the_samples_are_no_categories() -> None:
    def with_three_more(x: Tensor, more: Tensor) -> Tensor:
        return model.of_embedded(x, model.words(more).expand(len(x), -1, -1))

    model = table(a_buffer)
    said = r"input 'more', which is not explained\. .* embedding: it has 3 numbers, .* have 2 samples\. "
    with pytest.warns(UserWarning, match=said):
        e = relprop.explain(with_three_more, numbers()[:2], categories(FIELDS), target=1, rules="epsilon")
    assert list(e.inputs) == ["x"]
    assert (e.ledger.absorbed["parameters"] != 0).all()


# ---- categories in a matrix of floating-point numbers ----


def matrix(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.cat([categories(), numbers()], 1).to(dtype)


Columns = Callable[[Tensor], Tensor]
"""From a matrix (samples, columns) to its categories, as integers (samples, fields)."""

CASTS: dict[str, Columns] = {
    "a slice": lambda x: x[:, :FIELDS].long(),
    "all": lambda x: x.long()[:, :FIELDS],
    "each": lambda x: torch.stack([x[:, i].long() for i in range(FIELDS)], 1),
    "by numbers": lambda x: x[:, [2, 0, 1]].to(torch.int64)[:, [1, 2, 0]],
    "another integer": lambda x: x.clone()[..., :FIELDS].int(),
    "type": lambda x: x.split([FIELDS, NUMBERS], 1)[0].t().contiguous().type(torch.LongTensor).t(),
}


def of_matrix(model: Table, columns: Columns) -> Callable[[Tensor], Tensor]:
    return lambda x: model.of_embedded(x[:, FIELDS:], model.words(columns(x) + model.offsets))


@each_rule
@pytest.mark.parametrize("way", CASTS)
def test_columns_that_are_cast_get_what_their_rows_get(way: str, rules: str) -> None:
    model, x = table(a_buffer), matrix()
    e = relprop.explain(of_matrix(model, CASTS[way]), x, target=1, rules=rules)
    expected = relprop.explain(model, numbers(), categories(), target=1, rules=rules)
    assert bool((x[:, :FIELDS] == 0).any())  # where no coefficient could say it
    assert (e.relevance[:, :FIELDS] != 0).all()
    close(e.relevance, torch.cat([expected.inputs["categories"], expected.inputs["x"]], 1))
    close(e.ledger.inputs, expected.ledger.inputs)
    assert "parameters" not in e.ledger.absorbed


def test_a_column_that_is_a_category_and_a_number_gets_both() -> None:
    def of_both(x: Tensor) -> Tensor:
        return model.of_embedded(x[:, 1:3], model.words(x[:, :FIELDS].long() + model.offsets))

    model, x = table(a_buffer), matrix()
    e = relprop.explain(of_both, x, target=1, rules="epsilon")
    expected = relprop.explain(model, x[:, 1:3], categories(), target=1, rules="epsilon").inputs
    close(e.relevance[:, 0], expected["categories"][:, 0])
    close(e.relevance[:, 1:3], expected["categories"][:, 1:] + expected["x"])
    assert (e.relevance[:, 3:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_columns_are_told_apart_in_half_precision(dtype: torch.dtype) -> None:
    words = drawn(nn.Embedding(7, 2), dtype)
    x = torch.arange(900).remainder(7).to(dtype).reshape(2, 450)
    e = relprop.explain(
        lambda x: words(x[:, :400].flip(1).long()).sum(1), x, target=1, rules="gradient-times-input"
    )
    assert (e.relevance[:, 400:] == 0).all()
    expected = words(x.long())[..., 1][:, :400].float()
    torch.testing.assert_close(e.relevance[:, :400].float(), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "counted",
    [
        lambda x: (x > 0).long().sum(1, keepdim=True).to(x.dtype),
        lambda x: (x != 0).long().to(x.dtype).mean(1, keepdim=True),
        lambda x: torch.bucketize(x[:, :1].contiguous(), BINS).to(x.dtype),
        lambda x: x[:, :1].round().long() / 2,
    ],
)
def test_masks_counts_and_bins_that_are_numbers_are_constants_without_a_word(counted: Columns) -> None:
    model, x = table(a_buffer), matrix()
    wide = drawn(nn.Linear(FIELDS + NUMBERS, 6))
    e = relprop.explain(lambda x: model.head(wide(x).relu() * (1 + counted(x))), x, target=1, rules="epsilon")
    assert e.ledger.gap.max() < 1e-9


BINS = torch.arange(CATEGORIES, **DOUBLE)

COMPUTED: dict[str, Columns] = {
    "rounded": lambda x: x[:, :FIELDS].round().int(),
    "the next lower": lambda x: (x[:, :FIELDS] + 0.5).floor().long(),
    "scaled": lambda x: (2 * x[:, :FIELDS] / 2).long(),
    "clamped": lambda x: x[:, :FIELDS].clamp(0, CATEGORIES - 1).long(),
    "without what is missing": lambda x: torch.where(x.isnan(), 0.0, x).long()[:, :FIELDS],
    "bins": lambda x: torch.bucketize(x[:, :FIELDS].contiguous(), BINS),
    "bins of integers": lambda x: torch.bucketize(x[:, :FIELDS].contiguous(), BINS, out_int32=True),
    "places": lambda x: torch.searchsorted(BINS, x[:, :FIELDS].contiguous()).clamp(max=CATEGORIES - 1),
    "beyond a threshold": lambda x: (x[:, :FIELDS] > 2).long(),
    "rounded and moved": lambda x: x.round().t()[:FIELDS].flip(1).t().flip(0).to(torch.int64),
}


@pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus-flat", "attnlrp"])
@pytest.mark.parametrize("way", COMPUTED)
def test_a_function_of_each_element_that_is_cast_leaves_it_what_it_is(way: str, rules: str) -> None:
    model, x, columns = table(a_buffer), matrix(), COMPUTED[way]
    e = relprop.explain(of_matrix(model, columns), x, target=1, rules=rules)
    expected = relprop.explain(model, numbers(), columns(x).long(), target=1, rules=rules)
    close(e.relevance, torch.cat([expected.inputs["categories"], expected.inputs["x"]], 1))
    assert "parameters" not in e.ledger.absorbed


@pytest.mark.parametrize("rules", ["epsilon", "gradient-times-input"])
@pytest.mark.parametrize(
    "columns",
    [
        lambda x: (x[:, :FIELDS] + x[:, 1 : FIELDS + 1]).abs().long() % CATEGORIES,
        lambda x: (x.round().cumsum(1)[:, :FIELDS].long().abs() + 1) % CATEGORIES,
        lambda x: torch.bucketize(x[:, :FIELDS].cumsum(1), BINS).clamp(max=CATEGORIES - 1).t().t(),
    ],
)
def test_what_several_elements_say_to_look_up_is_warned_of(columns: Columns, rules: str) -> None:
    model = table(a_buffer)
    with pytest.warns(UserWarning, match="input 'x', which is only in part explained") as warned:
        e = relprop.explain(of_matrix(model, columns), matrix(), target=1, rules=rules)
    assert "embedding in module '(root)' at" in str(warned[0].message)
    assert "followed are functions of each element alone, such as .round().long()" in str(warned[0].message)
    assert (e.relevance[:, :FIELDS] == 0).all()
