"""The report: whole, self-contained, well-formed, and true to what was computed."""

import re
import xml.etree.ElementTree as ET
from base64 import b64decode
from html.parser import HTMLParser

import pytest
import torch

import relprop
from relprop.tutorial.report import CAPTIONS, described, percent, pictures, report
from relprop.tutorial.steps import PUBLISHED, STEPS, Maps, TestError, Tutorial

# HTML's elements without an end tag, as far as the page has them.
VOID = {"meta", "img", "br", "link", "hr", "input"}


@pytest.fixture(scope="module")
def result():
    """Make up a result, so that every number in the page can be told from the others."""
    generator = torch.Generator().manual_seed(5)

    def maps(number, step):
        side = 28 if step.model == "mnist-mlp" else 32
        relevance = torch.rand(12, 1, side, side, generator=generator, dtype=torch.float64)
        # Scores that the maps sum to, but for the first digit's, which is far below zero.
        scores = relevance.flatten(1).sum(1)
        scores[0] = -scores[0]
        gap = None if step.rules is None else torch.full([12], 10.0 ** -(number + 3))
        return Maps(step, relevance, scores, gap, seconds=0.0111 * (number + 1))

    return Tutorial(
        images=torch.rand(12, 1, 28, 28, generator=generator) * 2 - 1,
        labels=torch.arange(12) % 10,
        errors={"mnist-mlp": TestError(43, 10_000, 1.25), "mnist-cnn": TestError(105, 10_000, 2.5)},
        maps={step.name: maps(number, step) for number, step in enumerate(STEPS)},
    )


@pytest.fixture(scope="module")
def files():
    """Give each picture its own bytes; the page does not look into them."""
    return {name: f"PNG of {name}".encode() for name in CAPTIONS}


@pytest.fixture(scope="module")
def page(result, files):
    return report(result, files, "the weights in <b>R&D</b>")


class Reader(HTMLParser):
    """Follows the page's tags and notes what it finds."""

    def __init__(self, page):
        super().__init__()
        self.open, self.found, self.text = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names), (tag, names)
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> at line {self.getpos()[0]}"

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def reader(page):
    return Reader(page)


def rows(page, caption):
    """Give the cells of the table with this caption, row by row."""
    table = re.search(rf"<table>\s*<caption>{caption}.*?</table>", page, re.DOTALL)[0]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", table)]


def test_the_reader_finds_tags_out_of_order():
    with pytest.raises(AssertionError, match="</p> at line 2"):
        Reader("<p><b>\n</p></b>")
    with pytest.raises(AssertionError):
        Reader("<main><p></p>")


def test_it_is_a_page_of_balanced_tags_for_readers_of_every_kind(page, reader):
    assert page.startswith("<!DOCTYPE html>")
    assert {"lang": "en"} in reader.all("html")
    assert {"charset": "utf-8"} in reader.all("meta")
    assert any(meta.get("name") == "viewport" for meta in reader.all("meta"))
    assert "prefers-color-scheme: dark" in page
    assert len(reader.all("h1")) == 1
    assert "$" not in page


def test_every_picture_is_inside_with_words_for_those_who_do_not_see_it(reader, files, result):
    images = reader.all("img")
    assert [image["alt"] for image in images] == [
        described(name, result) for name in sorted(CAPTIONS, key=_place)
    ]
    contents = [b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in images]
    assert contents == [files[name] for name in sorted(CAPTIONS, key=_place)]
    assert len(reader.all("figcaption")) == len(CAPTIONS)


def _place(name):
    """Sort as the page shows: both sensitivities side by side, before deep Taylor."""
    order = ["data", "mlp-sensitivity", "cnn-sensitivity", "mlp-deeptaylor"]
    return order.index(name) if name in order else len(order) + list(CAPTIONS).index(name)


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(page, reader):
    for tag, attributes in reader.found:
        assert tag not in {"script", "link", "iframe", "object", "embed", "form", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"src", "href", "srcset", "action", "poster", "data", "xlink:href"}:
                assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value[:50])
    assert "http" not in re.sub(r'src="[^"]*"|http-equiv', "", page)
    assert not re.search(r"url\(|@import", page)


