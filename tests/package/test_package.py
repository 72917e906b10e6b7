"""The package itself: what an import brings in, and what is shipped."""

import importlib
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


def brought_in(code: str) -> set[str]:
    """The packages that are there after some code."""
    return set(run(f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})").split())


ON_REQUEST = {"PIL", "rich", "typer", "matplotlib", "transformers", "torchvision"}


def test_an_explanation_brings_in_torch_and_no_pictures_nor_command_line() -> None:
    there = brought_in(
        "import relprop, torch\nrelprop.explain(torch.nn.Linear(2, 3).eval(), torch.ones(1, 2))"
    )
    assert {"relprop", "torch"} <= there
    assert not there & ON_REQUEST


def test_import_alone_brings_in_next_to_nothing() -> None:
    there = brought_in("import relprop; relprop.__version__, relprop.__doc__, relprop.__path__")
    assert not there & {"torch", "numpy", "safetensors", *ON_REQUEST}


def test_any_name_can_be_the_first() -> None:
    assert run("from relprop import rules, explain; print(rules.Gamma(), explain.__name__)").startswith(
        "Gamma("
    )
    assert run("from relprop import *; print(rules.Gamma(), load.__name__)").startswith("Gamma(")
    assert run("import relprop; print(relprop.rules.Gamma is relprop.rules.linear.Gamma)") == "True"
    assert run("import relprop; print({*relprop.__all__} - {*dir(relprop)})") == "set()"
    assert (
        run("import relprop; print(hasattr(relprop, '__all__'), hasattr(relprop, '__wrapped__'))")
        == "True False"
    )


def test_no_module_takes_the_place_of_a_name() -> None:
    # Python puts a module into its package when it is imported, whatever is there already.
    files = {path.stem for path in Path(relprop.__file__).parent.iterdir()}
    same = files & {*relprop.__all__}
    assert same == {"errors", "places", "rules", "targets"}
    for name in same:
        assert getattr(relprop, name) is importlib.import_module(f"relprop.{name}")


def test_few_names_are_at_the_top() -> None:
    assert 20 <= len(relprop.__all__) == len(set(relprop.__all__)) <= 25


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'relprop' has no attribute 'explian'"):
        relprop.explian  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'explian' from 'relprop'"):
        exec("from relprop import explian")


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
    for wanted in (*project["dependencies"], *optional["text"], *optional["zoo"], *optional["plot"]):
        name, _, oldest = wanted.partition(">=")
        assert Version(oldest) == Version(pinned[name]), name


def test_names_of_other_libraries_are_read_for_errors_only() -> None:
    loaded = "print('relprop.rules.elsewhere_names' in sys.modules)"
    assert run(f"import relprop, sys; {loaded}; hasattr(relprop, 'LRP'); {loaded}").split() == [
        "False",
        "True",
    ]
