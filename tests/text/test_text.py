"""`explain_text`: targets in words, what is generated, and the books."""

import pytest
import torch

import relprop
from relprop.errors import InputError
from relprop.models.language import language_model
from relprop.text.explain import explain_text
from tiny_language_models import FRANCE


def directly(model, text, target, **arguments):
    """What `relprop.explain` itself gives for a text."""
    ids = model.tokenizer(text, return_tensors="pt")
    return relprop.explain(
        model.module, input_ids=ids.input_ids, attention_mask=ids.attention_mask, target=target, **arguments
    )


def test_labels_by_name_and_number(model):
    classifier = model("bert_classifier")
    wanted = directly(classifier, "not bad", 2)
    for target in ["positive", "Positive", "2", 2]:
        found = explain_text(classifier, "not bad", target=target)
        assert found.relevance.equal(wanted.relevance[0])
        assert found.answers[0].target == "positive"
        assert found.answers[0].score == pytest.approx(float(wanted.score))
    probabilities = wanted.output["logits"].softmax(1)[0]
    assert found.answers[0].probability == pytest.approx(float(probabilities[2]))
    best = explain_text(classifier, "not bad").answers[0]
    assert best.target == classifier.labels[int(probabilities.argmax())]
    assert best.place is None


def test_one_label_against_another(model):
    classifier = model("bert_classifier")
    found = explain_text(classifier, "not bad", target="positive", against="negative")
    one, other = (explain_text(classifier, "not bad", target=name) for name in ("positive", "negative"))
    answer = found.answers[0]
    assert answer.target == "positive and not negative"
    assert (answer.measure, answer.probability) == ("score difference", None)
    assert answer.score == pytest.approx(one.answers[0].score - other.answers[0].score, abs=1e-5)
    told = explain_text(classifier, "not bad", target=relprop.targets.RunnerUp(2)).answers[0]
    assert told.target == "RunnerUp of positive"


def test_the_best_one_against_another(model):
    classifier, gpt2 = model("bert_classifier"), model("gpt2")
    best = explain_text(classifier, "not bad").answers[0].target
    other = next(label for label in classifier.labels if label != best)
    found = explain_text(classifier, "not bad", against=other)
    assert found.answers[0].target == f"{best} and not {other}"
    assert found.relevance.equal(explain_text(classifier, "not bad", target=best, against=other).relevance)
    best = explain_text(gpt2, FRANCE).answers[0].target
    told = explain_text(gpt2, FRANCE, against=" Berlin").answers[0]
    assert (told.target, told.measure) == (f"{best} and not ' Berlin'", "score difference")


def test_what_comes_next(model):
    gpt2 = model("gpt2")
    token = gpt2.tokenizer.convert_tokens_to_ids("ĠParis")
    wanted = directly(gpt2, FRANCE, relprop.targets.At(-1, token))
    for target in [" Paris", token]:
        found = explain_text(gpt2, FRANCE, target=target)
        assert found.relevance.equal(wanted.relevance[0])
        assert (found.answers[0].target, found.answers[0].place) == ("' Paris'", 4)
    found = explain_text(gpt2, FRANCE, target=" Paris", against=" Berlin")
    assert found.answers[0].target == "' Paris' and not ' Berlin'"
    # The vocabulary's word for " Paris" is found after a text, and by itself.
    assert explain_text(model("llama"), FRANCE, target=" Paris").answers[0].target == "'Paris'"


def test_what_comes_after_an_earlier_token(model):
    found = explain_text(model("gpt2"), FRANCE, at=2)
    assert found.answers[0].place == 2
    assert not found.relevance[3:].any()
    same = explain_text(model("gpt2"), "The capital of")
    assert found.relevance[:3].allclose(same.relevance, rtol=1e-4, atol=1e-6)
    assert explain_text(model("gpt2"), FRANCE, at=-3).relevance.equal(found.relevance)


def test_what_stands_at_the_mask(model):
    masked = model("bert_masked")
    found = explain_text(masked, "The capital of [MASK] is Paris", target="France")
    index = masked.tokenizer.convert_tokens_to_ids("france")
    assert found.relevance.equal(
        directly(masked, "The capital of [MASK] is Paris", relprop.targets.At(4, index)).relevance[0]
    )
    assert (found.answers[0].target, found.answers[0].place) == ("'france'", 4)
    assert explain_text(masked, FRANCE, at=4).answers[0].place == 4
    assert explain_text(masked, "[MASK]", target="##ing").answers[0].target == "'##ing'"


def test_the_label_of_one_token(model):
    found = explain_text(model("bert_tagger"), FRANCE, target="PLACE", at=4)
    assert found.relevance.equal(
        directly(model("bert_tagger"), FRANCE, relprop.targets.At(4, 1)).relevance[0]
    )


def test_what_a_decoder_says_first(model):
    t5 = model("t5")
    found = explain_text(t5, FRANCE, target="good")
    assert found.tokens == ["[CLS]", "The", " capital", " of", " France", " is", "[SEP]", "[PAD]"]
    assert (found.answers[0].place, found.answers[0].target) == (7, "'good'")
    start = torch.tensor([[t5.tokenizer.pad_token_id]])
    index = t5.tokenizer.convert_tokens_to_ids("good")
    wanted = directly(t5, FRANCE, relprop.targets.At(-1, index), decoder_input_ids=start)
    assert found.relevance.equal(torch.cat([part[0] for part in wanted.inputs.values()]))


