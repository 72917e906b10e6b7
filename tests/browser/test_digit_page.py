"""The page on which digits are drawn, in a browser: by mouse, finger and keys."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page

from relprop.cli.work.demo import write_demo
from strokes import STROKES

[THREE] = STROKES[3]


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
            r"Score ([\d.]+) =\s+([\d.]+) pixels", page.locator("#sums").inner_text()
        ).groups()
        assert abs(float(score) - float(total)) < 0.3  # but for the margin
        shot(page, "digit-drawn")
        # A link carries all of it to another copy of the page.
        page.wait_for_timeout(500)
        fragment = page.evaluate("location.hash")
        assert page.locator("#link").input_value().endswith(fragment)
        drawn, strokes = pixels(page, "map"), pixels(page, "draw")
    with opened(digit_page, fragment=fragment) as page:
        assert seen(page) == "3"
        assert pixels(page, "map") == drawn
        assert pixels(page, "draw") == strokes


def test_every_choice_shows_another_map(digit_page, opened, shot):
    with opened(digit_page, fragment="#t=8") as page:
        found = {}
        for network in ("CNN", "MLP"):
            page.get_by_text(network, exact=True).click()
            for rule in ("sensitivity", "deep Taylor", "α2β1", "ε", "γ"):
                page.get_by_text(rule, exact=True).first.click()
                for view in ("signed", "heat map", "filtered"):
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
        page.locator("#not").select_option("8")  # which is no difference
        assert page.locator("#goal").inner_text() == "Which pixels speak for 8?"
        page.get_by_text("sensitivity", exact=True).first.click()
        assert page.locator("#goal").inner_text() == "Which pixels would change the score of 8 most?"
        assert page.locator("#ledger").is_hidden()


def test_undo_clear_and_test_digits(digit_page, opened, shot):
    with opened(digit_page) as page:
        first = pixels(page, "draw")
        draw(page, [(140, 50), (140, 230)])
        one = pixels(page, "map")
        assert seen(page) == "1"
        draw(page, [(60, 60), (200, 230)])
        assert pixels(page, "map") != one
        page.keyboard.press("Control+z")
        assert pixels(page, "map") == one
        page.locator("#clear").click()
        assert "empty" in page.locator("body").get_attribute("class")
        assert page.locator("#said").inner_text() == "Draw a digit, or choose one."
        assert page.locator("#clear").is_disabled()
        shot(page, "digit-empty")
        page.get_by_role("button", name="test digit 5, a 8").click()
        assert seen(page) == "8"
        page.locator("#scores button").nth(3).click()
        assert page.locator("#goal").inner_text() == "Which pixels speak for 3?"
        # Everything can be undone: the chosen digit, the clearing, the stroke, and the first digit is back.
        page.locator("#undo").click()
        page.locator("#undo").click()
        assert pixels(page, "map") == one
        page.locator("#undo").click()
        assert pixels(page, "draw") == first
        assert page.locator("#undo").is_disabled()
        draw(page, [(140, 140), (140, 140)])  # a dot is a drawing, too
        assert page.locator("#goal").inner_text()


def test_another_digit_is_explained_by_its_own_class(digit_page, opened):
    with opened(digit_page) as page:
        page.locator("#scores button").nth(0).click()
        assert page.locator("#goal").inner_text() == "Which pixels speak for 0?"
        draw(page, THREE)
        assert page.locator("#goal").inner_text() == "Which pixels speak for 3?"


def test_a_negative_score_is_said_and_its_map_is_not_blank(digit_page, opened, shot):
    with opened(digit_page, fragment="#t=0&of=0") as page:
        white = [255, 255, 255, 255]
        assert page.locator("#negative").is_visible()
        painted = pixels(page, "map")
        assert sum(painted[n : n + 4] != white for n in range(0, len(painted), 4)) > 200
        shot(page, "digit-negative")
        page.locator("#scores button").nth(2).click()
        assert page.locator("#negative").is_hidden()


def test_the_value_of_a_pixel_is_read_by_mouse_touch_and_keys(digit_page, opened):
    with opened(digit_page) as page:
        box = page.locator("#map").bounding_box()
        middle = {"x": box["width"] / 2 + 2, "y": box["height"] / 2 + 2}
        page.locator("#map").hover(position=middle)
        by_mouse = page.locator("#value").inner_text()
        assert re.fullmatch(r"Row 14, column 14: [+−][\d.]+, −?[\d.]+% of the score", by_mouse)
        page.mouse.move(5, 5)
        assert page.locator("#value").inner_text().startswith("Point at a pixel")
        page.locator("#map").focus()
        page.keyboard.press("ArrowDown")
        assert page.locator("#value").inner_text().startswith("Row 15, column 14: ")
        assert page.locator("#spot").is_visible()
        page.keyboard.press("ArrowUp")
        assert page.locator("#value").inner_text() == by_mouse
    with opened(digit_page, width=360, height=740, touch=True) as page:
        box = page.locator("#map").bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] / 2 + 2, box["y"] + box["height"] / 2 + 2)
        page.wait_for_timeout(100)
        assert page.locator("#value").inner_text() == by_mouse


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
        assert page.evaluate("document.activeElement.id") == "map"
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


def test_a_phone_keeps_the_map_in_sight(digit_page, opened, shot):
    with opened(digit_page, width=360, height=740, touch=True) as page:
        page.locator("#digits button").first.scroll_into_view_if_needed()
        box = page.locator("#map").bounding_box()
        assert 0 <= box["y"] < 100
        shot(page, "digit-phone-scrolled")
    with opened(digit_page, width=740, height=360, touch=True) as page:  # turned
        assert page.locator("#draw").bounding_box()["height"] <= 190
        assert page.evaluate("document.documentElement.scrollWidth") <= 740


def test_a_stroke_is_explained_once_a_frame(digit_page, opened):
    with opened(digit_page) as page:
        draw(page, THREE[:3])
        found = page.evaluate(
            """async () => {
              const own = Network.prototype.explain;
              let count = 0;
              Network.prototype.explain = function (...given) { count += 1; return own.apply(this, given); };
              const canvas = document.getElementById("draw");
              const at = (type, x) => canvas.dispatchEvent(
                new PointerEvent(type, { pointerId: 1, button: 0, clientX: x, clientY: 300, bubbles: true }));
              canvas.setPointerCapture = () => {};
              at("pointerdown", 200);
              for (let n = 0; n < 100; n++) at("pointermove", 200 + n);
              at("pointerup", 300);
              await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
              return count;
            }"""
        )
        assert found == 1
