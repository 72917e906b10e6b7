"""How the program starts, without what it does not need, and how it ends."""

import importlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from relprop import cli, models
from relprop.cli import words
from relprop.cli.commands import app
from relprop.cli.status import INTERRUPTED
from relprop.rules import presets

COMMANDS = {command.callback.__name__: command.callback for command in app.registered_commands}

HEAVY = {"torch", "numpy", "PIL", "safetensors", "matplotlib", "transformers"}

# What a shell would see, and which packages came with it.
STARTED = """
import json, sys
from relprop.cli import main
try:
    main()
except SystemExit as end:
    status = end.code
packages = sorted({name.partition(".")[0] for name in sys.modules})
print("\\n" + json.dumps({"status": status, "packages": packages}))
"""


def started(*arguments: str) -> tuple[int, set[str], str]:
    """Start the program: its status, the packages that it imported, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", STARTED, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return found["status"] or 0, set(found["packages"]), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ("--help", 0, "Usage: relprop"),
        ("--version", 0, "relprop 0."),
        ("", 2, "Usage: relprop"),
        ("explian", 2, "No such command 'explian'"),
        ("--versio", 2, "No such option: --versio"),
        *[(f"{name} --help", 0, f"Usage: relprop {name}") for name in COMMANDS],
        *[(f"{name} --halp", 2, "No such option: --halp") for name in COMMANDS],
        ("explain mnist-cnn", 2, "Missing argument 'PICTURE'"),
        ("explain mnist-cnn 3.png --top many", 2, "Invalid value for '--top'"),
    ],
)
def test_help_and_slips_are_answered_without_torch(arguments: str, status: int, told: str) -> None:
    ended, packages, printed = started(*arguments.split())
    assert (ended, packages & HEAVY) == (status, set())
    assert told in printed


def test_a_command_that_runs_brings_in_what_it_needs() -> None:
    status, packages, printed = started("rules", "Gamma")
    assert status == 0
    assert "torch" in packages
    assert "Gamma(" in printed


def test_the_entry_of_the_command_line_imports_little() -> None:
    code = "import relprop, sys, relprop.cli; print(*{'typer', 'rich', 'PIL'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_help_says_what_is_so() -> None:
    assert words.FORMS == models.FORMS
    assert words.RANDOM == models.RANDOM
    assert (words.DEFAULT, words.DEFAULT_FOR_TOKENS) == (presets.DEFAULT, presets.DEFAULT_FOR_TOKENS)


# Help


def helped(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    return result.output


def test_summaries_are_whole_sentences() -> None:
    told = helped()
    assert max(map(len, told.splitlines())) <= 80
    assert "..." not in told.partition("Commands:")[2]
    flat = " ".join(told.split())
    for name, command in COMMANDS.items():
        summary = inspect.cleandoc(command.__doc__ or "").splitlines()[0]
        assert summary.endswith(".")
        assert f" {name} {summary}" in flat


def test_examples_can_be_copied() -> None:
    line = '    relprop text hf:./my-gpt "The capital of France is" --target " Paris" --against " Rome"'
    assert line in helped("text").splitlines()
    assert {name for name in COMMANDS if "Example" in helped(name)} == {
        "demo",
        "explain",
        "rules",
        "coverage",
        "text",
    }


# Ctrl-C


def begin(*arguments: str) -> subprocess.Popen[str]:
    """Start the program, in a group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "relprop", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell in the background has SIGINT ignored, and so would have its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.skipif(os.name == "nt", reason="signals as in a shell of Unix")
def test_ctrl_c_while_the_tutorial_is_computed(tmp_path: Path) -> None:
    program = begin("tutorial", "--out", str(tmp_path))
    try:
        # The report is opened before anything is computed.
        while not list(tmp_path.glob(".report.html.*")):
            assert program.poll() is None, program.communicate()
            time.sleep(0.01)
        program.send_signal(signal.SIGINT)
        out, error = program.communicate(timeout=60)
    finally:
        program.kill()
    assert (program.returncode, out, error) == (INTERRUPTED, "", "interrupted\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("at", ["import of the commands", "import of the work", "command"])
def test_ctrl_c_is_a_word_and_no_traceback(
    at: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["relprop", "rules"])
    if at == "command":

        def press() -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(importlib.import_module("relprop.cli.work.rules"), "as_text", press)
    else:
        module = "relprop.cli." + ("commands" if at == "import of the commands" else "work.rules")

        class Pressed:
            def find_spec(self, name: str, *rest: Any) -> None:
                if name == module:
                    raise KeyboardInterrupt

        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setattr(sys, "meta_path", [Pressed(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_ends_every_command_alike(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    work = importlib.import_module(f"relprop.cli.work.{name}")
    [does] = re.findall(r"import (\w+)\n", inspect.getsource(COMMANDS[name]))[:1]
    monkeypatch.setattr(work, does, press)
    needed = {
        "explain": ["mnist-cnn", "3.png"],
        "text": ["hf:x", "a"],
        "train": ["cnn"],
        "coverage": ["mnist-cnn"],
    }
    monkeypatch.setattr(sys, "argv", ["relprop", name, *needed.get(name, [])])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"
