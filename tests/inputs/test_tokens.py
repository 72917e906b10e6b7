"""Integer inputs: relevance of tokens, however their ids come to the embedding."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close
from relprop.errors import InputError
from relprop.targets import At
from small_transformers import Transformer, drawn

N, TOKENS, SIZE, WORDS = 2, 6, 16, 11
LAST = At(-1, 3)

METHODS = ["attnlrp", "cp-lrp", "epsilon"]
each_method = pytest.mark.parametrize("rules", METHODS)


def ids(samples: int = N, tokens: int = TOKENS) -> Tensor:
    return torch.randint(1, WORDS, (samples, tokens), generator=torch.Generator().manual_seed(3))


def transformer(dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    return drawn(Transformer(SIZE, words=WORDS, **options), dtype)


@each_method
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_relevance_of_a_token_is_that_of_its_embedding(dtype: torch.dtype, rules: str) -> None:
    model, text = transformer(), ids().to(dtype)
    e = relprop.explain(model, text, target=LAST, rules=rules)
    embedded = relprop.explain(model, inputs_embeds=model.embedding(text).detach(), target=LAST, rules=rules)
    assert e.relevance.shape == (N, TOKENS)
    close(e.relevance, embedded.relevance.sum(-1))
    torch.testing.assert_close(e.output, model(text), rtol=1e-12, atol=1e-12)
    for sink, amounts in embedded.ledger.absorbed.items():
        close(e.ledger.absorbed[sink], amounts)
    assert e.ledger.absorbed.keys() == embedded.ledger.absorbed.keys()
    close(e.ledger.inputs, e.relevance.sum(1))
    assert e.ledger.gap.max() < 1e-12


def test_by_keyword_in_a_dictionary_and_with_what_is_none() -> None:
    model, text = transformer(), ids()
    expected = relprop.explain(model, text, target=LAST, rules="attnlrp").relevance
    for e in (
        relprop.explain(model, input_ids=text, target=LAST, rules="attnlrp"),
        relprop.explain(model, text, None, target=LAST, rules="attnlrp"),
        relprop.explain(model, input_ids=text, inputs_embeds=None, target=LAST, rules="attnlrp"),
    ):
        assert torch.equal(e.relevance, expected)


def test_a_text_alone_is_as_in_a_batch() -> None:
    model, text = transformer(), ids(3)
    together = relprop.explain(model, text, target=LAST, rules="attnlrp").relevance
    for sample in range(3):
        alone = relprop.explain(model, text[sample : sample + 1], target=LAST, rules="attnlrp").relevance
        close(alone[0], together[sample])


# ---- the way of ids to the embedding ----

Lookup = Callable[[nn.Embedding, Tensor], Tensor]


def flattened(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids.reshape(-1)).view(*ids.shape, -1)


def turned(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids.t().contiguous()).transpose(0, 1)


def in_pieces(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    left, right = ids.split([2, TOKENS - 2], 1)
    return torch.cat([embedding(left), embedding(right)], 1)


def token_by_token(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return torch.stack([embedding(column) for column in ids.unbind(1)], 1)


def of_negative_pads(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids.clamp(min=0))


def looked_up_by_index(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding.weight[ids]


def looked_up_by_index_select(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding.weight.index_select(0, ids.flatten()).unflatten(0, ids.shape)


def looked_up_by_torch(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return torch.embedding(embedding.weight, ids)


def looked_up_by_function(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return F.embedding(input=ids.to(torch.int64), weight=embedding.weight, padding_idx=0)


def viewed(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids.view(-1, TOKENS).unsqueeze(1).expand(-1, 1, -1).squeeze(1).clone().long())


def sliced(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return torch.cat([embedding(ids[:, :1]), embedding(ids[:, 1:])], 1)


SAME: dict[str, Lookup] = {
    f.__name__: f
    for f in (
        flattened,
        turned,
        in_pieces,
        token_by_token,
        of_negative_pads,
        looked_up_by_index,
        looked_up_by_index_select,
        looked_up_by_torch,
        looked_up_by_function,
        viewed,
        sliced,
    )
}


class Reader(nn.Module):
    """Takes ids to an embedding in a way of its own, and what comes of it to a transformer."""

    def __init__(self, lookup: Lookup, model: Any) -> None:
        super().__init__()
        self.lookup, self.model = lookup, model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(inputs_embeds=self.lookup(self.model.embedding, ids))


@pytest.mark.parametrize("way", SAME)
def test_every_way_to_the_embedding_is_the_same(way: str) -> None:
    model, text = transformer(), ids()
    expected = relprop.explain(model, text, target=LAST, rules="attnlrp")
    e = relprop.explain(Reader(SAME[way], model).eval(), text, target=LAST, rules="attnlrp")
    close(e.relevance, expected.relevance)
    assert e.ledger.gap.max() < 1e-12
    assert not e.ledger.mixed


def flipped(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids.flip(1))


def rolled(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids.roll(1, 1))


def without_the_last(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids[:, :-1])


def some(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids[:, [3, 0, 0]])


def gathered(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids.gather(1, torch.tensor([[1, 2], [5, 5]])))


def repeated(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids.repeat(1, 2))


REARRANGED: dict[str, tuple[Lookup, Tensor]] = {
    f.__name__: (f, torch.tensor(places))
    for f, places in (
        (flipped, [[5, 4, 3, 2, 1, 0]] * N),
        (rolled, [[5, 0, 1, 2, 3, 4]] * N),
        (without_the_last, [[0, 1, 2, 3, 4]] * N),
        (some, [[3, 0, 0]] * N),
        (gathered, [[1, 2], [5, 5]]),
        (repeated, [[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]] * N),
    )
}


@pytest.mark.parametrize("way", REARRANGED)
def test_relevance_comes_back_to_the_token_that_it_is_of(way: str) -> None:
    lookup, places = REARRANGED[way]
    model, text = transformer(), ids()
    e = relprop.explain(Reader(lookup, model).eval(), text, target=LAST, rules="attnlrp")
    embeds = model.embedding(text.gather(1, places)).detach()
    rows = relprop.explain(model, inputs_embeds=embeds, target=LAST, rules="attnlrp").relevance.sum(-1)
    expected = torch.zeros(N, TOKENS, **DOUBLE)
    for sample in range(N):
        for row, place in enumerate(places[sample].tolist()):
            expected[sample, place] += rows[sample, row]
    close(e.relevance, expected)
    assert e.ledger.gap.max() < 1e-12


def shifted_right(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    """As decoders make their input of the labels."""
    shifted = ids.new_zeros(ids.shape)
    shifted[:, 1:] = ids[:, :-1].clone()
    shifted[:, 0] = 7
    return embedding(shifted)


def with_a_start(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(torch.cat([torch.full((len(ids), 1), 7), ids[:, :-1]], 1))


def padded_in_front(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(F.pad(ids[:, :-1], (1, 0), value=7))


START: list[Lookup] = [shifted_right, with_a_start, padded_in_front]


@pytest.mark.parametrize("lookup", START)
def test_a_token_that_the_model_begins_with_is_a_parameter(lookup: Lookup) -> None:
    model, text = transformer(positions=None), ids()
    e = relprop.explain(Reader(lookup, model).eval(), text, target=LAST, rules="attnlrp")
    begun = torch.cat([torch.full((N, 1), 7), text[:, :-1]], 1)
    expected = relprop.explain(model, begun, target=LAST, rules="attnlrp").relevance
    close(e.relevance[:, :-1], expected[:, 1:])
    assert (e.relevance[:, -1] == 0).all()
    close(e.ledger.absorbed["parameters"], expected[:, 0])
    assert e.ledger.gap.max() < 1e-12


PADS: list[Lookup] = [
    lambda embedding, ids: embedding(ids.masked_fill(ids == 5, 0)),
    lambda embedding, ids: embedding(torch.where(ids == 5, 0, ids)),
    lambda embedding, ids: embedding(torch.where(ids != 5, ids, torch.zeros_like(ids))),
    lambda embedding, ids: embedding(ids.where(ids != 5, torch.zeros((), dtype=torch.int64))),
]


@pytest.mark.parametrize("lookup", PADS, ids=["masked_fill", "where", "where of tensors", "method"])
def test_ids_that_are_replaced_get_nothing(lookup: Lookup) -> None:
    model, text = transformer(positions=None), ids()
    text[0, 2], text[1, 4] = 5, 5
    e = relprop.explain(Reader(lookup, model).eval(), text, target=LAST, rules="attnlrp")
    expected = relprop.explain(model, text.masked_fill(text == 5, 0), target=LAST, rules="attnlrp").relevance
    close(e.relevance, expected.masked_fill(text == 5, 0))
    close(e.ledger.absorbed["parameters"], expected.masked_fill(text != 5, 0).sum(1))
    assert e.ledger.gap.max() < 1e-12


# ---- what else is looked up ----


class Typed(nn.Module):
    """A transformer whose tokens have positions and types, as BERT's, and a token of the class in front."""

    def __init__(self, model: Any, class_token: bool = False) -> None:
        super().__init__()
        self.model = model
        self.places, self.types = nn.Embedding(12, SIZE).double(), nn.Embedding(3, SIZE).double()
        self.class_token = nn.Parameter(torch.randn(1, 1, SIZE, **DOUBLE)) if class_token else None

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        places = torch.arange(input_ids.shape[1]) if position_ids is None else position_ids
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        h = self.model.embedding(input_ids) + self.types(types)
        h = h + self.places(places)
        if self.class_token is not None:
            h = torch.cat([self.class_token.expand(len(h), -1, -1), h], 1)
        return self.model(inputs_embeds=h)


