"""The interactive pages of pictures, signals and tables, in a browser."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import expect
from torch import nn
from typer.testing import CliRunner

import relprop
from relprop.cli.commands import app
from relprop.data.mnist import tutorial_sample
from relprop.pages.fragment import to_fragment
from relprop.pages.pictures import to_html
from relprop.view.heatmaps import REDUCTIONS, overlay, paint, scale
from relprop.zoo.mnist import pad

NASTY = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"'$target"


@pytest.fixture(scope="module")
def digits():
    """Twelve digits explained, with the picture that the model saw and the labels."""
    model = relprop.load("mnist-cnn")
    images, labels = tutorial_sample()
    images = pad(images)
    return relprop.explain(model, images, target=labels, bounds=(-1, 1)), images, labels


@pytest.fixture(scope="module")
def colours():
    """A picture of three channels explained for two classes; the picture is four times as large."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 100, 5)).eval()
    nn.init.constant_(model[-1].bias, 2)
    x = torch.rand(1, 3, 12, 12)
    explained = {f"class {c}": relprop.explain(model, x, target=c) for c in (1, 3)}
    return explained, torch.rand(3, 48, 48)


def value_of(page):
    """The relevance that the page reads below the cursor."""
    text = page.locator("#reading").inner_text().replace("−", "-")
    return float(re.search(r"relevance ([^ ,\n]+)", text)[1])


def hover(page, row, column, rows, columns):
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(
        box["x"] + (column + 0.5) * box["width"] / columns, box["y"] + (row + 0.5) * box["height"] / rows
    )


def slide(page, name, value):
    page.locator(f"#{name}").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')) }", value
    )


def drawn(page):
    """The pixels of the canvas, red, green and blue."""
    width, height, content = page.evaluate(
        "() => { const c = document.getElementById('canvas');"
        "return [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]] }"
    )
    return np.array(content).reshape(height, width, 4)[..., :3]


def wide(page):
    return page.evaluate("document.documentElement.scrollWidth")


def test_the_value_below_the_mouse_is_the_relevance(digits, opened, shot, tmp_path):
    explanation, images, labels = digits
    explanation.save(tmp_path / "x.html", picture=images, model="mnist-cnn", truth=labels)
    R = explanation.relevance[3, 0]
    with opened(tmp_path / "x.html", fragment="#3") as page:
        expect(page.locator("#label")).to_have_text("sample 3")
        largest = int(R.abs().argmax())
        assert f"row {largest // 32}, column {largest % 32}" in page.locator("#reading").inner_text()
        for row, column in ((0, 0), (16, 19), (13, 20), (31, 31), (25, 9)):
            hover(page, row, column, 32, 32)
            text = page.locator("#reading").inner_text()
            assert f"row {row}, column {column}\n" in text
            step = float(R.abs().max()) / 32767
            assert value_of(page) == pytest.approx(float(R[row, column]), rel=1e-3, abs=step)
            level = round(255 * (float(images[3, 0, row, column]) + 1) / 2)
            assert f"red {level}, green {level}, blue {level}" in text
        share = 100 * float(R[25, 9] / explanation.score[3])
        shown = float(re.search(r", ([^ ]+) % of the score", text.replace("−", "-"))[1])
        assert shown == pytest.approx(share, rel=1e-2, abs=1e-3)
        shot(page, "picture-viewer")


def test_keys_move_the_cursor(digits, opened, tmp_path):
    explanation, images, _ = digits
    explanation[3].save(tmp_path / "x.html", picture=images[3:4])
    with opened(tmp_path / "x.html") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "canvas"
        outline = page.locator("#canvas").evaluate("(c) => getComputedStyle(c).outlineStyle")
        assert outline == "solid"
        place = lambda: page.locator("#reading b").inner_text()  # noqa: E731
        page.keyboard.press("Home")
        for _ in range(4):
            page.keyboard.press("Shift+ArrowUp")
        assert place() == "row 0, column 0"
        for key, there in {
            "ArrowRight": "row 0, column 1",
            "Shift+ArrowDown": "row 10, column 1",
            "End": "row 10, column 31",
            "ArrowLeft": "row 10, column 30",
            "ArrowUp": "row 9, column 30",
        }.items():
            page.keyboard.press(key)
            assert place() == there
        assert value_of(page) == pytest.approx(float(explanation.relevance[3, 0, 9, 30]), rel=1e-3, abs=1e-5)
        assert page.locator("#reading").get_attribute("aria-live") == "polite"
        label = page.locator("#canvas").get_attribute("aria-label")
        assert re.fullmatch(r"Relevance for class 6: sum 21.85, largest value .* at row 16, column 19", label)
        page.get_by_role("button", name="Go to the largest value").click()
        assert place() == "row 16, column 19"


