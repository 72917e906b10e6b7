"""MNIST's files: read from package, folder, variable, cache or mirror, and refused when damaged."""

import gzip
import hashlib
import struct
from pathlib import Path

import pytest
import torch

from relprop.data import mnist
from relprop.errors import FileError

IMAGES, LABELS = mnist.TRAINING_FILES


def idx(magic, *shape, count=None):
    """Bytes of an idx file, counting up."""
    count = torch.Size(shape).numel() if count is None else count
    return struct.pack(f">{1 + len(shape)}I", magic, *shape) + bytes(i % 10 for i in range(count))


@pytest.fixture
def tiny(monkeypatch):
    """A training set of three digits that passes for MNIST's, by name of file."""
    files = {IMAGES: idx(2051, 3, 28, 28), LABELS: idx(2049, 3)}
    digests = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(mnist, "CHECKSUMS", mnist.CHECKSUMS | digests)
    return files


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """Neither variable nor cache nor mirror gives a training set unless the test says so."""
    monkeypatch.delenv(mnist.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist, "MIRRORS", ((tmp_path / "no-mirror").as_uri() + "/",))


def put(folder, files, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


def test_the_test_set_is_whole():
    data = mnist.test_set()
    assert data.images.shape == (10_000, 28, 28)
    assert data.images.dtype == torch.uint8
    assert data.labels.dtype == torch.int64
    assert data.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert torch.bincount(data.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_pixels_span_the_box():
    assert mnist.pixels(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx(
        [-1, -0.6, 1]
    )
    scaled = mnist.pixels(mnist.test_set().images[:100])
    assert scaled.dtype == torch.float32
    assert (scaled.min(), scaled.max()) == (-1, 1)


def test_the_tutorials_sample():
    pinned = [8915, 1318, 7221, 7540, 664, 6137, 6833, 8471, 9449, 7322, 8222, 1182]
    images, labels = mnist.tutorial_sample()
    data = mnist.test_set()
    assert images.shape == (12, 1, 28, 28)
    assert torch.equal(images[:, 0], mnist.pixels(data.images[pinned]))
    assert torch.equal(labels, data.labels[pinned])


@pytest.mark.parametrize("packed", [True, False])
def test_training_set_from_a_folder(tiny, tmp_path, packed):
    data = mnist.training_set(put(tmp_path, tiny, packed))
    assert data.images.shape == (3, 28, 28)
    assert data.images.flatten().tolist() == [i % 10 for i in range(3 * 784)]
    assert data.labels.tolist() == [0, 1, 2]


def test_the_folder_given_goes_before_the_variable(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv(mnist.ENVIRONMENT, str(put(tmp_path / "variable", tiny)))
    assert len(mnist.training_set()) == 3
    with pytest.raises(FileError, match=r"no MNIST in .*given: there is no such folder"):
        mnist.training_set(tmp_path / "given")


def test_download_into_the_cache_once(tiny, tmp_path, monkeypatch):
    mirror = put(tmp_path / "mirror", tiny)
    monkeypatch.setattr(mnist, "MIRRORS", (*mnist.MIRRORS, mirror.as_uri() + "/"))
    heard = []
    assert len(mnist.training_set(progress=lambda *step: heard.append(step))) == 3
    for name in tiny:
        size = (mirror / f"{name}.gz").stat().st_size
        assert (name, size, size) in heard
        assert (tmp_path / "cache" / "relprop" / "mnist" / f"{name}.gz").stat().st_size == size
    monkeypatch.setattr(mnist, "MIRRORS", ())
    assert len(mnist.training_set()) == 3


def test_a_mirror_that_gives_something_else_is_passed_over(tiny, tmp_path, monkeypatch):
    lying = put(tmp_path / "lying", tiny | {LABELS: idx(2049, 4)})
    monkeypatch.setattr(mnist, "MIRRORS", (lying.as_uri() + "/",))
    with pytest.raises(FileError, match=r"could not download MNIST's train-labels(?s:.*)checksum differs"):
        mnist.training_set()
    cache = tmp_path / "cache" / "relprop" / "mnist"
    assert [path.name for path in cache.iterdir()] == [f"{IMAGES}.gz"]
    put(tmp_path / "true", tiny)
    monkeypatch.setattr(mnist, "MIRRORS", (lying.as_uri() + "/", (tmp_path / "true").as_uri() + "/"))
    assert mnist.training_set().labels.tolist() == [0, 1, 2]


def test_without_a_network_the_error_says_what_to_put_where(tmp_path):
    with pytest.raises(FileError) as caught:
        mnist.training_set()
    text = str(caught.value)
    assert f"{tmp_path.as_uri()}/no-mirror/train-images-idx3-ubyte.gz" in text
    assert "Put train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz (or unpacked" in text
    assert "--data FOLDER" in text
    assert "RELPROP_MNIST" in text
    assert str(tmp_path / "cache" / "relprop" / "mnist") in text


def test_a_cache_that_cannot_be_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (put(tmp_path / "mirror", tiny).as_uri() + "/",))
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(FileError, match=r"cannot write .*train-images.*Set XDG_CACHE_HOME to a folder"):
        mnist.training_set()


def test_missing_file_is_named(tiny, tmp_path):
    folder = put(tmp_path / "data", {LABELS: tiny[LABELS]})
    with pytest.raises(FileError, match=r"no MNIST in .*data: train-images-idx3-ubyte missing\. Put train-"):
        mnist.training_set(folder)


def damaged(path: Path, content: bytes, message: str):
    path.write_bytes(content)
    with pytest.raises(FileError, match=message):
        mnist.training_set(path.parent)


def test_truncated_gzip(tiny, tmp_path):
    path = put(tmp_path, tiny) / f"{IMAGES}.gz"
    damaged(
        path, path.read_bytes()[:-20], r"train-images-idx3-ubyte\.gz is truncated or damaged: .*Replace it"
    )


def test_damaged_gzip(tiny, tmp_path):
    path = put(tmp_path, tiny) / f"{IMAGES}.gz"
    content = bytearray(path.read_bytes())
    content[12] ^= 0xFF
    damaged(path, bytes(content), r"train-images-idx3-ubyte\.gz is truncated or damaged: .*Replace it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is truncated: it has 0 bytes, but the header alone has 16"),
        (
            idx(2051, 3, 28, 28, count=500),
            r"is truncated or damaged: it has 516 bytes, but its header says 2368\.",
        ),
        (
            idx(2051, 2, 28, 28, count=2352),
            r"is truncated or damaged: it has 2368 bytes, but its header says 1584",
        ),
        (idx(2051, 2**32 - 1, 2**32 - 1, 2**32 - 1, count=9), r"says 79228162458924105385300197391\."),
        (
            idx(2049, 3, 28, 28),
            r"is not train-images-idx3-ubyte: it begins with the number 2049, but MNIST's file with 2051",
        ),
        (
            idx(2051, 4, 28, 28),
            r"is not MNIST's train-images-idx3-ubyte: its checksum differs \(md5 .*should be",
        ),
    ],
    ids=["empty", "truncated", "too-long", "huge", "magic", "checksum"],
)
def test_damaged_idx(tiny, tmp_path, content, message):
    damaged(put(tmp_path, tiny, packed=False) / IMAGES, content, message)


def test_a_file_that_cannot_be_read(tiny, tmp_path, monkeypatch):
    put(tmp_path, tiny)

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(FileError, match=r"cannot read .*train-images-idx3-ubyte\.gz: Permission denied"):
        mnist.training_set(tmp_path)
