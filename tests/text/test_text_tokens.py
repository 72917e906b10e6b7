"""What a text is to a tokenizer: tokens, their white space and bytes, words."""

import pytest

import tiny_language_models as tiny
from relprop.models.language import language_model
from relprop.text.explain import explain_text
from relprop.text.tokens import decoded, merged, tokens_of
from tiny_language_models import FRANCE


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
