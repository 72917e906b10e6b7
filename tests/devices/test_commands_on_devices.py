"""The command line on a GPU says what it says on the CPU."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny_language_models as tiny
from pictures import PHOTOGRAPHS
from relprop.cli.explain import explain
from relprop.cli.text import text
from shell import runner


def told(command: Any, *arguments: object) -> str:
    """What a command prints."""
    result = runner(command)(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def without_numbers(output: str) -> str:
    """The first line of an output, of whose numbers the last digits differ between devices."""
    return re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "#", output.splitlines()[0])


@pytest.mark.parametrize(
    "options", [(), ("--rules", "epsilon-gamma-box"), ("--compile",), ("--top", "2"), ("--profile",)]
)
def test_pictures(device: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    cat = shutil.copy(PHOTOGRAPHS / "cat.png", tmp_path / "cat.png")
    given = ("efficientnet-lite0", cat, *options, "--html", tmp_path / "cats.html")
    expected, found = (told(explain, *given, *there) for there in ((), ("--device", device)))
    assert without_numbers(found) == without_numbers(expected)
    assert (tmp_path / "cats.html").stat().st_size > 0


@pytest.mark.parametrize("options", [(), ("--words",), ("--generate", "2"), ("--against", " Berlin")])
def test_texts(device: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    model = f"hf:{tiny.gpt2(tmp_path)}"
    expected, found = (
        json.loads(told(text, model, tiny.FRANCE, "--json", *options, *there))
        for there in ((), ("--device", device))
    )
    assert [token["text"] for token in found["tokens"]] == [token["text"] for token in expected["tokens"]]
    for one, other in zip(found["answers"], expected["answers"], strict=True):
        assert one["target"] == other["target"]
        assert one["score"] == pytest.approx(other["score"], rel=1e-4)
