"""Opening a picture that somebody else made: any size and mode, and nothing decoded that is not wanted."""

import os
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from relprop.errors import FileError, InputError, RelpropError

# Formats that Pillow decodes itself. Others are left out on purpose: an EPS file, for one, is a program.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# More than a telephone's camera usually takes, and less than fills the memory of a small machine.
LARGEST = 64_000_000


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Open and decode a picture, turned upright where its EXIF data ask for it.

    Of an animation or a file of several pages the first picture is taken.

    Returns:
        A decoded Pillow image, in the mode in which it is stored.

    Raises:
        FileError: missing, empty, a folder, not a picture, damaged, or not to be read by this user.
        InputError: more than `LARGEST` pixels, which is known from the header: nothing is decoded.
    """
    path = Path(path)
    # Pillow warns of doubtful metadata, which do not matter, and of large pictures, which are refused below.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _check_file(path)
            with Image.open(path, formats=FORMATS) as picture:
                if picture.width * picture.height > LARGEST:
                    raise _too_large(path)
                picture.load()
                # In place: a picture that is upright already would be copied otherwise.
                ImageOps.exif_transpose(picture, in_place=True)
                return picture
        except RelpropError:
            raise
        except Image.DecompressionBombError as error:
            raise _too_large(path) from error
        except UnidentifiedImageError as error:
            raise FileError(
                f"cannot read {path}: it is not a picture, or a damaged one. "
                f"relprop reads {', '.join(FORMATS)}; save it as PNG."
            ) from error
        except PermissionError as error:
            raise FileError(f"cannot read {path}: {error.strerror}. Check the rights of the file.") from error
        # A damaged file ends in whatever exception Pillow's parsing happens to meet first.
        except Exception as error:
            raise FileError(
                f"cannot read {path}: the picture is damaged or cut off ({error}). Save or copy it again."
            ) from error


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise FileError(
            f"cannot read {path}: it is a folder. Name the pictures in it, as in {path / '*.png'}."
        )
    if not path.exists():
        raise FileError(f"cannot read {path}: there is no such file. Check the name and the folder.")
    if not path.is_file():
        raise FileError(f"cannot read {path}: it is not an ordinary file. Save the picture to a file first.")
    if path.stat().st_size == 0:
        raise FileError(f"cannot read {path}: the file is empty (0 bytes). Save the picture again.")


def _too_large(path: Path) -> InputError:
    return InputError(
        f"cannot read {path}: the picture has more than {LARGEST:,} pixels (8,000 x 8,000), "
        "the most that relprop reads. Make it smaller first."
    )
