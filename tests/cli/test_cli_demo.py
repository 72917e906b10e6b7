"""`relprop demo`: the page on which digits are drawn."""

from pathlib import Path

import pytest

from relprop.cli.demo import demo
from relprop.errors import FileError, InputError
from shell import raising, runner

run = runner(demo)
raised = raising(run)


def test_it_writes_the_page_and_replaces_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run().stdout == "digit.html: 1.5 MB. Open it in a browser and draw a digit.\n"
    first = (tmp_path / "digit.html").read_bytes()
    assert run(".").stdout.startswith("digit.html: ")
    assert (tmp_path / "digit.html").read_bytes() == first
    assert run("new/folder/x.HTML").exit_code == 0
    assert (tmp_path / "new/folder/x.HTML").read_bytes() == first


def test_it_replaces_nothing_of_others(tmp_path: Path) -> None:
    other = tmp_path / "mine.html"
    other.write_text("<h1>mine</h1>")
    error = raised(other)
    assert isinstance(error, FileError)
    assert str(error) == (
        f"{other} exists and was not made by relprop, which replaces only its own pages. Move it, or choose "
        "another name."
    )
    assert other.read_text() == "<h1>mine</h1>"


def test_a_page_is_html_and_must_have_a_place(tmp_path: Path) -> None:
    for name in ("digit.png", "digit.htm"):
        error = raised(name)
        assert isinstance(error, InputError)
        assert str(error) == (
            f"relprop demo {name}: the page is HTML. Give a name that ends in .html, or a folder."
        )
    (tmp_path / "file").write_text("")
    assert str(raised(tmp_path / "file" / "x.html")).startswith("cannot write ")
