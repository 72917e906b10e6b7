"""Explanations in notebooks."""

import dataclasses

import torch
from noise import explained

from page_content import Elements, data_of
from relprop.pages import fragment
from relprop.pages.fragment import to_fragment


def test_a_notebook_shows_pictures_and_the_page_in_a_frame():
    explanation, _ = explained(3)
    shown = explanation._repr_html_()
    found = Elements(shown)
    assert [tag for tag, _ in found.elements].count("img") == 3
    assert not found.named("script")
    [frame] = found.named("iframe")
    assert frame["sandbox"] == "allow-scripts"
    assert frame["srcdoc"] == explanation.to_html(samples=range(3))
    assert "Orange speaks for class 2, blue against;" in shown


def test_a_notebook_stays_small():
    explanation, _ = explained(3)
    many = explanation[[0] * 500]
    shown = many._repr_html_()
    assert len(Elements(shown).named("img")) == 12
    assert "<br>12 of 500 samples are shown. explanation.save(&quot;page.html&quot;) has all.</p>" in shown
    noise = dataclasses.replace(explanation, inputs={"x": torch.rand(3, 3, 200, 300)})
    shown = noise._repr_html_()  # one sample takes half a megabyte
    assert "<br>Only 2 of 3 can be shown interactively here. explanation.save(&quot;page.html" in shown
    assert len(shown) < 1.3 * fragment.MOST_BYTES
    [frame] = Elements(shown).named("iframe")
    assert [item["number"] for item in data_of(frame["srcdoc"])["items"]] == [0, 1]
    large = dataclasses.replace(explanation, inputs={"x": torch.rand(3, 3, 500, 500)})
    found = Elements(large._repr_html_())
    assert (len(found.named("img")), len(found.named("iframe"))) == (3, 0)


def test_a_picture_can_be_given():
    explanation, images = explained(2)
    [frame] = Elements(to_fragment(explanation, images, labels=["a", "b"])).named("iframe")
    assert len(data_of(frame["srcdoc"])["pictures"]) == 2


def test_what_cannot_be_drawn_is_shown_as_text():
    explanation, _ = explained(2)
    for R in (torch.rand(2, 3, 4, 5, 6), torch.full((2, 4), float("nan")), torch.rand(2)):
        odd = dataclasses.replace(explanation, inputs={"<b>": R})
        assert odd._repr_html_().startswith("<pre>Explanation(relevance of shape (2")
    several = dataclasses.replace(explanation, inputs={"<b>": torch.rand(2, 3), "y": torch.rand(2, 3)})
    assert "{&#x27;&lt;b&gt;&#x27;: (2, 3)" in several._repr_html_()