def test_the_policy_allows_what_the_page_has_and_nothing_else(page, reader):
    [policy] = [m["content"] for m in reader.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert page.index("Content-Security-Policy") < page.index("<style")
    assert {tag for tag, _ in reader.found} & {"script", "iframe", "object", "form", "base", "link"} == set()


def test_links_within_the_page_lead_somewhere(reader):
    names = [attributes["id"] for _, attributes in reader.found if "id" in attributes]
    assert len(set(names)) == len(names)
    targets = [link["href"].removeprefix("#") for link in reader.all("a")]
    assert len(targets) == 9
    assert set(targets) <= set(names)


def test_formulas_are_well_formed_and_of_known_elements(page):
    formulas = [ET.fromstring(formula) for formula in re.findall(r"<math.*?</math>", page, re.DOTALL)]
    shown = [formula for formula in formulas if formula.get("display") == "block"]
    # Pixels, sensitivity, z+, zB, pooling, αβ, ε, γ
    assert len(shown) == 8
    children = {"mfrac": 2, "msub": 2, "msup": 2, "msubsup": 3, "munder": 2}
    for element in (element for formula in formulas for element in formula.iter()):
        assert element.tag in {"math", "mrow", "mi", "mn", "mo", "mspace", *children}
        if element.tag in children:
            assert len(element) == children[element.tag], ET.tostring(element)


def test_test_errors_stand_beside_those_of_the_tutorial(page):
    assert rows(page, "Test errors")[1:] == [
        ["MLP", "43 of 10,000", "0.43 %", "1.05 %", "1.25 s"],
        ["CNN", "105 of 10,000", "1.05 %", "0.76 %", "2.50 s"],
    ]
    assert PUBLISHED == {"mnist-mlp": 0.0105, "mnist-cnn": 0.0076}


def test_every_digits_score_stands_beside_the_sums_of_its_maps(page, result):
    table = rows(page, "The score of each")
    assert table[0] == ["digit", "MLP score", "deep Taylor", "CNN score", "deep Taylor", "α2β1"]
    mlp, cnn, alphabeta = (
        result.maps[name] for name in ("mlp-deeptaylor", "cnn-deeptaylor", "cnn-alphabeta")
    )
    assert [row[0] for row in table[1:]] == [*"0123456789", "0", "1"]
    columns = [mlp.scores, mlp.sums, cnn.scores, cnn.sums, alphabeta.sums]
    for digit, row in enumerate(table[1:]):
        assert row[1:] == [f"{float(column[digit]):.4f}".replace("-", "−") for column in columns]
    assert table[1][1].startswith("−")


def test_smallest_values_sums_ledgers_and_run_times(page, result):
    table = {row[0]: row[1:] for row in rows(page, "Over all twelve maps")[1:]}
    assert list(table) == list(result.maps)
    maps = result.maps["cnn-deeptaylor"]
    # The first score is negative, and counts as zero: its whole sum is missing.
    difference = float(maps.sums[0] / maps.scores.max())
    smallest = f"{float(maps.relevance.min()):.2g}".replace("-", "−")
    assert table["cnn-deeptaylor"] == [smallest, f"{difference:.1e}".replace("-", "−"), "1.0e−06", "44.4 ms"]
    assert table["mlp-sensitivity"][1:] == ["–", "–", "11.1 ms"]


def test_all_scores_below_zero_give_no_division_by_zero(result, files):
    scores = -torch.ones(12, dtype=torch.float64)
    empty = {
        name: Maps(maps.step, torch.zeros_like(maps.relevance), scores, maps.gap, maps.seconds)
        for name, maps in result.maps.items()
    }
    made = report(Tutorial(result.images, result.labels, result.errors, empty), files, "nothing")
    assert rows(made, "Over all twelve maps")[2][1:3] == ["0", "0.0e+00"]


def test_what_is_not_ours_is_escaped(page, reader):
    assert "<b>" not in page
    assert "with the weights in &lt;b&gt;R&amp;D&lt;/b&gt;." in page
    assert "with the weights in <b>R&D</b>." in "".join(reader.text)


def test_it_says_which_relprop_made_it_and_what_to_try_next(reader):
    text = "".join(reader.text)
    assert f"Made by relprop {relprop.__version__}." in text
    for command in ("relprop explain mnist-cnn my_digit.png", "relprop train cnn", "docs/tutorial.md"):
        assert command in text


def test_pictures_are_the_data_and_every_step(result):
    drawn = pictures(result)
    assert list(drawn) == ["data", *result.maps]
    assert set(drawn) == set(CAPTIONS)
    assert {picture.shape for picture in drawn.values()} == {(64, 768, 3)}


@pytest.mark.parametrize(("rate", "text"), [(0, "0.00 %"), (0.0055, "0.55 %"), (1, "100.00 %")])
def test_percent(rate, text):
    assert percent(rate) == text
