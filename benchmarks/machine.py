"""What figures depend on: the machine, versions, and what else it does."""

import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "transformers", "numpy", "zennit", "captum", "autolrp")


def processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of what is installed of the packages that take part."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def description() -> dict[str, Any]:
    """The machine, and how torch uses it."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "versions": versions(),
    }


def importing(times: int = 5) -> float:
    """Seconds that `import relprop` takes after `import torch`, the median of several processes."""
    code = (
        "import time, torch; begun = time.perf_counter(); import relprop; print(time.perf_counter() - begun)"
    )
    command = [sys.executable, "-c", code]
    found = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(times)]
    return statistics.median(map(float, found))


class OtherWork:
    """How busy the machine is with other things, in cores, since this was made."""

    def __init__(self) -> None:
        self._begun, self._all, self._own = time.monotonic(), _busy(), _own()

    def __call__(self, helpers: float = 0.0) -> float:
        """Cores that others kept busy.

        Args:
            helpers: seconds of processors that processes of this program took meanwhile.
        """
        passed = max(time.monotonic() - self._begun, 1e-9)
        others = (_busy() - self._all) - (_own() - self._own) - helpers
        return max(0.0, others / passed)


def _busy() -> float:
    """Seconds that all processors were busy; 0 where the system does not say."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, interrupts, soft, stolen, *_ = (int(field) for field in fields)
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    """Seconds of processors that this process took, and those of its children that have ended."""
    return sum(os.times()[:4])
