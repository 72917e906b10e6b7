"""Files are written whole or not at all."""

import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relprop.errors import FileError, InputError
from relprop.files import path_of, require_writable, whole_file, write_whole


def test_a_file_is_written_with_its_folders_and_the_usual_rights(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    write_whole(path, b"content")
    assert path.read_bytes() == b"content"
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_was_there_stays_when_writing_is_interrupted(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    write_whole(path, b"before")

    def interrupted() -> None:
        with whole_file(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(
        FileError, match=r"cannot write .*taken: it is not an ordinary file. Choose another name"
    ):
        write_whole(tmp_path / "taken", b"")
    assert os.listdir(tmp_path) == ["taken"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match=r"cannot write .*file/inside: .* Choose another folder"):
        write_whole(tmp_path / "file" / "inside", b"")


def test_a_full_disk_is_an_error_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"before")

    def no_room() -> None:
        with whole_file(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(FileError, match=r"cannot write .*file: No space left on device. Make room there"):
        no_room()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(FileError, match="cannot write /dev/null: it is not an ordinary file"):
        write_whole(Path(os.devnull), b"")
    assert not Path(os.devnull).is_file()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_whole(tmp_path / "link", b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def test_threads_that_write_leave_the_umask_and_get_it(
    umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Reading the umask means changing it, for all threads.
    monkeypatch.setattr(os, "umask", None)
    every = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def write(name: int) -> None:
        for number in range(50):
            write_whole(tmp_path / f"{name}-{number}", b"content")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(every)
    monkeypatch.undo()
    assert os.umask(umask) == umask
    written = list(tmp_path.iterdir())
    assert len(written) == 400
    assert {path.stat().st_mode & 0o777 for path in written} == {0o640}


def test_a_long_name_is_written_and_one_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    write_whole(tmp_path / f"{'n' * 251}.png", b"content")
    with pytest.raises(FileError, match=r"cannot write .*: File name too long. Choose another name."):
        write_whole(tmp_path / f"{'n' * 252}.png", b"content")
    assert len(os.listdir(tmp_path)) == 1


def test_links_that_lead_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(FileError, match=r"cannot write .*a: .* Choose another name."):
        write_whole(tmp_path / "a", b"content")


@pytest.mark.parametrize("name", [None, 1, b"name", "", [], Path])
def test_what_is_no_name_is_an_error(name: object) -> None:
    with pytest.raises(InputError) as error:
        path_of(name, "save")
    told = f"save({name!r}): give the name of a file, as a text or a pathlib.Path."
    assert str(error.value) == told


def test_a_name_with_a_zero_byte_is_an_error() -> None:
    with pytest.raises(InputError) as error:
        path_of("a\0", "save")
    assert str(error.value) == "save('a\\x00'): the name of a file has no zero bytes. Give another name."


def test_a_place_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.html"
    require_writable(path)
    assert list(path.parent.iterdir()) == []
    path.write_text("earlier")
    require_writable(path)
    assert path.read_text() == "earlier"
    with pytest.raises(FileError, match=r"cannot write .*new: it is not an ordinary file"):
        require_writable(path.parent)
    with pytest.raises(FileError, match=r"cannot write .*y.html: .*Choose another folder\."):
        require_writable(path / "y.html")
