"""The page of an explained text, in a browser."""

import pytest
import torch

from relprop.text.answers import Answer
from relprop.text.result import TextExplanation
from relprop.text.tokens import Token

NASTY = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


@pytest.fixture
def generated() -> TextExplanation:
    words = ["The", " capital", " of", " France", " is", " Paris", f" {NASTY}"]
    pieces = tuple(Token(text=word, id=i, word=i, special=False) for i, word in enumerate(words))
    answers = tuple(
        Answer(
            target=words[place],
            score=2.0,
            measure="score",
            place=place,
            probability=0.5,
            total=1.5,
            absorbed={},
        )
        for place in (5, 6)
    )
    relevance = torch.linspace(-1, 1, 14).reshape(2, 7)
    return TextExplanation(
        model=NASTY,
        task="causal",
        rules="attnlrp",
        prompt=5,
        pieces=pieces,
        relevance=relevance,
        answers=answers,
    )


def test_a_generated_token_that_is_chosen_colours_those_before_it(generated, opened, shot, tmp_path):
    generated.save(tmp_path / "x.html")
    with opened(tmp_path / "x.html") as page:
        before = page.locator("#text .token").first.get_attribute("style")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.locator("[aria-pressed=true]").inner_text().startswith(" <img")
        assert page.locator("#text .token").first.get_attribute("style") != before
        shot(page, "text")