TYPES = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 2, 2, 2, 1, 1]])


@each_method
def test_positions_and_types_are_parameters_in_the_books(rules: str) -> None:
    model, text = Typed(transformer(positions=None)).eval(), ids()
    places = torch.arange(TOKENS).expand(N, -1) + 2
    for given in (
        {},
        {"token_type_ids": TYPES},
        {"position_ids": places},
        {"token_type_ids": TYPES, "position_ids": places},
    ):
        e = relprop.explain(model, text, **given, target=LAST, rules=rules)
        assert e.relevance.shape == (N, TOKENS)
        positions = given.get("position_ids", torch.arange(TOKENS).expand(N, -1))
        types = given.get("token_type_ids", torch.zeros(N, TOKENS, dtype=torch.int64))
        words = model.model.embedding(text).detach()
        whole = (words + model.types(types) + model.places(positions)).detach()
        R = relprop.explain(model.model, inputs_embeds=whole, target=LAST, rules=rules).relevance
        close(e.relevance, (R * words / whole).sum(-1))
        close(e.ledger.absorbed["parameters"], (R * (1 - words / whole)).sum((1, 2)))
        assert e.ledger.gap.max() < 1e-12


@each_method
def test_a_token_of_the_class_is_a_parameter_in_the_books(rules: str) -> None:
    model, text = Typed(transformer(positions=None, causal=False), class_token=True).eval(), ids()
    e = relprop.explain(model, text, token_type_ids=TYPES, target=At(0, 3), rules=rules)
    words = model.model.embedding(text).detach()
    whole = (words + model.types(TYPES) + model.places(torch.arange(TOKENS))).detach()
    joined = torch.cat([model.class_token.detach().expand(N, -1, -1), whole], 1)
    R = relprop.explain(model.model, inputs_embeds=joined, target=At(0, 3), rules=rules).relevance
    close(e.relevance, (R[:, 1:] * words / whole).sum(-1))
    parameters = R[:, 0].sum(-1) + (R[:, 1:] * (1 - words / whole)).sum((1, 2))
    close(e.ledger.absorbed["parameters"], parameters)
    assert e.ledger.gap.max() < 1e-12


