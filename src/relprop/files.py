"""Writing files: each is written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from relprop.errors import FileError, InputError, RelpropError

VERSION = "0.3.0"
"""The version of relprop, which is also stored in files."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to, and rename it to `path` if nothing went wrong.

    An exception, or Ctrl-C, leaves whatever was at `path` before, and no temporary file.

    Raises:
        FileError: the folder cannot be made, the file cannot be written, or `path` is no ordinary file.
    """
    target = _target(path)
    temporary = _beside(target)
    try:
        _make(temporary, path)
        yield temporary
        temporary.replace(target)
    except RelpropError:
        raise
    except OSError as error:
        raise FileError(
            f"cannot write {path}: {error.strerror}. Make room there, or choose another place."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all (see `whole_file`)."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def require_writable(path: Path) -> None:
    """Find out before long work whether `path` can be written later. Its folder is made.

    Raises:
        FileError: as for `whole_file`.
    """
    temporary = _beside(_target(path))
    _make(temporary, path)
    temporary.unlink()


def path_of(name: Any, call: str) -> Path:
    """Return what a user gives as the name of a file, as a path.

    Args:
        name: what the user gives.
        call: what was called, for the error: "save".

    Raises:
        InputError: it is no name of a file.
    """
    if not isinstance(name, (str, os.PathLike)) or not os.fspath(name) or isinstance(os.fspath(name), bytes):
        raise InputError(f"{call}({name!r}): give the name of a file, as a text or a pathlib.Path.")
    if "\0" in os.fspath(name):
        raise InputError(f"{call}({name!r}): the name of a file has no zero bytes. Give another name.")
    return Path(name)


def _target(path: Path) -> Path:
    """Return what a path leads to: what a link leads to is replaced, not the link.

    Raises:
        FileError: it is no name of an ordinary file.
    """
    try:
        target = path.resolve()
        no_file = target.exists() and not target.is_file()
    except (OSError, RuntimeError) as error:  # Python before 3.13 raises RuntimeError for a loop of links
        problem = getattr(error, "strerror", None) or "the links lead in a circle"
        raise FileError(f"cannot write {path}: {problem}. Choose another name.") from error
    if no_file:
        raise FileError(f"cannot write {path}: it is not an ordinary file. Choose another name.")
    return target


def _make(temporary: Path, path: Path) -> None:
    """Make the temporary file for `path`, and its folder.

    Raises:
        FileError: they cannot be made.
    """
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        # Made like any new file, so that the system gives it the usual rights. To read the umask in order
        # to set them would change it for all threads.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}. Choose another folder.") from error


def _beside(target: Path) -> Path:
    """Return an unused name in the folder of a file, which is not longer than file systems allow."""
    while True:
        name = f".{target.name[:40]}.{os.urandom(6).hex()}{target.suffix[-12:]}"
        temporary = target.with_name(name)
        if not os.path.lexists(temporary):
            return temporary
