"""Reading a picture of a digit, whatever its size, mode and colours."""

import functools
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import relprop.view.picture
from relprop.data import mnist
from relprop.errors import FileError, InputError
from relprop.view.digit import read_digit

TEST_SET = mnist.test_set()
# The tutorial's digits but for the last, 1182, a 6 that is easily taken for a 5.
SAMPLE = [8915, 1318, 7221, 7540, 664, 6137, 6833, 8471, 9449, 7322, 8222]


def digit(index: int) -> np.ndarray:
    return TEST_SET.images[index].numpy()


def grey(ink: np.ndarray) -> Image.Image:
    return Image.fromarray(ink)


def enlarged(picture: Image.Image, side: int = 280) -> Image.Image:
    return picture.resize((side, side), Image.Resampling.BICUBIC)


def painted(ink: np.ndarray, digit_colour, background) -> Image.Image:
    share = (ink / 255)[..., None]
    return enlarged(
        Image.fromarray(np.rint(share * digit_colour + (1 - share) * background).astype(np.uint8))
    )


def transparent(ink: np.ndarray, colour=(0, 0, 0)) -> Image.Image:
    rgba = np.concatenate([np.broadcast_to(np.uint8(colour), (28, 28, 3)), ink[..., None]], axis=-1)
    return enlarged(Image.fromarray(rgba))


def on_paper(ink: np.ndarray) -> Image.Image:
    """A photograph: light from one side, dark corners, noise, and three specks of dust."""
    photo = np.asarray(painted(ink, (50, 50, 80), np.array([190, 185, 175])), np.float32)
    u = np.linspace(-1, 1, 280)[None, :, None]
    photo = photo + 40 * u - 20 * (u**2 + u.swapaxes(0, 1) ** 2)
    photo = photo + np.random.default_rng(0).normal(0, 8, photo.shape)
    for row, column in ((9, 30), (200, 5), (270, 260)):
        photo[row : row + 2, column : column + 2] = 60
    return Image.fromarray(photo.clip(0, 255).astype(np.uint8))


def in_a_corner(ink: np.ndarray) -> Image.Image:
    page = Image.new("L", (600, 300), 255)
    page.paste(enlarged(grey(255 - ink), 140), (430, 20))
    return page


RED, GREEN = np.array([200, 30, 30]), np.array([30, 200, 90])
WAYS = {
    "inverted.png": lambda ink: grey(255 - ink),
    "nearest.png": lambda ink: grey(ink).resize((280, 280), Image.Resampling.NEAREST),
    "smooth.png": lambda ink: enlarged(grey(255 - ink)),
    "odd-size.bmp": lambda ink: enlarged(grey(ink), 101),
    "colour.png": lambda ink: painted(ink, RED, GREEN),
    "colour.jpg": lambda ink: painted(ink, GREEN, RED),
    "cmyk.jpg": lambda ink: painted(ink, RED, GREEN).convert("CMYK"),
    "cmyk.tiff": lambda ink: painted(ink, RED, GREEN).convert("CMYK"),
    "ycc.tiff": lambda ink: painted(ink, RED, GREEN).convert("YCbCr"),
    "palette.gif": lambda ink: painted(ink, RED, GREEN).quantize(16),
    "palette.png": lambda ink: painted(ink, RED, GREEN).quantize(16),
    "black-on-transparent.png": lambda ink: transparent(ink),
    "white-on-transparent.png": lambda ink: transparent(ink, (255, 255, 255)),
    "transparent.webp": lambda ink: transparent(ink, (90, 0, 90)),
    "grey-transparent.png": lambda ink: transparent(ink).convert("LA"),
    "transparent-palette.png": lambda ink: transparent(ink, (0, 0, 255)).quantize(8),
    "two-levels.png": lambda ink: enlarged(grey(ink)).convert("1", dither=Image.Dither.NONE),
    "16-bits.png": lambda ink: grey(ink.astype(np.uint16) * 100),
    "16-bits-large.tiff": lambda ink: grey(np.asarray(enlarged(grey(ink))).astype(np.uint16) * 200),
    "32-bits.tiff": lambda ink: grey(ink.astype(np.int32) * -80_000),
    "float.tiff": lambda ink: grey(ink.astype(np.float32) * -1e36),
    "photo.jpg": on_paper,
    "corner.png": in_a_corner,
}


