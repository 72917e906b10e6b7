"""LXT's program of docs/coming-from.md and that of relprop compute the same."""

import subprocess
import sys
from pathlib import Path

import lxt_parts  # noqa: F401  # skips where LXT is not there

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "coming-from.md"

PROGRAM = f"""
import sys
sys.path += {[str(TESTS / "comparisons"), str(TESTS / "networks_explained")]}
from pathlib import Path
from torchvision_shim import import_torchvision
import_torchvision()
from markdown import blocks

programs = [block for block in blocks(Path({str(PAGE)!r})) if block.language in ("python", "py")]
theirs = next(n for n, block in enumerate(programs) if "from lxt." in block.text)
# relprop's program first: what LXT patches stays patched.
for block in (programs[0], programs[theirs - 1], programs[theirs + 1], programs[theirs]):
    exec(block.text)
difference = (attribution_here - attribution).abs().max() / attribution.abs().max()
print(float(difference.detach()))
"""


def test_programs() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 1e-4
