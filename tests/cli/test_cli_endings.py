"""Signals, outputs that take nothing or few letters, and names that would control the terminal."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from PIL import Image

from relprop import cli
from relprop.cli.explain import explain
from relprop.cli.rules import rules
from relprop.cli.work import terminal
from relprop.errors import quoted, visible
from relprop.models import own_file
from shell import raising, runner

OWN = """
from torch import nn

def net(**attributes):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model[-1].bias.data.fill_(3)
    for name, value in ({"input_size": 16} | attributes).items():
        setattr(model, name, value)
    return model

class Failing(nn.Linear):
    @property
    def input_size(self):
        raise RuntimeError("there is none")

def large(): return net(input_size=10**6)
def long(): return net(input_size=(2, 10**5))
def huge(): return net(input_size=10**5000)
def half(): return net(input_size=3.5)
def true(): return net(input_size=True)
def text(): return net(input_size="32")
def failing(): return Failing(2, 2)
def no_number(): return net(mean=float("nan"))
def too_much(): return net(std=10**400)
def without_end(): return without_end()
"""

unix = pytest.mark.skipif(os.name == "nt", reason="signals and devices as on Unix")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    Image.new("RGB", (20, 20), (200, 40, 90)).save(tmp_path / "p.png")
    safetensors.torch.save_file({}, tmp_path / "empty.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Signals


@unix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_program_and_leaves_no_file(name: str, tmp_path: Path) -> None:
    number = getattr(signal, name)
    program = subprocess.Popen(
        [sys.executable, "-m", "relprop", "tutorial", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # under nohup it would be ignored
    )
    try:
        while not list(tmp_path.glob(".report.html.*")):
            assert program.poll() is None, program.communicate()
            time.sleep(0.01)
        program.send_signal(number)
        out, error = program.communicate(timeout=60)
    finally:
        program.kill()
    assert (program.returncode, out, error) == (-number, "", "")
    assert not list(tmp_path.iterdir())


@unix
def test_handlers_are_there_while_a_command_runs_and_ignored_signals_stay_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    earlier = [signal.signal(number, how) for number, how in zip(numbers, _HOW, strict=True)]
    hook = sys.unraisablehook
    during: list[Any] = []
    monkeypatch.setattr(cli, "_run", lambda: during.extend(map(signal.getsignal, numbers)))
    try:
        cli.main()
        assert during[2] is signal.SIG_IGN
        assert not {*during[:2]} & {*_HOW}
        assert tuple(map(signal.getsignal, numbers)) == _HOW
        assert sys.unraisablehook is hook
    finally:
        for number, before in zip(numbers, earlier, strict=True):
            signal.signal(number, before)


_HOW = (signal.default_int_handler, signal.SIG_DFL, signal.SIG_IGN)


@unix
def test_ctrl_c_that_a_package_turns_into_an_error_is_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def imports() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("cannot load module more than once per process") from None

    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(cli, "_run", imports)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


# Outputs


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
def test_an_output_that_is_full_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "relprop", "rules", "Gamma"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (
        2,
        "error: cannot write the output: No space left on device\n",
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(13, "Permission denied", "a\x1b.txt"), "error: a\\x1b.txt: Permission denied\n"),
        (MemoryError(), "error: the memory is full. Take a smaller model, picture or --size.\n"),
    ],
)
def test_errors_of_the_system_are_a_line(
    error: BaseException,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("relprop.cli.work.rules"), "all_about", fail)
    monkeypatch.setattr(sys, "argv", ["relprop", "rules", "Gamma"])
    monkeypatch.setattr(cli, "_give_up_stdout", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err) == (2, told)


def test_letters_that_the_output_does_not_have_are_escapes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relprop", "rules", "Gamma"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u03b3 (x_i w_ij)\xb1" in done.stdout


# Names


@unix
@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"a\x1b]0;title\x07b.png", "a\\x1b]0;title\\x07b"), (b"a\xffb.png", "a\\udcffb")],
)
def test_a_name_controls_no_terminal(name: bytes, shown: str, folder: Path) -> None:
    given = os.fsdecode(name)
    missing = runner(explain)("own.py:net", given)
    assert f"cannot read {shown}.png: there is no such file" in missing.output
    assert "\x1b" not in missing.output
    os.rename("p.png", given)
    done = runner(explain)("own.py:net", given)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"{shown}.png: class ")
    assert f"{shown}-heatmap.png" in done.output
    assert "\x1b" not in done.output


def test_a_name_that_looks_like_markup_is_shown_as_it_is() -> None:
    bar = terminal.progress_bar(terminal.console())
    bar.add_task("[/a] [red]b.png")
    column = bar.columns[-1]
    assert column.render(bar.tasks[0]).plain == "[/a] [red]b.png"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31m\u202eb\udcff\n", "a\\x1b[31m\\u202eb\\udcff\\n"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("❤\ufe0f\u200d🔥", "❤\ufe0f\u200d🔥"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("pass\u200dword", "pass\\u200dword"),
        ("\u200d👧 👨\u200d", "\\u200d👧 👨\\u200d"),
    ],
)
def test_what_is_invisible_is_an_escape_but_for_joiners_in_their_place(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(text, keep="\n") == shown.replace("\\n", "\n")
    assert quoted(text) == f"'{shown}'"
    assert quoted(text + "'") == f'"{shown}\'"'


@unix
def test_links_that_lead_in_a_circle(folder: Path) -> None:
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    run = raising(runner(explain))
    for out, heatmap in (("a", "a/p-heatmap.png"), ("a/x.png", "a/x.png")):
        told = f"cannot write {heatmap}: the links lead in a circle. Choose another name."
        assert told in runner(explain)("own.py:net", "p.png", "--out", out).output
    assert "there is no file a.py" in str(run("a.py:net", "p.png"))
    assert "Too many levels of symbolic links" in str(run("own.py:net", "p.png", "--classes", "a"))
    assert "Too many levels of symbolic links" in str(run("own.py:net", "p.png", "--weights", "a"))
    assert "cannot read a: there is no such file" in runner(explain)("own.py:net", "a").output


# Floods


MANY = "are too large. relprop makes them of up to 16,777,216 pixels, and 16,384 on a side. Give height"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("own.py:large", f"own.py:large: pictures of 1000000 x 1000000 {MANY}"),
        ("own.py:long", f"own.py:long: pictures of 2 x 100000 {MANY}"),
        ("own.py:huge", f"own.py:huge: pictures of 1e+18 x 1e+18 {MANY}"),
        ("own.py:net --size 1000000000", f"own.py:net: pictures of 1000000000 x 1000000000 {MANY}"),
        ("own.py:net --top 5000", "--top 5000: give the number of classes to explain, at most 100."),
        ("own.py:net --weights empty.safetensors", "empty.safetensors has no tensors. Store the weights"),
        ("mnist-cnn --weights empty.safetensors", "empty.safetensors has no tensors. Store the weights"),
        ("own.py:half", "own.py:half: input_size is 3.5; give height and width, (224, 224)."),
        ("own.py:true", "own.py:true: input_size is True; give height and width, (224, 224)."),
        ("own.py:text", "own.py:text: input_size is '32'; give height and width, (224, 224)."),
        ("own.py:failing", "its attribute input_size fails: RuntimeError: there is none. relprop looks"),
        ("own.py:no_number", "own.py:no_number: mean is nan, nan, nan. Give finite numbers."),
        ("own.py:net --std inf", "own.py:net: std is inf, inf, inf. Give finite numbers."),
        ("own.py:too_much", "own.py:too_much: its attribute std is "),
        ("own.py:without_end", "RecursionError: maximum recursion depth exceeded. relprop runs the file"),
    ],
)
def test_what_would_never_end_or_fill_the_memory_is_refused(
    arguments: str, message: str, folder: Path
) -> None:
    model, *options = arguments.split()
    assert message in str(raising(runner(explain))(model, "p.png", *options))


def test_of_a_picture_that_would_be_enlarged_without_end_the_centre_is(folder: Path) -> None:
    done = runner(explain)("own.py:net", "p.png", "--size", f"4x{own_file.LONGEST}")
    assert done.exit_code == 0, done.output
    assert "p.png: class " in done.output


def test_rules_are_not_named_by_escapes() -> None:
    assert "\\x1b" in visible(str(raising(runner(rules))("Gam\x1bma")))