def test_a_positional_parameter_is_one_in_the_books() -> None:
    model, text = transformer(), ids()
    e = relprop.explain(model, text, target=LAST, rules="attnlrp")
    words, positions = model.embedding(text).detach(), model.positions[:TOKENS].detach()
    without = transformer(positions=None)
    without.load_state_dict({k: v for k, v in model.state_dict().items() if k != "positions"})
    R = relprop.explain(without, inputs_embeds=words + positions, target=LAST, rules="attnlrp").relevance
    close(e.ledger.absorbed["parameters"], (R * positions / (words + positions)).sum((1, 2)))
    close(e.relevance, (R * words / (words + positions)).sum(-1))


def test_a_table_that_is_no_parameter_is_a_constant_in_the_books() -> None:
    model, text = transformer(positions=None), ids()
    waves = torch.randn(TOKENS, SIZE, **DOUBLE)
    reader = Reader(lambda embedding, ids: embedding(ids) + waves, model).eval()
    e = relprop.explain(reader, text, target=LAST, rules="attnlrp")
    assert e.ledger.absorbed["constant"].abs().min() > 1e-6
    assert "parameters" not in e.ledger.absorbed
    assert e.ledger.gap.max() < 1e-12


# ---- several embeddings and inputs ----


class TwoTables(nn.Module):
    """Embeds its ids two times, by tables of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Embedding(WORDS, SIZE), nn.Embedding(WORDS, 2 * SIZE)
        self.down, self.rest = nn.Linear(2 * SIZE, SIZE), Transformer(SIZE, words=WORDS)

    def forward(self, ids: Tensor) -> Tensor:
        return self.rest(inputs_embeds=self.one(ids) + self.down(self.other(ids)))


def test_ids_that_are_embedded_twice_get_the_relevance_of_both() -> None:
    model, text = drawn(TwoTables()), ids()
    e = relprop.explain(model, text, target=LAST, rules="attnlrp")

    def of_embedded(one: Tensor, other: Tensor) -> Tensor:
        return model.rest(inputs_embeds=one + model.down(other))

    tables = model.one(text).detach(), model.other(text).detach()
    parts = relprop.explain(of_embedded, *tables, target=LAST, rules="attnlrp").inputs.values()
    close(e.relevance, sum(part.sum(-1) for part in parts))
    assert e.ledger.gap.max() < 1e-12


class Pair(nn.Module):
    """Reads a text and begins to answer, as an encoder and decoder do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE)
        self.reader, self.answers = Transformer(SIZE, words=SIZE), Transformer(SIZE, words=WORDS)

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        memory = self.reader(inputs_embeds=self.embedding(input_ids))
        answer = self.embedding(decoder_input_ids)
        return self.answers(inputs_embeds=torch.cat([memory, answer], 1))


