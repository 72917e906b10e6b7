"""What type checkers see of the package, from outside."""

import subprocess
import sys
from pathlib import Path

import pytest

import relprop

PROGRAM = Path(__file__).with_name("typed_program.py")
MISTAKES = "relprop.explian(model, images)\nrelprop.explain(model, images).relevance['a']\nFlat(3)\n"
CHECKERS = {
    "mypy": ["mypy", "--strict"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_typed_program_is_right_and_mistakes_are_found(checker: str, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(PROGRAM.read_text())
    wrong.write_text(PROGRAM.read_text() + MISTAKES)
    found = subprocess.run(
        [sys.executable, "-m", *CHECKERS[checker], str(right), str(wrong)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": str(Path(sys.executable).parent),
            "MYPYPATH": str(Path(relprop.__file__).parents[1]),
            "HOME": str(tmp_path),
        },
    )
    errors = [line for line in found.stdout.splitlines() if "error:" in line]
    last = len(wrong.read_text().splitlines())
    assert len(errors) == 3, found.stdout + found.stderr
    for line, error in zip(range(last - 2, last + 1), errors, strict=True):
        assert f"wrong.py:{line}:" in error
    assert "explian" in errors[0]
