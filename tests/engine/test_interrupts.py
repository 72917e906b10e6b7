"""Ctrl-C at any call leaves nothing behind: no mode, hook, flag or stance, and a model as it was."""

import random
import sys
import threading
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch
import torch._dynamo.eval_frame as eval_frame
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

import relprop
from relprop.engine import surroundings
from relprop.engine.active import active_runs
from relprop.engine.attach import _retained
from relprop.engine.levels import here
from relprop.targets import RunnerUp

of_all_modules = nn.modules.module


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()) for _ in range(2)])
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.norm(self.stem(x)))
        for block in self.blocks:
            x = x + block(x)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(ids))[:, -1])


torch.manual_seed(0)
NET, TEXT = Net().eval(), Text().eval()
X, IDS = torch.randn(2, 3, 6, 6), torch.randint(0, 20, (2, 5))


def _propagated() -> None:
    with relprop.propagating("epsilon"):
        x = X.clone().requires_grad_()
        torch.autograd.grad(NET(x)[:, 0].sum(), x)


def _recorded() -> None:
    relprop.explain(
        NET,
        X,
        target=1,
        rules="alpha2-beta1",
        bounds=(-4, 4),
        record="blocks.*",
        conditions={"blocks.1": [1, 2]},
        parameters="*weight",
    )


TASKS: dict[str, Callable[[], Any]] = {
    "box": lambda: relprop.explain(NET, X, target=1, rules="epsilon-gamma-box", bounds=(-4, 4)),
    "recorded": _recorded,
    "several targets and checkpoints": lambda: relprop.explain_each(
        NET, X, targets=[0, RunnerUp()], rules="epsilon-plus-flat", checkpoint="blocks.*", per_operation=True
    ),
    "tokens": lambda: relprop.explain(TEXT, IDS, target=2, rules="attnlrp", checkpoint="layer"),
    "coverage": lambda: relprop.coverage(NET, X),
    "propagating": _propagated,
    "gradient": lambda: relprop.explain(NET, X, target=1, rules="gradient-times-input"),
    "from a module on": lambda: relprop.explain(NET, X, start="blocks.0", target=1, rules="epsilon"),
}


def state() -> dict[str, object]:
    """Whatever a run changes while it is active, in this thread and in the process."""
    hooks = {
        name: len(d) for name, d in vars(of_all_modules).items() if isinstance(d, dict) and "hook" in name
    }
    own = {
        f"{name} {kind}": len(getattr(module, kind))
        for name, module in [*NET.named_modules(), *TEXT.named_modules()]
        for kind in vars(module)
        if kind.endswith("_hooks") or "_hooks_" in kind
    }
    tensors = [(t._version, t.requires_grad, t.grad is None, sorted(vars(t))) for t in NET.parameters()]
    return {
        # A mode that is over does nothing, and the next run takes it off.
        "function modes": [
            mode for mode in _get_current_function_mode_stack() if not getattr(mode, "is_over", False)
        ],
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "keys": str(torch._C._dispatch_tls_local_include_set())
        + str(torch._C._dispatch_tls_local_exclude_set()),
        "gradients": torch.is_grad_enabled(),
        "threads": torch._C._is_multithreading_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "saved tensors": surroundings._saving(),
        "optimised": torch._C._get_graph_executor_optimize(),
        "stance": str(eval_frame._stance),
        "runs": len(active_runs.stack),
        "here": (here.traced, here.nested),
        "retained": len(_retained.backwards),
        "generator": torch.get_rng_state().tolist(),
        "filters": len(warnings.filters),
        "hooks": hooks,
        "own hooks": own,
        "tensors": tensors,
    }


class Stop(KeyboardInterrupt):
    """A Ctrl-C that no one else presses."""


def interrupted(task: Callable[[], object], at: int) -> int:
    """Run a task, and raise `Stop` at the call or return of that number. Return how many there were."""
    count = 0

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        if event in ("call", "c_return"):
            count += 1
            if count == at:
                sys.setprofile(None)
                raise Stop

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        task()
    except (Stop, RuntimeError):  # of a mode that torch itself had taken off when it was interrupted
        pass
    finally:
        sys.setprofile(before)
    return count


def boundaries(calls: int, number: int, seed: str) -> list[int]:
    """Choose calls at which to interrupt: half of them at the beginning and the end."""
    generator = random.Random(seed)
    edge = min(600, calls // 3)
    chosen = [generator.randrange(1, calls) for _ in range(number // 2)]
    chosen += [generator.randrange(1, edge) for _ in range(number // 4)]
    return chosen + [generator.randrange(calls - edge, calls) for _ in range(number - len(chosen))]


def _require_nothing_left(name: str, number: int) -> None:
    task = TASKS[name]
    task()
    calls, before = interrupted(task, -1), state()
    expected = relprop.explain(NET, X, target=1, rules="epsilon").relevance
    for at in boundaries(calls, number, name):
        interrupted(task, at)
        assert state() == before, f"interrupted at call {at} of {calls}"
    assert not surroundings._open.stack
    relprop.explain(NET, X, target=1, rules="epsilon")
    assert not _get_current_function_mode_stack()
    x = X.clone().requires_grad_()
    assert torch.autograd.grad(NET(x).sum(), x)[0].isfinite().all()
    assert torch.equal(relprop.explain(NET, X, target=1, rules="epsilon").relevance, expected)


ignoring = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@ignoring
@pytest.mark.parametrize("name", TASKS)
def test_an_interrupt_leaves_nothing_behind(name: str) -> None:
    _require_nothing_left(name, 60)


@ignoring
@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_many_interrupts_leave_nothing_behind(name: str) -> None:
    _require_nothing_left(name, 250)


@ignoring
def test_an_interrupt_that_is_kept_changes_nothing_when_it_is_forgotten() -> None:
    # Its traceback keeps contexts open, which are closed at last.
    kept: list[BaseException] = []
    calls = interrupted(TASKS["box"], -1)
    before = state()
    for at in range(calls - 120, calls, 3):
        task = TASKS["box"]

        def keeping(task: Callable[[], object] = task) -> None:
            try:
                task()
            except BaseException as error:
                kept.append(error)

        interrupted(keeping, at)
        assert state() == before, at
    with torch.no_grad(), torch.overrides.BaseTorchFunctionMode():
        during = state()
        kept.clear()
        assert state() == during
    assert state() == before


def test_overlapping_runs_in_threads_leave_the_process_as_it_was() -> None:
    before, barrier, errors = state(), threading.Barrier(20), []

    def model(x: Tensor) -> Tensor:
        barrier.wait(60)  # so that twenty runs at a time are in the middle of their forward
        return NET(x)

    def work() -> None:
        try:
            relprop.explain(model, X, target=1, rules="epsilon")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert state() == before
