"""From relevance to pictures: channels, scales, overlays, grids, colour bars, plots."""

import dataclasses
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont
from torch import nn

import relprop
from relprop.errors import FileError, InputError
from relprop.view.colour import grey, positive, signed
from relprop.view.display import as_pictures
from relprop.view.grid import LINE, TEXT, colour_bar, grid, padded, plain, words
from relprop.view.heatmaps import enlarge, overlay, paint, reduce_channels, scale
from relprop.view.mosaic import made_by_relprop
from relprop.view.plot import compare, plot

# Channels


def test_channels_are_reduced_in_four_ways():
    R = torch.tensor([[[[3.0, 0.0]], [[-4.0, 0.5]]]])
    expected = {"sum": [-1, 0.5], "absolute sum": [7, 0.5], "max": [-4, 0.5], "norm": [5, 0.5]}
    for channels, row in expected.items():
        np.testing.assert_array_equal(reduce_channels(R, channels), [[row]])


def test_sequences_and_features_are_maps_of_height_one():
    R = torch.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(reduce_channels(R), R.sum(1).numpy()[:, None])
    np.testing.assert_array_equal(reduce_channels(R.flatten(1)), R.flatten(1).numpy()[:, None])


@pytest.mark.parametrize("shape", [(), (3,), (0, 3, 4, 4), (2, 3, 0, 4), (1, 2, 3, 4, 5)])
def test_relevance_that_is_no_picture_is_refused(shape):
    message = re.escape(f"relevance of shape {shape} is no image; pictures are drawn of images (N, C, H, W)")
    with pytest.raises(InputError, match=message):
        plot(torch.zeros(shape))


def test_relevance_that_is_not_finite_is_refused_and_located():
    R = torch.zeros(2, 3, 4, 4)
    R[1, 0, 2, 3] = torch.nan
    with pytest.raises(
        InputError, match="1 of 32 values are NaN or infinite, the first in image 1, row 2, col"
    ):
        plot(R)
    R[1, 1, 2, 3], R[1, 0, 2, 3] = torch.inf, -torch.inf
    with pytest.raises(InputError, match="1 of 32 values are NaN or infinite"):
        plot(R)


def test_an_unknown_reduction_is_refused_with_the_nearest():
    with pytest.raises(
        InputError, match=r"channels='summ': no such reduction. Did you mean 'sum'\? There are: '"
    ):
        plot(torch.zeros(1, 1, 2, 2), channels="summ")


# Scale


def test_each_map_has_its_own_scale_or_all_share_one():
    maps = np.array([[[1.0, -2.0]], [[4.0, 0.0]]])
    own = scale(maps, percentile=100)
    np.testing.assert_array_equal(own.values, [[[0.5, -1]], [[1, 0]]])
    np.testing.assert_array_equal(own.limits, [2, 4])
    shared = scale(maps, percentile=100, shared=True)
    np.testing.assert_array_equal(shared.values, [[[0.25, -0.5]], [[1, 0]]])
    np.testing.assert_array_equal(shared.limits, [4, 4])


def test_a_few_large_values_are_clipped_so_that_the_rest_is_seen():
    maps = np.ones((1, 10, 100))
    maps[0, 0, :3] = -1000
    scaled = scale(maps)
    np.testing.assert_array_equal(scaled.values[0, 0, :5], [-1, -1, -1, 1, 1])
    assert scaled.limits == [1]
    assert scale(maps, percentile=100).values[0, 5, 5] == 0.001


def test_a_sparse_map_has_the_scale_of_what_is_not_zero():
    maps = np.zeros((1, 100, 100))
    maps[0, 50, 50] = -3
    np.testing.assert_array_equal(scale(maps).limits, [3])
    assert scale(maps).values[0, 50, 50] == -1


def test_a_map_of_zeros_stays_zero():
    scaled = scale(np.zeros((2, 3, 3)))
    assert not scaled.values.any()
    np.testing.assert_array_equal(scaled.limits, [0, 0])


@pytest.mark.parametrize("percentile", [0, -1, 101, float("nan")])
def test_a_percentile_that_is_none_is_refused(percentile):
    with pytest.raises(InputError, match=f"percentile={percentile}: give a number above 0, and 100 at most"):
        plot(torch.ones(1, 1, 2, 2), percentile=percentile)


