"""An explained text in the terminal, as a page, in a notebook, in files and for programs."""

import json
import re
from html.parser import HTMLParser
from io import StringIO

import pytest
import torch
from rich.console import Console

import relprop
from relprop.errors import FileError, InputError
from relprop.text.explain import explain_text
from tiny_language_models import FRANCE

NASTY = "not <b>\"bad\"</b> & 'good'\x1b[31m\n</script><script>x()</script>"


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
    assert policy == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'"
    )
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
    with pytest.raises(InputError, match=r"give a name that ends in \.html, for a page, in \.json"):
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


def test_words_of_a_prompt_and_tokens_that_follow(model):
    found = explain_text(model("gpt2"), "The film is un", continuation="bad is", words=True)
    assert printed(found).splitlines()[0].startswith(f"{found.model}: 4 tokens after a prompt of 4 words ")
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


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("generate", [0, 2])
def test_an_explanation_of_a_text_comes_back_from_a_file(model, tmp_path, words, generate):
    found = explain_text(model("gpt2"), FRANCE, words=words, generate=generate)
    path = tmp_path / "text.safetensors"
    found.save(path)
    again = relprop.TextExplanation.load(path)
    assert torch.equal(again.relevance, found.relevance)
    assert again.pieces == found.pieces
    assert again.answers == found.answers
    assert again.as_data() == found.as_data()
    assert again.html() == found.html()
    assert len(again) == len(found) == len(found.pieces)
    assert len(again.explanations) == len(found.explanations) == max(1, generate)
    for one, other in zip(again.explanations, found.explanations, strict=True):
        assert torch.equal(one.relevance, other.relevance)
    assert (again.numpy() == found.relevance.numpy()).all()
    assert again.cite() == found.cite()
    assert "ali2022xai" in found.cite()
    assert found.to("meta").explanations[0].score.device.type == "meta"
    with pytest.raises(FileError, match=r"holds a TextExplanation and no Generation"):
        relprop.Generation.load(path)