def read(picture: Image.Image, path: Path) -> np.ndarray:
    picture.save(path)
    return read_digit(path)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_an_mnist_digit_is_taken_as_it_is(tmp_path, mode):
    for index in SAMPLE:
        pixels = read(grey(digit(index)).convert(mode), tmp_path / "digit.png")
        assert pixels.dtype == np.float32
        expected = mnist.pixels(TEST_SET.images[index]).numpy()
        np.testing.assert_allclose(pixels, expected.reshape(28, 28), atol=1e-6)


def likeness(pixels: np.ndarray, ink: np.ndarray) -> float:
    """Correlation, whichever way the centre of mass was rounded."""
    shifts = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return max(np.corrcoef(np.roll(pixels, shift, (0, 1)).ravel(), ink.ravel())[0, 1] for shift in shifts)


@pytest.mark.parametrize("name", WAYS)
def test_however_it_is_stored_the_same_digit_is_read(tmp_path, name):
    for index in SAMPLE:
        ink = digit(index)
        pixels = read(WAYS[name](ink), tmp_path / name)
        assert pixels.shape == (28, 28)
        assert pixels.min() == -1
        assert pixels.max() == 1
        assert likeness(pixels, ink) > 0.9, f"digit {index}"


@functools.cache
def network() -> torch.nn.Module:
    import relprop

    return relprop.load("mnist-cnn")


@pytest.mark.parametrize("name", WAYS)
def test_however_it_is_stored_the_network_sees_the_same_digit(tmp_path, name):
    from relprop.zoo import BUNDLED

    images = np.stack([read(WAYS[name](digit(index)), tmp_path / name) for index in SAMPLE])
    scores = network()(BUNDLED["mnist-cnn"].prepare(torch.from_numpy(images)[:, None]))
    assert scores.argmax(1).tolist() == TEST_SET.labels[SAMPLE].tolist()


def test_preparing_an_mnist_digit_changes_almost_nothing(tmp_path):
    """Inverted, a digit goes the whole way: extent, scale and centre are to be those of MNIST's makers."""
    unchanged = 0
    for index in range(100):
        pixels = read(grey(255 - digit(index)), tmp_path / "inverted.png")
        # What is lost is faint ink at the very edge, up to 0.1 of the contrast.
        unchanged += np.allclose(pixels, digit(index) / 127.5 - 1, atol=0.2)
    # The others have their centre of mass so close to 13.5 or 14.5 that it is rounded the other way.
    assert unchanged >= 97


def test_the_longer_side_becomes_20_pixels_and_the_centre_of_mass_the_centre(tmp_path):
    page = Image.new("RGB", (900, 400), "white")
    ImageDraw.Draw(page).rectangle((100, 50, 129, 349), fill="navy")  # 30 wide, 300 high
    pixels = read(page, tmp_path / "one.png")
    rows, columns = np.nonzero(pixels > -1)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 2)
    assert rows.min() == 4
    assert columns.min() in (13, 14)
    assert (pixels[pixels > -1] == 1).all()


def test_a_digit_up_to_the_edge_and_a_small_one_are_scaled_alike(tmp_path):
    tight = Image.new("L", (40, 60), 255)
    ImageDraw.Draw(tight).polygon([(0, 0), (39, 0), (20, 59), (10, 59)], fill=0)
    page = Image.new("L", (240, 260), 255)
    page.paste(tight, (100, 30))
    np.testing.assert_array_equal(read(tight, tmp_path / "tight.png"), read(page, tmp_path / "page.png"))


def test_a_thin_line_reaches_full_contrast(tmp_path):
    page = Image.new("L", (1000, 1000), 255)
    ImageDraw.Draw(page).line((500, 100, 480, 900), fill=0, width=2)
    pixels = read(page, tmp_path / "thin.png")
    assert pixels.max() == 1
    assert (pixels > 0).sum() >= 18


