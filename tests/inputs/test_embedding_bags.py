"""Embedding bags: as a lookup followed by a sum, a mean or a maximum, with one number for each token."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE, close
from relprop.errors import InputError
from small_transformers import drawn

N, BAG, SIZE, WORDS, NUMBERS, PADDING = 3, 4, 5, 7, 2, 2

each_mode = pytest.mark.parametrize("mode", ["sum", "mean", "max"])
each_rule = pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus-flat", "gradient-times-input"])


class Bags(nn.Module):
    """A network of numbers, and of bags of ids."""

    def __init__(self, mode: str, padding: int | None = None) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(WORDS, SIZE, mode=mode, padding_idx=padding)
        self.layer, self.head = nn.Linear(SIZE + NUMBERS, 6), nn.Linear(6, 3)

    def of_pooled(self, x: Tensor, pooled: Tensor) -> Tensor:
        """The network behind the bags."""
        return self.head(self.layer(torch.cat([x, pooled], 1)).relu())

    def forward(self, x: Tensor, sparse: Tensor, factors: Tensor | None = None) -> Tensor:
        return self.of_pooled(x, self.bag(sparse, per_sample_weights=factors))

    def by_parts(self, x: Tensor, sparse: Tensor, factors: Tensor | None = None) -> Tensor:
        """The same, bag by bag."""
        return self.of_pooled(
            x,
            torch.stack(
                [self.pooled(sparse[i], None if factors is None else factors[i]) for i in range(len(sparse))]
            ),
        )

    def pooled(self, ids: Tensor, factors: Tensor | None) -> Tensor:
        """The rows of one bag, looked up and pooled."""
        rows = F.embedding(ids, self.bag.weight)
        rows = rows if factors is None else rows * factors[:, None]
        numbers = [i for i in range(len(rows)) if int(ids[i]) != self.bag.padding_idx]
        if not numbers:
            return torch.zeros(SIZE, **DOUBLE)
        rows = torch.stack([rows[i] for i in numbers])
        return rows.max(0).values if self.bag.mode == "max" else getattr(rows, self.bag.mode)(0)


def bags(mode: str, padding: int | None = None) -> Any:
    torch.manual_seed(1)
    return drawn(Bags(mode, padding))


def numbers() -> Tensor:
    return torch.randn(N, NUMBERS, **DOUBLE, generator=torch.Generator().manual_seed(2))


def ids() -> Tensor:
    drawn = torch.randint(WORDS, (N, BAG), generator=torch.Generator().manual_seed(3))
    drawn[0, 1] = PADDING
    drawn[1] = PADDING  # a bag of padding alone, where there is padding
    return drawn


@each_rule
@each_mode
@pytest.mark.parametrize("padding", [None, PADDING, PADDING - WORDS])
def test_a_bag_is_a_lookup_and_what_pools_it(mode: str, padding: int | None, rules: str) -> None:
    model, x, sparse = bags(mode, padding), numbers(), ids()
    e = relprop.explain(model, x, sparse, target=1, rules=rules)
    expected = relprop.explain(model.by_parts, x, sparse, target=1, rules=rules)
    assert torch.equal(e.output, model(x, sparse))
    assert e.inputs["sparse"].shape == (N, BAG)
    assert e.inputs["sparse"][0].any()
    close(e.inputs["sparse"], expected.inputs["sparse"])
    close(e.inputs["x"], expected.inputs["x"])
    close(e.ledger.inputs, expected.ledger.inputs)
    assert e.ledger.gap.max() < 1e-12
    assert not e.ledger.absorbed.get("parameters", torch.zeros(N)).any()
    if padding is not None:
        assert (e.inputs["sparse"][1] == 0).all()
        assert (e.inputs["sparse"][0, 1] == 0).all()


@each_mode
def test_the_mean_of_relevance_is_that_of_the_weight_matrix(mode: str) -> None:
    """Straight from the formula: R of a token is its row times what the linear layer takes from it."""
    table, layer, sparse = drawn(nn.EmbeddingBag(WORDS, SIZE, mode=mode)), drawn(nn.Linear(SIZE, 3)), ids()
    R = relprop.explain(lambda sparse: layer(table(sparse)), sparse, target=1, rules="epsilon").relevance
    rows = table.weight[sparse]
    if mode == "max":
        won = torch.zeros_like(rows).scatter(1, rows.argmax(1, keepdim=True), 1.0)
    else:
        won = torch.ones_like(rows) / (BAG if mode == "mean" else 1)
    parts = rows * won * layer.weight[1]
    z = parts.sum((1, 2)) + layer.bias[1]
    close(R, parts.sum(-1) * (z / (z + 1e-6 * z.sign()))[:, None])


@each_rule
@pytest.mark.parametrize("padding", [None, PADDING])
def test_factors_of_rows_that_are_constants(padding: int | None, rules: str) -> None:
    model, x, sparse, factors = bags("sum", padding), numbers(), ids(), torch.rand(N, BAG, **DOUBLE)
    e = relprop.explain(lambda x, sparse: model(x, sparse, factors), x, sparse, target=1, rules=rules)
    expected = relprop.explain(
        lambda x, sparse: model.by_parts(x, sparse, factors), x, sparse, target=1, rules=rules
    )
    close(e.inputs["sparse"], expected.inputs["sparse"])
    close(e.inputs["x"], expected.inputs["x"])


@pytest.mark.parametrize("rules", ["epsilon", "attnlrp"])
def test_factors_of_rows_that_are_explained(rules: str) -> None:
    model, x, sparse, factors = bags("sum", PADDING), numbers(), ids(), torch.rand(N, BAG, **DOUBLE)
    e = relprop.explain(model, x, sparse, factors, target=1, rules=rules)
    expected = relprop.explain(model.by_parts, x, sparse, factors, target=1, rules=rules)
    assert list(e.inputs) == ["x", "sparse", "factors"]
    for name, R in expected.inputs.items():
        close(e.inputs[name], R)
    assert e.ledger.gap.max() < 1e-12


@each_mode
@pytest.mark.parametrize("ends_given", [False, True])
def test_bags_of_different_sizes(mode: str, ends_given: bool) -> None:
    """The ids are (samples, tokens); the model itself joins all but the first of each sample to one row."""

    def ragged(x: Tensor, sparse: Tensor) -> Tensor:
        joined = torch.cat([sparse[0, 1:], sparse[1, :0], sparse[2]])
        starts = torch.tensor([0, 3, 3, 7] if ends_given else [0, 3, 3])
        return model.of_pooled(
            x, F.embedding_bag(joined, model.bag.weight, starts, mode=mode, include_last_offset=ends_given)
        )

    def written_out(x: Tensor, sparse: Tensor) -> Tensor:
        parts = [model.pooled(part, None) for part in (sparse[0, 1:], sparse[1, :0], sparse[2])]
        return model.of_pooled(x, torch.stack(parts))

    model, x, sparse = bags(mode), numbers(), ids()
    e = relprop.explain(ragged, x, sparse, target=1, rules="epsilon")
    expected = relprop.explain(written_out, x, sparse, target=1, rules="epsilon")
    close(e.inputs["sparse"], expected.inputs["sparse"])
    assert (e.inputs["sparse"][1] == 0).all()
    assert (e.inputs["sparse"][0, 1:] != 0).all() or mode == "max"
    assert e.ledger.gap.max() < 1e-12


def test_the_kernel_that_torch_calls_without_gradients() -> None:
    def by_the_kernel(x: Tensor, sparse: Tensor) -> Tensor:
        starts = torch.arange(0, N * BAG, BAG)
        kernel = torch.ops.aten._embedding_bag_forward_only
        return model.of_pooled(x, kernel(model.bag.weight.detach(), sparse.reshape(-1), starts, False, 1)[0])

    model, x, sparse = bags("mean"), numbers(), ids()
    e = relprop.explain(by_the_kernel, x, sparse, target=1, rules="epsilon")
    expected = relprop.explain(model, x, sparse, target=1, rules="epsilon")
    close(e.inputs["sparse"], expected.inputs["sparse"])


def test_a_table_that_is_computed_from_an_input_gets_what_the_rows_get() -> None:
    def of_a_table(x: Tensor) -> Tensor:
        return layer(F.embedding_bag(torch.tensor([[0, 1], [1, 1]]), x.t(), mode="sum").t())

    layer, x = drawn(nn.Linear(2, 3)), torch.randn(4, 2, **DOUBLE)
    e = relprop.explain(of_a_table, x, target=1, rules="epsilon")
    expected = relprop.explain(
        lambda x: layer(torch.stack([x[:, 0] + x[:, 1], 2 * x[:, 1]], 1)), x, target=1, rules="epsilon"
    )
    close(e.relevance, expected.relevance)


# ---- the ids of all samples in one dimension, with offsets ----


class Text(nn.Module):
    """A classifier of texts, as in tutorials."""

    def __init__(self, mode: str, *, ends_given: bool) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(WORDS, SIZE, mode=mode, include_last_offset=ends_given)
        self.layer, self.head = nn.Linear(SIZE, 6), nn.Linear(6, 3)

    def forward(self, text: Tensor, offsets: Tensor, x: Tensor | None = None) -> Tensor:
        h = self.layer(self.bag(text + 0, offsets)).relu()
        return self.head(h if x is None else h + x)


@each_rule
@each_mode
@pytest.mark.parametrize("ends_given", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_texts_one_after_the_other(mode: str, ends_given: bool, beside: bool, rules: str) -> None:
    torch.manual_seed(1)
    model, text = drawn(Text(mode, ends_given=ends_given)), torch.randint(WORDS, (9,))
    starts = torch.tensor([0, 4, 4, 9] if ends_given else [0, 4, 4])
    x = [torch.randn(N, 6, **DOUBLE)] if beside else []
    e = relprop.explain(model, text, starts, *x, target=1, rules=rules)
    assert list(e.inputs) == (["text", "x"] if beside else ["text"])
    assert e.inputs["text"].shape == (9,)
    assert e.ledger.samples == N
    for sample, part in enumerate((slice(0, 4), slice(4, 4), slice(4, 9))):
        alone = [each[sample : sample + 1] for each in x]
        if part.start == part.stop:  # an empty text
            of_input = e.inputs["x"][sample].sum() if beside else torch.tensor(0.0)
            close(e.ledger.inputs[sample], of_input.double())
            continue
        one = relprop.explain(
            lambda text, x=None: model(text[0], torch.tensor([0, text.shape[1]][: 1 + ends_given]), x),
            text[None, part],
            *alone,
            target=1,
            rules=rules,
        )
        close(e.inputs["text"][part], one.inputs["text"][0])
        close(e.ledger.inputs[sample], one.ledger.inputs[0])
        close(e.ledger.absorbed.get("bias", e.score)[sample], one.ledger.absorbed.get("bias", one.score)[0])
    assert not e.ledger.mixed
    assert e.ledger.gap.max() < 1e-12


def test_one_number_explains_one_of_the_bags() -> None:
    model, text, starts = (
        drawn(Text("mean", ends_given=False)),
        torch.randint(WORDS, (9,)),
        torch.tensor([0, 4]),
    )
    whole = relprop.explain(model, text, starts, target=lambda y: y[1, 0], rules="epsilon")
    each = relprop.explain(model, text, starts, target=0, rules="epsilon")
    assert not whole.inputs["text"][:4].any()
    close(whole.inputs["text"][4:], each.inputs["text"][4:])
    close(whole.score[0], each.score[1])
    assert len(whole) == 1
    assert whole.ledger.gap.max() < 1e-12


def test_samples_of_texts_in_one_dimension_cannot_be_taken() -> None:
    model, text = drawn(Text("sum", ends_given=False)), torch.randint(WORDS, (9,))
    e = relprop.explain(model, text, torch.tensor([0, 4]), target=1, rules="epsilon")
    said = (
        r"input 'text' of shape \(9,\) has the ids of all 2 samples one after the other\. Take the relevance "
        r"of a sample by the offsets that the model got: explanation\.inputs\['text'\]\[start:end\]\."
    )
    with pytest.raises(InputError, match=r"explanation\[0\]: " + said):
        e[0]
    with pytest.raises(InputError, match=r"Explanation\.concatenate: " + said):
        relprop.Explanation.concatenate([e, e])


def test_other_inputs_have_as_many_samples_as_there_are_bags() -> None:
    model, text = drawn(Text("sum", ends_given=False)), torch.randint(WORDS, (9,))
    with pytest.raises(InputError, match=r"the bags of ids have 2 samples, and the other inputs have 3\. "):
        relprop.explain(model, text, torch.tensor([0, 4]), torch.randn(3, 6, **DOUBLE))


def test_a_text_without_offsets_has_no_samples() -> None:
    with pytest.raises(InputError, match=r"input 'text' of shape \(9,\) has no dimension for samples"):
        relprop.explain(lambda text: torch.rand(2, 2), torch.randint(WORDS, (9,)))


def test_coverage_of_texts_one_after_the_other() -> None:
    model = drawn(Text("mean", ends_given=False))
    assert relprop.coverage(model, torch.randint(WORDS, (9,)), torch.tensor([0, 4])).complete