def test_a_touch_reads_a_value_on_a_narrow_screen(colours, opened, shot, tmp_path):
    explained, picture = colours
    (tmp_path / "x.html").write_text(to_html(explained, picture, labels=["a-long-name" * 10]))
    with opened(tmp_path / "x.html", width=360, height=740, touch=True) as page:
        box = page.locator("#canvas").bounding_box()
        page.touchscreen.tap(box["x"] + 2.5 * box["width"] / 12, box["y"] + 7.5 * box["height"] / 12)
        assert "row 7, column 2" in page.locator("#reading").inner_text()
        R = explained["class 1"].relevance[0].sum(0)
        assert value_of(page) == pytest.approx(float(R[7, 2]), rel=1e-3, abs=float(R.abs().max()) / 1e4)
        assert wide(page) == 360
        shot(page, "picture-360")


def test_channels_explanations_and_views_are_toggles(colours, opened, tmp_path):
    explained, picture = colours
    (tmp_path / "x.html").write_text(to_html(explained, picture))
    with opened(tmp_path / "x.html") as page:
        hover(page, 4, 5, 12, 12)
        for name, explanation in reversed(explained.items()):
            page.get_by_role("radio", name=name).check()
            R = explanation.relevance.double().numpy()
            step = np.abs(R).max() / 10000
            for channel, reduced in REDUCTIONS.items():
                page.locator("#channels").select_option(channel)
                assert value_of(page) == pytest.approx(reduced(R)[0, 4, 5], rel=1e-3, abs=step)
            page.locator("#channels").select_option("2")
            assert value_of(page) == pytest.approx(R[0, 2, 4, 5], rel=1e-3, abs=step)
            page.locator("#channels").select_option("sum")
            assert name in page.locator("#meaning").inner_text()
            assert f"{float(explanation.score[0]):.4g}" in page.locator("#sum").inner_text()
        values = scale(REDUCTIONS["sum"](R)).values
        page.get_by_role("radio", name="relevance", exact=True).check()
        assert not page.locator("#opacity-control").is_visible()
        assert np.abs(drawn(page) - paint(values)[0].astype(int)).max() <= 3
        page.get_by_role("radio", name="picture", exact=True).check()
        own = np.rint(255 * picture.permute(1, 2, 0).numpy())
        assert drawn(page).shape == (48, 48, 3)
        np.testing.assert_array_equal(drawn(page), own)
        page.get_by_role("radio", name="both", exact=True).check()
        large = values.repeat(4, 1).repeat(4, 2)
        expected = overlay(large, own[None] / 255).astype(int)
        assert np.abs(drawn(page) - expected[0]).max() <= 3


def test_sliders_change_opacity_and_clipping(colours, opened, tmp_path):
    explained, picture = colours
    (tmp_path / "x.html").write_text(to_html(explained, picture, percentile=80))
    with opened(tmp_path / "x.html") as page:
        maps = [REDUCTIONS["sum"](each.relevance.double().numpy()) for each in explained.values()]
        own = np.rint(255 * picture.permute(1, 2, 0).numpy())[None] / 255

        def expected(values, opacity):
            large = scale(values, percentile=60, shared=True).values[:1].repeat(4, 1).repeat(4, 2)
            return overlay(large, own, opacity=opacity)[0].astype(int)

        slide(page, "percentile", 60)
        slide(page, "opacity", 0.4)
        assert page.locator("#percentile-told").inner_text() == "60 %"
        assert page.locator("#opacity-told").inner_text() == "40 %"
        assert np.abs(drawn(page) - expected(maps[0], 0.4)).max() <= 3
        limit = float(scale(maps[0], percentile=60).limits[0])
        high = page.locator("#high").inner_text().removesuffix(" and more").replace("−", "-")
        assert float(high) == pytest.approx(limit, rel=1e-2)
        page.get_by_label("One scale for all explanations").check()
        assert np.abs(drawn(page) - expected(np.concatenate(maps), 0.4)).max() <= 3
        page.locator("#percentile").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#percentile-told").inner_text() == "60.1 %"