def test_several_inputs_give_a_dictionary_in_the_order_of_the_arguments() -> None:
    model, text, answer = drawn(Pair()), ids(), ids(N, 3)
    e = relprop.explain(model, text, answer, target=LAST, rules="attnlrp")
    turned = relprop.explain(model, decoder_input_ids=answer, input_ids=text, target=LAST, rules="attnlrp")
    assert list(e.inputs) == ["input_ids", "decoder_input_ids"]
    assert list(turned.inputs) == ["decoder_input_ids", "input_ids"]
    assert [R.shape for R in e.inputs.values()] == [(N, TOKENS), (N, 3)]
    for name, R in e.inputs.items():
        assert torch.equal(R, turned.inputs[name])
        assert (R.abs() > 1e-9).all()
    close(e.ledger.inputs, sum(R.sum(1) for R in e.inputs.values()))
    assert e.ledger.gap.max() < 1e-12

    def embedded(one: Tensor, other: Tensor) -> Tensor:
        memory = model.reader(inputs_embeds=one)
        return model.answers(inputs_embeds=torch.cat([memory, other], 1))

    tables = model.embedding(text).detach(), model.embedding(answer).detach()
    expected = relprop.explain(embedded, *tables, target=LAST, rules="attnlrp").inputs.values()
    for R, wanted in zip(e.inputs.values(), expected, strict=True):
        close(R, wanted.sum(-1))


