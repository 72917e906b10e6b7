"""Texts, targets and options that `explain_text` refuses."""

import pytest

import relprop
from relprop.errors import InputError
from relprop.text.explain import explain_text
from tiny_language_models import FRANCE


def refused(*arguments, **options):
    with pytest.raises(InputError) as raised:
        explain_text(*arguments, **options)
    return str(raised.value)


def test_models_that_are_no_language_models(model):
    classifier = model("bert_classifier")
    told = refused(classifier.module, "bad")
    assert told.startswith(
        "explain_text(BertForSequenceClassification, ...): give the name of a model, such as"
    )
    assert "relprop.LanguageModel. relprop.load_language_model(name) returns one" in told
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
        f"against {best}: that is the answer of {classifier.name} itself. Give a target to compare with."
    )


def test_texts_that_cannot_be_explained(model):
    classifier = model("bert_classifier")
    assert refused(classifier, "") == "the text is empty: there is nothing to explain. Give some text."
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
    assert "one label or token" in refused(
        classifier, "bad", target=relprop.targets.RunnerUp(), against="neutral"
    )


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
    assert refused(bert, "[MASK]", target="☃").startswith("target '☃' is not a token of ")


def test_positions_that_are_none(model):
    assert refused(model("gpt2"), FRANCE, at=5) == (
        "at 5 is out of range: there are 5 tokens, 0 to 4, or -1 for the last one."
    )
    assert "at -6 is out of range" in refused(model("gpt2"), FRANCE, at=-6)
    assert "classifies the whole text" in refused(model("bert_classifier"), "bad", at=1)
    assert "Give the number of the token to explain by at (--at)" in refused(model("bert_tagger"), "bad")
    assert refused(model("bert_masked"), FRANCE).startswith("the text has no [MASK]. Write [MASK] once")
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