def test_the_ledger_is_a_sentence_a_bar_and_a_table(digits, opened, tmp_path):
    explanation, images, _ = digits
    explanation[4].save(tmp_path / "x.html", picture=images[4:5])
    books = explanation.ledger
    seed, inputs, bias = (float(a[4]) for a in (books.seed, books.inputs, books.absorbed["bias"]))
    with opened(tmp_path / "x.html") as page:
        told = page.locator("#sum").inner_text()
        assert told == f"{seed:.4g} = inputs {inputs:.4g} + bias {bias:.4g}"
        parts = page.locator("#stack span").evaluate_all("(all) => all.map((part) => part.clientWidth)")
        assert parts[0] / sum(parts) == pytest.approx(inputs / (inputs + bias), abs=0.01)
        rows = page.locator("#ledger tr").all_inner_texts()
        assert rows[0].split("\t") == ["score", f"{seed:.4g}", "100 %"]
        assert rows[1].split("\t")[:2] == ["inputs", f"{inputs:.4g}"]


def test_shares_of_a_negative_score_have_their_own_sign(colours, opened, tmp_path):
    explained, _ = colours
    one = explained["class 1"]
    books = dataclasses.replace(one.ledger, seed=-one.ledger.seed)
    dataclasses.replace(one, score=-one.score, ledger=books).save(tmp_path / "x.html")
    R = one.relevance[0].sum(0)
    with opened(tmp_path / "x.html") as page:
        row, column = divmod(int(R.argmax()), 12)
        hover(page, row, column, 12, 12)
        share = 100 * float(R.max() / one.score[0])
        assert f", {share:.3g} % of the score’s size" in page.locator("#reading").inner_text()
        assert page.locator("#of-score").inner_text() == "of the score’s size"
        assert page.locator("#ledger tr").first.inner_text().split("\t")[2] == "−100 %"
        assert page.locator("#notes").inner_text().count("The explained score is negative") == 1


def test_a_gallery_is_searched_sorted_and_left_again(digits, opened, shot, tmp_path):
    explanation, images, labels = digits
    truth = labels.tolist()
    truth[5] = 3
    score = explanation.score.clone()
    score[7] = -1
    marked = dataclasses.replace(explanation, score=score)
    names = [f"digit {letter}" for letter in "abcdefghijkl"]
    marked.save(tmp_path / "x.html", picture=images, labels=names, truth=truth)
    with opened(tmp_path / "x.html") as page:
        shown = lambda: page.locator("#cards li:visible .name").all_inner_texts()  # noqa: E731
        expect(page.locator("#cards li:visible")).to_have_count(12)
        shot(page, "picture-gallery")
        page.get_by_label("Search").fill("class 8")
        assert shown() == ["digit e", "digit f", "digit i"]
        page.get_by_label("Search").fill("DIGIT B")
        assert shown() == ["digit b"]
        page.get_by_label("Search").fill("")
        page.get_by_label("only with warnings or a wrong prediction").check()
        assert shown() == ["digit f", "digit h"]
        assert page.locator("#count").inner_text() == "2 of 12"
        page.get_by_label("Search").fill("no such label")
        assert page.locator("#count").inner_text() == "No sample has what is searched for."
        page.get_by_label("Search").fill("")
        options = page.locator("#sort option").all_inner_texts()
        assert options[:2] == ["number, smallest first", "score, largest first"]
        page.get_by_label("only with warnings or a wrong prediction").uncheck()
        books = explanation.ledger
        orders = {
            "score": -score,
            "total": -explanation.relevance.sum((1, 2, 3)),
            "gap": -books.gap,
            "absorbed": -(1 - books.inputs / books.seed).abs(),
            "number": torch.arange(12),
        }
        for name, key in orders.items():
            page.get_by_label("Sort by").select_option(name)
            expected = [names[n] for n in key.argsort(stable=True).tolist()]
            assert shown() == expected, name
        page.get_by_label("reversed").check()
        assert shown() == names[::-1]
        page.get_by_role("link", name="digit k").click()
        expect(page).to_have_url(re.compile("#10$"))
        expect(page.locator("#label")).to_have_text("digit k")
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#label")).to_have_text("digit j")
        page.go_back()
        expect(page.locator("#label")).to_have_text("digit k")
        page.go_back()
        expect(page.locator("#cards li:visible")).to_have_count(12)
        page.keyboard.press("Enter")  # the card that was left has the focus
        expect(page.locator("#label")).to_have_text("digit k")
        page.get_by_role("button", name="All samples").click()
        expect(page.locator("#cards li:visible")).to_have_count(12)


