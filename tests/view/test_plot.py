"""Plots and comparisons of explanations."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relprop
from relprop.errors import InputError
from relprop.results.inner import InnerRelevance
from relprop.view.colour import positive, signed
from relprop.view.display import as_pictures
from relprop.view.grid import LINE, words
from relprop.view.heatmaps import enlarge, overlay, paint, reduce_channels, scale
from relprop.view.mosaic import made_by_relprop
from relprop.view.plot import compare, plot


def explained(count=3, **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    nn.init.constant_(model[-1].bias, 2)  # scores are positive: explain warns of others
    images = torch.rand(count, 3, 8, 8)
    return relprop.explain(model, images, target=2, **arguments), images


def test_a_plot_has_a_map_of_each_sample_with_its_label():
    explanation, _ = explained()
    drawn = plot(explanation, bar=False, enlarge=16)
    assert drawn.pixels.shape == (8 + LINE + 130 + 8, 8 + 3 * 138, 3)
    expected = paint(enlarge(scale(reduce_channels(explanation.relevance)).values, 128, 128))
    for number in range(3):
        top, left = 9 + LINE, 9 + 138 * number
        found = drawn.pixels[top : top + 128, left : left + 128]
        np.testing.assert_array_equal(found, expected[number])
        label = words(f"class 2, score {float(explanation.score[number]):.4g}", 130)
        np.testing.assert_array_equal(drawn.pixels[8 : 8 + LINE, left - 1 : left + 129], label)


def test_maps_are_enlarged_to_about_224_pixels():
    for side, drawn in {1: 224, 7: 224, 28: 224, 64: 256, 224: 224, 300: 300}.items():
        assert plot(torch.ones(1, 1, side, side), bar=False).pixels.shape[1] == drawn + 18


def test_coarse_maps_are_smoothed_where_asked_for():
    R = torch.tensor([[[[0.0, 1.0]]]]).expand(1, 1, 2, 2)
    sharp, smooth = (plot(R, smooth=smooth, bar=False).pixels[100, 9:-9] for smooth in (False, True))
    assert len(np.unique(sharp, axis=0)) == 2
    assert len(np.unique(smooth, axis=0)) > 50


def test_a_plot_with_a_picture_is_an_overlay_or_stands_beside_it():
    explanation, images = explained(1)
    over = explanation.plot(images, bar=False, labels=[""], enlarge=1).pixels[9:17, 9:17]
    values = scale(reduce_channels(explanation.relevance)).values
    np.testing.assert_array_equal(over, overlay(values, as_pictures(images, 1, 8, 8))[0])
    beside = explanation.plot(images, bar=False, labels=[""], enlarge=1, beside=True).pixels[9:17, 9:27]
    np.testing.assert_array_equal(beside[:, :8], np.rint(255 * as_pictures(images, 1, 8, 8))[0])
    np.testing.assert_array_equal(beside[:, 10:], paint(values)[0])


def test_samples_are_chosen_with_their_pictures_and_labels():
    explanation, images = explained()
    chosen = explanation.plot(images, samples=[2], labels=["a", "b", "c"], enlarge=4)
    np.testing.assert_array_equal(
        chosen.pixels, plot(explanation.relevance[2:], images[2], labels=["c"], enlarge=4).pixels
    )
    assert chosen.metadata["Score"] == f"{float(explanation.score[2]):.6g}"


def test_a_shared_scale_has_its_number_at_the_bar_and_own_scales_below_the_maps():
    R = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4)
    shared, own = plot(R, shared=True), plot(R)
    assert own.pixels.shape[0] == shared.pixels.shape[0] + LINE
    below = words("±3", 226)
    np.testing.assert_array_equal(own.pixels[-8 - LINE : -8, 8 + 234 : 8 + 234 + 226], below)
    np.testing.assert_array_equal(shared.pixels[100, 100], np.rint(255 * signed(np.array(1 / 3))))


def test_channels_without_sign_have_a_colour_map_for_sizes():
    R = -torch.ones(1, 2, 4, 4)
    np.testing.assert_array_equal(
        plot(R, channels="norm").pixels[100, 100], np.rint(255 * positive(np.array(1.0)))
    )
    np.testing.assert_array_equal(plot(R).pixels[100, 100], np.rint(255 * signed(np.array(-1.0))))
    np.testing.assert_array_equal(plot(R, colour="grey").pixels[100, 100], [0, 0, 0])


def test_sequences_and_features_are_strips_below_each_other():
    assert plot(torch.randn(3, 2, 100), bar=False).pixels.shape == (
        8 + 3 * (34 + LINE + 8) - 3 * LINE,
        418,
        3,
    )
    assert plot(torch.randn(2, 20)).pixels.shape[0] == 8 + 2 * (34 + LINE + 8)


def test_labels_have_the_names_of_classes_and_a_title_stands_above():
    explanation, _ = explained(1)
    named = plot(explanation, classes=["a", "b", "cat", "d", "e"], bar=False)
    label = words(f"cat, score {float(explanation.score[0]):.4g}", 226)
    np.testing.assert_array_equal(named.pixels[8 : 8 + LINE, 8:-8], label)
    titled = plot(explanation, classes=["a", "b", "cat", "d", "e"], bar=False, title="A title")
    np.testing.assert_array_equal(titled.pixels[12 + LINE :], named.pixels)
    assert titled.metadata["Title"] == "A title"


def test_of_several_inputs_one_is_named():
    linear = nn.Linear(6, 2).eval()
    nn.init.constant_(linear.bias, 2)
    both = torch.rand(2, 3), torch.rand(2, 3)
    explanation = relprop.explain(lambda a, b: linear(torch.cat([a, b], 1)), *both, target=0)
    names = list(explanation.inputs)
    with pytest.raises(InputError, match=r"there is relevance of several inputs: .*Choose one: plot\(of='"):
        explanation.plot()
    with pytest.raises(InputError, match=r"plot\(of='c'\): there is no relevance of this name. There is: a "):
        explanation.plot(of="c")
    drawn = explanation.plot(of=names[1], labels=["", ""])
    np.testing.assert_array_equal(drawn.pixels, plot(explanation.inputs[names[1]]).pixels)
    assert drawn.metadata["Relevance of"] == names[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"colr": "grey"},
            r"plot\(colr=...\): there is no such option. Did you mean colour=\? There are: of, ",
        ),
        ({"colour": "gray"}, r"plot\(colour='gray'\): there is no such colour. Did you mean 'grey'\?"),
        ({"enlarge": 0}, r"plot\(enlarge=0\): give a whole number, 1 or more"),
        ({"enlarge": 1.5}, r"plot\(enlarge=1.5\): give a whole number"),
        ({"samples": [3]}, r"plot\(samples=\[3\]\): give one number or more, from 0 to 2"),
        ({"samples": []}, r"plot\(samples=\[\]\): give one number or more"),
        ({"labels": ["a"]}, r"plot\(labels=\['a'\]\): give a list of 3 texts, one for each sample"),
        ({"labels": "abc"}, r"plot\(labels='abc'\): give a list of 3 texts"),
        ({"classes": ["a", "b"]}, r"plot\(classes=...\) has 2 names, but class 2 is explained"),
        ({"beside": True}, r"plot\(beside=True\) needs a picture: plot\(picture=images, beside=True\)"),
    ],
)
def test_options_without_meaning_are_refused(options, message):
    explanation, _ = explained()
    with pytest.raises(InputError, match=message):
        explanation.plot(**options)


def test_relevance_of_recorded_modules_is_drawn_by_path():
    explanation, images = explained()
    inner = torch.randn(3, 4, 2, 2)
    recorded = dataclasses.replace(
        explanation, inner=InnerRelevance({"layer": (inner,), "twice": (inner, inner)})
    )
    drawn = recorded.plot(images, of="layer", labels=["", "", ""], smooth=True)
    np.testing.assert_array_equal(drawn.pixels, plot(inner, images, smooth=True).pixels)
    assert drawn.metadata["Relevance of"] == "layer"
    assert drawn.metadata["Title"].startswith("Relevance of layer for classes ")
    with pytest.raises(InputError, match=r"plot\(of='twice'\): .*the module was called 2 times; take one of"):
        recorded.plot(of="twice")
    with pytest.raises(InputError, match=r"plot\(of='leyer'\): .* There is: input .*, layer, twice"):
        recorded.plot(of="leyer")
    with pytest.raises(InputError, match=r"There is only that of the input. Leave of= out"):
        explanation.plot(of="layer")


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(
        InputError, match=r"there are 65 samples, too many for a picture. Choose some: plot\(samples="
    ):
        plot(torch.ones(65, 1, 2, 2))
    with pytest.raises(
        InputError, match=r"relevance of a sequence or of features has no picture\. Leave picture= out"
    ):
        plot(torch.ones(2, 3, 8), torch.ones(3, 8, 8))
    with pytest.raises(InputError, match=r"compare\({}\): give one explanation or more, by name"):
        compare({})
    with pytest.raises(
        InputError, match=r"relevance has the shapes \(2, 3, 8, 8\), \(3, 3, 8, 8\); compare expl"
    ):
        compare({"a": explained(2)[0], "b": explained(3)[0]})


def test_a_comparison_has_a_column_of_pictures_and_one_of_each_explanation():
    explanation, images = explained(2)
    other, _ = explained(2, rules="epsilon")
    sheet = compare({"default": explanation, "epsilon": other}, images, bar=False, enlarge=8, beside=True)
    assert sheet.pixels.shape == (8 + LINE + 8 + 2 * 74, 8 + 3 * 74, 3)
    top = 8 + LINE + 8
    picture = np.rint(255 * as_pictures(images[:1], 1, 64, 64))[0]
    np.testing.assert_array_equal(sheet.pixels[top + 1 : top + 65, 9:73], picture)
    drawn = paint(enlarge(scale(reduce_channels(other.relevance)).values, 64, 64))[0]
    np.testing.assert_array_equal(sheet.pixels[top + 1 : top + 65, 9 + 2 * 74 : 73 + 2 * 74], drawn)
    np.testing.assert_array_equal(sheet.pixels[8 : 8 + LINE, 8 + 2 * 74 : 74 + 2 * 74], words("epsilon", 66))
    assert sheet.metadata["Title"] == "Relevance, compared: default, epsilon"
    assert sheet.metadata["Rules (epsilon)"] == "epsilon"
    assert sheet.metadata["Software"] == f"relprop {relprop.__version__}"


def test_a_comparison_may_share_its_scale():
    explanation, _ = explained(1)
    sheet = compare({"a": explanation, "b": explanation}, shared=True, labels=["an image"])
    apart = compare({"a": explanation, "b": explanation}, labels=["an image"])
    assert apart.pixels.shape[0] == sheet.pixels.shape[0] + LINE


def test_a_plot_is_shown_by_notebooks_and_written_with_its_settings(tmp_path):
    explanation, _ = explained()
    drawn = explanation.plot(model="my network")
    with Image.open(io.BytesIO(drawn._repr_png_())) as picture:
        np.testing.assert_array_equal(np.asarray(picture), drawn.pixels)
        text = picture.text
    assert text["Title"] == "Relevance of the input for classes 2, 2, 2"
    assert text["Model"] == "my network"
    assert text["Rules"] == explanation.preset
    assert text["Applied rules"].splitlines() == [str(rule) for rule in explanation.rules]
    assert text["Score"] == ", ".join(f"{score:.6g}" for score in explanation.score.tolist())
    assert text["Sum of relevance"] == ", ".join(f"{s:.6g}" for s in explanation.ledger.inputs.tolist())
    assert float(text["Ledger balances to"]) < 1e-5
    drawn.save(tmp_path / "a.png")
    explanation.save(tmp_path / "b.png", model="my network")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes() == drawn._repr_png_()
    assert made_by_relprop(tmp_path / "a.png")
    assert repr(drawn).startswith("Plot(Relevance of the input for classes 2, 2, 2; ")


def test_a_plot_is_no_jpeg(tmp_path):
    with pytest.raises(InputError, match=r"a.jpg'\): pictures are PNG files; give a name that ends in .png"):
        plot(torch.ones(1, 1, 2, 2)).save(tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def test_drawing_leaves_relevance_and_pictures_as_they_were():
    explanation, images = explained()
    relevance, before = explanation.relevance.clone(), images.clone()
    explanation.plot(images, smooth=True)
    assert torch.equal(explanation.relevance, relevance)
    assert torch.equal(images, before)


def test_headings_of_a_comparison_are_whole_and_columns_can_be_set() -> None:
    first, second, third = (
        torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(3)
    )
    explanations = {
        name: dataclasses.replace(explained()[0][:2], inputs={"input": R})
        for name, R in (
            ("model.layer4.downsample.first", first),
            ("model.layer4.downsample.second", second),
            ("c", third),
        )
    }
    one_row, narrow = compare(explanations, enlarge=8), compare(explanations, enlarge=8, columns=2)
    assert narrow.pixels.shape[1] < one_row.pixels.shape[1]
    assert narrow.pixels.shape[0] > 1.5 * one_row.pixels.shape[0]
    # Names that differ at the end only have different headings.
    renamed = dict(zip(["model.layer4.downsample.second", "d", "c"], explanations.values(), strict=True))
    assert (
        compare(renamed, enlarge=8, columns=1).pixels.shape[0]
        < compare(explanations, enlarge=8, columns=1).pixels.shape[0]
    )
    assert np.array_equal(compare(explanations, enlarge=8, columns=3).pixels, one_row.pixels)
