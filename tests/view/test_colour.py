"""The colour maps of explanations: even steps, both signs alike, told apart by colour-blind eyes."""

import numpy as np
import pytest

from colour_vision import COLOUR_BLIND, cie_lab, linear
from relprop.errors import Call, InputError
from relprop.view.colour import colour_named, heatmap, positive, signed

VALUES = np.linspace(0, 1, 101)


def distance_of_signs(colour, blindness, values=VALUES):
    """How far apart the colours of x and -x look, in CIE76's ΔE."""
    return np.linalg.norm(
        cie_lab(linear(colour(values)) @ np.transpose(blindness))
        - cie_lab(linear(colour(-values)) @ np.transpose(blindness)),
        axis=-1,
    )


@pytest.mark.parametrize("blindness", COLOUR_BLIND.values(), ids=COLOUR_BLIND)
def test_colour_blind_eyes_tell_the_signs_apart(blindness):
    apart = distance_of_signs(signed, blindness)
    assert (apart[10:] > 12).all(), "a tenth of full colour is seen"
    assert (apart[40:] > 45).all()


@pytest.mark.parametrize("blindness", COLOUR_BLIND.values(), ids=COLOUR_BLIND)
def test_the_simulation_finds_red_and_green_alike(blindness):
    def red_and_green(x):
        size = np.abs(x)
        return np.stack([1 - size * (x < 0), 1 - 0.45 * size - 0.55 * size * (x > 0), 1 - size], axis=-1)

    eyes = np.eye(3)
    worst = distance_of_signs(red_and_green, blindness)[40:] / distance_of_signs(red_and_green, eyes)[40:]
    assert worst.min() < 0.35


def test_both_signs_are_equally_light_at_every_size():
    lightness = [cie_lab(linear(signed(x)))[:, 0] for x in (VALUES, -VALUES)]
    # CIE's lightness and OKLab's, in which it is equal, differ by a few of a hundred in blue.
    np.testing.assert_allclose(*lightness, atol=5)


@pytest.mark.parametrize("map_", [signed, lambda x: signed(-x), positive], ids=["+", "-", "positive"])
def test_equal_steps_look_equally_large(map_):
    colours = linear(map_(VALUES))
    cones = colours @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    lab = np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    # Steps across an anchor cut its corner; a colour outside sRGB would be clipped, and much shorter.
    assert steps.min() > 0.9 * steps.max()
    assert (np.diff(lab[:, 0]) < 0).all(), "ever darker"


@pytest.mark.parametrize("map_", [signed, positive])
def test_zero_is_white(map_):
    np.testing.assert_allclose(map_(np.zeros(3)), 1, atol=1e-6)


def test_positive_is_orange_and_negative_is_blue_as_in_the_tutorial():
    for map_ in (signed, heatmap):
        red, _, blue = map_(np.array(0.5))
        assert red > blue + 0.3
        red, _, blue = map_(np.array(-0.5))
        assert blue > red + 0.3


def test_the_positive_map_takes_what_is_negative_for_zero():
    np.testing.assert_array_equal(positive(np.array([-0.7])), positive(np.array([0.0])))


def test_a_colour_is_looked_up_for_the_caller_that_is_named():
    assert colour_named("signed", Call("plot")) is signed
    assert colour_named(positive, Call("plot")) is positive
    with pytest.raises(
        InputError, match=r"plot\(colour='singed'\): there is no such colour. Did you mean 'signed'\? The"
    ):
        colour_named("singed", Call("plot"))
