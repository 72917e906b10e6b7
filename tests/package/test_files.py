"""Files are written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from relprop.errors import FileError
from relprop.files import whole_file, write_whole


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
