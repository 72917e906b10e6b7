"""A photograph as a network for photographs sees it: its shorter side at a given length, then the centre."""

from PIL import Image

from relprop.view.display import opaque

# A strip as wide as this many times its height is cut first: enlarged whole, it could fill the memory.
LONGEST = 8


def centre(
    picture: Image.Image,
    *,
    resize: int,
    crop: tuple[int, int],
    interpolation: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """Resize a picture and cut out its centre.

    Args:
        picture: of any size and mode; shown on white where it is transparent.
        resize: length of the shorter side, in pixels; lengths are rounded.
        crop: height and width of the centre.
        interpolation: how it is resized.

    Returns:
        In colour, of the height and width of `crop`.
    """
    picture = opaque(picture)
    shorter = min(picture.size)
    picture = _cut(picture, min(picture.height, LONGEST * shorter), min(picture.width, LONGEST * shorter))
    height, width = crop
    # Never smaller than what is cut out of it.
    scale = max(resize / shorter, height / picture.height, width / picture.width)
    size = round(picture.width * scale), round(picture.height * scale)
    return _cut(picture.resize(size, interpolation), height, width)


def _cut(picture: Image.Image, height: int, width: int) -> Image.Image:
    if picture.size == (width, height):
        return picture
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
