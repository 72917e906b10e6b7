"""Writing files: each is written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relprop.errors import FileError, RelpropError

VERSION = "0.3.0"
"""The version of relprop, which is also stored in files."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to, and rename it to `path` if nothing went wrong.

    An exception, or Ctrl-C, leaves whatever was at `path` before, and no temporary file.

    Raises:
        FileError: the folder cannot be made, the file cannot be written, or `path` is no ordinary file.
    """
    target = path.resolve()  # what a link leads to is replaced, not the link
    if target.exists() and not target.is_file():
        raise FileError(f"cannot write {path}: it is not an ordinary file. Choose another name.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}. Choose another folder.") from error
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files that only their owner may read; a result gets the usual rights.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except RelpropError:
        raise
    except OSError as error:
        raise FileError(
            f"cannot write {path}: {error.strerror}. Make room there, or choose another place."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all (see `whole_file`)."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
