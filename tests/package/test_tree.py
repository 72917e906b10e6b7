"""The rooms of the package: each imports what stands below it alone, and no file imports in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import relprop

ROOT = Path(relprop.__file__).parent

ROOMS = (
    # from the ground up
    *(
        "errors",
        "files",
        "calls",
        "places",
        "linear",
        "targets",
        "rules",
        "view",
        "pages",
        "figures",
        "results",
        "data",
        "zoo",
    ),
    *("models", "engine", "crossing", "operations", "inputs", "runs", "testing", "tutorial", "text"),
    *("public", "", "cli", "__main__"),
)
"""Folders and single files, each above what it may import; "" is `relprop/__init__.py` itself."""


def modules() -> dict[str, Path]:
    """Every module of the package by its name within it."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(source: str, known: set[str]) -> set[str]:
    """The modules of the package that a source imports, wherever it does so, for types alone too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports are not followed here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    within = [name.removeprefix("relprop").lstrip(".") for name in found if name.split(".")[0] == "relprop"]
    # `from relprop.a import b` imports a.b if that is a module, and else a.
    return {name if name in known else name.rpartition(".")[0] for name in within}


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What each module of the package imports of it."""
    known = modules()
    assert len(known) > 100
    return {name: imported(path.read_text(), known.keys() - {name}) for name, path in known.items()}


def room(module: str) -> str:
    """The folder or single file that a module is in."""
    return module.split(".")[0]


def test_every_room_is_on_the_list(imports: dict[str, set[str]]) -> None:
    assert {room(module) for module in imports} == set(ROOMS)
    assert len(ROOMS) == len(set(ROOMS)) <= 26


def test_a_room_imports_only_what_stands_below_it(imports: dict[str, set[str]]) -> None:
    arrows = {(room(a), room(b), a, b) for a, targets in imports.items() for b in targets}
    up = [f"{a} imports {b}" for low, high, a, b in arrows if ROOMS.index(low) < ROOMS.index(high)]
    assert not up
    between = {(a, b) for a, b, _, _ in arrows if a != b}
    assert 50 < len(between) <= 120


def test_no_file_imports_itself_in_a_circle(imports: dict[str, set[str]]) -> None:
    tuple(TopologicalSorter(imports).static_order())


def test_few_files_lie_flat() -> None:
    assert len(list(ROOT.glob("*.py"))) <= 5


def test_imports_are_found_wherever_they_are() -> None:
    source = """
from typing import TYPE_CHECKING
import relprop.rules.files as f
if TYPE_CHECKING:
    from relprop.engine.run import Run
def late():
    import relprop
    from relprop.engine import seen
    from relprop import explain
    import torch
"""
    known = {"", "rules.files", "engine", "engine.run", "engine.seen", "explain"}
    assert imported(source, known) == {"", "rules.files", "engine.run", "engine.seen", "explain"}


def test_a_circle_is_found() -> None:
    with pytest.raises(CycleError):
        tuple(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())


def test_few_rooms_write_to_the_ledger() -> None:
    writers = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("add", "absorbed", "seed")
        and isinstance(node.value, ast.Name | ast.Attribute)
        and (node.value.id if isinstance(node.value, ast.Name) else node.value.attr) == "ledger"
        and (node.attr == "add" or isinstance(node.ctx, ast.Store))
    }
    assert "crossing/ruled.py" in writers
    assert {writer.split("/")[0] for writer in writers} == {
        "crossing",
        "engine",
        "inputs",
        "operations",
        "runs",
    }
    assert {w for w in writers if w.startswith(("inputs", "runs"))} == {
        "inputs/explained.py",
        "runs/gradient.py",
    }
