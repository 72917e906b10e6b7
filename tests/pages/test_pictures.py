"""Interactive pages of explanations: what is in them, and what is refused."""

import dataclasses
import io
import re
import warnings
from base64 import b64decode

import numpy as np
import pytest
import torch
from noise import explained
from PIL import Image
from torch import nn

import relprop
from page_content import Elements, data_of, relevance_in
from relprop.errors import InputError, ScoreWarning
from relprop.pages import pictures
from relprop.pages.fragment import to_fragment
from relprop.pages.glossary import SINKS
from relprop.pages.pictures import to_html
from relprop.results.ledger import Ledger
from relprop.runs.warnings import warn_of_books
from relprop.view.arrays import as_pixels
from relprop.view.colour import positive, signed
from relprop.view.heatmaps import REDUCTIONS, scale

NASTY = "</script><img src=x onerror=alert(1)>\"'"


def table(count=2):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    return relprop.explain(model, torch.rand(count, 4), target=1)


def alike(explanation, count):
    """An explanation of so many samples, all alike."""
    return explanation[[0] * count]


def pixels_of(url):
    assert url.startswith("data:image/png;base64,")
    return Image.open(io.BytesIO(b64decode(url.partition(",")[2])))


def test_relevance_comes_back_to_half_a_step_of_its_largest():
    explanation, images = explained()
    data = data_of(to_html(explanation, images))
    for number, R in enumerate(explanation.relevance.double().numpy()):
        found = relevance_in(data, number)
        assert found.shape == R.shape
        largest = np.abs(R).max()
        assert np.abs(found - R).max() <= 0.5001 * largest / 32767
        assert np.abs(found).max() == pytest.approx(largest, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_zeros_and_other_dtypes(dtype):
    explanation, _ = explained(1)
    R = torch.zeros(1, 3, 8, 8, dtype=dtype)
    R[0, 1, 2, 3] = -0.5
    some, none = (
        dataclasses.replace(explanation, inputs={"x": relevance}) for relevance in (R, torch.zeros_like(R))
    )
    assert relevance_in(data_of(to_html(some)), 0)[1, 2, 3] == -0.5
    assert not relevance_in(data_of(to_html(none)), 0).any()


def test_a_page_has_what_is_known_of_each_sample():
    explanation, images = explained()
    names = ["ant", "bee", "cat", "dog", "elk"]
    page = to_html(explanation, images, classes=names, labels=["a.png", "b.png", "c.png"], model="net")
    data = data_of(page)
    predicted = explanation.output.argmax(1).tolist()
    for number, item in enumerate(data["items"]):
        [found] = item["maps"]
        assert (item["number"], item["label"]) == (number, ["a.png", "b.png", "c.png"][number])
        assert found["target"] == "cat"
        assert found["score"] == pytest.approx(float(explanation.score[number]))
        assert found["total"] == pytest.approx(float(explanation.relevance[number].sum()), rel=1e-5)
        amounts = dict(found["ledger"])
        assert amounts["seed"] == pytest.approx(sum(amounts.values()) - amounts["seed"], rel=1e-5)
        assert item["facts"] == [["Predicted", names[predicted[number]]]]
        assert data["rules"][found["rules"]]["name"] == "epsilon-gamma-flat"
        assert "0: conv2d: " in data["rules"][found["rules"]]["applied"]
    assert data["model"] == "net"
    assert "<title>What makes net say cat?</title>" in page


def test_pictures_have_their_own_size_and_are_stored_once():
    explanation, images = explained()
    own = data_of(to_html(explanation, images))
    assert [item["picture"] for item in own["items"]] == [0, 1, 2]
    np.testing.assert_array_equal(
        np.asarray(pixels_of(own["pictures"][1])), as_pixels(images[1].permute(1, 2, 0).double().numpy())
    )
    large = Image.new("RGB", (40, 40), "red")
    shared = data_of(to_html(explanation, large))
    assert [item["picture"] for item in shared["items"]] == [0, 0, 0]
    assert [pixels_of(url).size for url in shared["pictures"]] == [(40, 40)]
    photograph = data_of(to_html(explanation[0], Image.new("RGB", (3000, 3000))))
    assert pixels_of(photograph["pictures"][0]).size == (1024, 1024)


def test_explanations_of_the_same_samples_are_toggles():
    explanation, images = explained()
    other, _ = explained(target=3, rules="epsilon")
    data = data_of(to_html({"two": explanation, "three": other}, images))
    for number, item in enumerate(data["items"]):
        assert [found["name"] for found in item["maps"]] == ["two", "three"]
        assert [found["target"] for found in item["maps"]] == ["class 2", "class 3"]
        R = other.relevance[number].double().numpy()
        assert np.abs(relevance_in(data, number, 1) - R).max() <= np.abs(R).max() / 32767
    assert len(data["pictures"]) == 3
    assert [each["name"] for each in data["rules"]] == ["epsilon-gamma-flat", "epsilon"]


def test_the_script_has_the_colours_of_plots():
    data = data_of(to_html(explained(1)[0]))
    for name, colour in {"signed": signed, "unsigned": positive}.items():
        table = np.frombuffer(b64decode(data["look"][name]), np.uint8).reshape(511, 3)
        np.testing.assert_array_equal(table, as_pixels(colour(np.linspace(-1, 1, 511))))
        np.testing.assert_array_equal(table[255], [255, 255, 255])
    own = data_of(to_html(explained(1)[0], colour="heatmap"))["look"]
    assert own["signed"] == own["unsigned"] != data["look"]["signed"]
    assert own["meaning"]["signed"].endswith(
        "to the score. Red speaks for $target, blue against; the stronger the colour, the more."
    )


def test_a_reader_without_scripts_sees_every_sample():
    explanation, images = explained()
    page = Elements(to_html(explanation, images, labels=["a", "b", "c"]))
    stills = [image for image in page.named("img") if image["src"].startswith("data:image/png")]
    assert [image["alt"] for image in stills] == [f"Relevance of {x} for class 2" for x in "abc"]
    assert pixels_of(stills[0]["src"]).size == (128, 128)
    assert [link["href"] for link in page.named("a")] == ["#0", "#1", "#2"]
    assert "Without JavaScript" in " ".join(page.texts)
    [alone] = Elements(to_html(explanation[0], images[:1])).named("img")
    assert pixels_of(alone["src"]).size == (448, 448)


def test_warnings_and_wrong_predictions_are_marked():
    explanation, images = explained()
    best = explanation.output.argmax(1).tolist()
    truth = [best[0], (best[1] + 1) % 5, best[2]]
    score = explanation.score.clone()
    score[2] = -1
    page = to_html(dataclasses.replace(explanation, score=score), images, truth=torch.tensor(truth))
    items = data_of(page)["items"]
    assert [item["differs"] for item in items] == [False, True, False]
    assert items[1]["facts"][1] == ["Label", f"class {truth[1]}"]
    assert [len(item["maps"][0]["notes"]) for item in items] == [0, 0, 1]
    assert items[2]["maps"][0]["notes"] == [
        "The explained score is negative. Relevance then explains why the score is low, and rules such as z+ "
        "explain positive scores only."
    ]
    assert page.count("wrong prediction</span>") == 1
    assert page.count("1 warning</span>") == 1


def test_warnings_are_those_of_each_explanation_and_counted_once():
    explanation, _ = explained(1)
    low = dataclasses.replace(explanation, score=-explanation.score)
    page = to_html({"a": explanation, "b": low, "c": low})
    [item] = data_of(page)["items"]
    assert [len(found["notes"]) for found in item["maps"]] == [0, 1, 1]
    assert page.count("warnings for 2 of 3 explanations</span>") == 1


def test_a_ledger_that_does_not_balance_is_a_warning():
    explanation, images = explained(1)
    books = dataclasses.replace(explanation.ledger, seed=2 * explanation.ledger.seed)
    [item] = data_of(to_html(dataclasses.replace(explanation, ledger=books), images))["items"]
    [note] = item["maps"][0]["notes"]
    assert re.fullmatch(
        r"The ledger does not balance: [45]\.\de-01 of the largest amount is missing or in excess\.", note
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_page_warns_of_the_same_gaps_as_the_explanation(dtype):
    explanation, _ = explained(1)
    books = dataclasses.replace(explanation.ledger, seed=1.1 * explanation.ledger.seed)
    off = dataclasses.replace(explanation, ledger=books, inputs={"x": explanation.relevance.to(dtype)})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn_of_books(off)
    [item] = data_of(to_html(off))["items"]
    assert len(item["maps"][0]["notes"]) == len(told) == (dtype == torch.float32)


def test_a_negative_output_is_told_on_a_page_as_when_it_is_explained():
    model = nn.Linear(4, 1).eval()
    nn.init.constant_(model.bias, -9)
    with pytest.warns(ScoreWarning) as told:
        explanation = relprop.explain(model, torch.rand(1, 4))
    [item] = data_of(to_html(explanation))["items"]
    said = item["maps"][0]["notes"][0]
    assert str(told[0].message).startswith(said[0].lower() + said[1:])
    assert "why the output is low" in said


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 2, 3), nn.Linear(32 + 2, 3)

    def forward(self, image, meta):
        return self.last(torch.cat([self.first(image).relu().flatten(1), meta], 1))


def test_a_page_names_the_input_or_module_that_it_shows():
    torch.manual_seed(0)
    explanation = relprop.explain(
        Two().eval(), torch.rand(1, 1, 6, 6), torch.rand(1, 2), target=1, record=["first"]
    )
    for of, shown, told in (
        ("image", "input image", "all inputs together: image, meta. This map shows image alone."),
        (
            "first",
            "module first",
            "This map shows relevance on its way there, at the output of module first.",
        ),
    ):
        page = to_html(explanation, of=of)
        assert f"<title>What makes the model say class 1? ({shown})</title>" in page
        [item] = data_of(page)["items"]
        kind, name = shown.split()
        assert [kind.title(), name] in item["facts"]
        assert item["maps"][0]["arrived"].startswith("Inputs: what has arrived at ")
        assert item["maps"][0]["arrived"].endswith(told)
    alone = data_of(to_html(explained(1)[0]))["items"][0]
    assert alone["maps"][0]["arrived"] == "Inputs: what has arrived at the map."
    assert [name for name, _ in alone["facts"]] == ["Predicted"]


def test_sinks_and_rules_are_explained_on_the_page():
    data = data_of(to_html({"a": explained(1)[0], "b": explained(1, rules=relprop.rules.Epsilon())[0]}))
    assert data["shades"]["bias"] == "rgb(51, 34, 136)"  # as in plots of ledgers
    assert data["sinks"]["bias"].startswith("biases of layers")
    assert data["sinks"].keys() == data["shades"].keys() - {"inputs"}
    assert data["rules"][0]["about"].startswith("epsilon-gamma-flat is a list of rules, one for each kind of")
    assert data["rules"][1]["about"].startswith("Rules of one's own.")


def test_every_sink_of_the_ledger_has_a_meaning():
    named = re.findall(r'"([a-z ]+)": ', re.search(r"absorbed: (.*?)mixed:", Ledger.__doc__, re.DOTALL)[1])
    assert set(named) == set(SINKS)


def test_a_ledger_of_samples_that_are_mixed_says_so():
    explanation, _ = explained(2)
    books = dataclasses.replace(explanation.ledger, mixed=True)
    for item in data_of(to_html(dataclasses.replace(explanation, ledger=books)))["items"]:
        assert item["facts"][-1] == ["Ledger", "of all samples together: the model mixes them"]
        assert not item["maps"][0]["notes"]


def test_amounts_that_are_not_finite_are_none():
    explanation, _ = explained(1)
    books = dataclasses.replace(explanation.ledger, absorbed={"bias": torch.tensor([float("nan")])})
    [item] = data_of(to_html(dataclasses.replace(explanation, ledger=books)))["items"]
    assert dict(item["maps"][0]["ledger"])["bias"] is None


def test_the_same_explanation_gives_the_same_bytes(tmp_path):
    explanation, images = explained()
    for name in ("a.html", "b.HTML"):
        explanation.save(tmp_path / name, picture=images, model="net")
    content = (tmp_path / "a.html").read_bytes()
    assert content == (tmp_path / "b.HTML").read_bytes()
    assert content.decode() == explanation.to_html(images, model="net")


def test_hostile_texts_are_no_html():
    explanation, images = explained(1)
    page = to_html(
        {NASTY: explanation, "other": explanation},
        images,
        labels=[NASTY],
        classes=[NASTY] * 5,
        model=NASTY,
        title=NASTY,
    )
    found = Elements(page)
    assert len(found.named("script")) == 2
    assert len(found.named("img")) == 1
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    assert data_of(page)["items"][0]["label"] == NASTY


def test_what_is_invisible_is_an_escape():
    explanation, _ = explained(1)
    options = {"labels": ["a\u202eb\udcff"], "model": "m\x1b", "classes": ["\u200b"] * 5}
    page = to_html(explanation, **options)
    data = data_of(page)
    assert (data["items"][0]["label"], data["model"]) == (r"a\u202eb\udcff", r"m\x1b")
    assert data["items"][0]["maps"][0]["target"] == r"\u200b"
    assert not set("\u202e\udcff\x1b\u200b") & set(page)


def test_samples_are_chosen_and_keep_their_numbers():
    explanation, images = explained(5)
    data = data_of(to_html(explanation, images, samples=[4, 1], labels=list("abcde")))
    assert [(item["number"], item["label"]) for item in data["items"]] == [(4, "e"), (1, "b")]
    R = explanation.relevance[4].double().numpy()
    np.testing.assert_allclose(relevance_in(data, 0), R, atol=np.abs(R).max() / 32767)
    shown = np.asarray(pixels_of(data["pictures"][0]))
    np.testing.assert_array_equal(shown, as_pixels(images[4].permute(1, 2, 0).double().numpy()))


def test_features_and_sequences_are_one_row():
    data = data_of(to_html(table(), features=["age", "size", "weight", "x"]))
    assert data["items"][0]["shape"] == [1, 1, 4]
    assert data["look"]["features"] == ["age", "size", "weight", "x"]
    explanation, _ = explained(2)
    signal = dataclasses.replace(explanation, inputs={"x": torch.rand(2, 3, 50)})
    assert data_of(to_html(signal))["items"][1]["shape"] == [3, 1, 50]


def test_the_still_of_a_table_is_bars_as_long_as_their_values():
    explanation = table(1)
    R = torch.tensor([[0.5, -1.0, 0.0, 0.25]])
    page = to_html(dataclasses.replace(explanation, inputs={"x": R}))
    assert data_of(page)["look"]["percentile"] == 100  # nothing is clipped
    [still] = Elements(page).named("img")
    pixels = np.asarray(pixels_of(still["src"])).astype(int)
    half = pixels.shape[0] // 2
    drawn = (pixels[:, 56::112] < 255).any(2)
    assert pixels.shape == (2 * 74 + 1, 448, 3)
    np.testing.assert_array_equal(drawn[:half].sum(0), [37, 0, 0, 18])
    np.testing.assert_array_equal(drawn[half + 1 :].sum(0), [0, 74, 0, 0])
    assert data_of(to_html(explanation, percentile=90))["look"]["percentile"] == 90
    long = dataclasses.replace(explanation, inputs={"x": torch.rand(1, 1, 5000)})
    assert pixels_of(Elements(to_html(long)).named("img")[0]["src"]).width == 448


def test_a_negative_number_has_one_minus_sign_everywhere():
    explanation, _ = explained(1)
    low = dataclasses.replace(explanation, score=torch.tensor([-1.5]))
    assert data_of(to_html(low))["items"][0]["caption"].startswith("class 2, score \N{MINUS SIGN}1.5")


def test_an_input_without_samples_is_one_sample():
    explanation, _ = explained(1)
    R = torch.rand(6, 4)
    whole = dataclasses.replace(explanation, inputs={"nodes": R})
    [item] = data_of(whole.to_html())["items"]
    assert item["shape"] == [6, 1, 4]


@pytest.mark.parametrize(
    ("target", "title", "told", "aim"),
    [
        (1, "What makes net say class 1?", "class 1", "class 1"),
        (relprop.targets.Difference(1, 2), "What net looks at", "Difference(index=(1, 1), against=2)", None),
        (lambda y: y[:, 0], "What net looks at", "<lambda>", None),
    ],
)
def test_what_is_explained_is_told_in_words(target, title, told, aim):
    explanation, _ = explained(2, target)
    page = to_html(explanation, model="net")
    assert f"<title>{title}</title>" in page
    found = data_of(page)["items"][1]["maps"][0]
    assert found["target"].endswith(told)
    assert found["aim"] == (aim or "a larger score")
    assert f"Orange speaks for {found['aim']}, blue against" in page


def test_the_only_output_of_a_model_is_no_class():
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)).eval()
    explanation = relprop.explain(model, torch.rand(2, 4))
    page = to_html(explanation)
    assert "<title>What the model looks at</title>" in page
    assert data_of(page)["items"][0]["maps"][0]["target"] == "the only output"
    assert data_of(to_html(explanation, classes=["yes"]))["items"][0]["maps"][0]["target"] == "yes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colors": 1}, r"to_html\(colors=...\): there is no such option. Did you mean colour="),
        ({"enlarge": 2}, r"to_html\(enlarge=...\): there is no such option.*There are: of, samples"),
        ({"channels": "mean"}, r"to_html\(channels='mean'\): no such reduction.*There are: 'sum'"),
        ({"percentile": 0}, r"to_html\(percentile=0\): give a number above 0, and 100 at most"),
        ({"opacity": "full"}, r"to_html\(opacity='full'\): give a number from 0 to 1"),
        ({"samples": [3]}, r"to_html\(samples=\[3\]\): give one number or more, from 0 to 2"),
        ({"samples": 2}, r"to_html\(samples=2\): give a list of the numbers of samples\."),
        ({"samples": []}, r"to_html\(samples=\[\]\): give one number or more, from 0 to 2"),
        (
            {"samples": [True, False, True]},
            r"to_html\(samples=\[True, False, True\]\): this is a mask; give the numbers: samples=\[0, 2\]\.",
        ),
        (
            {"samples": torch.tensor([False, True, True])},
            r"this is a mask; give the numbers: samples=\[1, 2\]\.",
        ),
        (
            {"samples": [0, 1.7]},
            r"to_html\(samples=\[0, 1\.7\]\): samples\[1\] is 1\.7; give a list of the numbers of samples, "
            "whole numbers from 0",
        ),
        (
            {"labels": ["a"]},
            r"to_html\(labels=\['a'\]\) has 1 elements for 3 samples; give a list of 3, one for each",
        ),
        (
            {"labels": [f"label {n}" for n in range(199)]},
            r"to_html\(labels=\['label 0', .{40,60}\.\.\.\) has 199 elements for 3 samples",
        ),
        ({"labels": "abc"}, r"to_html\(labels='abc'\): give a list with a text for each sample\."),
        ({"classes": "abcde"}, r"to_html\(classes='abcde'\): give a list with the names of all classes\."),
        ({"truth": [1]}, r"to_html\(truth=\[1\]\) has 1 elements for 3 samples"),
        ({"truth": 1}, r"to_html\(truth=1\): give a list with the number of each sample's class\."),
        (
            {"truth": [0, "a", 1]},
            r"truth=\[0, 'a', 1\]\): truth\[1\] is 'a'; give a list with the number of each",
        ),
        ({"truth": [0, None, 1]}, r"truth\[1\] is None; give"),
        ({"truth": [0.5, 1, 1]}, r"truth\[0\] is 0\.5; give"),
        ({"truth": [True, False, True]}, r"truth\[0\] is True; give"),
        ({"truth": [0, 99, 1]}, r"truth\[1\] is 99; give the numbers of classes, from 0 to 4\."),
        (
            {"truth": [0, -1, 1], "classes": list("abcde")},
            r"truth=\[0, -1, 1\]\): truth\[1\] is -1; give the numbers of classes, from 0 to 4\.",
        ),
        ({"title": 3}, r"to_html\(title=3\): give a text\."),
        ({"model": nn.ReLU()}, r"to_html\(model=ReLU\(\)\): give a text\."),
        ({"classes": ["a"]}, r"to_html\(classes=...\) has 1 names, but there is class \d; give a name for"),
        (
            {"features": list("abcdefgh")},
            r"to_html\(features=...\): relevance of shape \(3, 3, 8, 8\) is that of images, which have no",
        ),
        ({"of": "layer3"}, r"to_html\(of='layer3'\): there is no relevance of this name"),
        ({"colour": 3}, r"to_html\(colour=3\): there is no such colour. There are: grey,"),
        ({"colour": "blue"}, r"to_html\(colour='blue'\): there is no such colour"),
        (
            {"picture": torch.rand(2, 3, 8, 8)},
            r"to_html\(picture=...\) has 2 pictures for 3 samples; give one, or",
        ),
        (
            {"picture": torch.rand(3, 9, 8)},
            r"to_html: picture= is 8 x 9 pixels and the map 8 x 8: their",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        to_html(explained()[0], **options)


def test_names_of_features_are_as_many_as_features():
    with pytest.raises(InputError, match=r"to_html\(features=...\) has 1 names for 4 features; give a name"):
        to_html(table(), features=["a"])


def test_classes_and_samples_can_be_arrays():
    explanation, _ = explained(3)
    truth = np.array([0, 1, 2])
    options = {"truth": truth, "samples": np.array([2, 1]), "classes": np.array(list("abcde"))}
    items = data_of(to_html(explanation, **options))["items"]
    assert [item["number"] for item in items] == [2, 1]
    assert [dict(item["facts"])["Label"] for item in items] == ["c", "b"]
    assert to_html(explanation, truth=torch.tensor(truth)) == to_html(explanation, truth=truth.tolist())


def test_errors_repeat_the_call_that_was_made(tmp_path):
    explanation, images = explained(3)
    path = tmp_path / "y.html"
    call = re.escape(f"explanation.save({str(path)!r}")
    for option, (given, message) in {
        "pictures": (images, r", pictures=\.\.\.\): there is no such option\. Did you mean picture=\?"),
        "samples": ([9], r", samples=\[9\]\): give one number"),
        "of": ("x", r", of='x'\): there is no relevance of this name"),
        "colour": ("blue", r", colour='blue'\): there is no such colour"),
        "picture": (images[:2], r", picture=\.\.\.\) has 2 pictures for 3 samples"),
    }.items():
        with pytest.raises(InputError, match=call + message):
            explanation.save(path, **{option: given})
    assert not path.exists()
    with pytest.raises(
        InputError, match=r"^to_fragment\(explanation, samples=\[9\]\): give one number or more"
    ):
        to_fragment(explanation, samples=[9])


def test_relevance_that_no_page_shows_is_refused_with_what_helps():
    explanation, _ = explained(2)
    volume = dataclasses.replace(explanation, inputs={"x": torch.rand(2, 3, 4, 5, 6)})
    with pytest.raises(InputError, match=r"relevance of shape \(2, 3, 4, 5, 6\) cannot be shown") as refused:
        volume.to_html()
    remedy = str(refused.value).partition("other dimensions: ")[2].removesuffix(".")
    summed = eval(remedy, {"dataclasses": dataclasses, "explanation": volume})
    assert data_of(summed.to_html())["items"][0]["shape"] == [3, 5, 6]
    R = torch.zeros(2, 3, 8, 8)
    R[1, 2, 4, 5:7] = float("nan")
    broken = dataclasses.replace(explanation, inputs={"x": R})
    place = "sample 1: 2 of 192 values are NaN or infinite, the first in channel 2, row 4, column 5"
    with pytest.raises(InputError, match=f"to_html: {place}. Find out"):
        broken.to_html()
    with pytest.raises(InputError, match=f"to_html: other, {place}. Find out"):
        to_html({"one": explanation, "other": broken})
    ids = dataclasses.replace(explanation, inputs={"ids": torch.rand(7, 4)})
    with pytest.raises(InputError, match=r"relevance of shape \(7, 1, 1, 4\) is not that of 2 samples"):
        ids.to_html()
    with pytest.raises(InputError, match=r"relevance of a sequence or of features has no picture"):
        to_html(table(), torch.rand(2, 3, 4, 4))


def test_explanations_of_other_samples_are_refused():
    with pytest.raises(InputError, match=r"to_html\(\{\}\): give one explanation or more, by name"):
        to_html({})
    with pytest.raises(InputError, match=r"to_html\(\{1: ...\}\): names of explanations are texts"):
        to_html({1: explained(1)[0]})
    for wrong in (torch.rand(2, 3), {"a": torch.rand(2, 3)}):
        with pytest.raises(InputError, match=r"to_html\(Tensor\): give an explanation, as relprop.explain"):
            to_html(wrong)
    one, other = explained(3)[0], explained(2)[0]
    with pytest.raises(InputError, match=r"has the shapes .*; give explanations of the same samples"):
        to_html({"a": one, "b": other})


def test_a_page_that_would_be_too_large_says_how_many_samples_fit(monkeypatch):
    explanation, _ = explained(3)
    with pytest.raises(InputError, match=r"there are 1,001 samples; a page shows 1,000, unless") as refused:
        to_html(alike(explanation, 1001))
    assert str(refused.value).endswith("Choose: to_html(samples=range(1000)).")
    assert len(data_of(to_html(alike(explanation, 1001), samples=range(2)))["items"]) == 2
    monkeypatch.setattr(pictures, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match=r"to_html: 3 samples take 0 MB.* 1 of them fit. .*range\(1\)"):
        to_html(explanation)
    monkeypatch.setattr(pictures, "MOST_BYTES", 100)
    with pytest.raises(InputError, match=r"one sample takes 0 MB.*explanation\.save\('x.safetensors'\)"):
        to_html(explanation)


def test_pictures_count_for_the_size_of_a_page(monkeypatch):
    explanation, _ = explained(4)
    noise = torch.rand(4, 3, 64, 64)
    one = pictures.items_of({"": explanation[0]}, noise[:1], pictures.look_of({}))
    size = next(one).size
    monkeypatch.setattr(pictures, "MOST_BYTES", round(2.5 * size))
    with pytest.raises(InputError, match=r"2 of them fit. Choose: to_html\(samples=range\(2\)\)"):
        to_html(explanation, noise)
    assert len(data_of(to_html(explanation, noise, samples=range(2)))["items"]) == 2


def test_stills_are_drawn_as_plots_are():
    explanation, _ = explained(1)
    [still] = Elements(to_html(explanation, channels="norm")).named("img")
    found = np.asarray(pixels_of(still["src"]))[::56, ::56]
    values = scale(REDUCTIONS["norm"](explanation.relevance.double().numpy())).values
    np.testing.assert_array_equal(found, as_pixels(positive(values[0])))
