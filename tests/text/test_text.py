"""`explain_text`: tokens, targets in words, the result in every form, and what is refused."""

import json
import re
from html.parser import HTMLParser
from io import StringIO

import pytest
import torch
from rich.console import Console

import relprop
import tiny_language_models as tiny
from relprop.errors import InputError
from relprop.models.language import language_model, load_language_model
from relprop.text.explain import explain_text
from relprop.text.tokens import decoded, merged, tokens_of

FRANCE = "The capital of France is"
NASTY = "not <b>\"bad\"</b> & 'good'\x1b[31m\n</script><script>x()</script>"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of each kind, by name."""
    root = tmp_path_factory.mktemp("models")
    loaded = {}

    def get(name):
        if name not in loaded:
            loaded[name] = load_language_model(f"hf:{tiny.MAKERS[name](root / name)}")
        return loaded[name]

    return get


def refused(*arguments, **options):
    with pytest.raises(InputError) as raised:
        explain_text(*arguments, **options)
    return str(raised.value)


# Tokens


@pytest.mark.parametrize("name", ["bert_classifier", "gpt2", "llama", "pegasus"])
@pytest.mark.parametrize("text", [FRANCE, "  not\tbad\n\n is ", "Don't, played; unbelievable!", "é ü ß 中文"])
def test_tokens_together_are_the_text(model, name, text):
    found = tokens_of(model(name), text)
    joined = merged([token for token in found if not token.special])
    # Some read a space before every text.
    assert joined.text.removeprefix("" if joined.text == text else " ") == text


def test_pieces_have_no_marks_and_keep_their_white_space(model):
    bert = [token.text for token in tokens_of(model("bert_classifier"), "The film  was unbelievable")]
    assert bert == ["[CLS]", "The", " film", "  was", " un", "believ", "able", "[SEP]"]
    assert [token.text for token in tokens_of(model("gpt2"), FRANCE)] == [
        "The",
        " capital",
        " of",
        " France",
        " is",
    ]
    llama = [token.text for token in tokens_of(model("llama"), FRANCE)]
    assert llama == ["<s>", "The", " capital", " of", " France", " is"]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_parts_of_a_character_are_bytes_and_words_are_whole(model, name):
    found = explain_text(model(name), "is 🙂 bad")
    assert found.tokens[-5:-1] == ["<0xF0>", "<0x9F>", "<0x99>", "<0x82>"]
    # White space that is a token of its own belongs to the word after it.
    assert found.words().tokens[-2:] == [" 🙂", " bad"]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_generated_tokens_are_told_as_those_of_the_text(model, name):
    found = [token for token in tokens_of(model(name), "The film is 🙂, bad\n") if not token.special]
    again = decoded(model(name), [token.id for token in found])
    assert [token.text for token in again] == [token.text for token in found]


def test_tokenizers_that_do_not_tell_where_their_tokens_are():
    from transformers import ByT5Tokenizer, T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=400, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
    bytes_ = language_model(T5ForConditionalGeneration(config).eval(), ByT5Tokenizer())
    found = tokens_of(bytes_, "a é🙂 b")
    byte = [f"<0x{value:02X}>" for value in "é🙂".encode()]
    assert [token.text for token in found] == ["a", " ", *byte, " ", "b", "</s>"]
    assert merged(found[2:8]).text == "é🙂"


def test_what_is_unknown_is_shown_as_it_stands(model):
    found = tokens_of(model("bert_classifier"), "The ☃ film")
    assert found[2].text == " ☃"
    assert found[2].id == model("bert_classifier").tokenizer.unk_token_id
    assert not found[2].special


def test_words_sum_their_tokens(model):
    found = explain_text(model("bert_classifier"), "The unbelievable film. Played!")
    words = found.words()
    assert words.tokens == ["[CLS]", "The", " unbelievable", " film", ".", " Played", "!", "[SEP]"]
    assert words.relevance[2] == pytest.approx(float(found.relevance[2:5].sum()))
    assert words.relevance.sum() == pytest.approx(float(found.relevance.sum()))
    assert explain_text(model("bert_classifier"), "The unbelievable film. Played!", words=True).tokens == (
        words.tokens
    )


def shown(tokens):
    return [token.text for token in tokens if not token.special]


def test_pieces_after_a_space_of_its_own_are_text(model):
    pegasus = model("pegasus")
    assert shown(tokens_of(pegasus, "That film")) == [" ", "T", "h", "a", "t", " film"]
    found = tokens_of(pegasus, "A That film")
    assert shown(found) == [" ", "A", " ", "T", "h", "a", "t", " film"]
    assert found[1].id == pegasus.tokenizer.unk_token_id
    # What is generated has no text to be looked up in.
    assert shown(decoded(pegasus, [token.id for token in tokens_of(pegasus, "That film")])) == (
        [" ", "T", "h", "a", "t", " film"]
    )


@pytest.mark.parametrize(
    ("name", "special"),
    [
        ("AlbertTokenizer", ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]),
        ("T5Tokenizer", ["<pad>", "</s>", "<unk>"]),
        ("XLNetTokenizer", ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"]),
    ],
)
def test_spaces_that_share_the_place_of_what_follows(name, special):
    import transformers

    # Lower case, since one of them makes everything so.
    vocabulary = [*((piece, 0.0) for piece in special), ("▁", -1.0), ("▁film", -2.0)]
    tokenizer = getattr(transformers, name)([*vocabulary, *((letter, -3.0) for letter in "tha")])
    module = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=200, d_model=8, d_kv=2, d_ff=8, num_layers=1, num_heads=2)
    )
    found = tokens_of(language_model(module.eval(), tokenizer), "that  中 film")
    assert shown(found) == [" ", "t", "h", "a", "t", "  ", "中", " film"]


def test_only_bytes_that_are_no_whole_character_are_hex():
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = tiny.byte_level_across_characters()
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=2, n_positions=32)
    cut = language_model(GPT2LMHeadModel(config).eval(), tokenizer)
    pieces = ["n", "a<0xC3>", "<0xAF>ve", " was"]
    found = tokens_of(cut, "naïve was")
    assert shown(found) == pieces
    assert shown(decoded(cut, [token.id for token in found])) == pieces
    assert merged(found).text == "naïve was"
    # A text that ends in the middle of a character goes on with a whole one.
    assert shown(decoded(cut, [found[1].id, found[3].id])) == ["a<0xC3>", " was"]
    assert explain_text(cut, "na", target=found[2].id).answers[0].target == "'<0xAF>ve'"


def test_a_byte_that_stays_alone_does_not_make_bytes_of_the_next_token(model):
    tokenizer = model("llama").tokenizer
    ids = tokenizer.convert_tokens_to_ids(["<0xC3>", "▁was", "<0x41>"])
    assert shown(decoded(model("llama"), ids)) == ["<0xC3>", " was", "A"]


@pytest.mark.parametrize("name", ["pegasus", "gpt2", "llama"])
def test_spaces_of_their_own_belong_to_the_word_after_them(model, name):
    found = explain_text(model(name), "The film is  Texas", at=0, words=True)
    assert [word for word in found.tokens if word[0] != "<"][:3] == ["The", " film", " is"]
    assert found.tokens[4 if name == "llama" else 3] == "  Texas"


# Targets


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
    told = explain_text(classifier, "not bad", target=relprop.RunnerUp(2)).answers[0]
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
    wanted = directly(gpt2, FRANCE, relprop.At(-1, token))
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
        directly(masked, "The capital of [MASK] is Paris", relprop.At(4, index)).relevance[0]
    )
    assert (found.answers[0].target, found.answers[0].place) == ("'france'", 4)
    assert explain_text(masked, FRANCE, at=4).answers[0].place == 4
    assert explain_text(masked, "[MASK]", target="##ing").answers[0].target == "'##ing'"


def test_the_label_of_one_token(model):
    found = explain_text(model("bert_tagger"), FRANCE, target="PLACE", at=4)
    assert found.relevance.equal(directly(model("bert_tagger"), FRANCE, relprop.At(4, 1)).relevance[0])


def test_what_a_decoder_says_first(model):
    t5 = model("t5")
    found = explain_text(t5, FRANCE, target="good")
    assert found.tokens == ["[CLS]", "The", " capital", " of", " France", " is", "[SEP]", "[PAD]"]
    assert (found.answers[0].place, found.answers[0].target) == (7, "'good'")
    start = torch.tensor([[t5.tokenizer.pad_token_id]])
    index = t5.tokenizer.convert_tokens_to_ids("good")
    wanted = directly(t5, FRANCE, relprop.At(-1, index), decoder_input_ids=start)
    assert found.relevance.equal(torch.cat([part[0] for part in wanted.relevance.values()]))


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
    assert refused(own, "not bad", target="maybe").endswith("There are: 'no', 'yes'.")


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
    target = 1 if name == "bert_classifier" else relprop.At(last - 1, 7)
    explained = relprop.explain(found.module, input_ids=ids, attention_mask=mask, target=target)
    assert explained.relevance[0, inside].any()
    assert not explained.relevance[mask == 0].any()


# Generations


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


def test_words_of_a_prompt_and_tokens_that_follow(model):
    found = explain_text(model("gpt2"), "The film is un", continuation="bad is", words=True)
    assert printed(found).splitlines()[0].startswith(f"{found.model}: 4 tokens after a prompt of 4 tokens ")
    found = explain_text(model("gpt2"), "That film", continuation=" is bad", words=True)
    assert found.tokens == ["That", " film", " is", " bad"]
    lines = printed(found).splitlines()
    assert "2 tokens after a prompt of 2 words" in lines[0]
    assert re.fullmatch(r"  '(That| film)' \S+, '(That| film)' \S+", lines[2])
    parsed = Page(found.html())
    told = [text.strip() for text in parsed.text]
    assert told[told.index("Prompt") + 1] == "2 words"
    assert told[told.index("Generated") + 1] == "2 tokens"
    assert [a["data-row"] for _, a in parsed.elements if a.get("role") == "button"] == ["0", "1"]
    cells = [a["title"] for tag, a in parsed.elements if tag == "td" and "style" in a]
    assert [title.rpartition(" ")[0] for title in cells] == [
        "'That'",
        "' film'",
        "'That'",
        "' film'",
        "' is'",
    ]
    assert explain_text(model("gpt2"), "That film", words=True).unit == "word"
    assert "Every word in numbers" in explain_text(model("gpt2"), "That film", words=True).html()


# What is refused


def test_models_that_are_no_language_models(model):
    classifier = model("bert_classifier")
    told = refused(classifier.module, "bad")
    assert told.startswith("explain_text(BertForSequenceClassification, ...): give the name of a model, as")
    assert "relprop.LanguageModel: what relprop.load_language_model(name) returns" in told
    assert told.endswith("relprop.models.language.language_model(module, tokenizer).")
    told = refused((classifier.module, classifier.tokenizer), "bad")
    assert told.startswith("explain_text((BertForSequenceClassification, ")


def test_a_label_or_token_against_itself(model):
    classifier, gpt2 = model("bert_classifier"), model("gpt2")
    assert refused(classifier, "bad", target="positive", against=2) == (
        "target and against are both positive: there is no difference. Give two."
    )
    assert "both ' Paris'" in refused(gpt2, FRANCE, target=" Paris", against=" Paris")
    best = explain_text(classifier, "bad").answers[0].target
    assert refused(classifier, "bad", against=best) == (
        f"against {best}: {classifier.name} itself says that. Give a target to compare it with."
    )


def test_texts_that_cannot_be_explained(model):
    classifier = model("bert_classifier")
    assert refused(classifier, "") == "the text is empty: there is nothing to explain. Give some."
    assert "'  ' has no tokens for hf:" in refused(classifier, "  ")
    assert refused(classifier, 3) == "the text is int: give a str."
    assert "is not valid Unicode" in refused(classifier, "bad \udcff")
    told = refused(classifier, "bad " * 100)
    assert told == (
        f"the text has 102 tokens, but {classifier.name} has 96 positions. Shorten it by 6 or more."
    )
    told = refused(model("gpt2"), FRANCE, generate=95)
    assert told.startswith("the text with what follows it has 100 tokens")
    assert refused(model("gpt2"), FRANCE, continuation="").startswith("'' has no tokens for ")


def test_labels_that_are_none(model):
    classifier = model("bert_classifier")
    assert refused(classifier, "bad", target="positiv") == (
        f"target 'positiv': {classifier.name} has no such label. Did you mean 'positive'? There are: "
        "'negative', 'neutral', 'positive'."
    )
    assert refused(classifier, "bad", target=7) == (
        f"target 7: the labels of {classifier.name} are numbered 0 to 2."
    )
    assert "target -1" in refused(classifier, "bad", target=-1)
    assert "one label or token" in refused(classifier, "bad", target=relprop.RunnerUp(), against="neutral")


def test_words_that_are_several_tokens(model):
    bert, gpt2 = model("bert_masked"), model("gpt2")
    assert refused(bert, "[MASK]", target="unbelievable") == (
        f"target 'unbelievable' is 3 tokens of {bert.name}: 'un', 'believ', 'able'. Give one of them, with "
        "its white space: target 'un'."
    )
    assert refused(gpt2, FRANCE, target=" unbad") == (
        f"target ' unbad' is 4 tokens of {gpt2.name}: ' un', 'b', 'a', 'd'. Give one of them, with its white "
        "space: target ' un'. Or explain all of them, one after the other: --continuation ' unbad'."
    )
    assert "against ' unbad' is 4 tokens" in refused(gpt2, FRANCE, target=" Paris", against=" unbad")
    assert refused(gpt2, FRANCE, target="Paris") == (
        f"target 'Paris' is 5 tokens of {gpt2.name}; ' Paris', with the space, is one token. Give that: "
        "target ' Paris'."
    )
    pegasus = model("pegasus")
    assert refused(pegasus, "The film", target="France") == (
        f"target 'France' is 7 tokens of {pegasus.name}: ' ', 'F', 'r', 'a', 'n', 'c', 'e'. Explain all of "
        "them, one after the other: --continuation 'France'."
    )
    assert refused(bert, "[MASK]", target="☃").startswith("target '☃' is no token of ")


def test_positions_that_are_none(model):
    assert refused(model("gpt2"), FRANCE, at=5) == (
        "at 5 is out of range: there are 5 tokens, 0 to 4, or -1 for the last one."
    )
    assert "at -6 is out of range" in refused(model("gpt2"), FRANCE, at=-6)
    assert "classifies the whole text" in refused(model("bert_classifier"), "bad", at=1)
    assert "say by at (--at) which one's is explained" in refused(model("bert_tagger"), "bad")
    assert refused(model("bert_masked"), FRANCE).startswith("the text has no [MASK]: write [MASK] once")
    assert "2 [MASK], at 1, 3" in refused(model("bert_masked"), "[MASK] is [MASK]")


def test_options_of_other_models(model):
    classifier = model("bert_classifier")
    assert refused(classifier, "bad", generate=2) == (
        f"generate=2: {classifier.name} (classification) does not write texts. Leave it out."
    )
    assert refused(classifier, "bad", continuation="x").startswith("continuation='x': hf:")
    assert "give one of them" in refused(model("gpt2"), FRANCE, generate=-1)
    assert "leave out target=' Paris'" in refused(model("gpt2"), FRANCE, generate=2, target=" Paris")
    assert "give one of them" in refused(model("gpt2"), FRANCE, generate=2, continuation=" bad")


def test_a_tokenizer_of_another_model(model):
    from dataclasses import replace

    mixed = replace(model("bert_classifier"), tokenizer=model("llama").tokenizer)
    assert "Give the tokenizer that it was trained with" in refused(mixed, FRANCE)


# The result


@pytest.fixture
def nasty(model):
    """A text that would act on a page or terminal that took it as it is."""
    return explain_text(model("gpt2"), NASTY, target=" Paris")


def printed(found, **options):
    stream = StringIO()
    found.print(Console(file=stream, width=100, **options))
    return stream.getvalue()


def test_without_colours_there_is_a_table(model):
    found = explain_text(model("gpt2"), FRANCE, target=" Paris")
    heading, *lines = printed(found).splitlines()
    assert heading.startswith(f"{model('gpt2').name}: ' Paris', score ")
    assert heading.endswith(f"({found.rules})")
    assert [line.split("  ")[1] for line in lines] == ["'The'", "' capital'", "' of'", "' France'", "' is'"]
    numbers = [float(re.search(r"  ([+-]\d\S*)", line)[1]) for line in lines]
    assert numbers == pytest.approx(found.relevance.tolist(), rel=1e-2)
    strongest = int(found.relevance.abs().argmax())
    assert lines[strongest].endswith(("++++++++++", "----------"))
    coloured = {"force_terminal": True, "color_system": "truecolor"}
    assert printed(found, **coloured, no_color=True) == printed(found)


def test_colours_are_those_of_the_relevance(model):
    found = explain_text(model("gpt2"), FRANCE, target=" Paris")
    told = printed(found, force_terminal=True, color_system="truecolor")
    assert re.sub(r"\x1b\[[0-9;]*m", "", told.splitlines()[1]) == FRANCE
    largest = int(found.relevance.abs().argmax())
    ground = "115;37;1" if found.relevance[largest] > 0 else "8;65;127"
    assert re.search(rf"48;2;{ground}m{found.tokens[largest]}\x1b", told)


def test_control_characters_do_not_reach_the_terminal(nasty):
    assert "\x1b" not in printed(nasty)
    coloured = printed(nasty, force_terminal=True, color_system="truecolor")
    assert "\x1b[31m" not in coloured
    assert r"\x1b" in coloured


def test_generations_in_the_terminal(model):
    found = explain_text(model("gpt2"), FRANCE, continuation=" Paris is")
    lines = printed(found).splitlines()
    assert "2 tokens after a prompt of 5" in lines[0]
    assert lines[1].startswith("' Paris', score ")
    strongest = found.tokens[int(found.relevance[0].abs().argmax())]
    assert lines[2].startswith(f"  {strongest!r} ")
    coloured = printed(found, force_terminal=True, color_system="truecolor").splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured]
    assert plain[2] == FRANCE
    assert plain[4] == f"{FRANCE} Paris"


def test_what_is_beyond_the_scale_is_told(model):
    from dataclasses import replace

    found = explain_text(model("bert_classifier"), "not bad", target="positive")
    more = replace(found, relevance=torch.tensor([0.1, 0.5, -1.0, 9.0]))
    note = "is the largest relevance of a token of the text; [SEP] has more)"
    assert printed(more).splitlines()[-1] == f"(the longest bar {note}"
    coloured = {"force_terminal": True, "color_system": "truecolor"}
    assert printed(more, **coloured).splitlines()[-1] == f"(the strongest colour {note}"
    assert "part of the text; [SEP] has more." in more.html()
    within = replace(found, relevance=torch.tensor([0.1, 0.5, -1.0, 0.9]))
    assert "strongest" not in printed(within, **coloured)
    assert "longest" not in printed(within)
    assert "has more" not in within.html()


def test_small_probabilities_have_digits(model):
    from dataclasses import replace

    answer = explain_text(model("gpt2"), FRANCE).answers[0]
    for value, told in [(0.87, "0.87"), (0.004, "0.004"), (3.04e-5, "3e-05"), (0.0462, "0.046"), (1, "1.00")]:
        assert f", probability {told}; " in replace(answer, probability=value).line


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize(
    "options", [{"target": " Paris"}, {"continuation": " </b>$text<script>y()</script>"}]
)
def test_no_token_is_ever_interpreted(model, options):
    gpt2 = model("gpt2")
    page = explain_text(gpt2, NASTY, **options).html()
    parsed = Page(page)
    tags = [tag for tag, _ in parsed.elements]
    assert tags.count("script") == 1
    assert "b" not in tags
    assert "\x1b" not in page
    texts = [text for text in parsed.text if "\\x1b" in text or "<" in text]
    assert texts, "the text is there, as text"
    assert all(
        not (attributes.keys() & {"onclick", "onerror", "src", "href"}) for _, attributes in parsed.elements
    )


def test_the_page_allows_its_own_script_only(nasty):
    from base64 import b64encode
    from hashlib import sha256

    page = nasty.html()
    policy = next(a["content"] for tag, a in Page(page).elements if a.get("http-equiv"))
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert "http" not in re.sub(r"http-equiv", "", page)


def test_the_page_of_a_generation_has_a_matrix(model):
    found = explain_text(model("gpt2"), FRANCE, continuation=" Paris is good")
    elements = Page(found.html()).elements
    rows = [a for tag, a in elements if tag == "tr" and "data-row" in a]
    assert [a["data-line"] for a in rows] == [answer.line for answer in found.answers]
    assert len([a for tag, a in elements if a.get("role") == "button"]) == 3
    cells = [a for tag, a in elements if tag == "td" and "style" in a]
    assert len(cells) == 5 + 6 + 7
    assert cells[0]["title"].startswith("'The' ")
    page = Page(found.html())
    assert any("Each row has its own scale" in text for text in page.text)
    # The numbers are not in titles only, which are not read out.
    told = [a["title"].rpartition(" ")[2] for a in cells]
    assert [text for text in page.text if re.fullmatch(r"[+−]\d\S*", text)] == told


def test_notebooks_show_the_text(nasty):
    fragment = nasty._repr_html_()
    assert "<script" not in fragment
    assert ">&lt;</span>" in fragment


def test_files(nasty, tmp_path):
    nasty.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == nasty.html()
    nasty.save(tmp_path / "data.json")
    assert json.loads((tmp_path / "data.json").read_text()) == nasty.as_data()
    with pytest.raises(InputError, match=r"give a name that ends in \.html, for a page, or in \.json"):
        nasty.save(tmp_path / "page.png")


def test_programs_get_everything(model):
    found = explain_text(model("gpt2"), FRANCE, continuation=" Paris is")
    told = json.loads(found.to_json())
    assert told["task"] == "causal"
    assert told["prompt"] == 5
    assert [token["text"] for token in told["tokens"]] == found.tokens
    assert [token["id"] for token in told["tokens"]] == [piece.id for piece in found.pieces]
    assert [answer["relevance"] for answer in told["answers"]] == found.relevance.tolist()
    assert told["answers"][0]["target"] == "' Paris'"


def test_what_is_not_finite_can_still_be_written(model):
    from dataclasses import replace

    found = explain_text(model("gpt2"), FRANCE)
    broken = replace(found, relevance=found.relevance.clone().fill_(float("nan")))
    assert json.loads(broken.to_json())["answers"][0]["relevance"] == [None] * 5
    assert "nan" in broken.html()
    assert "nan" in printed(broken)