def test_until_the_picture_is_decoded_relevance_is_drawn_alone(digits, opened, tmp_path):
    explanation, images, _ = digits
    explanation.save(tmp_path / "x.html", picture=images)
    with opened(tmp_path / "x.html", fragment="#1") as page:
        page.wait_for_function("!document.getElementById('opacity-control').hidden")
        names = page.evaluate("[typeof state, typeof byId, typeof maps].join()")
        assert names == "undefined,undefined,undefined"  # none is global
        page.evaluate("void (HTMLImageElement.prototype.decode = () => new Promise(() => {}))")
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#label")).to_have_text("sample 2")
        alone = paint(scale(REDUCTIONS["sum"](explanation.relevance[2:3].double().numpy())).values)[0]
        assert np.abs(drawn(page) - alone.astype(int)).max() <= 3
        page.evaluate("void (HTMLImageElement.prototype.decode = () => Promise.reject(new Error('broken')))")
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#unread")).to_be_visible()
        alone = paint(scale(REDUCTIONS["sum"](explanation.relevance[3:4].double().numpy())).values)[0]
        assert np.abs(drawn(page) - alone.astype(int)).max() <= 3
        assert not page.locator("#views").is_visible()


def test_dark_and_narrow(digits, opened, shot, tmp_path):
    explanation, images, _ = digits
    explanation.save(tmp_path / "x.html", picture=images)
    with opened(tmp_path / "x.html", dark=True, width=360, height=740, fragment="#1") as page:
        assert wide(page) == 360
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", ground))) < 60
        shot(page, "picture-dark-360")
        page.get_by_role("button", name="All samples").click()
        expect(page.locator("#cards li:visible")).to_have_count(12)
        assert wide(page) == 360
        shot(page, "picture-gallery-dark-360")


def test_warnings_are_asked_for_only_where_there_are_some(digits, opened, tmp_path):
    explanation, images, _ = digits
    explanation.save(tmp_path / "x.html", picture=images)
    with opened(tmp_path / "x.html") as page:
        assert page.locator("#sort").is_visible()
        assert not page.locator("#doubtful").is_visible()