def test_the_same_ids_as_two_arguments_are_two_inputs() -> None:
    model, text = drawn(Pair()), ids()
    e = relprop.explain(model, text, text, target=LAST, rules="attnlrp")
    apart = relprop.explain(model, text, text.clone(), target=LAST, rules="attnlrp")
    for name, R in apart.inputs.items():
        assert torch.equal(e.inputs[name], R)


def test_ids_beside_a_picture() -> None:
    model, look = transformer(), nn.Linear(5, SIZE).double()

    def together(input_ids: Tensor, pixels: Tensor) -> Tensor:
        return model(inputs_embeds=torch.cat([look(pixels), model.embedding(input_ids)], 1))

    pixels, text = torch.randn(N, 2, 5, **DOUBLE), ids()
    e = relprop.explain(together, text, pixels, target=LAST, rules="attnlrp")
    assert {name: R.shape for name, R in e.inputs.items()} == {
        "input_ids": (N, TOKENS),
        "pixels": (N, 2, 5),
    }
    assert e.ledger.gap.max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_relevance_in_half_precision_is_told_in_single(dtype: torch.dtype) -> None:
    model, text = transformer(dtype), ids()
    e = relprop.explain(model, text, target=LAST, rules="attnlrp")
    assert e.relevance.dtype == torch.float32
    exact = relprop.explain(model.double(), text, target=LAST, rules="attnlrp").relevance
    assert (e.relevance - exact).abs().max() < 0.1 * exact.abs().max()
    assert relprop.explain(model.float(), text, target=LAST, rules="attnlrp").relevance.dtype == torch.float32


def test_the_users_ids_are_left_as_they_came() -> None:
    def changing(input_ids: Tensor) -> Tensor:
        input_ids = input_ids.clone()
        input_ids[:, 0] = 4
        return model(input_ids)

    model, text = transformer(), ids()
    before = text.clone()
    e = relprop.explain(changing, text, target=LAST, rules="attnlrp")
    assert torch.equal(text, before)
    assert (e.relevance[:, 0] == 0).all()
    assert (e.relevance[:, 1:] != 0).all()


# ---- what is refused ----


def by_its_mask(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    return input_ids * attention_mask


NEVER = (
    r"nothing to explain: explain\(model, \.\.\.\) needs a floating-point tensor, or integers that the model "
    r"looks up in an embedding\. It got integers that the model does not look up: "
)

REFUSED: dict[str, tuple[Callable[[], Any], list[Tensor], str]] = {
    "no embedding": (
        lambda: lambda x: x.float().sum((1, 2))[:, None],
        [torch.zeros(2, 3, 4, dtype=torch.int64)],
        NEVER + r"x of shape \(2, 3, 4\)\. Convert pixels by x\.float\(\)\.\n  - to in module "
        ".*: computes with the integers, which are followed where they are moved, where each is "
        r"replaced by another integer, and to one-hot vectors$",
    ),
    "no numbers": (
        lambda: nn.Linear(3, 2),
        [torch.ones(2, 3, dtype=torch.int64)],
        NEVER + r"input of shape \(2, 3\)\..* The model's own error: ",
    ),
    "one dimension": (
        transformer,
        [ids()[0]],
        r"input 'input_ids' of shape \(6,\) has no dimension for samples; give it one in front",
    ),
    "empty": (transformer, [ids()[:, :0]], r"input 'input_ids' of shape \(2, 0\) is empty"),
    "mask": (
        lambda: by_its_mask,
        [ids(), torch.ones(N, TOKENS + 1, dtype=torch.int64)],
        r"attention_mask of shape \(2, 7\) does not fit input_ids of shape \(2, 6\): give a number for each "
        r"token, 1 where it counts, 0 for padding",
    ),
    "samples": (
        lambda: drawn(Pair()),
        [ids(), ids(3, 2)],
        r"'decoder_input_ids' has 3 samples in its first dimension, and the other inputs have 2\.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    make, inputs, message = REFUSED[case]
    model = make()
    with pytest.raises(InputError, match=message):
        relprop.explain(model.eval() if isinstance(model, nn.Module) else model, *inputs, target=LAST)
