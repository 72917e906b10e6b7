"""MNIST: the test set from the package, the training set from a folder or from its public mirrors.

The files are idx files (http://yann.lecun.com/exdb/mnist). They begin with a magic number for the dtype and
the number of dimensions. Then come the length of each dimension, as a big-endian 32-bit integer, and the
bytes.
"""

import gzip
import hashlib
import http.client
import os
import struct
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from relprop.errors import FileError
from relprop.files import write_whole

ENVIRONMENT = "RELPROP_MNIST"
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
TRAINING_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
# md5 of the unpacked files, since the mirrors pack the same bytes differently.
CHECKSUMS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

Progress = Callable[[str, int, int | None], None]
"""Called during a download with the file's name, the number of bytes so far, and that of all or None."""


@dataclass(frozen=True, eq=False)
class MNIST:
    """Digits: images, uint8 (N, 28, 28), white on black; and their labels, int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def test_set() -> MNIST:
    """Read the 10,000 test digits, which are part of the package."""
    with resources.as_file(resources.files("relprop.data") / "files") as folder:
        return _read_pair(folder, TEST_FILES)


test_set.__test__ = False  # type: ignore[attr-defined]  # pytest would take the name for a test


def training_set(folder: Path | None = None, progress: Progress | None = None) -> MNIST:
    """Read the 60,000 training digits. Without a folder they are downloaded (10 MB).

    The folder is `folder`, or else that of the environment variable RELPROP_MNIST. Without both it is a cache
    folder (`$XDG_CACHE_HOME/relprop/mnist` or `~/.cache/relprop/mnist`), and missing files are downloaded
    into it. Files may be gzipped (name ending in .gz) or not. Their checksums are verified.

    Raises:
        FileError: a file is missing, damaged, not MNIST's, or no mirror could be reached.
    """
    given = folder or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if given is not None:
        return _read_pair(given, TRAINING_FILES)
    cache = cache_folder()
    for name in TRAINING_FILES:
        if _find(cache, name) is None:
            _download(name, cache, progress)
    return _read_pair(cache, TRAINING_FILES)


def cache_folder() -> Path:
    """Return the folder into which the training set is downloaded. It may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relprop" / "mnist"


def pixels(images: Tensor) -> Tensor:
    """Scale grey values from 0 to 255, of any shape, to float32 in [-1, 1], as the tutorial does."""
    return images.to(torch.float32) / 255 * 2 - 1


def tutorial_sample() -> tuple[Tensor, Tensor]:
    """Return the tutorial's 12 test digits.

    Returns:
        Pixels in [-1, 1], float32 (12, 1, 28, 28), and labels, int64 (12,).
    """
    data, chosen = test_set(), torch.tensor(tutorial_indices())
    return pixels(data.images[chosen]).unsqueeze(1), data.labels[chosen]


def tutorial_indices() -> list[int]:
    """Return the numbers of the tutorial's 12 digits in the test set."""
    drawn: list[int] = np.random.RandomState(1234).randint(0, 10_000, [12]).tolist()
    return drawn


def _read_pair(folder: Path, names: tuple[str, str]) -> MNIST:
    if not folder.is_dir():
        raise FileError(f"no MNIST in {folder}: there is no such folder. {_where_to_put(names)}")
    missing = [name for name in names if _find(folder, name) is None]
    if missing:
        raise FileError(f"no MNIST in {folder}: {' and '.join(missing)} missing. {_where_to_put(names)}")
    images, labels = (_read(folder, name) for name in names)
    return MNIST(images, labels.to(torch.int64))


def _find(folder: Path, name: str) -> Path | None:
    """Find a file of this name, unpacked or gzipped."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(folder: Path, name: str) -> Tensor:
    path = _find(folder, name)
    assert path is not None  # _read_pair and _download have looked
    try:
        return _parse(_unpack(path.read_bytes(), path), name, path)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read {path}: {error.strerror}.") from error


def _unpack(content: bytes, place: Path | str) -> bytes:
    """Unpack `content` if it is gzipped. `place` is its name in errors."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(f"{place} is truncated or damaged: {error}. Replace it by a whole copy.") from error


def _parse(content: bytes, name: str, place: Path | str) -> Tensor:
    """Check an unpacked idx file, and return it as a uint8 tensor of the shape in its header."""
    dimensions = 3 if "idx3" in name else 1
    magic = 0x0800 + dimensions  # 8: unsigned bytes
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise FileError(
            f"{place} is truncated: it has {len(content)} bytes, but the header alone has {start}. Replace "
            "it by a whole copy."
        )
    found, *shape = struct.unpack(f">{1 + dimensions}I", content[:start])
    if found != magic:
        raise FileError(
            f"{place} is not {name}: it begins with the number {found}, but MNIST's file with {magic}. "
            "Replace it by MNIST's."
        )
    expected = start + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise FileError(
            f"{place} is truncated or damaged: it has {len(content)} bytes, but its header says {expected}. "
            "Replace it by a whole copy."
        )
    checksum = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if checksum != CHECKSUMS[name]:
        raise FileError(
            f"{place} is not MNIST's {name}: its checksum differs (md5 of the unpacked file is {checksum}, "
            f"should be {CHECKSUMS[name]}). Replace it by MNIST's."
        )
    # A bytearray, since a tensor must not share memory with bytes that cannot be written.
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).reshape(shape)


def _download(name: str, folder: Path, progress: Progress | None) -> None:
    """Download `name`, gzipped, to `folder` from the first mirror whose file has the right checksum."""
    failures = []
    for mirror in MIRRORS:
        url = f"{mirror}{name}.gz"
        try:
            content = _fetch(url, name, progress)
            _parse(_unpack(content, url), name, url)
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"  {url}: {error}")
            continue
        try:
            write_whole(folder / f"{name}.gz", content)
        except FileError as error:
            raise FileError(
                f"cannot write {folder / name}.gz: {error.__cause__}. "
                "Set XDG_CACHE_HOME to a folder that can be written."
            ) from error
        return
    raise FileError(
        f"could not download MNIST's {name}:\n" + "\n".join(failures) + f"\n{_where_to_put(TRAINING_FILES)}"
    )


def _fetch(url: str, name: str, progress: Progress | None) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as response:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        content = bytearray()
        while block := response.read(1 << 16):
            content += block
            if progress is not None:
                progress(name, len(content), total)
    return bytes(content)


def _where_to_put(names: tuple[str, str]) -> str:
    files = " and ".join(f"{name}.gz" for name in names)
    return (
        f"Put {files} (or unpacked, without .gz) into a folder and name it with --data FOLDER, "
        f"or in the environment variable {ENVIRONMENT}, or put them into {cache_folder()}. "
        f"They are at {MIRRORS[0]}"
    )
