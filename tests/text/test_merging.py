"""Tokens merged into sentences, turns of a chat and spans; the largest of them, and their figures."""

import pytest
import torch

from relprop.errors import InputError
from relprop.figures.figure import Figure
from relprop.text.explain import explain_text
from relprop.text.generation import explain_generation
from relprop.text.merging import _sentence_starts, _turn_starts
from relprop.text.result import TextExplanation

TEXT = "The film was good. It was not bad, Dr. Paris said! Is it?\nThe capital of"


def cut(text, starts):
    """The parts of a text that begin at these places."""
    ends = [*starts(text), len(text)]
    return [
        text[start:end].strip()
        for start, end in zip([0, *ends], ends, strict=False)
        if text[start:end].strip()
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ("He said “No.” She left.", ["He said “No.”", "She left."]),
        ("Pi is 3.14 and e.g. Mr. J. Smith knows. Yes.", ["Pi is 3.14 and e.g. Mr. J. Smith knows.", "Yes."]),
        ("It is No. 5. No. Not so", ["It is No. 5.", "No.", "Not so"]),
        ("See www.example.org etc. and so on. Done", ["See www.example.org etc. and so on.", "Done"]),
        ("A title\n\nA line\nanother", ["A title", "A line", "another"]),
        ("What?! Really... yes. No", ["What?!", "Really... yes.", "No"]),
        ("好。很好！好", ["好。", "很好！", "好"]),
        ("", []),
    ],
)
def test_where_sentences_end(text, wanted):
    assert cut(text, _sentence_starts) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
            ["<|im_start|>user\nHi<|im_end|>", "<|im_start|>assistant"],
        ),
        (
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>",
            [
                "<|begin_of_text|>",
                "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
                "<|start_header_id|>assistant<|end_header_id|>",
            ],
        ),
        (
            "<s>[INST] Hi [/INST] Hello</s>[INST] Bye [/INST]",
            ["<s>", "[INST] Hi [/INST]", "Hello</s>", "[INST] Bye [/INST]"],
        ),
        (
            "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
            ["<start_of_turn>user\nHi<end_of_turn>", "<start_of_turn>model"],
        ),
        ("<|user|>\nHi<|end|>\n<|assistant|>", ["<|user|>\nHi<|end|>", "<|assistant|>"]),
        ("User: Hi: you\nAssistant: Hello\nHuman : ok", ["User: Hi: you", "Assistant: Hello", "Human : ok"]),
    ],
)
def test_where_turns_begin(text, wanted):
    assert cut(text, _turn_starts) == wanted


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert_classifier"])
def test_sentences_have_the_sums_of_their_tokens(model, name):
    found = explain_text(model(name), TEXT)
    sentences = found.sentences()
    told = [piece.text.strip() for piece in sentences.pieces if not piece.special]
    assert [text.rstrip("\n") for text in told] == [
        "The film was good.",
        "It was not bad, Dr. Paris said!",
        "Is it?",
        "The capital of",
    ]
    assert "".join(sentences.tokens) == "".join(found.tokens)
    assert sentences.unit == "sentence"
    assert sentences.relevance.sum() == pytest.approx(float(found.relevance.sum()), rel=1e-4, abs=1e-6)
    first = [n for n, piece in enumerate(found.pieces) if piece.span and piece.span[1] <= 18]
    if name == "bert_classifier":
        assert [piece.text for piece in sentences.pieces if piece.special] == ["[CLS]", "[SEP]"]
        wanted = float(found.relevance[first].sum())
        assert float(sentences.relevance[1]) == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_turns_of_a_chat_have_their_special_tokens(model):
    found = explain_text(
        model("gpt2"), "User: is it good?\nAssistant: not bad\nUser: The capital", target=" Paris"
    )
    turns = found.turns()
    assert turns.tokens == ["User: is it good?\n", "Assistant: not bad\n", "User: The capital"]
    assert (turns.unit, len(turns)) == ("turn", 3)
    assert turns.answers[0].place == 2
    end = "<|endoftext|>"
    ended = explain_text(model("gpt2"), f"User: good{end}\nAssistant: bad{end}", target=" Paris").turns()
    assert ended.tokens == [f"User: good{end}\n", f"Assistant: bad{end}"]
    assert not any(piece.special for piece in ended.pieces)
    with pytest.raises(
        InputError,
        match=r"turns\(\): no turn of a chat was found, by special tokens such as .*merge\(spans\)",
    ):
        explain_text(model("gpt2"), "The capital of", target=" Paris").turns()


def test_spans_of_tokens(model):
    found = explain_text(model("gpt2"), "The capital of France is", target=" Paris")
    parts = found.merge([(1, 3), (3, 5)])
    assert parts.tokens == ["The", " capital of", " France is"]
    assert parts.relevance.allclose(
        torch.stack([found.relevance[:1].sum(), found.relevance[1:3].sum(), found.relevance[3:].sum()])
    )
    assert parts.unit == "part"
    assert found.merge([]).tokens == found.tokens
    for spans, message in (
        ([(0, 9)], r"merge: the span \(0, 9\) is no part of 5 tokens"),
        ([(2, 4), (1, 3)], r"merge: the span \(1, 3\) is no part of 5 tokens, or begins before the end"),
        ([(2, 2)], r"merge: the span \(2, 2\)"),
        ([3], r"merge\(\[3\]\): give pairs of numbers of tokens, \[\(start, end\), ...\]"),
        (3, r"merge\(3\): give pairs of numbers"),
    ):
        with pytest.raises(InputError, match=message):
            found.merge(spans)


