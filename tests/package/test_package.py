"""The package itself: what an import brings in, and what is shipped."""

import subprocess
import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path

import pytest
from packaging.version import Version

import relprop

ROOT = Path(__file__).parents[2]


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return result.stdout.strip()


@pytest.mark.parametrize("module", ["PIL", "rich", "typer", "matplotlib", "transformers", "torchvision"])
def test_import_brings_in_torch_and_no_pictures_nor_command_line(module: str) -> None:
    assert run(f"import relprop, sys; print({module!r} in sys.modules)") == "False"


def test_the_version_is_said_once() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert relprop.__version__ == declared == metadata.version("relprop")
    assert f"version: {declared}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {declared}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_package_is_typed() -> None:
    assert resources.files("relprop").joinpath("py.typed").is_file()


def test_every_public_name_is_documented() -> None:
    tables = {"BASELINES", "PRESETS"}  # mappings have no documentation of their own
    assert not [name for name in relprop.__all__ if name not in tables and not getattr(relprop, name).__doc__]


def pins(file: str) -> dict[str, str]:
    """Exact versions by package."""
    lines = (ROOT / file).read_text().splitlines()
    return {name.lower(): version for name, _, version in (line.partition("==") for line in lines) if version}


def test_every_dependency_is_pinned() -> None:
    pinned = pins("constraints.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["test"],
        *project["build-system"]["requires"],
    ]
    assert {name.split(">")[0].lower() for name in wanted} <= pinned.keys()


def test_the_oldest_versions_are_those_that_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional, pinned = project["optional-dependencies"], pins("constraints-floors.txt")
    for wanted in (*project["dependencies"], *optional["text"], *optional["zoo"]):
        name, _, oldest = wanted.partition(">=")
        assert Version(oldest) == Version(pinned[name]), name
