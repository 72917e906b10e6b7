"""Explanations in notebooks."""

import dataclasses

import pytest
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


@pytest.mark.parametrize(
    ("R", "why"),
    [
        (
            torch.rand(2, 3, 4, 5, 6),
            "to_fragment(explanation): relevance of shape (2, 3, 4, 5, 6) cannot be shown.",
        ),
        (
            torch.full((2, 4), float("nan")),
            "to_fragment(explanation): sample 0: 4 of 4 values are NaN or infinite",
        ),
        (torch.rand(2), "relevance of shape (2,) cannot be drawn."),
    ],
)
def test_what_cannot_be_drawn_is_text_with_the_reason(R, why):
    explanation, _ = explained(2)
    shown = dataclasses.replace(explanation, inputs={"<b>": R})._repr_html_()
    assert shown.startswith("<pre>Explanation(relevance of shape (2")
    assert f"</pre><p>Not drawn: {why}" in shown


def test_of_several_inputs_one_must_be_named():
    explanation, _ = explained(2)
    several = dataclasses.replace(explanation, inputs={"<b>": torch.rand(2, 3), "y": torch.rand(2, 3)})
    shown = several._repr_html_()
    assert "{&#x27;&lt;b&gt;&#x27;: (2, 3)" in shown
    assert "Choose one: to_fragment(explanation, of=&#x27;&lt;b&gt;&#x27;).</p>" in shown
    assert "<b>" not in shown


def test_other_errors_are_not_hidden(monkeypatch):
    monkeypatch.setattr(fragment, "items_of", None)
    with pytest.raises(TypeError):
        explained(1)[0]._repr_html_()
