"""Tokens on their way to the embedding: joined, used as a shape, an index or a mask, and written to."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import close
from relprop.errors import InputError, ScoreWarning
from small_transformers import drawn

N, T, D, WORDS = 2, 5, 6, 11


class Reader(nn.Module):
    """A bag of tokens in which the order counts, after a lookup that is spelled in a way of its own."""

    def __init__(self, lookup: Callable[..., Tensor]) -> None:
        super().__init__()
        self.lookup = lookup
        self.words, self.places = nn.Embedding(WORDS, D), nn.Embedding(T, D)
        self.table = nn.Buffer(torch.arange(WORDS).flip(0))
        self.layer, self.head = nn.Linear(D, D), nn.Linear(D, 3)

    def forward(self, ids: Tensor, others: Tensor | None = None) -> Tensor:
        h = self.lookup(self, *(given for given in (ids, others) if given is not None))
        return self.head(self.layer(h.cumsum(1)).tanh()[:, -1])


def reader(lookup: Callable[..., Tensor]) -> Any:
    torch.manual_seed(1)
    return drawn(Reader(lookup))


def ids(samples: int = N, tokens: int = T) -> Tensor:
    return torch.randint(WORDS, (samples, tokens), generator=torch.Generator().manual_seed(samples + tokens))


def plainly(model: Reader, i: Tensor) -> Tensor:
    return model.words(i)


def explained(lookup: Callable[..., Tensor], *given: Tensor, **options: Any) -> relprop.Explanation:
    e = relprop.explain(reader(lookup), *given, target=1, **{"rules": "attnlrp"} | options)
    assert e.ledger.gap.max() < 1e-12
    return e


# ---- several inputs in one lookup ----


def joined(model: Reader, a: Tensor, b: Tensor) -> Tensor:
    return model.words(torch.cat([a, b], 1))


@pytest.mark.parametrize(
    "rules", ["attnlrp", "epsilon-plus-flat", "gradient-times-input", "squared-gradient"]
)
@pytest.mark.parametrize(("left", "right"), [(2, 2), (1, 3), (3, 1)])
def test_inputs_that_are_joined_get_their_parts(left: int, right: int, rules: str) -> None:
    a, b = ids(N, left), ids(N, right + 10)[:, 10:]
    both = relprop.explain(reader(joined), a, b, target=1, rules=rules)
    one = relprop.explain(reader(plainly), torch.cat([a, b], 1), target=1, rules=rules).relevance
    assert list(both.inputs) == ["ids", "others"]
    for R, expected in zip(both.inputs.values(), one.split([left, right], 1), strict=True):
        close(R, expected)
        assert (R != 0).all()


def test_inputs_that_are_stacked_and_looked_up_again_get_the_sum() -> None:
    def twice(model: Reader, a: Tensor, b: Tensor) -> Tensor:
        return model.words(torch.stack([a, b], 1)).flatten(1, 2) + model.words(torch.cat([a, b], 1)) * 2

    a, b = ids(), ids(N, T + 1)[:, 1:]
    e = explained(twice, a, b)
    expected = explained(lambda model, i: model.words(i) * 3, torch.cat([a, b], 1)).relevance
    close(torch.cat(list(e.inputs.values()), 1), expected)


# ---- ids that give a shape, a type or an index ----

PLACES: dict[str, Callable[[Tensor], Tensor]] = {
    "expand_as": lambda i: torch.arange(T).unsqueeze(0).expand_as(i),
    "view_as": lambda i: torch.arange(T).repeat(N).view_as(i),
    "reshape_as": lambda i: torch.arange(T).repeat(N).reshape_as(i),
    "to": lambda i: torch.arange(T, dtype=torch.int32).expand(N, -1).to(i),
    "to tensor=": lambda i: torch.arange(T, dtype=torch.int32).expand(N, -1).to(tensor=i),
}


@pytest.mark.parametrize("way", PLACES)
def test_positions_of_the_ids_shape_are_no_ids(way: str) -> None:
    def with_places(model: Reader, i: Tensor) -> Tensor:
        return model.words(i) + model.places(PLACES[way](i))

    e = explained(with_places, ids())
    expected = explained(lambda model, i: model.words(i) + model.places(torch.arange(T).expand(N, -1)), ids())
    close(e.relevance, expected.relevance)
    close(e.ledger.absorbed["parameters"], expected.ledger.absorbed["parameters"])
    assert (e.ledger.absorbed["parameters"] != 0).all()


def test_an_index_made_of_ids_says_where_and_not_what() -> None:
    def marked(model: Reader, i: Tensor) -> Tensor:
        seen = torch.zeros(T, dtype=torch.int64)
        seen[i.clamp(max=4)] = 1
        return model.words(i) * (seen.sum() + 1)

    found = len(ids().clamp(max=4).unique())
    expected = explained(lambda model, i: model.words(i) * (found + 1), ids())
    close(explained(marked, ids()).relevance, expected.relevance)


# ---- ids that are written to ----


def filled(i: Tensor) -> Tensor:
    i = i.clone()
    i[:, 0].fill_(9)
    return i


def assigned(i: Tensor) -> Tensor:
    i = i.clone()
    i[:, 0] = 9
    return i


def filled_at_a_mask(i: Tensor) -> Tensor:
    i = i.clone()
    return i.masked_fill_(torch.arange(T) == 0, 9)


def in_its_input(i: Tensor) -> Tensor:
    i[:, 0].fill_(9)
    return i


def zeroed(i: Tensor) -> Tensor:
    i = i.clone()
    i[:, 0].zero_()
    return i


def out_of_sight(i: Tensor) -> Tensor:
    i = i.clone()
    i.data[:, 0] = 9
    return i


WRITTEN = [filled, assigned, filled_at_a_mask, in_its_input, zeroed, out_of_sight]


@pytest.mark.parametrize("write", WRITTEN)
def test_a_token_that_is_overwritten_gets_nothing(write: Callable[[Tensor], Tensor]) -> None:
    text = ids()
    before = text.clone()
    e = explained(lambda model, i: model.words(write(i)), text)
    assert torch.equal(text, before)
    expected = explained(plainly, write(text.clone())).relevance
    assert (e.relevance[:, 0] == 0).all()
    close(e.relevance[:, 1:], expected[:, 1:])
    close(e.ledger.absorbed["parameters"], expected[:, 0])


def test_ids_that_are_copied_into_zeros() -> None:
    def shifted(i: Tensor) -> Tensor:
        other = i.new_zeros(i.shape)
        other[:, 1:].copy_(i[:, :-1])
        return other

    e = explained(lambda model, i: model.words(shifted(i)), ids())
    expected = explained(plainly, shifted(ids())).relevance
    close(e.relevance[:, :-1], expected[:, 1:])
    assert (e.relevance[:, -1] == 0).all()
    close(e.ledger.absorbed["parameters"], expected[:, 0])


def test_a_view_that_was_made_before_is_of_what_is_written_later() -> None:
    def of_a_view(model: Reader, i: Tensor) -> Tensor:
        i = i.clone()
        turned = i.t()
        i[:, 0] = 9
        return model.words(turned).transpose(0, 1)

    e, expected = explained(of_a_view, ids()), explained(plainly, assigned(ids())).relevance
    assert (e.relevance[:, 0] == 0).all()
    close(e.relevance[:, 1:], expected[:, 1:])


def masked(model: Reader, i: Tensor, mask: Tensor) -> Tensor:
    return model.words(i * mask)


def without_gradient(model: Reader, i: Tensor) -> Tensor:
    with torch.no_grad():
        return model.words(i)


def in_a_bag(model: Reader, i: Tensor) -> Tensor:
    with torch.no_grad():
        return nn.functional.embedding_bag(i, model.words.weight)[:, None]


REFUSED: dict[str, tuple[Callable[..., Tensor], str, str]] = {
    "a mask": (masked, "mul", "computes with the integers"),
    "no gradient": (without_gradient, "embedding", r"runs under torch\.no_grad\(\)"),
    "bag": (in_a_bag, "embedding_bag", r"runs under torch\.no_grad\(\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_followed_is_refused_by_name_and_place(case: str) -> None:
    lookup, name, reason = REFUSED[case]
    others = [torch.ones(N, T, dtype=torch.int32)] if case == "a mask" else []
    message = rf"nothing to explain(.|\n)*\n  - {name} in (.|\n)*test_ways_of_ids\.py:\d+(.|\n)*: {reason}"
    with pytest.raises(InputError, match=message):
        relprop.explain(reader(lookup), ids(), *others, target=1)


# ---- ids that are replaced, each by itself ----


def counted_up_in_place(model: Reader, i: Tensor) -> Tensor:
    i = i.clone()
    i[:, 0].add_(1).remainder_(WORDS)
    return i


REPLACED: dict[str, Callable[[Reader, Tensor], Tensor]] = {
    "a table of integers": lambda model, i: model.table[i],
    "a table of integers and an offset": lambda model, i: model.table[i // 2 + 1],
    "a hash": lambda model, i: (i * 7 + 3) % WORDS,
    "a quotient": lambda model, i: torch.div(i, 2, rounding_mode="floor"),
    "a mask of itself": lambda model, i: i * (i != 3),
    "bits": lambda model, i: (i ^ 5) & 7,
    "in place, in a view": counted_up_in_place,
    "from behind": lambda model, i: WORDS - 1 - i,
}


@pytest.mark.parametrize("rules", ["attnlrp", "epsilon-plus-flat", "gradient-times-input"])
@pytest.mark.parametrize("how", REPLACED)
def test_an_id_that_is_replaced_gets_what_is_looked_up_in_its_place(how: str, rules: str) -> None:
    found = explained(lambda model, i: model.words(REPLACED[how](model, i)), ids(), rules=rules)
    expected = explained(plainly, REPLACED[how](reader(plainly), ids()), rules=rules)
    close(found.relevance, expected.relevance)
    assert found.relevance.any()


HOT: dict[str, Callable[[Tensor], Tensor]] = {
    "to": lambda i: F.one_hot(i, WORDS).to(torch.float64),
    "double": lambda i: F.one_hot(i, WORDS).double(),
    "type_as": lambda i: F.one_hot(i, WORDS).type_as(torch.ones((), dtype=torch.float64)),
    "moved": lambda i: F.one_hot(i.T, WORDS).transpose(0, 1).contiguous().double(),
    "joined": lambda i: torch.cat([F.one_hot(t, WORDS) for t in i.split(1, 1)], 1).double(),
    "in a product": lambda i: F.one_hot(i, WORDS) * torch.ones((), dtype=torch.float64),
    "among numbers": lambda i: torch.cat(
        [torch.zeros(*i.shape, 2, dtype=torch.float64), F.one_hot(i, WORDS)], -1
    )[..., 2:],
    "by comparison": lambda i: (i[..., None] == torch.arange(WORDS)).double(),
    "by comparison, as integers first": lambda i: (torch.arange(WORDS) == i.unsqueeze(-1)).long().double(),
    "by comparison, expanded": lambda i: i[..., None].expand(-1, -1, WORDS).eq(torch.arange(WORDS)).double(),
    "by comparison, in a product": lambda i: (
        (i[..., None] == torch.arange(WORDS)) * torch.ones((), dtype=torch.float64)
    ),
    "by comparison, masked": lambda i: (
        (i[..., None] == torch.arange(WORDS)) & (torch.arange(WORDS) < WORDS)
    ).double(),
    "by comparison, moved": lambda i: (i == torch.arange(WORDS)[:, None, None]).permute(1, 2, 0).double(),
}


@pytest.mark.parametrize("rules", ["attnlrp", "epsilon-plus-flat", "gradient-times-input"])
@pytest.mark.parametrize("way", HOT)
def test_one_hot_vectors_give_the_ids_what_a_table_gives(way: str, rules: str) -> None:
    found = explained(lambda model, i: HOT[way](i) @ model.words.weight, ids(), rules=rules)
    expected = explained(plainly, ids(), rules=rules)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-5, atol=1e-5)
    assert len(found.ledger.seed) == N


def test_flat_puts_relevance_on_zeros_of_one_hot_vectors_which_is_that_of_the_id() -> None:
    layer, i = drawn(nn.Linear(WORDS, 3, bias=False)), torch.tensor([[4], [0]])

    def model(ids: Tensor) -> Tensor:
        return layer(F.one_hot(ids[:, 0], WORDS).double())

    e = relprop.explain(model, i, target=1, rules="Flat()")
    torch.testing.assert_close(e.relevance, model(i)[:, 1:2])


def by_comparison(i: Tensor) -> Tensor:
    return i[..., None] == torch.arange(WORDS)


LOST_HOT: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "added as integers": ("sum", lambda i: F.one_hot(i, WORDS).sum(1, keepdim=True)),
    "added as truth values": ("sum", lambda i: by_comparison(i).sum(1, keepdim=True)),
    "by where, numbers": ("where", lambda i: torch.where(by_comparison(i), 1.0, 0.0)),
    "by where, integers": ("where", lambda i: torch.where(by_comparison(i), 1, 0)),
    "by masked_fill": ("masked_fill", lambda i: torch.zeros(N, 5, WORDS).masked_fill(by_comparison(i), 1.0)),
    "its opposite": ("__invert__|bitwise_not", lambda i: ~by_comparison(i)),
}


@pytest.mark.parametrize("how", LOST_HOT)
def test_one_hot_vectors_that_are_lost_are_named(how: str) -> None:
    name, function = LOST_HOT[how]

    def lossy(model: Reader, i: Tensor) -> Tensor:
        return function(i).double() @ model.words.weight

    with pytest.raises(
        InputError, match=rf"nothing to explain(.|\n)*\n  - ({name}) in (.|\n)*: computes with the int"
    ):
        relprop.explain(reader(lossy), ids(), target=1)


def test_ids_that_are_only_compared_are_not_lost() -> None:
    def looking(model: Reader, i: Tensor) -> Tensor:
        special = (i[..., None] == torch.tensor([2, 5])).any(-1)
        return model.words(i) * ~special[..., None] * (i == i[:, :1])[..., None] * (i != 3)[..., None]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ScoreWarning)
        assert explained(looking, ids()).relevance.any()


MASKS: dict[str, Callable[[Reader, Tensor], Tensor]] = {
    "as a condition": lambda model, i: torch.where(
        by_comparison(i)[..., None], model.words.weight, torch.zeros(())
    ).sum(2),
    "as an index": lambda model, i: model.words.weight.expand(*i.shape, -1, -1)[by_comparison(i)].view(
        *i.shape, -1
    ),
}


@pytest.mark.parametrize("how", MASKS)
def test_comparisons_with_each_class_are_still_masks(how: str) -> None:
    def masked(model: Reader, i: Tensor) -> Tensor:
        return model.words(i) + MASKS[how](model, i)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = explained(masked, ids())
        expected = explained(plainly, ids())
    assert found.relevance.shape == expected.relevance.shape
    assert found.relevance.any()