# Size and colour


def test_values_become_squares_or_are_smoothed():
    values = np.array([[[0.0, 1.0]]])
    np.testing.assert_array_equal(enlarge(values, 2, 4), [[[0, 0, 1, 1], [0, 0, 1, 1]]])
    np.testing.assert_allclose(enlarge(values, 1, 4, smooth=True), [[[0, 0.25, 0.75, 1]]])


def test_paint_gives_colours():
    values = np.array([[[-1.0, 0.0, 1.0]]])
    np.testing.assert_array_equal(paint(values, "grey")[0, 0, :, 0], [0, 128, 255])
    np.testing.assert_array_equal(paint(values), np.rint(255 * signed(values)))


def test_an_overlay_is_the_picture_where_relevance_is_zero_and_the_colour_where_it_is_largest():
    values = np.array([[[0.0, 1.0, -1.0]]])
    picture = np.full((1, 1, 3, 3), (0.2, 0.6, 1.0))
    mixed = overlay(values, picture, opacity=1, grey=False)
    np.testing.assert_array_equal(mixed[0, 0, 0], [51, 153, 255])
    np.testing.assert_array_equal(mixed[0, 0, 1:], np.rint(255 * signed(values))[0, 0, 1:])
    assert (overlay(values, picture, opacity=0) == overlay(0 * values, picture)).all()
    grey_picture = overlay(0 * values, picture)
    assert (grey_picture == grey_picture[..., :1]).all()


def test_an_overlay_is_the_more_opaque_the_larger_relevance_is():
    values = np.linspace(0, 1, 9).reshape(1, 1, 9)
    base = np.zeros((1, 1, 9, 3))
    brightness = overlay(values, base, lambda x: np.ones((*x.shape, 3)), opacity=0.9, grey=False)[0, 0, :, 0]
    assert (np.diff(brightness.astype(int)) > 0).all()
    assert brightness[-1] == round(0.9 * 255)


def test_small_relevance_has_a_colour_that_is_seen_and_not_white_over_a_picture():
    values = np.array([[[0.2, -0.2]]])
    mixed = overlay(values, np.zeros((1, 1, 2, 3)), opacity=1, grey=False)
    np.testing.assert_allclose(mixed, 255 * 0.2**0.75 * signed(np.sign(values) * 0.5), atol=0.5)


def test_overlays_refuse_what_does_not_fit():
    with pytest.raises(
        InputError, match=r"pictures have shape \(1, 2, 3, 3\), but the maps need \(1, 2, 2, 3\)"
    ):
        overlay(np.zeros((1, 2, 2)), np.zeros((1, 2, 3, 3)))
    with pytest.raises(InputError, match=r"overlay\(opacity=1.5\): give a number from 0 to 1"):
        overlay(np.zeros((1, 2, 2)), np.zeros((1, 2, 2, 3)), opacity=1.5)


# Pictures of the input


