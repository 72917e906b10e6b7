"""From relevance to heatmaps: channels, scales, colours, overlays, pictures of the input."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from relprop.errors import FileError, InputError
from relprop.view.colour import signed
from relprop.view.display import as_pictures
from relprop.view.heatmaps import enlarge, overlay, paint, reduce_channels, scale
from relprop.view.plot import plot


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
    message = re.escape(f"relevance of shape {shape} cannot be drawn. Give that of images (N, C, H, W)")
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
            torch.zeros(2, 3, 4, 4).index_put(
                [torch.tensor([n]) for n in (1, 2, 0, 3)], torch.tensor(torch.inf)
            ),
            "picture=: 1 of 96 values are NaN or infinite, the first in image 1, row 0, column 3, channel 2",
        ),
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
