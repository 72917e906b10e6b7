"""Files that several commands are tried on."""

import shutil
from pathlib import Path

import pytest

from pictures import PHOTOGRAPHS


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    return Path(shutil.copy(PHOTOGRAPHS / "cat.png", tmp_path / "cat.png"))
