"""Words, grids and colour bars."""

import numpy as np
from PIL import ImageFont

from relprop.view.colour import grey
from relprop.view.grid import LINE, TEXT, colour_bar, grid, padded, plain, words


def test_texts_are_spelled_with_the_letters_that_there_are():
    assert plain("γ=0.25 αβ Δ − é ß ±1 …") == "gamma=0.25 alphabeta Delta - e ss ±1 ..."
    assert plain("猫 cat") == "? cat"
    assert plain("ε⁺") == "epsilon+"


def test_words_are_drawn_in_lines_and_broken_where_they_do_not_fit():
    assert words("a cat").shape[0] == LINE
    assert words("one two three", 40).shape == (3 * LINE, 40, 3)
    assert words("incomprehensibilities", 40).shape == (4 * LINE, 40, 3)
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
