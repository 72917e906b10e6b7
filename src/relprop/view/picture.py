"""Opening picture files of unknown origin: only common formats, and no more than a largest size."""

import errno
import os
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from relprop.errors import FileError, InputError, RelpropError
from relprop.files import path_of

# Formats that Pillow decodes itself. Others are left out on purpose: EPS files, for instance, are programs.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# In pixels: more than the camera of a telephone usually takes, and less than fills a small memory.
LARGEST = 64_000_000

_OF_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Open and decode a picture, and turn it as its EXIF data say.

    Of an animation, or of a file with several pages, the first picture is read.

    Returns:
        A decoded Pillow image, in the mode in which it is stored.

    Raises:
        FileError: the file is missing, empty, a folder, damaged or not a picture, or this user may not read
            it.
        InputError: the picture has more than `LARGEST` pixels. The header says so, and nothing is decoded.
    """
    path = path_of(path, "read_picture")
    # Pillow warns of doubtful metadata and of large pictures. The former do not matter, and the latter are
    # refused below.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _check_file(path)
            with Image.open(path, formats=FORMATS) as picture:
                if picture.width * picture.height > LARGEST:
                    raise _too_large(path)
                picture.load()
                # In place, since a picture that is upright already would be copied otherwise.
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
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) not in _OF_NAMES and "null byte" not in str(error):
                raise _damaged(path, error) from error
            why = getattr(error, "strerror", None) or error
            raise FileError(f"cannot read {path}: {why}. Check the name and the folder.") from error
        # A damaged file can raise any exception in Pillow.
        except Exception as error:
            raise _damaged(path, error) from error


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


def _damaged(path: Path, error: Exception) -> FileError:
    return FileError(
        f"cannot read {path}: the picture is damaged or cut off ({error}). Save or copy it again."
    )


def _too_large(path: Path) -> InputError:
    return InputError(
        f"cannot read {path}: the picture has more than {LARGEST:,} pixels (8,000 x 8,000), "
        "the most that relprop reads. Make it smaller first."
    )
