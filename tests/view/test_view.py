"""Colours, mosaics and PNG files."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from relprop.errors import FileError, InputError
from relprop.view.colour import COLOURS, grey, heatmap
from relprop.view.mosaic import mosaic, save_png

# Worked out by hand from the tutorial's formula: red is 0.9 - clip(x-0.3, 0, 0.7)/0.7·0.5 for x ≥ 0, and
# green = blue = 0.9 - clip(x, 0, 0.3)/0.3·0.5 - clip(x-0.3, 0, 0.7)/0.7·0.4.
HEATMAP = {
    0.0: (0.9, 0.9, 0.9),
    0.15: (0.9, 0.65, 0.65),
    0.3: (0.9, 0.4, 0.4),
    0.65: (0.65, 0.2, 0.2),
    1.0: (0.4, 0.0, 0.0),
    -0.15: (0.65, 0.65, 0.9),
    -0.65: (0.2, 0.2, 0.65),
    -1.0: (0.0, 0.0, 0.4),
}


@pytest.mark.parametrize(("value", "rgb"), HEATMAP.items())
def test_heatmap_has_the_colours_of_the_tutorial(value, rgb):
    np.testing.assert_allclose(heatmap(np.array(value)), rgb, atol=1e-12)


def test_grey_goes_from_black_to_white():
    np.testing.assert_array_equal(grey(np.array([-1.0, 0.0, 1.0]))[:, 0], [0, 0.5, 1])


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
def test_colours_add_one_axis_and_stay_between_0_and_1_whatever_the_value(colour):
    rgb = colour(np.linspace(-3, 3, 24).reshape(2, 3, 4))
    assert rgb.shape == (2, 3, 4, 3)
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    np.testing.assert_array_equal(colour(np.array(5.0)), colour(np.array(1.0)))
    np.testing.assert_array_equal(colour(np.array(-5.0)), colour(np.array(-1.0)))


def test_twelve_digits_are_768_by_64_pixels():
    assert mosaic(np.zeros((12, 28, 28))).shape == (64, 768, 3)


def test_a_mosaic_is_one_row_with_white_around_each_image():
    row = mosaic(np.array([[[1.0]], [[-1.0]]]), "grey", border=1, enlarge=1)
    white, black = 255, 0
    expected = [[white] * 6, [white, white, white, white, black, white], [white] * 6]
    np.testing.assert_array_equal(row[..., 0], expected)
    np.testing.assert_array_equal(row[..., 0], row[..., 2])


def test_enlarging_repeats_pixels():
    images = np.random.default_rng(0).normal(size=(2, 3, 4))
    np.testing.assert_array_equal(
        mosaic(images, enlarge=3), np.kron(mosaic(images, enlarge=1), np.ones((3, 3, 1)))
    )


def test_images_keep_their_height_and_width():
    assert mosaic(np.ones((2, 3, 5)), border=1, enlarge=1).shape == (5, 14, 3)


def test_the_whole_batch_shares_one_scale():
    half, full = np.full((1, 1, 1), -2.0), np.full((1, 1, 1), 4.0)
    row = mosaic(np.concatenate([half, full]), "grey", border=0, enlarge=1)
    np.testing.assert_array_equal(row[0, :, 0], [64, 255])  # -0.5 is 0.25 of white
    alone = mosaic(half, "grey", border=0, enlarge=1)
    assert alone[0, 0, 0] == 0


def test_the_scale_can_be_left_alone():
    row = mosaic(np.array([[[0.5]], [[0.0]]]), "grey", border=0, enlarge=1, rescale=False)
    np.testing.assert_array_equal(row[0, :, 0], [191, 128])


def test_a_batch_of_zeros_stays_zero():
    np.testing.assert_array_equal(mosaic(np.zeros((2, 1, 1)), border=0), np.full((2, 4, 3), round(0.9 * 255)))


@pytest.mark.parametrize("magnitude", [5e-324, 1e-300, 1e300])
def test_only_relative_size_counts(magnitude):
    images = np.array([[[1.0, -1.0, 0.0]]])
    np.testing.assert_array_equal(mosaic(images * magnitude), mosaic(images))


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_of_any_real_dtype_are_drawn_like_arrays(dtype):
    images = torch.tensor([[[0, 1], [1, 1]]]).to(dtype)
    np.testing.assert_array_equal(mosaic(images), mosaic(np.array([[[0, 1], [1, 1]]])))


def test_a_tensor_that_requires_gradients_with_a_channel_axis_is_drawn_and_unchanged():
    images = torch.linspace(-1, 1, 18).reshape(2, 1, 3, 3).requires_grad_()
    np.testing.assert_array_equal(mosaic(images), mosaic(images.detach().numpy()[:, 0]))
    assert images.requires_grad
    assert images.grad is None


def test_a_colour_may_be_a_function():
    np.testing.assert_array_equal(mosaic(np.ones((1, 2, 2)), grey), mosaic(np.ones((1, 2, 2)), "grey"))


@pytest.mark.parametrize("shape", [(28, 28), (2, 3, 4, 4), (1, 1, 1, 4, 4), (0, 4, 4), (2, 0, 4)])
def test_other_shapes_are_refused(shape):
    message = re.escape(
        f"the images have shape {shape}; give (N, H, W) or (N, 1, H, W), N > 0. For a single image"
    )
    with pytest.raises(InputError, match=message):
        mosaic(np.zeros(shape))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_located(bad):
    images = torch.zeros(2, 3, 3)
    images[1, 2, 0] = bad
    with pytest.raises(
        InputError, match="1 of 18 values are NaN or infinite, the first in image 1, row 2, column 0"
    ):
        mosaic(images)


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 2, 2, dtype=torch.complex64), np.array([[["a"]]])], ids=["complex", "text"]
)
def test_values_that_are_not_real_are_refused(images):
    with pytest.raises(InputError, match=r"the images are (complex128|<U1|complex64); give real numbers"):
        mosaic(images)


def test_an_unknown_colour_is_refused_with_the_nearest():
    with pytest.raises(
        InputError, match=r"colour='heatmpa'\): there is no such colour. Did you mean 'heatmap'\? There are: "
    ):
        mosaic(np.zeros((1, 2, 2)), "heatmpa")
    with pytest.raises(InputError, match=r"colour='xyz'\): there is no such colour. There are: grey, "):
        mosaic(np.zeros((1, 2, 2)), "xyz")


@pytest.mark.parametrize("sizes", [{"enlarge": 0}, {"border": -1}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(InputError, match="enlarge must be 1 or more, and border 0 or more"):
        mosaic(np.zeros((1, 2, 2)), **sizes)


def test_names_of_metadata_can_have_any_letters(tmp_path):
    rgb = np.zeros((2, 2, 3), np.uint8)
    save_png(tmp_path / "x.png", rgb, {"Score (猫)": "猫", "Score (é, \N{MINUS SIGN}1)": "1"})
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.info == {"Score (\\u732b)": "猫", "Score (é, -1)": "1"}


def test_a_png_keeps_pixels_and_metadata_and_makes_its_folder(tmp_path):
    rgb = mosaic(np.random.default_rng(1).normal(size=(3, 4, 5)))
    path = tmp_path / "new" / "row.png"
    save_png(path, rgb, {"Rules": "gamma=0.25", "Title": "γ, 3"})
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), rgb)
        assert picture.text == {"Rules": "gamma=0.25", "Title": "γ, 3"}


def test_the_same_picture_gives_the_same_bytes_and_replaces_what_was_there(tmp_path):
    rgb = mosaic(np.eye(4)[None])
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    second.write_bytes(b"something else")
    save_png(first, rgb, {"Title": "a"})
    save_png(second, rgb, {"Title": "a"})
    assert first.read_bytes() == second.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]


@pytest.mark.parametrize(
    "rgb", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3)), np.zeros((0, 2, 3), np.uint8)]
)
def test_other_pixels_are_not_saved(tmp_path, rgb):
    with pytest.raises(
        InputError, match=rf"a.png'\): the pixels are {rgb.dtype} of shape .*; give uint8 of shape"
    ):
        save_png(tmp_path / "a.png", rgb)
    assert not list(tmp_path.iterdir())


def test_a_png_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "taken.png"
    folder.mkdir()
    with pytest.raises(FileError, match=r"cannot write .*taken\.png"):
        save_png(folder, mosaic(np.zeros((1, 2, 2))))
    assert list(tmp_path.iterdir()) == [folder]