def test_exif_orientation_is_followed(tmp_path):
    upright = enlarged(grey(255 - digit(8915)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise when shown
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        read_digit(tmp_path / "turned.png"), read(upright, tmp_path / "upright.png")
    )


def test_the_first_picture_of_an_animation_is_read(tmp_path):
    first, second = (enlarged(grey(255 - digit(index))) for index in (664, 7322))
    first.save(tmp_path / "both.gif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_digit(tmp_path / "both.gif"), read(first, tmp_path / "first.gif"))


@pytest.fixture
def png(tmp_path) -> Path:
    path = tmp_path / "digit.png"
    enlarged(grey(digit(7322))).save(path)
    return path


def test_a_missing_file(tmp_path):
    with pytest.raises(FileError, match=r"cannot read .*no\.png: there is no such file. Check the name"):
        read_digit(tmp_path / "no.png")


def test_a_folder(tmp_path):
    message = re.escape(
        f"cannot read {tmp_path}: it is a folder. Name the pictures in it, as in {tmp_path}/*.png"
    )
    with pytest.raises(FileError, match=message):
        read_digit(tmp_path)


def test_something_that_is_no_ordinary_file():
    with pytest.raises(FileError, match=r"cannot read .*null: it is not an ordinary file"):
        read_digit(os.devnull)


def test_an_empty_file(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(FileError, match=r"empty\.png: the file is empty \(0 bytes\). Save the picture again"):
        read_digit(tmp_path / "empty.png")


@pytest.mark.parametrize(
    "content", [b"just text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\x89PNG\r\n"]
)
def test_a_file_that_is_no_picture(tmp_path, content):
    (tmp_path / "text.png").write_bytes(content)
    with pytest.raises(
        FileError, match=r"text\.png: it is not a picture, or a damaged one. relprop reads AVIF, BMP"
    ):
        read_digit(tmp_path / "text.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_a_truncated_picture(tmp_path, suffix, kept):
    path = tmp_path / f"cut.{suffix}"
    on_paper(digit(7322)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(FileError, match=r"cannot read .*cut\..*: (the picture|it) is .*damaged"):
        read_digit(path)


def test_a_damaged_picture(png):
    content = bytearray(png.read_bytes())
    content[len(content) // 2] ^= 0xFF
    png.write_bytes(content)
    with pytest.raises(
        FileError, match=r"digit\.png: the picture is damaged or cut off \(.+\). Save or copy it again"
    ):
        read_digit(png)


def test_a_file_that_may_not_be_read(png, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)  # taking rights away does not stop root, who may run the tests
    with pytest.raises(FileError, match=r"digit\.png: Permission denied. Check the rights of the file"):
        read_digit(png)


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and stores no pixel, so that decoding it would fail in another way."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_001, 9_500, 20_000])
def test_a_huge_picture_is_refused_from_its_header_without_a_warning(tmp_path, side):
    (tmp_path / "huge.png").write_bytes(png_header(side, side))
    with pytest.raises(
        InputError, match=r"huge\.png: the picture has more than 64,000,000 pixels \(8,000 x 8,0"
    ):
        read_digit(tmp_path / "huge.png")


def test_the_largest_picture_allowed_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "page.png"
    Image.new("L", (40, 25)).save(path)
    monkeypatch.setattr(relprop.view.picture, "LARGEST", 1000)
    assert relprop.view.picture.read_picture(path).size == (40, 25)
    monkeypatch.setattr(relprop.view.picture, "LARGEST", 999)
    with pytest.raises(InputError, match="more than 999 pixels"):
        relprop.view.picture.read_picture(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_not_finite(tmp_path, bad):
    ink = digit(7322).astype(np.float32)
    ink[3, 4:6] = bad
    grey(ink).save(tmp_path / "nan.tiff")
    with pytest.raises(InputError, match=r"nan\.tiff: 2 of the 784 pixels are NaN or infinite. Replace them"):
        read_digit(tmp_path / "nan.tiff")


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "I;16", "I", "F"])
@pytest.mark.parametrize("size", [(28, 28), (1, 1), (300, 20)])
def test_a_single_colour_shows_no_digit(tmp_path, mode, size):
    Image.new(mode, size, 1).save(tmp_path / "plain.tiff")
    with pytest.raises(
        InputError, match=r"plain\.tiff: nothing stands out from the background, so there is no digit"
    ):
        read_digit(tmp_path / "plain.tiff")


def test_a_faint_digit_is_seen(tmp_path):
    faint = grey(200 + digit(7322) // 20)
    assert likeness(read(enlarged(faint), tmp_path / "faint.png"), digit(7322)) > 0.9


def test_noise_and_uneven_light_show_no_digit(tmp_path):
    light = np.linspace(0, 255, 200).astype(np.uint8)
    with pytest.raises(InputError, match="nothing stands out"):
        read(Image.fromarray(np.broadcast_to(light, (150, 200)).copy()), tmp_path / "light.png")
    noise = np.random.default_rng(0).normal(128, 10, (200, 200, 3)).clip(0, 255).astype(np.uint8)
    with pytest.raises(InputError, match="nothing stands out"):
        read(Image.fromarray(noise), tmp_path / "noise.png")
