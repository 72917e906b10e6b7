"""The page on which digits are drawn, in a browser: by mouse, finger and keys."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page

from relprop.cli.work.demo import write_demo

THREE = [
    (75, 70),
    (130, 48),
    (185, 75),
    (175, 120),
    (130, 138),
    (180, 150),
    (190, 195),
    (140, 230),
    (80, 210),
]
"""A 3, on 280 × 280 pixels."""


@pytest.fixture(scope="module")
def digit_page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "digit.html"
    write_demo(path)
    return path


def draw(page: Page, points: list[tuple[int, int]]) -> None:
    box = page.locator("#draw").bounding_box()
    assert box is not None
    places = [(box["x"] + x / 280 * box["width"], box["y"] + y / 280 * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()
    page.wait_for_timeout(100)


def seen(page: Page) -> str:
    """The digit that the network sees."""
    return re.search(r"sees a (\d)", page.locator("#said").inner_text())[1]


def pixels(page: Page, canvas: str) -> list[int]:
    return page.evaluate(
        "(id) => { const c = document.getElementById(id);"
        " return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }",
        canvas,
    )


def test_a_digit_drawn_by_mouse_is_recognised_and_explained(digit_page, opened, shot):
    with opened(digit_page) as page:
        assert seen(page) == "2"  # the tutorial's first digit
        shot(page, "digit-first")
        before = pixels(page, "map")
        draw(page, THREE)
        assert seen(page) == "3"
        assert page.locator("#scores [aria-pressed=true] .name").inner_text() == "3"
        assert page.locator("#goal").inner_text() == "Which pixels speak for 3?"
        assert pixels(page, "map") != before
        score, total = re.search(
            r"Score ([\d.]+) = ([\d.]+) pixels", page.locator("#sums").inner_text()
        ).groups()
        assert abs(float(score) - float(total)) < 0.3  # but for the margin
        shot(page, "digit-drawn")
        # A link carries all of it to another copy of the page.
        fragment = page.evaluate("location.hash")
        assert page.locator("#link").input_value().endswith(fragment)
        drawn = pixels(page, "map")
    with opened(digit_page, fragment=fragment) as page:
        assert seen(page) == "3"
        assert len(pixels(page, "map")) == len(drawn)


def test_every_choice_shows_another_map(digit_page, opened, shot):
    with opened(digit_page, fragment="#t=8") as page:
        found = {}
        for network in ("CNN", "MLP"):
            page.get_by_text(network, exact=True).click()
            for rule in ("sensitivity", "deep Taylor", "α2β1", "ε", "γ"):
                page.get_by_text(rule, exact=True).first.click()
                for view in ("heat map", "signed", "filtered"):
                    page.get_by_text(view, exact=True).click()
                    found[network, rule, view] = tuple(pixels(page, "map"))
                about = page.locator("[data-about]:visible")
                assert about.count() == 1
        # Deep Taylor has no negative relevance; all else differs everywhere.
        assert len(set(found.values())) == len(found) == 30
        page.get_by_text("signed", exact=True).click()
        page.locator("#not").select_option("next")
        assert "and not for" in page.locator("#goal").inner_text()
        page.locator("#scores button").nth(5).click()
        assert page.locator("#goal").inner_text() == "Which pixels speak for 5, and not for 8?"
        page.locator("#not").select_option("3")
        assert page.locator("#goal").inner_text() == "Which pixels speak for 5, and not for 3?"
        shot(page, "digit-not-that")
        page.locator("#scores button").nth(5).click()
        page.locator("#not").select_option("")
        assert page.locator("#goal").inner_text() == "Which pixels speak for 8?"
        box = page.locator("#map").bounding_box()
        page.mouse.move(box["x"] + 2, box["y"] + 2)
        assert page.locator("#value").inner_text().startswith("Row 1, column 1: ")


def test_undo_clear_and_test_digits(digit_page, opened, shot):
    with opened(digit_page) as page:
        draw(page, [(140, 50), (140, 230)])
        one = pixels(page, "map")
        assert seen(page) == "1"
        draw(page, [(60, 60), (200, 230)])
        assert pixels(page, "map") != one
        page.keyboard.press("Control+z")
        assert pixels(page, "map") == one
        page.locator("#undo").click()
        assert "empty" in page.locator("body").get_attribute("class")
        assert page.locator("#said").inner_text() == "Draw a digit, or choose one."
        shot(page, "digit-empty")
        page.get_by_role("button", name="test digit 5, a 8").click()
        assert seen(page) == "8"
        page.locator("#clear").click()
        assert page.locator("#clear").is_disabled()
        draw(page, [(140, 140), (140, 140)])  # a dot is a drawing, too
        assert page.locator("#goal").inner_text()


def test_a_digit_is_drawn_by_keys_alone(digit_page, opened, shot):
    with opened(digit_page) as page:
        page.locator("#draw").focus()
        page.keyboard.press("Space")
        for _ in range(22):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Space")
        page.wait_for_timeout(100)
        assert seen(page) == "1"
        shot(page, "digit-keys")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "clear"
        page.locator("input[name=rule]:checked").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("input[name=rule]:checked").input_value() == "alpha2-beta1"
        page.locator("#scores button").nth(7).focus()
        page.keyboard.press("Enter")
        assert page.locator("#goal").inner_text() == "Which pixels speak for 7?"


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_and_fingers_draw(digit_page, opened, shot, dark):
    with opened(digit_page, width=360, height=740, touch=True, dark=dark) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        box = page.locator("#draw").bounding_box()
        finger = page.context.new_cdp_session(page)
        places = [
            {"x": box["x"] + x / 280 * box["width"], "y": box["y"] + y / 280 * box["height"]}
            for x, y in THREE
        ]
        finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [places[0]]})
        for place in places[1:]:
            finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [place]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_timeout(150)
        assert seen(page) == "3"
        assert page.evaluate("scrollY") == 0  # the finger drew, and did not scroll
        shot(page, f"digit-phone-{'dark' if dark else 'light'}")


@pytest.mark.parametrize(
    "fragment",
    [
        "#",
        "#t=-1&of=12&rule=x",
        "#t=1e9",
        "#d=",
        "#d=%3Cscript%3Ealert(1)%3C/script%3E",
        "#network=__proto__",
        "#t=0.5",
    ],
)
def test_a_link_that_makes_no_sense_opens_the_page(digit_page, opened, fragment):
    with opened(digit_page, fragment=fragment) as page:
        assert page.locator("#said").inner_text()
        assert page.locator("#scores button").count() == 10


def test_a_stroke_is_explained_while_it_is_drawn(digit_page, opened):
    with opened(digit_page) as page:
        draw(page, THREE[:3])
        page.get_by_text("γ", exact=True).first.click()  # the most work
        took = page.evaluate(
            """async () => {
              const begun = performance.now();
              const rule = document.getElementById("rule-g");
              for (let n = 0; n < 20; n++) rule.dispatchEvent(new Event("change"));
              return (performance.now() - begun) / 20;
            }"""
        )
        print(f"{took:.1f} ms for each picture of a stroke")
