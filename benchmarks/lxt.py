"""LXT, in a process of its own, since what it patches stays patched, in the environment of `make parity-lxt`.

This file is both sides. `LXT` starts the process for some rules and asks it; `python -m benchmarks.lxt RULES`
answers, one line of JSON for each line that it reads.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks import ROOT
from benchmarks.case import Case, Subject
from benchmarks.cases import CASES
from benchmarks.measuring import Cost, Local
from benchmarks.ways import gradient

ENVIRONMENT = ROOT / ".venv-lxt" / "bin" / "python"
"""Where `make parity-lxt` and `make bench` install LXT."""

NAMES = {"attnlrp": "attnLRP", "cp-lrp": "cp_LRP"}
"""Of LXT's sets of patches."""


class LXT:
    """LXT's processes, one for each set of patches, each started when it is first asked.

    Args:
        python: the program of the environment in which LXT is.
        threads: of torch.
    """

    def __init__(self, python: Path, threads: int) -> None:
        self._python, self._threads = python, threads
        self._processes: dict[tuple[str, str], subprocess.Popen[str]] = {}

    def way(self, case: Case, subject: Subject, rules: str) -> "Remote":
        """Prepare a case there; without rules, its gradient, for which nothing is patched.

        Raises:
            RuntimeError: LXT is not installed, or fails.
        """
        if not self._python.exists():
            raise RuntimeError(f"there is no {self._python}; `make bench` installs LXT there")
        if subject.patches is None:
            raise RuntimeError(f"LXT has no patches for {case.title}")
        key = (rules, subject.patches[0])
        if key not in self._processes or self._processes[key].poll() is not None:
            command = [str(self._python), "-m", "benchmarks.lxt", rules, *subject.patches]
            self._processes[key] = subprocess.Popen(
                [*command, str(self._threads)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        way = Remote(self._processes[key])
        way.ask("case", case.name)
        return way

    def version(self) -> str:
        """LXT's version, and that of transformers there; "" where it is not installed."""
        code = (
            "from importlib.metadata import version as of\n"
            "print(of('lxt'), 'with transformers', of('transformers'))"
        )
        try:
            command = [str(self._python), "-c", code]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return ""

    def seconds(self) -> float:
        """Time of processors that the processes have taken."""
        return sum(_processor_time(process.pid) for process in self._processes.values())

    def close(self) -> None:
        """End the processes."""
        for process in self._processes.values():
            with process:  # which waits, and closes the pipes
                process.kill()
        self._processes.clear()


@dataclass(frozen=True)
class Remote:
    """A way in another process."""

    process: "subprocess.Popen[str]"
    warms_up: bool = True

    def ask(self, what: str, argument: str = "") -> Any:
        """Ask, and wait for the answer.

        Raises:
            RuntimeError: the process failed.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(json.dumps([what, argument]), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise RuntimeError("LXT's process has ended") from None
        if not (line := self.process.stdout.readline()):
            raise RuntimeError("LXT's process has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["found"]

    def seconds(self) -> float:
        """Explain, and say how long it takes."""
        return float(self.ask("seconds"))

    def cost(self) -> Cost:
        """Explain, and count memory and products."""
        return Cost(**self.ask("cost"))


def gradient_times_input(subject: Subject) -> Callable[[], Any]:
    """What LXT's efficient mode is, once it has patched the model's code."""
    explain = gradient(subject)
    return lambda: subject.x * explain()


def _processor_time(pid: int) -> float:
    """Seconds of processors that a process has taken; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    """Answer, until there are no more questions."""
    rules, patches, patched, threads = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    torch.set_num_threads(int(threads))
    cases = {case.name: case for case in CASES}
    import_module("torchvision_shim").import_torchvision()
    if rules:
        sets = import_module(f"lxt.efficient.models.{patches}")
        import_module("lxt.efficient").monkey_patch(import_module(patched), getattr(sets, NAMES[rules]))
    way: Local | None = None
    for line in sys.stdin:
        what, argument = json.loads(line)
        try:
            if what == "case":
                way = None  # whose model takes memory
                way = Local(gradient_times_input(cases[argument].make()))
                found: Any = None
            else:
                assert way is not None
                found = asdict(way.cost()) if what == "cost" else way.seconds()
            answer = {"found": found}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