def test_pictures_of_every_form_are_the_same_picture(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image = Image.fromarray(levels)
    image.save(tmp_path / "a.png")
    tensor = torch.from_numpy(levels).permute(2, 0, 1)
    forms = [
        image,
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        levels,
        tensor,
        tensor[None],
        tensor.numpy(),
        tensor / 255,
        (tensor / 255).double().requires_grad_(),
        [image],
        [tensor],
        levels / 255,
    ]
    for form in forms:
        np.testing.assert_allclose(as_pictures(form, 1, 4, 6), levels[None] / 255, atol=1e-6)


def test_one_picture_serves_all_maps_or_each_has_its_own():
    pictures = torch.rand(3, 1, 4, 4)
    assert as_pictures(pictures[:1], 3, 4, 4).shape == (3, 4, 4, 3)
    found = as_pictures(pictures, 3, 4, 4)
    np.testing.assert_allclose(found[..., 0], pictures[:, 0], atol=0.5 / 255)
    with pytest.raises(InputError, match="picture= has 3 pictures for 2 maps; give one, or one for each"):
        as_pictures(pictures, 2, 4, 4)


def test_numbers_outside_0_to_1_are_spread_each_picture_for_itself():
    found = as_pictures(torch.tensor([[[[-1.0, 3.0]]], [[[0.0, 1000.0]]], [[[7.0, 7.0]]]]), 3, 1, 2)
    np.testing.assert_allclose(found[..., 0], [[[0, 1]], [[0, 1]], [[0.5, 0.5]]], atol=0.5 / 255)


def test_pictures_are_brought_to_the_size_of_the_map():
    picture = torch.tensor([[[0.0, 1.0]]])
    np.testing.assert_array_equal(as_pictures(picture, 1, 2, 4)[0, 0, :, 0], [0, 0, 1, 1])
    smaller = as_pictures(torch.rand(3, 90, 60), 1, 30, 20)
    assert smaller.shape == (1, 30, 20, 3)


def test_transparent_pictures_lie_on_white_and_deep_ones_are_spread():
    transparent = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    np.testing.assert_array_equal(as_pictures(transparent, 1, 2, 2), 1)
    deep = Image.fromarray(np.array([[0, 60000]], dtype=np.uint16))
    np.testing.assert_array_equal(as_pictures(deep, 1, 1, 2)[0, 0, :, 0], [0, 1])


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.zeros(2, 4, 4), r"picture= has shape \(2, 4, 4\); give \(C, H, W\) or \(N, C, H, W\)"),
        (torch.zeros(5), r"picture= has shape \(5,\); give"),
        (
            torch.zeros(3, 4, 5),
            "picture= is 5 x 4 pixels and the map 224 x 224: their shapes differ. Give the",
        ),
        (torch.full((1, 4, 4), torch.nan), "picture=: 16 of 16 values are NaN or infinite"),
        (
            torch.zeros(1, 4, 4, dtype=torch.complex64),
            "the values of picture= are complex64; give real numbers",
        ),
        (3, r"picture= is int; give a tensor \(C, H, W\), an array, a Pillow image, the name"),
        ([], "picture= is an empty list"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(picture, message):
    with pytest.raises(InputError, match=message):
        plot(torch.ones(1, 3, 4, 4), picture)


def test_a_picture_that_is_missing_is_an_error():
    with pytest.raises(FileError, match=r"cannot read nowhere\.png: there is no such file"):
        plot(torch.ones(1, 3, 4, 4), "nowhere.png")


# Words and grids


def test_texts_are_spelled_with_the_letters_that_there_are():
    assert plain("γ=0.25 αβ Δ − é ß ±1 …") == "gamma=0.25 alphabeta Delta - e ss ±1 ..."
    assert plain("猫 cat") == "? cat"
    assert plain("ε⁺") == "epsilon+"


def test_words_are_drawn_in_lines_and_cut_where_they_do_not_fit():
    assert words("a cat").shape[0] == LINE
    assert words("one two three", 40).shape == (3 * LINE, 40, 3)
    assert words("incomprehensibilities", 40).shape == (LINE, 40, 3)
    assert (words("a") < 128).any()
    assert (words(" ") == 255).all()
    left, right = words("i", 40, align="left"), words("i", 40, align="right")
    np.testing.assert_array_equal(left[:, 20:], 255)
    np.testing.assert_array_equal(right[:, :20], 255)


def test_every_letter_that_is_left_is_in_the_font():
    font = ImageFont.load_default(TEXT)
    box = bytes(font.getmask(chr(0xFFFF)))
    letters = "".join(map(chr, range(32, 0x2200)))
    left = set(plain(letters)) - {"\n"}
    assert "~" in left
    assert "±" in left
    assert not [letter for letter in left if letter != " " and bytes(font.getmask(letter)) == box]


def test_a_grid_has_rows_and_columns_with_gaps():
    red, blue = (np.full((2, 3, 3), c, np.uint8) for c in ((255, 0, 0), (0, 0, 255)))
    sheet = grid([[red, blue], [blue]], gap=1)
    assert sheet.shape == (7, 9, 3)
    np.testing.assert_array_equal(sheet[1:3, 1:4], red)
    np.testing.assert_array_equal(sheet[1:3, 5:8], blue)
    np.testing.assert_array_equal(sheet[4:6, 1:4], blue)
    np.testing.assert_array_equal(sheet[4:6, 5:8], 255)
    assert (sheet[[0, 3, 6]] == 255).all()


def test_a_grid_has_labels_above_and_to_the_left():
    black = np.zeros((30, 40, 3), np.uint8)
    sheet = grid([[black, black], [black, black]], above=["a", "b"], left=["first", "second"])
    wide = words("second").shape[1]
    assert sheet.shape == (8 + LINE + 8 + 2 * 38, 8 + wide + 8 + 2 * 48, 3)
    np.testing.assert_array_equal(sheet[8 : 8 + LINE, 16 + wide : 16 + wide + 40], words("a", 40))
    assert (sheet[8 + LINE + 8 :, : wide + 8] < 128).any()


def test_smaller_pictures_stand_at_the_bottom_of_their_row():
    tall, small = np.zeros((5, 2, 3), np.uint8), np.zeros((1, 1, 3), np.uint8)
    assert padded(small, 3, 3)[1, 1].tolist() == [0, 0, 0]
    sheet = grid([[tall, small]], gap=0)
    np.testing.assert_array_equal(sheet[:, 2, 0], [255, 255, 255, 255, 0])


def test_a_colour_bar_goes_from_minus_the_limit_to_the_limit():
    bar = colour_bar("grey", 0.25, height=116)
    colours = bar[LINE // 2 : -LINE // 2, 0, 0]
    assert len(colours) == 100
    assert (colours[0], colours[-1]) == (255, 0)
    assert (np.diff(colours.astype(int)) <= 0).all()
    top = words("0.25", align="left")
    np.testing.assert_array_equal(bar[:LINE, 18 : 18 + top.shape[1]], top)
    bottom = words("-0.25", align="left")
    np.testing.assert_array_equal(bar[-LINE - 1 : -1, 18 : 18 + bottom.shape[1]], bottom)
    assert colour_bar(grey, 0.25, signed=False, height=116)[-LINE // 2 - 1, 0, 0] == 128


# Plots of explanations


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
        label = words(f"2, score {float(explanation.score[number]):.4g}", 130)
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
    names = list(explanation.relevance)
    with pytest.raises(
        InputError, match=r"there is relevance of several inputs: .*Say which to draw: plot\(of='"
    ):
        explanation.plot()
    with pytest.raises(InputError, match=r"plot\(of='c'\): there is no relevance of this name. There is: a "):
        explanation.plot(of="c")
    drawn = explanation.plot(of=names[1], labels=["", ""])
    np.testing.assert_array_equal(drawn.pixels, plot(explanation.relevance[names[1]]).pixels)
    assert drawn.metadata["Relevance of"] == names[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"colr": "grey"},
            r"plot\(colr=...\): there is no such option. Did you mean colour=\? There are: of, ",
        ),
        ({"colour": "gray"}, r"plot\(colour='gray'\): no such colour. Did you mean 'grey'\?"),
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
    recorded = dataclasses.replace(explanation, inner={"layer": [inner], "twice": [inner, inner]})
    drawn = recorded.plot(images, of="layer", labels=["", "", ""], smooth=True)
    np.testing.assert_array_equal(drawn.pixels, plot(inner, images, smooth=True).pixels)
    assert drawn.metadata["Relevance of"] == "layer"
    with pytest.raises(
        InputError, match=r"plot\(of='twice'\): the module was called several times, or returned"
    ):
        recorded.plot(of="twice")
    with pytest.raises(InputError, match=r"plot\(of='leyer'\): .* There is: layer, twice"):
        recorded.plot(of="leyer")
    with pytest.raises(InputError, match=r"There is that of the input only: leave of= out"):
        explanation.plot(of="layer")


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(
        InputError, match=r"there are 65 samples, too many for a picture. Say which: plot\(samples="
    ):
        plot(torch.ones(65, 1, 2, 2))
    with pytest.raises(
        InputError, match="relevance of a sequence or of features lies over no picture; leave it"
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
    assert float(text["Ledger closes to"]) < 1e-5
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