def test_a_table_is_bars_and_numbers(opened, shot, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    explanation = relprop.explain(model, torch.rand(1, 4), target=1)
    R = explanation.relevance[0].tolist()
    (tmp_path / "x.html").write_text(to_html(explanation, features=["age", "size", NASTY, "x"]))
    with opened(tmp_path / "x.html") as page:
        hover(page, 0, 2, 1, 4)
        assert page.locator("#reading b").inner_text() == NASTY
        assert page.locator("#names span").all_inner_texts() == ["age", "size", NASTY, "x"]
        assert page.locator("#percentile-told").inner_text() == "100 %"
        assert value_of(page) == pytest.approx(R[2], rel=1e-3)
        numbers = [
            row.split("\t")[-1].replace("−", "-") for row in page.locator("#values tr").all_inner_texts()
        ]
        assert [float(n) for n in numbers[1:]] == pytest.approx(R, rel=1e-3, abs=1e-5)
        up = drawn(page)[30]
        assert [bool((up[column] < 255).any()) for column in range(4)] == [
            value > max(map(abs, R)) / 2 for value in R
        ]
        shot(page, "table")


def test_hostile_names_run_nothing(colours, opened, tmp_path):
    explained, picture = colours
    one, other = explained.values()
    page_of_both = to_html(
        {NASTY: one, "other": dataclasses.replace(other, preset=NASTY)},
        picture,
        labels=[NASTY],
        classes=[NASTY] * 5,
        title=NASTY,
        model=NASTY,
    )
    (tmp_path / "x.html").write_text(page_of_both)
    with opened(tmp_path / "x.html") as page:
        assert page.locator("h1").inner_text() == NASTY
        expect(page.locator("#label")).to_have_text(NASTY)
        assert NASTY in page.locator("#meaning").inner_text()
        page.get_by_role("radio", name="other").check()
        assert NASTY in page.locator("#facts").inner_text()


def test_the_frame_of_a_notebook_works_and_is_kept_apart(digits, opened, shot, tmp_path):
    explanation, images, _ = digits
    cell = to_fragment(explanation[:3], images[:3], model=NASTY)
    (tmp_path / "x.html").write_text(f"<!DOCTYPE html><meta charset=utf-8><base href='/lab/'>{cell}")
    with opened(tmp_path / "x.html") as page:
        assert page.locator("figure img").count() == 3
        page.locator("summary").click()
        frame = page.frame_locator("iframe")
        frame.get_by_role("link", name="sample 1").click()
        expect(frame.locator("#label")).to_have_text("sample 1")
        frame.get_by_role("button", name="All samples").click()
        frame.get_by_role("link", name="sample 2").click()
        assert "relevance" in frame.locator("#reading").inner_text()
        shot(page, "notebook")


def test_without_scripts_there_are_still_pictures(digits, browser, tmp_path):
    explanation, images, _ = digits
    explanation.save(tmp_path / "x.html", picture=images)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "x.html").as_uri())
    assert page.locator("noscript, .warned").first.is_visible()
    assert page.locator("#cards img:visible").count() == 12
    assert not page.locator("#viewer").is_visible()
    assert not page.locator("#tools").is_visible()
    context.close()


def test_a_report_of_the_command_line_is_understood_alone(opened, shot, tmp_path):
    for name, level in (("grey.png", 130), ("dark.png", 40)):
        noise = np.random.default_rng(level).integers(level - 40, level + 40, (40, 40, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "broken.png").write_text("no picture")
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch import nn\n\ndef net():\n    torch.manual_seed(0)\n"
        "    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "        nn.Linear(4, 3))\n    model[-1].bias.data.copy_(torch.tensor([3.0, 2.0, -4.0]))\n"
        "    model.input_size = 32\n    model.classes = ['ant', 'bee', 'cat']\n    return model\n"
    )
    pictures = [tmp_path / name for name in ("grey.png", "broken.png", "dark.png")]
    options = ("--top", 3, "--html", tmp_path / "report.html")
    arguments = ("explain", f"{tmp_path}/own.py:net", *pictures, *options)
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 2
    with opened(tmp_path / "report.html") as page:
        cards = page.locator("#cards li").all_inner_texts()
        assert [card.split("\n")[0] for card in cards] == ["grey.png", "broken.png", "dark.png"]
        assert "1 of 3 pictures could not be explained" in page.locator("body").inner_text()
        assert "what each part of the input contributed" in page.locator("body").inner_text()
        page.get_by_label("Search").fill("not a picture")
        assert page.locator("#cards li:visible").count() == 1
        page.get_by_label("Search").fill("")
        shot(page, "report")
        page.get_by_role("link", name="grey.png").click()
        assert page.locator("#notes li").count() == 0  # for an ant, the score is positive
        page.get_by_role("radio", name="cat").check()
        assert "⚠" in page.locator("#notes li").evaluate("(e) => getComputedStyle(e, '::before').content")
        assert "The explained score is negative" in page.locator("#notes").inner_text()
        page.get_by_role("button", name="Next").click()  # past the picture that could not be read
        expect(page.locator("#label")).to_have_text("dark.png")
        assert page.get_by_role("button", name="Next").is_disabled()
        assert page.get_by_role("radio", name="cat").is_checked()
