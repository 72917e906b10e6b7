"""Resizing a photograph and cutting out its centre, as networks for photographs need it."""

from math import prod

from PIL import Image

from relprop.view.display import opaque

# Pictures whose longer side is more than this many times the shorter one are cut before they are enlarged.
# Enlarged as a whole, such a strip could fill the memory.
LONGEST = 8

# Of a picture that would have more pixels than this as a whole, only the centre is enlarged.
MOST = 100_000_000


def centre(
    picture: Image.Image,
    *,
    resize: int,
    crop: tuple[int, int],
    interpolation: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """Resize a picture and cut out its centre.

    Args:
        picture: a picture of any size and mode. Transparent pixels become white.
        resize: length of the shorter side after resizing, in pixels. The sides are longer if the centre would
            not fit otherwise.
        crop: height and width of the centre, in pixels.
        interpolation: the method of resizing.

    Returns:
        A picture in mode RGB, of the height and width of `crop`.
    """
    picture = opaque(picture)
    shorter = min(picture.size)
    picture = _cut(picture, min(picture.height, LONGEST * shorter), min(picture.width, LONGEST * shorter))
    height, width = crop
    # The picture must not be smaller than the centre.
    scale = max(resize / shorter, height / picture.height, width / picture.width)
    size = round(picture.width * scale), round(picture.height * scale)
    if prod(size) > MOST:
        left, top = (picture.width - width / scale) / 2, (picture.height - height / scale) / 2
        seen = (
            max(0, left),
            max(0, top),
            min(picture.width, left + width / scale),
            min(picture.height, top + height / scale),
        )
        return picture.resize((width, height), interpolation, box=seen)
    return _cut(picture.resize(size, interpolation), height, width)


def _cut(picture: Image.Image, height: int, width: int) -> Image.Image:
    if picture.size == (width, height):
        return picture
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