def test_generated_tokens_are_not_merged(model):
    found = explain_generation(
        model("gpt2").module,
        model("gpt2").tokenizer("The film. It was", return_tensors="pt").input_ids,
        max_new_tokens=3,
    )
    assert found.relevance.shape[0] == 3
    text = explain_text(model("gpt2"), "The film was good. It was", generate=3)
    sentences = text.sentences()
    assert [token.strip() for token in sentences.tokens[:2]] == ["The film was good.", "It was"]
    assert sentences.prompt == 2
    assert len(sentences) == 2 + len(text.answers)
    assert [answer.place for answer in sentences.answers] == [2, 3, 4]
    assert sentences.relevance.sum(1).allclose(text.relevance.sum(1), rtol=1e-4, atol=1e-6)


def test_pages_name_sentences(model, tmp_path):
    sentences = explain_text(model("gpt2"), TEXT, target=" Paris").sentences()
    assert "Every sentence in numbers" in sentences.html()
    sentences.save(tmp_path / "a.safetensors")
    assert TextExplanation.load(tmp_path / "a.safetensors").unit == "sentence"
    assert explain_text(model("gpt2"), TEXT, target=" Paris").unit == "token"


# The largest, and figures


def test_the_largest_tokens_words_and_sentences(model):
    found = explain_text(model("bert_classifier"), TEXT)
    order = found.relevance.abs().argsort(descending=True, stable=True).tolist()
    top = found.top(3)
    assert [entry.place for entry in top] == [(n,) for n in order[:3]]
    assert [entry.relevance for entry in top] == found.relevance[order[:3]].tolist()
    assert top[0].share == pytest.approx(top[0].relevance / found.answers[0].score)
    assert (top.what, top.count) == ("token", len(found))
    names = {entry.name for entry in found.top(100)}
    assert {"[CLS]", "'film'"} <= names
    assert found.sentences().top(1).what == "sentence"
    with pytest.raises(
        InputError, match=r"explanation.top\(answer=1\): there is no such answer; there is only answer 0"
    ):
        found.top(answer=1)
    with pytest.raises(InputError, match=r"explanation.top\(k=0\)"):
        found.top(0)


def test_bars_are_in_the_order_of_the_text(model):
    found = explain_text(model("gpt2"), TEXT + " $5 or $6", target=" Paris")
    figure = found.sentences().bars()
    assert isinstance(figure, Figure)
    (ax,) = figure.axes
    texts = ax.get_yticklabels()
    assert [text.get_text() for text in texts] == [
        "'The film was good.'",
        "'It was not bad, Dr. Paris said!'",
        "'Is it?'",
        "'The capital of $5 or $6'",
    ]
    assert not any(text.get_parse_math() for text in texts)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(found.sentences().relevance.tolist())
    sorted_by_size = found.words().bars(2, in_order=False).axes[0]
    sizes = [abs(bar.get_width()) for bar in sorted_by_size.patches[:2]]
    assert sizes == sorted(sizes, reverse=True)
    assert sorted_by_size.get_yticklabels()[2].get_text().startswith("the other ")
    assert figure.metadata["Title"] == "Relevance of the text for ' Paris'"
    with pytest.raises(InputError, match=r"explanation.bars\(ax=...\): this is int, and no axes"):
        found.bars(ax=3)
    with pytest.raises(InputError, match=r"explanation.bars\(width=-1\): give the width in inches"):
        found.bars(width=-1)


def test_of_a_generation_only_what_came_before_a_token_is_drawn_and_listed(model):
    found = explain_text(model("gpt2"), "The film was good. It was", generate=3)
    before = found.answers[1].place
    assert before == found.prompt + 1
    assert found.top(100, answer=1).count == before
    assert len(found.bars(100, answer=1).axes[0].patches) == before
    names = [text.get_text() for text in found.waterfall(100, answer=1).axes[0].get_yticklabels()]
    assert sum(name.startswith("'") for name in names) == before
    assert found.sentences().top(100, answer=1).count == 3


def test_the_title_is_by_default_the_target_with_its_score(model):
    found = explain_text(model("gpt2"), TEXT, target=" Paris")
    answer = found.answers[0]
    told = f"{answer.target}, {answer.measure} {answer.score:.4g}"
    assert found.bars().axes[0].get_title() == found.waterfall().axes[0].get_title() == told


def test_what_is_merged_is_not_cut_again(model, tmp_path):
    found = explain_text(model("gpt2"), TEXT, target=" Paris")
    with pytest.raises(
        InputError,
        match=r"explanation.words\(\): tokens are merged into sentences already, which are larger. Take",
    ):
        found.sentences().words()
    turns = explain_text(model("gpt2"), "User: One. Two.\nAssistant: Three.", target=" Paris").turns()
    with pytest.raises(InputError, match=r"explanation.sentences\(\): tokens are merged into turns already"):
        turns.sentences()
    assert len(found.words().sentences()) == len(found.sentences())
    with pytest.raises(InputError, match=r"explanation.merge\(\[\(1.5, 3\)\]\): give pairs of numbers"):
        found.merge([(1.5, 3)])
    with pytest.raises(InputError, match=r"explanation.bars\(\).save\('x.pdf'\) and explanation.waterfall"):
        found.save(tmp_path / "t.pdf")


def test_a_waterfall_of_words_ends_at_the_score(model):
    found = explain_text(model("gpt2"), TEXT, target=" Paris").words()
    (ax,) = found.waterfall(k=4).axes
    names = [text.get_text() for text in ax.get_yticklabels()]
    answer = found.answers[0]
    assert names[4] == f"the other {len(found) - 4} words"
    assert names[-1] == answer.measure
    assert ax.patches[-1].get_width() == pytest.approx(answer.score)
    assert sum(bar.get_width() for bar in ax.patches[:-1]) == pytest.approx(answer.score, rel=1e-3)