@pytest.mark.parametrize("name", ["bert_classifier", "bert_masked", "bert_tagger", "gpt2", "llama", "t5"])
def test_the_books_close(model, name):
    text = "The [MASK] was not bad"
    found = explain_text(model(name), text, at=2 if name == "bert_tagger" else None)
    assert float(found.explanations[0].ledger.gap.max()) < 1e-5
    answer = found.answers[0]
    assert answer.total == pytest.approx(float(found.relevance.sum()), abs=1e-5)
    assert answer.total + sum(answer.absorbed.values()) == pytest.approx(answer.score, abs=1e-4)


def test_a_classifier_of_ones_own(model):
    tokenizer = model("bert_classifier").tokenizer

    class Bag(torch.nn.Module):
        """Takes no mask, and returns scores as they are."""

        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(len(tokenizer), 8)
            self.head = torch.nn.Linear(8, 2, bias=False)

        def forward(self, input_ids):
            return self.head(self.words(input_ids).mean(1))

    torch.manual_seed(0)
    own = language_model(Bag().eval(), tokenizer, task="classification", labels=["no", "yes"])
    found = explain_text(own, "not bad", target="yes", against="no")
    assert (found.model, found.answers[0].target) == ("Bag", "yes and not no")
    assert found.answers[0].total == pytest.approx(found.answers[0].score, abs=1e-5)
    with pytest.raises(InputError, match=r"There are: 'no', 'yes'\.$"):
        explain_text(own, "not bad", target="maybe")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["bert_classifier", "gpt2"])
def test_padding_gets_no_relevance(model, name, side):
    found = model(name)
    tokenizer = found.tokenizer
    length = len(tokenizer(FRANCE).input_ids)
    padding = 3
    ids = torch.full((1, length + padding), tokenizer.pad_token_id or 0)
    mask = torch.zeros_like(ids)
    inside = slice(0, length) if side == "right" else slice(padding, None)
    ids[0, inside], mask[0, inside] = torch.tensor(tokenizer(FRANCE).input_ids), 1
    last = inside.stop or length + padding
    target = 1 if name == "bert_classifier" else relprop.targets.At(last - 1, 7)
    explained = relprop.explain(found.module, input_ids=ids, attention_mask=mask, target=target)
    assert explained.relevance[0, inside].any()
    assert not explained.relevance[mask == 0].any()


def test_each_generated_token_has_a_row(model):
    gpt2 = model("gpt2")
    found = explain_text(gpt2, FRANCE, generate=3)
    assert found.relevance.shape == (3, 8)
    assert (found.prompt, len(found.pieces)) == (5, 8)
    for row, answer in enumerate(found.answers):
        assert answer.place == 5 + row
        assert answer.target == repr(found.tokens[5 + row])
        assert not found.relevance[row, 5 + row :].any()
        assert answer.total == pytest.approx(float(found.relevance[row].sum()), abs=1e-5)
    alone = explain_text(gpt2, FRANCE)
    assert found.answers[0].target == alone.answers[0].target
    assert found.answers[0].probability == pytest.approx(alone.answers[0].probability, rel=1e-4)
    assert found.relevance[0, :5].allclose(alone.relevance, rtol=1e-3, atol=1e-6)


def test_what_a_decoder_answers(model):
    found = explain_text(model("t5"), FRANCE, continuation="Paris is")
    assert found.prompt == 8
    assert found.tokens[7:] == ["[PAD]", "paris", " is"]
    assert [answer.place for answer in found.answers] == [8, 9]
    first = explain_text(model("t5"), FRANCE, target="paris")
    assert found.relevance[0, :8].allclose(first.relevance, rtol=1e-3, atol=1e-6)
    assert found.answers[0].probability == pytest.approx(first.answers[0].probability, rel=1e-4)
    assert len(explain_text(model("t5"), FRANCE, generate=2).answers) == 2


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_given_continuation(model, name):
    found = explain_text(model(name), FRANCE, continuation=" Paris not Berlin")
    assert found.tokens[found.prompt :] == [" Paris", " not", " Berlin"]
    second = explain_text(model(name), FRANCE + " Paris", target=" not")
    assert found.relevance[1, : found.prompt + 1].allclose(second.relevance, rtol=1e-3, atol=1e-6)


def test_words_do_not_join_the_prompt_with_what_follows(model):
    found = explain_text(model("gpt2"), "The film is un", continuation="bad is", words=True)
    # What is generated stays in tokens, each with an answer of its own.
    assert found.tokens == ["The", " film", " is", " un", "b", "a", "d", " is"]
    assert found.prompt == 4
    assert [answer.place for answer in found.answers] == [4, 5, 6, 7]
    assert found.relevance.shape == (4, 8)
    torch.testing.assert_close(
        found.relevance.sum(1), torch.tensor([answer.total for answer in found.answers]), rtol=1e-4, atol=1e-5
    )
